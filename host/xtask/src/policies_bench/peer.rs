//! This program once more, as a peer in a process of its own.

use std::io::Read;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// As go-plugin: a program that is not a plugin host is told so instead of waiting for a line.
const COOKIE: (&str, &str) = ("REGATTA_BENCH_PLUGIN", "9b1f0c1e7c2a4f0f");

/// How long a peer may take to start, and to end.
const LIMIT: Duration = Duration::from_secs(20);

/// A peer that runs. Dropping it kills it.
pub(crate) struct Peer {
    child: Child,
    schedstat: String,
}

impl Peer {
    /// Starts this program with `arguments`; also returns the first line that it prints.
    pub(crate) async fn start(arguments: &[&std::ffi::OsStr]) -> Result<(Self, String)> {
        let this = std::env::current_exe().context("cannot find this program")?;
        let mut child = Command::new(this)
            .args(arguments)
            .env(COOKIE.0, COOKIE.1)
            // It ends with this pipe, also when this process is killed.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start a peer")?;
        let stdout = child.stdout.take().context("stdout was piped")?;
        let mut lines = BufReader::new(stdout).lines();
        let line = timeout(LIMIT, lines.next_line()).await.context("the peer does not start")??;
        let line = line.context("the peer ended before it said where it listens")?;
        let id = child.id().context("the peer has ended")?;
        Ok((Self { child, schedstat: format!("/proc/{id}/schedstat") }, line))
    }

    /// CPU time that its one busy thread has used so far.
    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        let text = std::fs::read_to_string(&self.schedstat)
            .with_context(|| format!("cannot read {}", self.schedstat))?;
        let ns = text.split(' ').next().and_then(|ns| ns.parse().ok());
        Ok(Duration::from_nanos(ns.with_context(|| format!("{} is `{text}`", self.schedstat))?))
    }

    /// Ends it and waits for that.
    pub(crate) async fn end(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        timeout(LIMIT, self.child.wait()).await.context("the peer does not end")??;
        Ok(())
    }
}

/// In the peer: refuses a start by hand, and ends this process when stdin does.
pub(crate) fn end_with_stdin() -> Result<()> {
    if std::env::var(COOKIE.0).as_deref() != Ok(COOKIE.1) {
        bail!("this is a peer of `cargo xtask bench policies`, which starts it itself");
    }
    let wait = || {
        // What comes is of no interest; that nothing more comes is, for whatever reason.
        let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
        std::process::exit(0);
    };
    std::thread::Builder::new().name("stdin".to_owned()).spawn(wait).context("cannot start a thread")?;
    Ok(())
}
