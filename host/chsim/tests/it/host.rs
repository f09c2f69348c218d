//! What a VM does to the host: locks, sockets, serial ports, snapshots.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use crate::support::{Launch, directory, eventually, kernel, qcow2};

fn explicit() -> Launch {
    Launch::stand_in().env("REGATTA_CHSIM_CLOCK", "explicit").arg("--sim-control")
}

#[test]
fn locks_are_given_back_with_the_vm_and_with_the_device() {
    let dir = directory();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("base.raw"), [0; 65_536]).unwrap();
    std::fs::write(path("o.qcow2"), qcow2(Some("base.raw"))).unwrap();
    std::fs::write(path("data.raw"), [0; 65_536]).unwrap();
    let (a, b) = (explicit().start(dir.path(), "a"), explicit().start(dir.path(), "b"));
    let config = |disk: Value| json!({"payload": {"kernel": kernel(dir.path())}, "console": {"mode": "Off"}, "disks": [disk]});
    let overlay = config(json!({"path": path("o.qcow2"), "image_type": "Qcow2", "backing_files": true}));
    a.boot(&overlay);
    b.ok("PUT", "vm.create", Some(&overlay));
    let refused = b.call("PUT", "vm.boot", None);
    assert!(refused.body.contains("The file is already locked"), "{refused:?}");
    assert_eq!(b.state(), "Created");
    b.ok("PUT", "vm.delete", None);

    a.ok("PUT", "vm.shutdown", None);
    b.boot(&overlay);
    assert_eq!(a.call("PUT", "vm.boot", None).status, 500);

    // A device that the guest let go of is free for others.
    b.ok("PUT", "vm.add-disk", Some(&json!({"id": "data", "path": path("data.raw"), "image_type": "Raw"})));
    b.ok("PUT", "vm.remove-device", Some(&json!({"id": "data"})));
    eventually("the guest lets go", || {
        // The guest takes its time from when it hears of the removal, which may be after the first poke.
        b.control(&json!({"do": "poke", "by": "1m"}));
        match b.events().last() {
            Some((name, properties)) if name == "vm/device-removed" => {
                assert_eq!(properties, &json!({"id": "_virtio-pci-data", "bdf": "0000:00:03.0"}));
                Ok(())
            }
            other => Err(format!("{other:?}")),
        }
    });
    a.ok("PUT", "vm.delete", None);
    a.boot(&config(json!({"path": path("data.raw"), "image_type": "Raw"})));
}

#[test]
fn a_stranger_can_hold_the_lock() {
    let dir = directory();
    let disk = dir.path().join("d.raw");
    std::fs::write(&disk, [0; 65_536]).unwrap();
    let vmm = explicit().env("REGATTA_CHSIM_FAULTS", "lock-held").start(dir.path(), "a");
    vmm.ok(
        "PUT",
        "vm.create",
        Some(&json!({"payload": {"kernel": kernel(dir.path())}, "disks": [{"path": disk}]})),
    );
    assert!(vmm.call("PUT", "vm.boot", None).body.contains("Failed to get Write lock"));
    vmm.control(&json!({"do": "clear-faults"}));
    vmm.ok("PUT", "vm.shutdown", None);
    vmm.ok("PUT", "vm.boot", None);
}

#[test]
fn a_serial_file_is_truncated_at_each_boot() {
    let dir = directory();
    let serial = dir.path().join("serial");
    let vmm = explicit().start(dir.path(), "a");
    vmm.boot(&json!({
        "payload": {"kernel": kernel(dir.path()), "cmdline": "console=ttyS0 hello"},
        "serial": {"mode": "File", "file": serial}, "console": {"mode": "Off"},
    }));
    let read = || std::fs::read_to_string(&serial).unwrap();
    eventually("the boot log", || {
        if read().contains("Command line: console=ttyS0 hello") { Ok(()) } else { Err(read()) }
    });
    vmm.control(&json!({"do": "poke", "by": "1m"}));
    eventually(
        "the end of the boot",
        || {
            if read().contains("Run /sbin/init") { Ok(()) } else { Err(read()) }
        },
    );
    vmm.ok("PUT", "vm.reboot", None);
    eventually("a fresh boot log", || match read() {
        text if text.contains("Linux version") && !text.contains("Run /sbin/init") => Ok(()),
        text => Err(text),
    });
}

#[test]
fn a_serial_socket_keeps_what_was_said_before_the_client_came() {
    let dir = directory();
    let serial = dir.path().join("serial.sock");
    let vmm = explicit().start(dir.path(), "a");
    vmm.boot(&json!({
        "payload": {"kernel": kernel(dir.path()), "cmdline": "console=ttyS0"},
        "serial": {"mode": "Socket", "socket": serial}, "console": {"mode": "Off"},
    }));
    let mut client = UnixStream::connect(&serial).unwrap();
    client.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    let mut start = [0; 30];
    client.read_exact(&mut start).unwrap();
    assert!(String::from_utf8_lossy(&start).contains("Linux"), "{start:?}");
    vmm.ok("PUT", "vm.delete", None);
    assert!(!serial.exists());
}

#[test]
fn a_pseudo_terminal_is_named_and_readable() {
    let dir = directory();
    let vmm = explicit().start(dir.path(), "a");
    vmm.boot(&json!({"payload": {"kernel": kernel(dir.path())}, "serial": {"mode": "Pty"}, "console": {"mode": "Off"}}));
    let info: Value = serde_json::from_str(&vmm.ok("GET", "vm.info", None).body).unwrap();
    let path = info["config"]["serial"]["file"].as_str().unwrap();
    let mut start = [0; 20];
    std::fs::File::open(path).unwrap().read_exact(&mut start).unwrap();
    assert!(start.starts_with(b"[    "), "{start:?}");
}

#[test]
fn a_snapshot_restores_into_another_process_with_its_address() {
    let dir = directory();
    let snap = dir.path().join("snap");
    std::fs::create_dir(&snap).unwrap();
    let url = format!("file://{}", snap.display());
    let vmm = Launch::stand_in().start(dir.path(), "a");
    vmm.boot(&json!({
        "payload": {"kernel": kernel(dir.path()), "cmdline": "ip=127.93.7.1::::twin sim.boot=1ms"}, "console": {"mode": "Off"},
    }));
    let healthy = || std::net::TcpStream::connect("127.93.7.1:8080").map_err(|error| error.to_string());
    eventually("the guest is up", healthy);
    let snapshot = json!({ "destination_url": url });
    assert_eq!(
        vmm.call("PUT", "vm.snapshot", Some(&snapshot)).status,
        500,
        "a running VM is not snapshotted"
    );
    vmm.ok("PUT", "vm.pause", None);
    vmm.ok("PUT", "vm.snapshot", Some(&snapshot));
    for name in ["config.json", "state.json", "memory-ranges"] {
        assert!(snap.join(name).exists(), "{name}");
    }
    let again = vmm.call("PUT", "vm.snapshot", Some(&snapshot));
    assert!(again.body.contains("File exists (os error 17)"), "{again:?}");
    vmm.ok("PUT", "vm.delete", None);
    healthy().expect_err("the guest is gone");

    let twin = Launch::stand_in().start(dir.path(), "b");
    twin.ok("PUT", "vm.restore", Some(&json!({ "source_url": url })));
    assert_eq!(twin.state(), "Paused");
    healthy().expect_err("a paused guest has not come up");
    twin.ok("PUT", "vm.resume", None);
    let mut stream = eventually("the twin is up", healthy);
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("twin 1\n"), "{answer}");
}

/// Whether everybody may have one, or whoever may open the device; none where the kernel does not tell.
fn unprivileged_userfaultfd() -> Option<bool> {
    let number = std::fs::read_to_string("/proc/sys/vm/unprivileged_userfaultfd").ok()?;
    Some(number.trim() == "1" || std::path::Path::new("/dev/userfaultfd").exists())
}

#[test]
fn a_snapshot_restores_only_what_it_was_made_of() {
    let dir = directory();
    let (snap, disk) = (dir.path().join("snap"), dir.path().join("disk.raw"));
    std::fs::create_dir(&snap).unwrap();
    std::fs::write(&disk, vec![0; 1 << 20]).unwrap();
    let url = format!("file://{}", snap.display());
    let vmm = Launch::stand_in().start(dir.path(), "a");
    let disks = json!([{ "id": "root", "path": disk, "image_type": "Raw" }]);
    vmm.boot(&json!({
        "payload": {"kernel": kernel(dir.path()), "cmdline": "sim.boot=1ms"}, "console": {"mode": "Off"},
        "memory": {"size": 64 << 20}, "disks": disks,
    }));
    vmm.ok("PUT", "vm.pause", None);
    vmm.ok("PUT", "vm.snapshot", Some(&json!({ "destination_url": url })));
    vmm.ok("PUT", "vm.delete", None);

    let twin = Launch::stand_in().start(dir.path(), "b");
    let (config, state, memory) =
        (snap.join("config.json"), snap.join("state.json"), snap.join("memory-ranges"));
    let refused = |why: &str| {
        let answer = twin.call("PUT", "vm.restore", Some(&json!({ "source_url": url })));
        assert_eq!(answer.status, 500, "{answer:?}");
        assert!(answer.body.contains(why), "{why:?} is not in {answer:?}");
        assert_eq!(twin.call("GET", "vm.info", None).status, 404, "nothing of a VM is left");
    };
    let good: serde_json::Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    let edited = |pointer: &str, value: serde_json::Value| {
        let mut other = good.clone();
        *other.pointer_mut(pointer).unwrap() = value;
        std::fs::write(&config, other.to_string()).unwrap();
    };
    edited("/memory/size", json!(128 << 20));
    refused("134217728");
    edited("/disks/0/id", json!("other"));
    refused("disk root");
    edited("/disks/0/path", json!(dir.path().join("none")));
    refused("No such file");
    std::fs::write(&config, "{").unwrap();
    refused("Error deserialising VM config snapshot");
    std::fs::write(&config, good.to_string()).unwrap();
    std::fs::File::options().write(true).open(&disk).unwrap().set_len(2 << 20).unwrap();
    refused("disk root had 1048576 bytes when the snapshot was made, and has 2097152");
    std::fs::File::options().write(true).open(&disk).unwrap().set_len(1 << 20).unwrap();
    let kept = std::fs::read(&state).unwrap();
    std::fs::write(&state, &kept[..kept.len() / 2]).unwrap();
    refused("Error deserialising VM state snapshot");
    std::fs::write(&state, kept).unwrap();
    std::fs::File::options().write(true).open(&memory).unwrap().set_len(1 << 20).unwrap();
    refused("Memory manager error");
    std::fs::remove_file(&memory).unwrap();
    refused("Error opening snapshot file");
    std::fs::File::create(&memory).unwrap().set_len(64 << 20).unwrap();
    twin.ok("PUT", "vm.restore", Some(&json!({ "source_url": url, "resume": true })));
    assert_eq!(twin.state(), "Running");
}

#[test]
fn memory_on_demand_needs_the_permission_for_userfaultfd() {
    let dir = directory();
    let url = format!("file://{}", dir.path().display());
    let vmm = Launch::stand_in().start(dir.path(), "a");
    vmm.boot(&json!({"payload": {"kernel": kernel(dir.path())}, "console": {"mode": "Off"}}));
    vmm.ok("PUT", "vm.pause", None);
    vmm.ok("PUT", "vm.snapshot", Some(&json!({ "destination_url": url })));
    let twin = Launch::stand_in().start(dir.path(), "b");
    let request = json!({ "source_url": url, "memory_restore_mode": "OnDemand" });
    let answer = twin.call("PUT", "vm.restore", Some(&request));
    // Root may, unless the kernel has none or a sandbox forbids it; either way the answer is upstream's.
    match answer.status {
        204 => assert_eq!(twin.state(), "Paused"),
        _ => {
            assert!(answer.body.contains("\"Failed to create userfaultfd\",\""), "{answer:?}");
            assert_ne!(
                (unprivileged_userfaultfd(), rustix::process::geteuid().is_root()),
                (Some(true), true)
            );
        }
    }
}

#[test]
fn a_full_disk_fails_the_snapshot_by_name() {
    let dir = directory();
    let vmm = explicit().env("REGATTA_CHSIM_FAULTS", "enospc").start(dir.path(), "a");
    vmm.boot(&json!({"payload": {"kernel": kernel(dir.path())}, "console": {"mode": "Off"}}));
    vmm.ok("PUT", "vm.pause", None);
    let url = format!("file://{}", dir.path().display());
    let failed = vmm.call("PUT", "vm.snapshot", Some(&json!({ "destination_url": url })));
    assert!(failed.body.contains("No space left on device (os error 28)"), "{failed:?}");
}
