//! Attacks by what a process says of itself, prints, or leaves behind.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use crate::{Place, REAL_ARGUMENTS};

/// Printed at full speed, bytes; with everything that steers a terminal.
const PRINTED_BYTES: usize = 128 << 20;

/// Fills the log of the VMM.
pub(crate) fn print() {
    std::thread::spawn(|| {
        use std::io::Write;
        let line = "\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\r\u{202e}0 daemons running\n".repeat(1_000);
        let mut out = std::io::stdout().lock();
        for _ in 0..PRINTED_BYTES / line.len() {
            out.write_all(line.as_bytes()).expect("written");
        }
    });
}

/// Starts a process that leaves its session and its process group.
pub(crate) fn leave_a_helper(place: &Place) {
    let mut helper = Command::new("setsid");
    helper.args(["--fork", "sh", "-c", "echo $$ >helper.half && mv helper.half helper && exec sleep 600"]);
    let helper = helper.current_dir(&place.dir).stdin(Stdio::null()).stdout(Stdio::null()).status();
    assert!(helper.expect("setsid").success());
}

/// Becomes a process whose command line is that of instance 1's VMM. It stays the same process.
pub(crate) fn take_the_arguments_of_a_neighbor(place: &Place, arguments: &[OsString]) {
    if std::env::var_os(REAL_ARGUMENTS).is_some() {
        return;
    }
    let real = arguments.join(OsStr::from_bytes(b"\x1f"));
    let neighbor = place.neighbor("1");
    let path = |name: &str| format!("path={}", neighbor.join(name).display());
    let error = Command::new("/proc/self/exe")
        .arg0(&arguments[0])
        .args(["--api-socket", &path("api.sock"), "--event-monitor", &path("events.json")])
        .env(REAL_ARGUMENTS, real)
        .exec();
    panic!("it cannot run itself again: {error}");
}
