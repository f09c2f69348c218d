//! What a VMM's user can reach of the host, the daemon and its neighbors: each is tried, and how it went is told.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::process::{Pid, getppid, test_kill_process};

use crate::Place;

type Attempt<'a> = (&'static str, Box<dyn Fn() -> io::Result<()> + 'a>);

/// Tries everything and writes `survey`: a line each, `NAME<TAB>ok` or `NAME<TAB>WHY NOT`. Its environment goes to `environment`.
pub(crate) fn take(place: &Place) {
    let names: Vec<String> = std::env::vars().map(|(name, _)| name).collect();
    place.tell("environment", &names.join("\n"));
    let mut lines = String::new();
    for (name, attempt) in attempts(place) {
        let how = attempt().map_or_else(|error| error.to_string(), |()| "ok".to_owned());
        lines += &format!("{name}\t{how}\n");
    }
    place.tell("survey", &lines);
}

fn attempts(place: &Place) -> Vec<Attempt<'_>> {
    let data = place.file("../../..");
    let daemon = getppid().map_or(1, |pid| pid.as_raw_nonzero().get());
    let of_daemon = move |name: &str| PathBuf::from(format!("/proc/{daemon}/{name}"));
    let mut all: Vec<Attempt<'_>> = Vec::new();
    let read = |path: PathBuf| Box::new(move || File::open(&path).map(drop));
    let write = |path: PathBuf| Box::new(move || OpenOptions::new().write(true).open(&path).map(drop));
    let list = |path: PathBuf| Box::new(move || fs::read_dir(&path).map(drop));
    let connect = |path: PathBuf| Box::new(move || UnixStream::connect(&path).map(drop));
    // The daemon's files.
    all.push(("read the state", read(data.join("state.redb"))));
    all.push(("write the state", write(data.join("state.redb"))));
    all.push(("write the lock", write(data.join("daemon.lock"))));
    all.push(("read the secret of the cache", read(data.join("compiled/secret"))));
    all.push(("list the data directory", list(data.clone())));
    all.push(("list the instances", list(data.join("instances"))));
    all.push(("list the images", list(data.join("images"))));
    all.push(("list the failures", list(data.join("failed"))));
    all.push(("make a file beside the state", {
        let path = data.join("planted");
        Box::new(move || File::create_new(&path).map(drop))
    }));
    all.push(("make an instance", {
        let path = place.file("../99");
        Box::new(move || fs::create_dir(&path))
    }));
    all.push(("give the state another name", {
        let (from, to) = (data.join("state.redb"), place.file("stolen"));
        Box::new(move || fs::hard_link(&from, &to))
    }));
    // Its own instance.
    all.push(("list the daemon's notes", list(place.file("ctl"))));
    all.push(("move the daemon's notes away", {
        let (from, to) = (place.file("ctl"), place.file("old"));
        Box::new(move || fs::rename(&from, &to))
    }));
    for name in ["serial.log", "events.json", "vmm.log", "root.qcow2", "ctl"] {
        let (from, to) = (place.file(name), place.file("taken"));
        all.push(("replace a file of the daemon's", Box::new(move || fs::rename(&from, &to))));
    }
    all.push(("open its directory to all", {
        let dir = place.dir.clone();
        Box::new(move || fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)))
    }));
    let image = golden_image(place);
    all.push(("write the golden image", write(image.clone())));
    all.push(("open the golden image to itself", {
        Box::new(move || fs::set_permissions(&image, fs::Permissions::from_mode(0o666)))
    }));
    // A neighbor.
    let neighbor = place.neighbor(if place.dir.ends_with("1") { "2" } else { "1" });
    all.push(("list a neighbor's files", list(neighbor.clone())));
    all.push(("read a neighbor's disk", read(neighbor.join("root.qcow2"))));
    all.push(("connect to a neighbor's VMM", connect(neighbor.join("api.sock"))));
    all.push(("make a link at a neighbor's", {
        let path = neighbor.join("started.json");
        Box::new(move || symlink("/etc/passwd", &path))
    }));
    // The daemon's process, and the host.
    all.push(("connect to the daemon", connect(data.join("api.sock"))));
    all.push(("read the daemon's environment", read(of_daemon("environ"))));
    all.push(("read the daemon's memory", read(of_daemon("mem"))));
    all.push(("list the daemon's descriptors", list(of_daemon("fd"))));
    all.push(("enter the daemon's root", list(of_daemon("root"))));
    all.push(("signal the daemon", {
        Box::new(move || Ok(test_kill_process(Pid::from_raw(daemon).expect("a process"))?))
    }));
    all.push(("read the host's passwords", read("/etc/shadow".into())));
    all.push(("write the host's files", write("/etc/hosts".into())));
    all.push(("make a device", {
        let path = place.file("mem");
        Box::new(move || Ok(mknodat(CWD, &path, FileType::CharacterDevice, Mode::RWXU, makedev(1, 1))?))
    }));
    all.push(("become root", Box::new(become_root)));
    all.push(("lower its own score for the kernel's killer", {
        Box::new(|| fs::write("/proc/self/oom_score_adj", "-1000"))
    }));
    all
}

/// The image that the overlay stands on, by the name in its header.
fn golden_image(place: &Place) -> PathBuf {
    let overlay = File::open(place.file("root.qcow2")).expect("its overlay");
    let (mut offset, mut length) = ([0; 8], [0; 4]);
    overlay
        .read_exact_at(&mut offset, 8)
        .and_then(|()| overlay.read_exact_at(&mut length, 16))
        .expect("a header");
    let mut name = vec![0; usize::try_from(u32::from_be_bytes(length)).expect("a length")];
    overlay.read_exact_at(&mut name, u64::from_be_bytes(offset)).expect("a name");
    PathBuf::from(OsString::from_vec(name))
}

/// A program with the set-user-id bit gives it no rights: it can have none.
fn become_root() -> io::Result<()> {
    let status = fs::read_to_string("/proc/self/status")?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    match (field("NoNewPrivs:"), field("CapBnd:")) {
        (Some("1"), Some("0000000000000000")) => Err(io::Error::other("no privileges can be had")),
        found => {
            eprintln!("{found:?}");
            Ok(())
        }
    }
}
