//! What an instance costs on its host beside its VM: network, overlay, seed, containment, and that nothing of it stays.
//!
//! The work is done by `xtask-hosts` in network, PID and mount namespaces of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regatta_util::program::on_path;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;

use crate::calls;
use crate::figure::{Figure, Promise, rounded};
use crate::rig::{self, Place};

const PROMISE: Promise = Promise {
    name: "hosts",
    target: "100 instances with isolated network, overlay and seed set up in ≤ 5 s, and torn down without a namespace, \
             tap, rule, file, cgroup or process left",
    unit: "s",
    at_most: 5.0,
    method: "VmmHost::launch with the stand-in as VMM until all VMs are booted, one by one (the value) and 8 at a time; \
             steps by the spans of regatta-vmm; counts from /proc, nft and the file system of namespaces that hold \
             nothing else; system calls by strace over 10 more, one by one",
};

/// Instances that are timed.
const INSTANCES: u32 = 100;
const QUICK_INSTANCES: u32 = 2;

/// Instances whose system calls are counted: each does the same.
const TRACED: u32 = 10;

/// How long each part may take.
const LIMIT: Duration = Duration::from_secs(300);

/// The figure; none, with a line that says why, where the kernel or a missing program makes it impossible.
pub(crate) async fn measure(place: &Place) -> Result<Option<Figure>> {
    if let Err(why) = possible() {
        eprintln!("skipped: {why}");
        return Ok(None);
    }
    let mut command = own_namespaces(&["--net", "--pid", "--fork", "--mount-proc", "--kill-child"]);
    let scratch = Scratch::create()?;
    place_arguments(&mut command, place, &scratch, place.effort.choose(INSTANCES, QUICK_INSTANCES))
        .arg("time");
    let output = run(command.stdout(Stdio::piped())).await?;
    let mut detail: Value = serde_json::from_slice(&output).context("xtask-hosts printed no JSON")?;
    drop(scratch);
    let rounds = detail["rounds"].as_array().context("xtask-hosts printed no rounds")?;
    let value = rounds.first().and_then(|round| round["set_up_s"].as_f64()).unwrap_or(f64::NAN);
    let clean = rounds.iter().all(|round| round["left_behind"].as_array().is_some_and(Vec::is_empty));
    for round in rounds {
        let round_line = |moment: &str| round["there"][moment].to_string();
        eprintln!("  {} at a time, before: {}", round["at_once"], round_line("before"));
        eprintln!("  {} at a time, during: {}", round["at_once"], round_line("during"));
        eprintln!("  {} at a time, after:  {}", round["at_once"], round_line("after"));
    }
    let network = &detail["rounds"][0]["ms_per_instance"];
    let by_hand = &detail["bare"]["network_by_hand_ms"];
    let ratio = |ours: &Value, hand: &Value| Some(rounded(ours["p50"].as_f64()? / hand["p50"].as_f64()?));
    detail["network_to_by_hand_ratio"] = json!({
        "set_up": ratio(&network["network"], &by_hand["set_up"]),
        "remove": ratio(&network["remove network"], &by_hand["remove"]),
    });
    detail["system_calls_per_instance"] = system_calls(place).await?;
    Ok(Some(PROMISE.measured(value, clean, detail)))
}

/// Whether it can be measured at all.
fn possible() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("hosts: networks of instances take root".to_owned());
    }
    File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .map_err(|error| format!("hosts: /dev/net/tun cannot be used ({error})"))?;
    for (program, package) in [("unshare", "util-linux"), ("ip", "iproute2"), ("nft", "nftables")] {
        if on_path(program).is_none() {
            return Err(format!("hosts: {program} is not installed (Debian's package {package})"));
        }
    }
    let made = std::process::Command::new("unshare").args(["--net", "--pid", "--fork", "true"]).output();
    match made {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            Err(format!("hosts: no namespaces here: {}", String::from_utf8_lossy(&output.stderr).trim()))
        }
        Err(error) => Err(format!("hosts: unshare cannot be run ({error})")),
    }
}

/// Calls per instance by step and by program; a line in their place when they cannot be counted.
async fn system_calls(place: &Place) -> Result<Value> {
    let traced = place.effort.choose(TRACED, 1);
    let skipped = |why: &str| {
        eprintln!("  skipped: system calls: {why}");
        Ok(Value::String(format!("skipped: {why}")))
    };
    if on_path("strace").is_none() {
        return skipped("strace is not installed");
    }
    let scratch = Scratch::create()?;
    let log = scratch.directory.path().join("strace");
    let mut command = Command::new("strace");
    // Without a PID namespace: in one, what `clone` returns would be other numbers than those in the log.
    command.args(["-f", "-qq", "-e", "signal=none", "-o"]).arg(&log).args(["unshare", "--net"]);
    place_arguments(&mut command, place, &scratch, traced).arg("marked");
    if let Err(error) = run(command.stdout(Stdio::null())).await {
        return skipped(&format!("{error:#}"));
    }
    let text = fs::read(&log).with_context(|| format!("cannot read {}", log.display()))?;
    Ok(calls::per_instance(&String::from_utf8_lossy(&text), traced))
}

fn own_namespaces(options: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(options);
    command
}

fn place_arguments<'a>(
    command: &'a mut Command,
    place: &Place,
    scratch: &Scratch,
    count: u32,
) -> &'a mut Command {
    command.arg(place.bin.join("xtask-hosts")).arg("--vmm").arg(place.vmm());
    command.arg("--data").arg(&scratch.data).args(["--count", &count.to_string()]);
    if let Some(cgroup) = &scratch.cgroup {
        command.arg("--cgroup").arg(cgroup);
    }
    command
}

/// Its stdout.
async fn run(command: &mut Command) -> Result<Vec<u8>> {
    let child =
        command.stdin(Stdio::null()).kill_on_drop(true).spawn().context("cannot start xtask-hosts")?;
    let output = timeout(LIMIT, child.wait_with_output()).await.context("xtask-hosts takes too long")??;
    ensure!(output.status.success(), "xtask-hosts failed: {}", output.status);
    Ok(output.stdout)
}

/// A directory and a cgroup, which go when it is dropped.
struct Scratch {
    directory: TempDir,
    data: PathBuf,
    cgroup: Option<PathBuf>,
}

impl Scratch {
    fn create() -> Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        let directory = rig::directory()?;
        // VMMs have users of their own, who must get through.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711))?;
        let data = directory.path().join("d");
        fs::create_dir(&data)?;
        let name = directory.path().file_name().context("a directory without a name")?;
        let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read the mounts")?;
        // Also that of a hybrid hierarchy, which the daemon leaves alone: cgroups are made and removed all the same.
        let cgroup = cgroup2(&mounts).map(|root| root.join(name)).filter(|dir| fs::create_dir(dir).is_ok());
        Ok(Self { directory, data, cgroup })
    }
}

/// Where the unified hierarchy is mounted.
fn cgroup2(mounts: &str) -> Option<PathBuf> {
    let mut fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields.find(|fields| fields.get(2) == Some(&"cgroup2")).map(|fields| PathBuf::from(fields[1]))
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let Some(cgroup) = &self.cgroup else { return };
        // Those who were in it may still be dying when the measurement was cut off.
        for _ in 0..100 {
            if remove_cgroup(cgroup) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        eprintln!("warning: the cgroup {} stays", cgroup.display());
    }
}

/// Removes a cgroup with those below it; whether it is gone.
fn remove_cgroup(dir: &Path) -> bool {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    fs::remove_dir(dir).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unified_hierarchy_is_found_in_the_mounts() {
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(cgroup2(hybrid), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(cgroup2("proc /proc proc rw 0 0\n"), None);
    }
}
