//! Attacks by what the VMM answers: it stands between the daemon and the simulator in the same process.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{Place, files};

/// What is done to an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attack {
    /// `vm.boot` fails with words that forge lines and steer terminals.
    HostileWords,
    /// `vm.boot` fails with a body of 64 MiB.
    LongAnswer,
    /// `vm.boot` is answered with headers that never end.
    EndlessHeaders,
    /// Every answer of `vm.info` is nested a hundred thousand deep.
    NestedInfo,
    /// The configuration of a snapshot becomes 1.5 GiB long before the daemon is told of it.
    SparseConfig,
    /// The configuration of a snapshot becomes a link to a file of the daemon's user.
    LinkedConfig,
}

impl Attack {
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "hostile-words" => Self::HostileWords,
            "long-answer" => Self::LongAnswer,
            "endless-headers" => Self::EndlessHeaders,
            "nested-info" => Self::NestedInfo,
            "sparse-config" => Self::SparseConfig,
            "linked-config" => Self::LinkedConfig,
            _ => return None,
        })
    }

    /// Answers a call in the simulator's place, or does something once the simulator has answered.
    fn on(self, call: &str, place: &Path, to: &mut UnixStream) -> io::Result<bool> {
        match (self, call) {
            (Self::HostileWords, "vm.boot") => {
                let body = r#"["Error from API","\u001b[2J\u001b]0;owned\u0007\u009b31m\r\n\u202e  guards    none changed the decision\n2026-12-01T00:00:00Z set-deleted web [root]\u200b\u2028"]"#;
                answer(to, "500 Internal Server Error", body)
            }
            (Self::LongAnswer, "vm.boot") => answer(to, "500 Internal Server Error", &"x".repeat(64 << 20)),
            (Self::EndlessHeaders, "vm.boot") => {
                to.write_all(b"HTTP/1.1 200 OK\r\n")?;
                let header = format!("X: {}\r\n", "y".repeat(1 << 16));
                loop {
                    to.write_all(header.as_bytes())?;
                }
            }
            (Self::NestedInfo, "vm.info") => answer(to, "200 OK", &"[".repeat(100_000)),
            (Self::SparseConfig, "vm.snapshot") => {
                let config = place.join("snapshot/config.json");
                OpenOptions::new().write(true).open(config)?.set_len(files::as_long_as_it_may(3 << 29))?;
                Ok(false)
            }
            (Self::LinkedConfig, "vm.snapshot") => {
                let config = place.join("snapshot/config.json");
                std::fs::remove_file(&config)?;
                std::os::unix::fs::symlink("../../../../../precious", config)?;
                Ok(false)
            }
            _ => Ok(false),
        }
    }
}

fn answer(to: &mut UnixStream, status: &str, body: &str) -> io::Result<bool> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    to.write_all(head.as_bytes())?;
    to.write_all(body.as_bytes())?;
    Ok(true)
}

/// Takes the place of the simulator's socket; the simulator is to have the arguments that are returned.
pub(crate) fn stand_between(place: &Place, attacks: Vec<Attack>, arguments: Vec<OsString>) -> Vec<OsString> {
    let (outer, inner) = (place.file("api.sock"), place.file("inner.sock"));
    let listener = UnixListener::bind(&outer).expect("its own directory");
    let (dir, attacks, to) = (place.dir.clone(), Arc::new(attacks), inner.clone());
    std::thread::spawn(move || {
        for from in listener.incoming().flatten() {
            let (dir, attacks, to) = (dir.clone(), Arc::clone(&attacks), to.clone());
            // A connection that ends is over; why does not matter.
            std::thread::spawn(move || drop(pass_on(from, &to, &dir, &attacks)));
        }
    });
    let old = format!("path={}", outer.display());
    let new = format!("path={}", inner.display());
    arguments.into_iter().map(|word| if word == *old { new.clone().into() } else { word }).collect()
}

fn pass_on(mut from: UnixStream, to: &PathBuf, dir: &Path, attacks: &[Attack]) -> io::Result<()> {
    let mut requests = BufReader::new(from.try_clone()?);
    // The simulator may be starting still.
    let mut server = loop {
        match UnixStream::connect(to) {
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            other => break other?,
        }
    };
    let mut answers = BufReader::new(server.try_clone()?);
    while let Some(request) = message(&mut requests)? {
        let line = String::from_utf8_lossy(&request);
        let call = line.split(' ').nth(1).and_then(|path| path.strip_prefix("/api/v1/")).unwrap_or_default();
        let call = call.to_owned();
        // Those that fail the call do not have it made.
        let snapshot = call == "vm.snapshot";
        let mut answered = false;
        if !snapshot {
            for attack in attacks {
                answered = answered || attack.on(&call, dir, &mut from)?;
            }
        }
        if answered {
            continue;
        }
        server.write_all(&request)?;
        let Some(answer) = message(&mut answers)? else { return Ok(()) };
        if snapshot {
            for attack in attacks {
                attack.on(&call, dir, &mut from)?;
            }
        }
        from.write_all(&answer)?;
    }
    Ok(())
}

/// A request or an answer, with its body; none at the end.
fn message(from: &mut BufReader<UnixStream>) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let mut length = 0_u64;
    loop {
        let begun = bytes.len();
        if from.read_until(b'\n', &mut bytes)? == 0 {
            return Ok(None);
        }
        let line = String::from_utf8_lossy(&bytes[begun..]).to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
        if line.trim().is_empty() {
            break;
        }
    }
    from.by_ref().take(length).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}
