//! The process: command line, exit codes, signals, locks, what it leaves behind, and the faults of the VMM.

use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use rustix::process::Signal;
use serde_json::json;

use crate::support::{Client, Launch, directory, eventually, kernel};

#[test]
fn the_version_is_v53s() {
    let output = Launch::stand_in().arg("--version").command().output().unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("cloud-hypervisor v53.0.0\n"), "{output:?}");
}

#[test]
fn a_second_instance_is_refused_and_the_first_unharmed() {
    let dir = directory();
    let first = Launch::stand_in().start(dir.path(), "a");
    let path = format!("path={}", first.socket.display());
    let second = Launch::stand_in().arg("--api-socket").arg(&path).command().output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&second.stderr).into_owned();
    let expected = format!(
        "Error: Cloud Hypervisor exited with the following chain of errors:\n  0: Failed to start the VMM thread\n  \
         1: API socket {:?} is already in use by another running instance\n",
        first.socket
    );
    assert!(stderr.ends_with(&expected), "{stderr}");
    assert!(stderr.contains("Fatal error: StartVmmThread(ApiSocketInUse("), "{stderr}");
    first.ok("GET", "vmm.ping", None);
}

#[test]
fn signals_end_it_cleanly() {
    for signal in [Signal::TERM, Signal::INT] {
        let dir = directory();
        let mut vmm = Launch::stand_in().start(dir.path(), "a");
        vmm.boot(&json!({"payload": {"kernel": kernel(dir.path())}, "console": {"mode": "Off"}}));
        vmm.signal(signal);
        assert_eq!(vmm.wait().code(), Some(0), "{signal:?}");
        assert!(!vmm.socket.exists());
        assert!(dir.path().join("a.sock.lock").exists(), "the lock file stays");
        let events = vmm.vm_events();
        assert!(
            events.ends_with(&["vm/shutdown".into(), "vm/deleted".into(), "vmm/shutdown".into()]),
            "{events:?}"
        );
    }
}

#[test]
fn a_killed_one_leaves_its_socket_and_the_next_takes_it_over() {
    let dir = directory();
    let mut vmm = Launch::stand_in().start(dir.path(), "a");
    let mode = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("a.sock"), mode("a.sock.lock")), (0o700, 0o600));
    vmm.signal(Signal::KILL);
    vmm.wait();
    assert!(vmm.socket.exists());
    let next = Launch::stand_in().start(dir.path(), "a");
    next.ok("GET", "vmm.ping", None);
}

#[test]
fn an_inherited_descriptor_serves_as_the_socket() {
    let dir = directory();
    let path = dir.path().join("inherited.sock");
    let listener = UnixListener::bind(&path).unwrap();
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).unwrap();
    let mut child = Launch::stand_in()
        .arg("--api-socket")
        .arg(&format!("fd={}", listener.as_raw_fd()))
        .command()
        .spawn()
        .unwrap();
    let answer = Client::connect(&path).call("GET", "vmm.ping", None);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(answer.status, 200);
}

#[test]
fn a_vm_on_the_command_line_boots_at_once() {
    let dir = directory();
    let kernel = kernel(dir.path()).display().to_string();
    let vmm = Launch::stand_in()
        .arg("--kernel")
        .arg(&kernel)
        .arg("--cpus")
        .arg("boot=2")
        .arg("--memory")
        .arg("size=256M")
        .arg("--console")
        .arg("off")
        .start(dir.path(), "a");
    eventually("it runs", || match vmm.state() {
        state if state == "Running" => Ok(()),
        state => Err(state),
    });
}

#[test]
fn a_vm_that_cannot_boot_from_the_command_line_ends_the_process() {
    let output = Launch::stand_in()
        .arg("--kernel")
        .arg("/nonexistent")
        .arg("--console")
        .arg("off")
        .command()
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let expected = "Error: Cloud Hypervisor exited with the following chain of errors:\n  0: Error booting VM\n  \
                    1: The VM could not boot\n  2: Cannot open kernel file\n  3: No such file or directory (os error 2)\n";
    assert!(stderr.ends_with(expected), "{stderr}");
}

#[test]
fn bad_settings_are_refused_by_name() {
    for (variable, value) in [
        ("REGATTA_CHSIM_FAULTS", "explode:vm.boot"),
        ("REGATTA_CHSIM_CLOCK", "sundial"),
        ("REGATTA_CHSIM_PROFILE", "v1"),
        ("REGATTA_CHSIM_TAPS", "shut"),
    ] {
        let output = Launch::stand_in().env(variable, value).command().output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{variable}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(variable), "{output:?}");
    }
}

#[test]
fn profiles_differ_in_status_and_version() {
    let dir = directory();
    let mut statuses = Vec::new();
    for profile in ["v52", "v53", "next"] {
        let vmm = Launch::stand_in().env("REGATTA_CHSIM_PROFILE", profile).start(dir.path(), profile);
        let missing = vmm.call("GET", "vm.info", None).status;
        vmm.ok("PUT", "vm.create", Some(&json!({})));
        statuses.push((missing, vmm.call("PUT", "vm.boot", None).status));
    }
    assert_eq!(statuses, [(500, 500), (404, 500), (404, 400)]);
}

#[test]
fn faults_of_calls() {
    let dir = directory();
    let mut vmm = Launch::stand_in()
        .env("REGATTA_CHSIM_FAULTS", "refuse:vm.create#1, reset:vm.info#1, pid=1, exit:vm.delete=7")
        .start(dir.path(), "a");
    assert!(vmm.ok("GET", "vmm.ping", None).body.contains("\"pid\":1,"));
    let refused = vmm.call("PUT", "vm.create", Some(&json!({})));
    assert_eq!(refused.status, 500);
    assert!(refused.body.starts_with(r#"["Error from API","The VM could not be created","#), "{refused:?}");
    vmm.ok("PUT", "vm.create", Some(&json!({})));

    let mut client = vmm.connect();
    client.send(b"GET /api/v1/vm.info HTTP/1.1\r\n\r\n");
    let half = client.read_to_end();
    assert!(half.starts_with("HTTP/1.1 200 ") && !half.ends_with('}'), "{half:?}");
    vmm.ok("GET", "vm.info", None);

    let mut last = vmm.connect();
    last.send(b"PUT /api/v1/vm.delete HTTP/1.1\r\n\r\n");
    assert_eq!(vmm.wait().code(), Some(7));
}

#[test]
fn a_hanging_call_stops_every_other_but_not_the_way_out() {
    let dir = directory();
    let mut vmm = Launch::stand_in().env("REGATTA_CHSIM_FAULTS", "hang:vm.info").start(dir.path(), "a");
    vmm.ok("GET", "vmm.ping", None);
    let mut hanging = vmm.connect();
    hanging.send(b"GET /api/v1/vm.info HTTP/1.1\r\n\r\n");
    // The hang begins when its request is read, which may be after a first ping.
    eventually("pings hang", || {
        let mut pinger = vmm.connect();
        let timeout = std::time::Duration::from_millis(100);
        pinger.0.get_ref().set_read_timeout(Some(timeout)).unwrap();
        pinger.send(b"GET /api/v1/vmm.ping HTTP/1.1\r\n\r\n");
        match std::io::Read::read_exact(&mut pinger.0, &mut [0]) {
            Ok(()) => Err("answered".to_owned()),
            Err(_) => Ok(()),
        }
    });
    vmm.signal(Signal::TERM);
    assert_eq!(vmm.wait().code(), Some(0));
}

#[test]
fn a_crash_at_a_call_is_a_kill() {
    let dir = directory();
    let mut vmm = Launch::stand_in().env("REGATTA_CHSIM_FAULTS", "crash:vm.boot").start(dir.path(), "a");
    vmm.ok("PUT", "vm.create", Some(&json!({})));
    let mut last = vmm.connect();
    last.send(b"PUT /api/v1/vm.boot HTTP/1.1\r\n\r\n");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&vmm.wait()), Some(9));
    assert!(vmm.socket.exists());
}

#[test]
fn lost_events_are_lost() {
    let dir = directory();
    let vmm = Launch::stand_in().env("REGATTA_CHSIM_FAULTS", "lose-events").start(dir.path(), "a");
    vmm.ok("PUT", "vm.create", Some(&json!({})));
    vmm.ok("PUT", "vm.delete", None);
    assert!(vmm.events().is_empty());
}
