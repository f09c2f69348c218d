//! Running cargo so that a person sees how far it is.
//!
//! Cargo knows how many units there are and shows it in its progress bar, also into a pipe when
//! `CARGO_TERM_PROGRESS_WHEN=always` asks for it. That bar is read here: the alternative, the
//! unit graph, is unstable.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::proc;
use crate::ui::Ticker;
use crate::workspace::Workspace;

/// The cargo that runs this task, else the one on PATH.
pub(crate) fn program() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// A cargo command with nothing but its name.
pub(crate) fn command() -> Command {
    Command::new(program())
}

/// `cargo build` in the making.
pub(crate) struct Build {
    command: Command,
}

impl Build {
    /// A build in this workspace, of nothing yet.
    pub(crate) fn new(workspace: &Workspace) -> Self {
        let mut command = command();
        command
            .current_dir(&workspace.root)
            .args(["build", "--message-format=json-render-diagnostics"])
            .env("CARGO_TERM_PROGRESS_WHEN", "always")
            .env("CARGO_TERM_PROGRESS_WIDTH", "100");
        if std::io::stderr().is_terminal() {
            command.env("CARGO_TERM_COLOR", "always");
        }
        Self { command }
    }

    /// Adds arguments.
    pub(crate) fn args<S: AsRef<OsStr>>(&mut self, args: impl IntoIterator<Item = S>) {
        self.command.args(args);
    }

    /// Sets a variable of cargo's environment.
    pub(crate) fn env(&mut self, name: &str, value: &str) {
        self.command.env(name, value);
    }

    /// Builds, showing `title: crate 143/350 (name), 1m20s`; returns every file it made.
    pub(crate) fn run(mut self, title: &str) -> Result<Vec<PathBuf>> {
        let mut child = self
            .command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start `{}`", proc::shown(&self.command)))?;
        let stdout = child.stdout.take().context("stdout was piped")?;
        let stderr = child.stderr.take().context("stderr was piped")?;
        let artifacts = thread::spawn(move || artifacts(stdout));
        let (sender, segments) = mpsc::channel();
        let reader = thread::spawn(move || {
            each_segment(stderr, |segment| {
                // Fails only when the receiver is gone, and then nobody looks.
                let _ = sender.send(segment);
            });
        });

        let mut ticker = Ticker::new();
        let mut progress = None;
        loop {
            match segments.recv_timeout(Duration::from_millis(200)) {
                Ok(segment) => match Progress::parse(&segment) {
                    Some(seen) => progress = Some(seen),
                    None if is_routine(&segment) => {}
                    None => {
                        ticker.clear();
                        eprintln!("{segment}");
                    }
                },
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            match &progress {
                Some(Progress { done, total, names }) => {
                    ticker.show(format_args!("{title}: crate {done}/{total} ({names})"));
                }
                None => ticker.show(format_args!("{title}: cargo is starting")),
            }
        }
        ticker.clear();
        let status = child.wait()?;
        // A reader that panicked would have lost cargo's words.
        reader.join().map_err(|_| anyhow::anyhow!("the reader of cargo's stderr panicked"))?;
        let artifacts =
            artifacts.join().map_err(|_| anyhow::anyhow!("the reader of cargo's stdout panicked"))??;
        if !status.success() {
            bail!("`{}` failed: {status}", proc::shown(&self.command));
        }
        Ok(artifacts)
    }
}

/// The files named in cargo's JSON messages.
fn artifacts(stdout: impl Read) -> Result<Vec<PathBuf>> {
    #[derive(Deserialize)]
    struct Message {
        #[serde(default)]
        filenames: Vec<PathBuf>,
    }
    let mut made = Vec::new();
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        // A build script or a compiler plug-in may print lines of its own.
        if let Ok(message) = serde_json::from_str::<Message>(&line) {
            made.extend(message.filenames);
        }
    }
    Ok(made)
}

/// Calls `f` with each piece of text between line ends; a carriage return ends one as well.
fn each_segment(stream: impl Read, mut f: impl FnMut(String)) {
    let mut stream = BufReader::new(stream);
    let mut segment = Vec::new();
    // What came before an error of the pipe is all there is to show.
    while let Ok(buffer) = stream.fill_buf() {
        if buffer.is_empty() {
            break;
        }
        let length = buffer.len();
        for &byte in buffer {
            if byte != b'\n' && byte != b'\r' {
                segment.push(byte);
                continue;
            }
            if !segment.is_empty() {
                f(String::from_utf8_lossy(&segment).into_owned());
                segment.clear();
            } else if byte == b'\n' {
                f(String::new());
            }
        }
        stream.consume(length);
    }
    if !segment.is_empty() {
        f(String::from_utf8_lossy(&segment).into_owned());
    }
}

/// What cargo's progress bar says.
#[derive(Debug, PartialEq)]
struct Progress {
    done: u32,
    total: u32,
    names: String,
}

impl Progress {
    /// Reads `    Building [===>   ] 48/55: typenum, hybrid-array`.
    fn parse(segment: &str) -> Option<Self> {
        let plain = without_ansi(segment);
        let (_, rest) = plain.trim_start().strip_prefix("Building [")?.split_once("] ")?;
        let (counts, names) = rest.split_once(':').unwrap_or((rest, ""));
        let (done, total) = counts.trim().split_once('/')?;
        Some(Self { done: done.parse().ok()?, total: total.parse().ok()?, names: names.trim().to_owned() })
    }
}

/// Lines that the progress replaces.
fn is_routine(segment: &str) -> bool {
    let plain = without_ansi(segment);
    let word = plain.split_whitespace().next().unwrap_or_default();
    matches!(word, "" | "Compiling" | "Finished" | "Fresh" | "Dirty" | "Building" | "Downloaded")
}

/// The text without terminal control sequences (`ESC [ … letter`).
fn without_ansi(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character == '\x1b' {
            if characters.next() == Some('[') {
                characters.by_ref().find(char::is_ascii_alphabetic);
            }
        } else {
            plain.push(character);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(done: u32, total: u32, names: &str) -> Option<Progress> {
        Some(Progress { done, total, names: names.to_owned() })
    }

    #[test]
    fn the_bar_is_read_with_and_without_colour() {
        let plain = "    Building [=====>   ] 48/55: typenum, hybrid-array          ";
        assert_eq!(Progress::parse(plain), progress(48, 55, "typenum, hybrid-array"));
        let coloured = "\x1b[1m\x1b[36m    Building\x1b[0m [=>  ] 3/350: serde(build)";
        assert_eq!(Progress::parse(coloured), progress(3, 350, "serde(build)"));
        let nameless = "    Building [=>  ] 0/2  ";
        assert_eq!(Progress::parse(nameless), progress(0, 2, ""));
        assert_eq!(Progress::parse("warning: unused import"), None);
    }

    #[test]
    fn diagnostics_are_kept_and_routine_lines_are_not() {
        assert!(is_routine("\x1b[1m\x1b[32m   Compiling\x1b[0m serde v1.0.0"));
        assert!(!is_routine("error[E0583]: file not found for module `x`"));
        assert!(!is_routine("    Blocking waiting for file lock on build directory"));
    }

    #[test]
    fn carriage_returns_end_segments() {
        let mut seen = Vec::new();
        each_segment(&b"a\rb\r\nc\n\nd"[..], |segment| seen.push(segment));
        assert_eq!(seen, ["a", "b", "", "c", "", "d"]);
    }
}
