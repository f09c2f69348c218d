//! That a VMM is contained as its record says, and that what is missing is said.

use std::collections::BTreeSet;
use std::time::Duration;

use regatta_vmm::{
    Adoption, Containment, FailedLogs, HostNetwork, Isolation, IsolationOptions, LaunchError, Measure,
    OverlayKind, StartLimiter, VmmHost,
};

use crate::support::{Data, PATIENCE, isolation, vmm_binary};

/// Whether VMMs can have users of their own here; says so when not.
fn own_users() -> bool {
    let host = isolation().host(false);
    let missing = host.missing().find(|(measure, _)| *measure == Measure::OwnUser);
    if let Some((_, why)) = &missing {
        eprintln!("skipped: no users for VMMs here: {why}");
    }
    missing.is_none()
}

/// A field of `/proc/<pid>/status`.
fn status(pid: i32, field: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).expect("field");
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn each_vmm_has_a_user_of_its_own_and_no_way_to_more() {
    if !own_users() {
        return;
    }
    let data = Data::new();
    let mut vmms = Vec::new();
    let mut uids = BTreeSet::new();
    for id in ["a", "b", "c"] {
        let mut spec = data.spec(id);
        spec.root = Some(data.root(OverlayKind::Qcow2).await);
        spec.data_disks = vec![regatta_vmm::DataDisk { id: "db".to_owned(), size_bytes: 1 << 20 }];
        spec.seed = Some(regatta_vmm::Seed {
            meta_data: String::new(),
            user_data: String::new(),
            network_config: None,
        });
        let vmm = data.host.launch(&spec).await.expect("launched");
        let containment = vmm.containment();
        let uid = containment.uid.expect("a user of its own");
        assert!(
            containment.has(Measure::OwnUser) && containment.has(Measure::NoPrivileges),
            "{containment:?}"
        );
        let pid = vmm.identity().pid;
        assert_eq!(status(pid, "Uid"), format!("{uid} {uid} {uid} {uid}"));
        assert_eq!(status(pid, "Gid"), format!("{uid} {uid} {uid} {uid}"));
        assert_eq!(status(pid, "Groups"), "");
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(status(pid, set), "0000000000000000", "{set}");
        }
        assert_eq!(status(pid, "NoNewPrivs"), "1");
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).expect("limits");
        let limit = |name: &str| {
            let line = limits.lines().find_map(|line| line.strip_prefix(name)).expect("limit");
            line.split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(limit("Max core file size"), ["0", "0"]);
        // Its largest file is its memory here; a little more than that, and less than twice.
        let largest: u64 = limit("Max file size")[1].parse().expect("a limit");
        let wanted = spec.memory_bytes.max(1 << 20);
        assert!(largest > wanted && largest < wanted * 2 + (512 << 20), "{largest}");
        let files: u64 = limit("Max open files")[1].parse().expect("a number");
        assert!(files <= 16_384, "{files}");
        assert!(uids.insert(uid), "{uid} twice");
        vmms.push(vmm);
    }
    // One VMM's user can do nothing with another's directory: the kernel decides, asked as that user.
    let (thief, victim) = (vmms[0].containment().uid.expect("uid"), vmms[1].dir());
    for path in [victim.path().to_path_buf(), victim.serial_log(), victim.api_socket(), victim.seed()] {
        assert!(!can(thief, &format!("test -r '{0}' || test -w '{0}' || test -x '{0}'", path.display())));
    }
    // And within its own it cannot put anything in the place of our files, nor read the record.
    let own = vmms[0].dir().path().display();
    assert!(can(thief, &format!("echo x > '{own}/new' && rm '{own}/new'")));
    for file in ["serial.log", "events.json", "vmm.log", "root.qcow2", "seed.img", "ctl"] {
        assert!(!can(thief, &format!("rm -f '{own}/{file}'")), "{file} was removed");
        assert!(!can(thief, &format!("mv '{own}/{file}' '{own}/x'")), "{file} was renamed");
    }
    assert!(!can(thief, &format!("cat '{own}/ctl/containment.json'")));
    assert!(!can(thief, &format!("ln -s /etc/hostname '{own}/ctl/started.json'")));
    assert!(!can(thief, &format!("ls '{}'", data.instances().display())), "a list of instances");
    for vmm in vmms {
        vmm.stop(PATIENCE).await.expect("stopped");
        assert!(!vmm.dir().path().exists());
    }
}

/// Whether a shell command succeeds as this user.
fn can(uid: u32, command: &str) -> bool {
    let status = std::process::Command::new("setpriv")
        .args([&format!("--reuid={uid}"), &format!("--regid={uid}"), "--clear-groups", "--"])
        .args(["sh", "-c", command])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status();
    status.expect("setpriv runs").success()
}

#[tokio::test]
async fn the_record_says_what_the_kernel_shows_and_survives_adoption() {
    let data = Data::new();
    let vmm = data.host.launch(&data.spec("a")).await.expect("launched");
    let containment = vmm.containment();
    let measures: Vec<Measure> = containment.measures.iter().map(|state| state.measure).collect();
    assert_eq!(measures, Measure::ALL);
    let threads = std::fs::read_dir(format!("/proc/{}/task", vmm.identity().pid)).expect("threads");
    let filtered = threads.flatten().any(|thread| {
        let status = std::fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        status.lines().any(|line| line == "Seccomp:\t2")
    });
    assert_eq!(containment.has(Measure::Seccomp), filtered);
    assert!(!containment.has(Measure::Cgroup), "this host was told to have none");
    assert!(containment.missing().all(|(_, why)| !why.is_empty()));

    // Of another daemon, with other ideas of what is possible.
    let failed = FailedLogs::new(&data.path().join("failed"), 5, 5);
    let next =
        VmmHost::new(vmm_binary(), None, failed, StartLimiter::default(), HostNetwork::new(data.path()))
            .with_isolation(Isolation::off("not any more"));
    let Adoption::Adopted(adopted) = next.adopt(vmm.dir(), Some(&vmm.identity())).await.expect("asked")
    else {
        panic!("not adopted");
    };
    assert_eq!(adopted.vmm.containment(), containment);
    assert_eq!(read_record(&vmm), containment);
    vmm.stop(Duration::ZERO).await.expect("stopped");
}

fn read_record(vmm: &regatta_vmm::Vmm) -> Containment {
    let text = std::fs::read(vmm.dir().path().join("ctl/containment.json")).expect("record");
    serde_json::from_slice(&text).expect("a record")
}

#[tokio::test]
async fn complete_isolation_is_refused_before_anything_starts_where_it_cannot_be_had() {
    let data = Data::new();
    let mut spec = data.spec("a");
    spec.require_isolation = true;
    match data.host.launch(&spec).await {
        Err(LaunchError::Isolation { missing, .. }) => {
            assert!(missing.contains("cgroup (the test asked for none)"), "{missing}");
        }
        other => panic!("{other:?}"),
    }
    assert!(!spec.dir.path().exists());
    assert_eq!(data.running(), Vec::<i32>::new());
}

#[tokio::test]
async fn a_devices_group_is_joined_and_one_for_root_only_leaves_the_user_but_takes_the_privileges() {
    use std::os::unix::fs::PermissionsExt;
    if !own_users() {
        return;
    }
    let data = Data::new();
    let device = data.path().join("kvm");
    std::fs::write(&device, "").expect("write");
    let mode = |mode| {
        std::fs::set_permissions(&device, std::fs::Permissions::from_mode(mode)).expect("mode");
    };
    let options = IsolationOptions { kvm: device.clone(), ..IsolationOptions::default() };
    let failed = FailedLogs::new(&data.path().join("failed"), 5, 5);
    let host =
        VmmHost::new(vmm_binary(), None, failed, StartLimiter::default(), HostNetwork::new(data.path()))
            .with_isolation(Isolation::detect(options, &Err("the test asked for none".to_owned())));

    // As distributions have it: the device belongs to a group, and the VMM joins that one.
    std::os::unix::fs::chown(&device, None, Some(500_036)).expect("group");
    mode(0o660);
    let vmm = host.launch(&data.spec("b")).await.expect("launched");
    assert!(vmm.containment().has(Measure::OwnUser));
    assert_eq!(status(vmm.identity().pid, "Groups"), "500036");
    vmm.stop(PATIENCE).await.expect("stopped");

    mode(0o600);
    let vmm = host.launch(&data.spec("a")).await.expect("launched");
    let containment = vmm.containment();
    assert_eq!(containment.uid, None);
    assert!(containment.has(Measure::NoPrivileges) && !containment.has(Measure::OwnUser), "{containment:?}");
    let pid = vmm.identity().pid;
    assert_eq!((status(pid, "CapEff"), status(pid, "CapBnd")), ("0".repeat(16), "0".repeat(16)));
    vmm.stop(PATIENCE).await.expect("stopped");
}
