use super::*;

fn needs(data: &Path) -> Needs {
    Needs {
        dir: InstanceDir::new(data, "s", "i").expect("dir"),
        files: Vec::new(),
        tap: false,
        host_network: false,
        largest_file_bytes: 1 << 30,
    }
}

fn detect(kvm: &Path) -> Isolation {
    let options = IsolationOptions { kvm: kvm.to_path_buf(), ..IsolationOptions::default() };
    Isolation::detect(options, &Err("the test has none".to_owned()))
}

#[test]
fn the_command_drops_everything_before_the_vmm_runs() {
    let mut wrapper = vec!["/bin/setpriv".into()];
    wrapper.extend(setpriv_options(true, Some((500_001, &[36]))));
    let plan = Plan { containment: Containment::none("x"), wrapper: Some(wrapper), _lease: None };
    let (program, args) = plan.command(Path::new("/bin/vmm"), vec!["--api-socket".into()]);
    assert_eq!(program, Path::new("/bin/setpriv"));
    let text: Vec<_> = args.iter().map(|arg| arg.to_str().expect("utf-8")).collect();
    assert_eq!(
        text.join(" "),
        "--reuid=500001 --regid=500001 --groups=36 --bounding-set=-all --inh-caps=-all --ambient-caps=-all \
         --no-new-privs -- /bin/vmm --api-socket"
    );
    assert!(setpriv_options(false, None).iter().all(|option| option != "--bounding-set=-all"));
}

#[test]
fn a_device_or_a_file_that_the_user_could_not_open_keeps_the_vmm_with_our_user() {
    use std::os::unix::fs::PermissionsExt;
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can give VMMs users of their own");
        return;
    }
    let data = tempfile::tempdir().expect("temp dir");
    let device = data.path().join("kvm");
    std::fs::write(&device, "").expect("write");
    let mode = |mode| {
        std::fs::set_permissions(&device, std::fs::Permissions::from_mode(mode)).expect("mode");
    };
    mode(0o666);
    let open = detect(&device).plan(&needs(data.path()));
    let uid = open.containment.uid.expect("a user of its own");
    assert!(UIDS.contains(&uid) && open.containment.has(Measure::OwnUser));

    mode(0o600);
    let closed = detect(&device);
    let plan = closed.plan(&needs(data.path()));
    assert_eq!(plan.containment.uid, None);
    assert!(plan.containment.has(Measure::NoPrivileges), "{:?}", plan.containment);
    assert!(plan.containment.missing_text().contains("chgrp kvm"), "{:?}", plan.containment);
    assert_eq!(closed.host(false).missing_text(), plan.containment.missing_text());

    mode(0o666);
    std::fs::set_permissions(data.path(), std::fs::Permissions::from_mode(0o700)).expect("mode");
    let mut with_file = needs(data.path());
    with_file.files.push((data.path().join("inner"), Use::Read));
    let plan = detect(&device).plan(&with_file);
    assert!(plan.containment.missing_text().contains("chmod o+x"), "the directory is ours: {plan:?}");
}

#[test]
fn switched_off_is_recorded_as_such() {
    let plan = Isolation::off("a test").plan(&needs(Path::new("/d")));
    assert_eq!(plan.containment, Containment::none("a test"));
    let (program, args) = plan.command(Path::new("/bin/vmm"), vec!["x".into()]);
    assert_eq!((program.as_path(), args), (Path::new("/bin/vmm"), vec![OsString::from("x")]));
}
