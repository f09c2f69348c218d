//! VMMs that their guests have taken over: they serve as they should, under the users that the daemon gives them, and attack the daemon, the
//! host and their neighbors. What they do is in `tests/src/bin/regatta-evil-vmm`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use regatta_tests::{Daemon, IDLE, bin_dir, wait_for};
use serde_json::Value;

mod files;
mod floods;
mod identity;
mod snapshots;
mod words;

/// More than a daemon of these tests needs, less than an attack wants it to take.
const PEAK_BYTES: u64 = 400 << 20;

/// A daemon whose VMMs are hostile in these ways; names of attacks separated by commas.
fn attacked(attacks: &str) -> Daemon {
    attacked_with(attacks, &[])
}

/// As [`attacked`], with more arguments for the daemon.
fn attacked_with(attacks: &str, arguments: &[&str]) -> Daemon {
    let mut daemon = Daemon::prepare(&[("REGATTA_CHSIM_EVIL", attacks)]);
    // A user of its own must be able to reach what it runs.
    let program = daemon.home().join("evil-vmm");
    fs::copy(bin_dir().join("regatta-evil-vmm"), &program).expect("`cargo xtask build` makes it");
    let vmm = format!("cloud-hypervisor={}", program.display());
    daemon.run_vmms_by(&[&["--vmm", &vmm], arguments].concat());
    if is_root() {
        daemon.open_devices();
    }
    daemon.launch();
    daemon
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Applies a set and waits for its instances. They have users of their own wherever the daemon is root.
fn run_set(daemon: &Daemon, count: u64) -> Vec<(u64, u32)> {
    let capacity = format!("{{ min: {count}, max: {count} }}");
    daemon.apply_ok(&daemon.manifest("web", &capacity, "", IDLE));
    daemon.wait_in_service("web", count);
    let pids = daemon.vm_pids("web");
    for (_, pid) in &pids {
        assert_eq!(uid_of(*pid) != 0, is_root(), "a user of its own");
    }
    pids
}

fn uid_of(pid: u32) -> u32 {
    fs::metadata(format!("/proc/{pid}")).expect("a process").uid()
}

fn dir_of(daemon: &Daemon, id: u64) -> PathBuf {
    daemon.data().join(format!("instances/web/{id}"))
}

/// Has the attacks of an instance begin that wait for it, and waits for their end.
fn go(daemon: &Daemon, id: u64) {
    let dir = dir_of(daemon, id);
    fs::write(dir.join("go"), "").expect("a file");
    wait_for("the attack to be over", || exists(&dir.join("done")));
}

fn exists(path: &Path) -> Result<(), String> {
    if path.exists() { Ok(()) } else { Err(format!("{} is not there", path.display())) }
}

fn events(daemon: &Daemon, kind: &str) -> Vec<Value> {
    let Value::Array(events) = daemon.json(&["events"]) else { panic!("a list") };
    events.into_iter().filter(|it| it["kind"] == kind).collect()
}

fn last_tick(daemon: &Daemon) -> u64 {
    daemon.json(&["describe", "web"])["summary"]["last_tick"].as_u64().expect("a tick")
}

fn wait_for_ticks(daemon: &Daemon, more: u64) {
    let from = last_tick(daemon);
    wait_for("some ticks more", || match last_tick(daemon) - from {
        ticks if ticks >= more => Ok(()),
        ticks => Err(format!("{ticks} ticks")),
    });
}

/// The most memory that the daemon ever had, bytes.
fn peak_bytes(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a field");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

/// Deletes the set; nothing of its instances may be left.
fn delete(daemon: &Daemon) {
    assert_eq!(daemon.run(&["delete", "web", "--yes"]).code, 0);
    wait_for("the set to be deleted", || match daemon.run(&["describe", "web"]).code {
        4 => Ok(()),
        code => Err(code.to_string()),
    });
    wait_for("its files to be gone", || {
        let left = daemon.data().join("instances/web").exists();
        if left { Err(daemon.log()) } else { Ok(()) }
    });
}
