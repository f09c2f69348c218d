//! Attacks by what lies in the instance's directory.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, symlink};
use std::process::ExitCode;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Resource, getrlimit};

use crate::Place;

/// Everything that the daemon writes, or once wrote, in the directory.
const OF_THE_DAEMON: &[&str] = &[
    "started.json",
    "containment.json",
    "network.json",
    "orphan.json",
    "images",
    "vmm.json",
    "instance.json",
];
/// Depth of a nest of directories: more than a process has descriptors, or a thread stack for.
const DEPTH: u32 = 6_000;

/// Links in the place of the daemon's files, finished and unfinished, to a file of the daemon's user.
pub(crate) fn links(place: &Place) {
    let victim = place.file("../../../../victim");
    for name in OF_THE_DAEMON {
        symlink(&victim, place.file(name)).expect("a link");
        symlink(&victim, place.file(&format!("{name}.new"))).expect("a link");
    }
    for dir in ["snapshot", "restore", "failed"] {
        let _ = symlink(place.file("../../../.."), place.file(dir));
    }
}

/// Pipes in the place of files that the daemon reads.
pub(crate) fn pipes(place: &Place) {
    for name in OF_THE_DAEMON {
        pipe(place, name);
    }
}

fn pipe(place: &Place, name: &str) {
    mknodat(CWD, place.file(name), FileType::Fifo, Mode::RWXU, 0).expect("a pipe");
}

/// A pipe where the overlay's header says that its image is.
pub(crate) fn pipe_behind_the_overlay(place: &Place) {
    pipe(place, "pipe");
    let overlay = File::options().read(true).write(true).open(place.file("root.qcow2")).expect("its overlay");
    let name = place.file("pipe").display().to_string();
    let mut offset = [0; 8];
    overlay.read_exact_at(&mut offset, 8).expect("a header");
    overlay.write_all_at(name.as_bytes(), u64::from_be_bytes(offset)).expect("a name");
    let length = u32::try_from(name.len()).expect("a length").to_be_bytes();
    overlay.write_all_at(&length, 16).expect("a header");
}

/// Names that steer a terminal, are no text, or begin an option.
pub(crate) fn strange_names(place: &Place) {
    for name in [&b"\x1b[2J\x1b[31m"[..], b"two\nlines", b"\xff\xfe", "\u{202e}evil".as_bytes(), b"-rf", b"*"]
    {
        File::create(place.dir.join(OsStr::from_bytes(name))).expect("a file");
    }
}

/// A directory of the daemon's user in its own: it goes with the instance unless links are not followed.
pub(crate) fn link_out(place: &Place) {
    symlink("../../../../precious", place.file("precious")).expect("a link");
    let inner = place.file("inner");
    fs::create_dir(&inner).expect("a directory");
    symlink("../../../../../precious", inner.join("precious")).expect("a link");
}

/// A nest of directories that whoever removes it may not hold open, or recurse into.
pub(crate) fn deep(place: &Place) {
    let here = std::env::current_dir().expect("a directory");
    std::env::set_current_dir(&place.dir).expect("its own directory");
    for _ in 0..DEPTH {
        fs::create_dir("d").and_then(|()| std::env::set_current_dir("d")).expect("a directory");
    }
    std::env::set_current_dir(here).expect("a directory");
}

/// So many bytes, or what its limit lets a file have: more would end it.
pub(crate) fn as_long_as_it_may(bytes: u64) -> u64 {
    getrlimit(Resource::Fsize).current.map_or(bytes, |limit| limit.min(bytes))
}

/// A console of a terabyte, then a crash, so that it is to be kept.
pub(crate) fn sparse_logs(place: &Place) -> ExitCode {
    for name in ["serial.log", "events.json"] {
        let log = OpenOptions::new().write(true).open(place.file(name)).expect("its log");
        log.set_len(as_long_as_it_may(1 << 40)).expect("a hole");
    }
    ExitCode::from(7)
}

pub(crate) fn sparse_overlay(place: &Place) {
    let overlay = OpenOptions::new().write(true).open(place.file("root.qcow2")).expect("its overlay");
    overlay.set_len(as_long_as_it_may(1 << 43)).expect("a hole");
}

/// Begins when the test says so; tells it when it is done.
pub(crate) fn in_background(place: &Place, attack: fn(&Place)) {
    let place = Place { dir: place.dir.clone() };
    std::thread::spawn(move || {
        place.wait_for_go();
        attack(&place);
        place.tell("done", "");
    });
}

/// 6 MiB that begin a record again and again.
pub(crate) fn hostile_events(place: &Place) {
    let piece = format!("\n\n{{\"a\":[{}", "1,".repeat(30_000));
    let mut file = OpenOptions::new().append(true).open(place.file("events.json")).expect("its events");
    for _ in 0..(6 << 20) / piece.len() {
        file.write_all(piece.as_bytes()).expect("written");
    }
    // Short ones, too: what costs is what a record begins with.
    file.write_all("\n\n{".repeat(100_000).as_bytes()).expect("written");
}

/// 1 MiB of reboots that were none.
pub(crate) fn forged_reboots(place: &Place) {
    let mut file = OpenOptions::new().append(true).open(place.file("events.json")).expect("its events");
    let mut bytes = 0;
    for second in 100_u64.. {
        let record = format!(
            "{{\"timestamp\":{{\"secs\":{second},\"nanos\":4294967295}},\"source\":\"vm\",\"event\":\"rebooted\",\"properties\":null}}\n\n"
        );
        file.write_all(record.as_bytes()).expect("written");
        bytes += record.len();
        if bytes >= 1 << 20 {
            return;
        }
    }
}

/// The console at full speed; how much it was, is told.
pub(crate) fn print_on_the_console(place: &Place) {
    let mut file = OpenOptions::new().append(true).open(place.file("serial.log")).expect("its console");
    let chunk = vec![b'x'; 1 << 20];
    for _ in 0..256 {
        file.write_all(&chunk).expect("written");
    }
}

/// A console whose length never changes while it takes more and more of the disk.
pub(crate) fn fill_a_hole(place: &Place) {
    let file = OpenOptions::new().write(true).open(place.file("serial.log")).expect("its console");
    file.set_len(as_long_as_it_may(1 << 40)).expect("a hole");
    // The daemon has looked at it at least once.
    std::thread::sleep(Duration::from_secs(3));
    let chunk = vec![b'x'; 1 << 20];
    for nth in 0..128 {
        file.write_all_at(&chunk, nth << 20).expect("written");
    }
}

pub(crate) fn hide_the_socket(place: &Place) {
    fs::rename(place.file("api.sock"), place.file("hidden.sock")).expect("renamed");
}

/// Instance 1 is the neighbor.
pub(crate) fn lead_the_socket_to_a_neighbor(place: &Place) {
    hide_the_socket(place);
    symlink("../1/api.sock", place.file("api.sock")).expect("a link");
}
