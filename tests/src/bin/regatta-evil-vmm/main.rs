//! A VMM that its guest has taken over. It serves as the simulator does, and attacks the daemon, the host and its neighbors as
//! `REGATTA_CHSIM_EVIL` says: names of attacks separated by commas, `NAME@ID` for the VMM of instance `ID` alone.
//!
//! It runs in the directory of an instance as the user that the daemon gave it. Some attacks begin when the test makes the file `go` there;
//! what was tried is told in files there, too.

mod files;
mod process;
mod proxy;
mod survey;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

const ATTACKS: &str = "REGATTA_CHSIM_EVIL";
/// Arguments of the process before it took others.
const REAL_ARGUMENTS: &str = "REGATTA_CHSIM_EVIL_ARGUMENTS";

/// Where an instance of its is, and what it is told by.
pub(crate) struct Place {
    pub(crate) dir: PathBuf,
}

impl Place {
    fn of(arguments: &[OsString]) -> Option<Self> {
        let socket = arguments.iter().find_map(|word| word.as_bytes().strip_prefix(b"path="))?;
        let dir = Path::new(OsStr::from_bytes(socket)).parent()?.to_owned();
        Some(Self { dir })
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The directory of a neighbor in its set.
    pub(crate) fn neighbor(&self, id: &str) -> PathBuf {
        self.dir.with_file_name(id)
    }

    /// Tells the test.
    pub(crate) fn tell(&self, name: &str, text: &str) {
        // Whole or not at all.
        let whole = self.file(name);
        let half = whole.with_extension("half");
        fs::write(&half, text).and_then(|()| fs::rename(half, whole)).expect("its own directory");
    }

    /// Waits for the test to have the attack begin.
    pub(crate) fn wait_for_go(&self) {
        while !self.file("go").exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn main() -> ExitCode {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(real) = std::env::var_os(REAL_ARGUMENTS) {
        arguments = real.as_bytes().split(|&b| b == 0x1f).map(|it| OsString::from_vec(it.to_vec())).collect();
    }
    let Some(place) = Place::of(&arguments) else { return regatta_chsim::run(arguments) };
    let list = std::env::var(ATTACKS).unwrap_or_default();
    let id = place.dir.file_name().and_then(OsStr::to_str).unwrap_or_default().to_owned();
    let mut proxied = Vec::new();
    for entry in list.split(',').filter(|entry| !entry.is_empty()) {
        let (name, only) = entry.split_once('@').unwrap_or((entry, &id));
        if only != id {
            continue;
        }
        match name {
            "links" => files::links(&place),
            "pipes" => files::pipes(&place),
            "pipe-behind-overlay" => files::in_background(&place, files::pipe_behind_the_overlay),
            "strange-names" => files::strange_names(&place),
            "link-out" => files::link_out(&place),
            "deep" => files::deep(&place),
            "sparse-logs" => return files::sparse_logs(&place),
            "sparse-overlay" => files::sparse_overlay(&place),
            "events" => files::in_background(&place, files::hostile_events),
            "reboots" => files::in_background(&place, files::forged_reboots),
            "serial" => files::in_background(&place, files::print_on_the_console),
            "serial-in-a-hole" => files::in_background(&place, files::fill_a_hole),
            "print" => process::print(),
            "helper" => process::leave_a_helper(&place),
            "survey" => survey::take(&place),
            "hide-socket" => files::in_background(&place, files::hide_the_socket),
            "socket-to-neighbor" => files::in_background(&place, files::lead_the_socket_to_a_neighbor),
            "arguments-of-neighbor" => process::take_the_arguments_of_a_neighbor(&place, &arguments),
            other => proxied.push(proxy::Attack::named(other).expect("an attack")),
        }
    }
    if !proxied.is_empty() {
        arguments = proxy::stand_between(&place, proxied, arguments);
    }
    regatta_chsim::run(arguments)
}
