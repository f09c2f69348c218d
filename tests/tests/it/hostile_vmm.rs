//! VMMs that their guests have taken over: they serve as they should, and attack the daemon and their neighbors.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use regatta_tests::{Daemon, IDLE, bin_dir, wait_for};
use rustix::fs::{CWD, FileType, Mode, mknodat};

/// A daemon whose VMMs do `attack` in their own directory, `$dir`, before they start to serve.
fn attacked(attack: &str) -> Daemon {
    let mut daemon = Daemon::prepare(&[]);
    // A user of its own must be able to reach what it runs.
    fs::set_permissions(daemon.home(), fs::Permissions::from_mode(0o711)).expect("mode");
    let simulator = bin_dir().join("regatta-chsim");
    let program = daemon.home().join("evil-vmm");
    let script = format!(
        "#!/bin/sh\n\
         [ \"$1\" = --version ] && exec {vmm} --version\n\
         for word; do case \"$word\" in path=*/api.sock) dir=${{word#path=}}; dir=${{dir%/api.sock}};; esac; done\n\
         {attack}\n\
         exec {vmm} \"$@\"\n",
        vmm = simulator.display()
    );
    fs::write(&program, script).expect("a program");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("mode");
    let vmm = format!("cloud-hypervisor={}", program.display());
    daemon.run_vmms_by(&["--vmm", &vmm, "--allow-root-vmms"]);
    daemon.launch();
    daemon
}

fn dir_of(daemon: &Daemon, set: &str, id: u64) -> PathBuf {
    daemon.data().join(format!("instances/{set}/{id}"))
}

fn pipe(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
}

fn died(daemon: &Daemon) -> Vec<u64> {
    let events = daemon.json(&["events"]);
    let events = events.as_array().expect("events").iter();
    events.filter(|it| it["kind"] == "instance-died").filter_map(|it| it["instance"].as_u64()).collect()
}

#[test]
fn links_in_the_place_of_the_daemons_files_are_not_written_through() {
    let names = "started.json started.json.new containment.json containment.json.new network.json network.json.new orphan.json orphan.json.new images.new";
    let mut daemon =
        attacked(&format!("for name in {names}; do ln -s ../../../../victim \"$dir/$name\"; done; :"));
    let victim = daemon.home().join("victim");
    fs::write(&victim, "untouched").expect("written");
    daemon.apply_ok(&daemon.manifest("web", "{ min: 1, max: 1 }", "", IDLE));
    daemon.wait_in_service("web", 1);
    let pids = daemon.vm_pids("web");
    assert!(dir_of(&daemon, "web", 1).join("started.json").is_symlink(), "the attack took place");

    daemon.kill();
    daemon.launch();
    daemon.wait_in_service("web", 1);
    assert_eq!(daemon.vm_pids("web"), pids);
    // As an orphan, too.
    assert!(daemon.stop().success());
    fs::rename(daemon.data().join("state.redb"), daemon.home().join("lost.redb")).expect("moved away");
    daemon.launch();
    assert_eq!(daemon.json(&["orphans"])[0]["pid"].as_u64(), Some(u64::from(pids[0].1)));
    assert_eq!(daemon.run(&["recover"]).code, 0);
    daemon.wait_in_service("web", 1);
    assert_eq!(fs::read_to_string(&victim).expect("read"), "untouched");
}

#[test]
fn pipes_in_the_place_of_files_stop_neither_a_set_nor_the_daemon() {
    let names = "started.json started.json.new orphan.json instance.json";
    let mut daemon = attacked(&format!("for name in {names}; do mkfifo \"$dir/$name\"; done; :"));
    let manifest = daemon.manifest("web", "{ min: 2, max: 2 }", "", IDLE);
    daemon.apply_ok(&manifest);
    daemon.wait_in_service("web", 2);
    let pids = daemon.vm_pids("web");
    for (id, _) in &pids {
        let dir = dir_of(&daemon, "web", *id);
        pipe(&dir.join("pipe"));
        // As the VMM may: it has its overlay open for writing.
        let overlay =
            fs::File::options().read(true).write(true).open(dir.join("root.qcow2")).expect("overlay");
        let name = dir.join("pipe").display().to_string();
        let mut offset = [0; 8];
        overlay.read_exact_at(&mut offset, 8).expect("header");
        overlay.write_all_at(name.as_bytes(), u64::from_be_bytes(offset)).expect("name");
        let length = u32::try_from(name.len()).expect("a length").to_be_bytes();
        overlay.write_all_at(&length, 16).expect("header");
    }
    let gc = daemon.run(&["image", "gc", "--dry-run"]);
    assert!(gc.code != 0 && gc.err.contains("pipe"), "what cannot be read is not unused: {gc:?}");

    daemon.kill();
    daemon.launch();
    daemon.wait_in_service("web", 2);
    assert_eq!(daemon.vm_pids("web"), pids);
    assert_eq!(daemon.run(&["scale", "web", "2", "--wait"]).code, 0);
    assert!(daemon.stop().success());
    daemon.launch();
    assert_eq!(daemon.run(&["delete", "web", "--yes"]).code, 0);
    wait_for("the set to be deleted", || match daemon.run(&["describe", "web"]).code {
        4 => Ok(()),
        code => Err(code.to_string()),
    });
}

#[test]
fn a_socket_that_leads_to_a_neighbor_does_the_neighbor_no_harm() {
    let mut daemon = attacked(":");
    daemon.apply_ok(&daemon.manifest("web", "{ min: 1, max: 2 }", "", IDLE));
    assert_eq!(daemon.run(&["scale", "web", "2", "--wait"]).code, 0);
    daemon.wait_in_service("web", 2);
    let pids = daemon.vm_pids("web");
    let (victim, hostile) = (pids[0], pids[1]);
    assert_eq!(daemon.run(&["protect", "web", &victim.0.to_string()]).code, 0);
    // A new daemon has no connection yet.
    assert!(daemon.stop().success());
    let socket = dir_of(&daemon, "web", hostile.0).join("api.sock");
    fs::rename(&socket, socket.with_extension("hidden")).expect("hidden");
    symlink(format!("../{}/api.sock", victim.0), &socket).expect("link");
    daemon.launch();
    daemon.wait_in_service("web", 2);
    assert_eq!(daemon.vm_pids("web"), pids, "it is known without its socket");

    assert_eq!(daemon.run(&["scale", "web", "1"]).code, 0);
    daemon.wait_in_service("web", 1);
    assert_eq!(daemon.vm_pids("web"), [victim]);
    wait_for("the hostile VMM to end", || match daemon.vmm_processes().as_slice() {
        [left] if *left == victim.1 => Ok(()),
        left => Err(format!("{left:?}")),
    });
    assert_eq!(died(&daemon), [0_u64; 0], "{}", daemon.log());
}

#[test]
fn a_root_daemon_launches_no_vmm_as_root_unless_told_so() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: only root can run VMMs as root");
    }
    let mut daemon = attacked(":");
    assert!(daemon.stop().success());
    let vmm = format!("cloud-hypervisor={}", daemon.home().join("evil-vmm").display());
    daemon.run_vmms_by(&["--vmm", &vmm]);
    daemon.launch();
    let status = daemon.json(&["status"]);
    let conditions = status["conditions"].as_array().expect("conditions");
    let fails_closed = conditions.iter().any(|it| it["kind"] == "root-vmms");
    daemon.apply_ok(&daemon.manifest("web", "{ min: 1, max: 1 }", "", IDLE));
    if !fails_closed {
        // This host can give each VMM a user of its own.
        daemon.wait_in_service("web", 1);
        let uid = fs::metadata(format!("/proc/{}", daemon.vm_pids("web")[0].1)).expect("a process").uid();
        return assert_ne!(uid, 0);
    }
    assert!(daemon.log().contains("ERROR VMMs that would run as root are not launched"), "{}", daemon.log());
    wait_for("a refused launch", || {
        let events = daemon.json(&["events"]);
        let refused = |event: &serde_json::Value| {
            event["text"]
                .as_str()
                .is_some_and(|text| text.contains("or start the daemon with --allow-root-vmms"))
        };
        if events.as_array().expect("events").iter().any(refused) { Ok(()) } else { Err(events.to_string()) }
    });
    assert_eq!(daemon.vmm_processes(), Vec::<u32>::new());
}
