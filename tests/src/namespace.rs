//! A network of the test's own, so that the host's is never touched.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// What is in the network of [`enter_own_network`] beside its loopback interface: links and tables of rules, one line each.
///
/// # Panics
/// When iproute2 or nftables is missing.
#[must_use]
pub fn traces_in_own_network() -> Vec<String> {
    let output = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().expect("iproute2 and nftables");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let links = output("ip", &["-o", "link"]);
    let links = links.lines().filter(|line| !line.contains("LOOPBACK")).map(str::to_owned);
    links.chain(output("nft", &["list", "tables"]).lines().map(str::to_owned)).collect()
}

/// Moves the calling thread, and with it the threads and processes that it starts from now on, into a fresh network namespace with nothing but
/// a loopback interface. The namespace goes with the last of them.
///
/// # Errors
/// Why the kernel, or a missing tool, makes it impossible.
pub fn enter_own_network() -> Result<(), String> {
    let mut maker = Command::new("unshare")
        .args(["--net", "sh", "-c", "ip link set lo up && echo ready && exec cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("unshare cannot be run: {error}"))?;
    let mut said = String::new();
    if let Some(output) = maker.stdout.take() {
        let _ = BufReader::new(output).read_line(&mut said);
    }
    let entered = if said.trim() == "ready" {
        File::open(format!("/proc/{}/ns/net", maker.id()))
            .and_then(|namespace| {
                Ok(move_into_link_name_space(
                    rustix::fd::AsFd::as_fd(&namespace),
                    Some(LinkNameSpaceType::Network),
                )?)
            })
            .map_err(|error| format!("the namespace cannot be entered: {error}"))
    } else {
        Err("no network namespace can be made here (it needs root and iproute2)".to_owned())
    };
    // It reads until its input ends.
    drop(maker.stdin.take());
    let _ = maker.wait();
    entered
}
