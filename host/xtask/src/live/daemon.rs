//! The daemon of the demo: started in a directory of its own, spoken to like any user would,
//! and cleaned up whatever happens.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process};
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// How long the daemon may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(20);

/// How long one call may take.
const CALL_LIMIT: Duration = Duration::from_secs(30);

/// How long the daemon may take to end after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// No answer is larger.
const MOST_BYTES: usize = 32 << 20;

/// Time between two looks at something that is awaited.
pub(crate) const POLL: Duration = Duration::from_millis(50);

/// A daemon that this process started.
pub(crate) struct Daemon {
    binary: PathBuf,
    /// Where commands are run: paths in them are shown as a user of the workspace types them.
    root: PathBuf,
    data: PathBuf,
    log: PathBuf,
    child: Child,
}

impl Daemon {
    /// Starts `binary serve` on the data directory `data`, and waits until it answers.
    pub(crate) async fn start(
        binary: &Path,
        root: &Path,
        data: &Path,
        log: &Path,
        vmm: &str,
        guest: Option<&str>,
    ) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
        let mut command = Command::new(binary);
        command.arg("serve").arg("--data").arg(data).args(["--vmm", vmm]);
        if let Some(engine) = guest {
            command.args(["--guest", engine]);
        }
        if vmm == "sim" {
            // Simulated guests take no CPU of their own: 200 of them fit on two CPUs.
            command.args(["--cpu-overcommit", "1000"]);
        } else {
            // Its guests are ours, and a host without users for VMMs can show them too.
            command.arg("--allow-root-vmms");
        }
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            // Ctrl-C goes to the demo, which ends the daemon in order.
            .process_group(0)
            .kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("cannot start {}", binary.display()))?;
        let mut daemon = Self {
            binary: binary.to_owned(),
            root: root.to_owned(),
            data: data.to_owned(),
            log: log.to_owned(),
            child,
        };
        daemon.await_answer().await?;
        Ok(daemon)
    }

    async fn await_answer(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("the daemon ended: {status}\n{}", tail(&self.log));
            }
            let answer = self.get::<serde_json::Value>("/v1/status").await;
            match answer {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() >= deadline => {
                    return Err(error.context(format!(
                        "the daemon did not answer within {} s\n{}",
                        START_LIMIT.as_secs(),
                        tail(&self.log)
                    )));
                }
                Err(_) => sleep(POLL).await,
            }
        }
    }

    /// Where the daemon listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.data.join("api.sock")
    }

    /// GET of a path of the API.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let body = self.bytes(path).await?;
        serde_json::from_slice(&body)
            .with_context(|| format!("GET {path}: the answer is not what was expected"))
    }

    /// GET of a path of the API that answers with text.
    #[allow(dead_code, reason = "not every program with this module asks for text")]
    pub(crate) async fn text(&self, path: &str) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.bytes(path).await?).into_owned())
    }

    async fn bytes(&self, path: &str) -> Result<Bytes> {
        timeout(CALL_LIMIT, self.call(path))
            .await
            .with_context(|| format!("no answer to GET {path}"))?
            .with_context(|| format!("GET {path} failed"))
    }

    async fn call(&self, path: &str) -> Result<Bytes> {
        let stream = UnixStream::connect(self.socket()).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let request = Request::get(path).header(HOST, "regatta").body(Empty::<Bytes>::new())?;
        let answer = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MOST_BYTES)
                .collect()
                .await
                .map_err(anyhow::Error::from_boxed)?
                .to_bytes();
            ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
            Ok(body)
        };
        let answer = answer.await;
        driver.abort();
        answer
    }

    /// Runs a command of the CLI against this daemon and returns what it printed.
    pub(crate) async fn cli(&self, arguments: &[&str]) -> Result<String> {
        let shown = arguments.join(" ");
        let output = Command::new(&self.binary)
            .args(arguments)
            .current_dir(&self.root)
            .arg("--data")
            .arg(&self.data)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = timeout(CALL_LIMIT, output)
            .await
            .with_context(|| format!("`regatta {shown}` did not end"))?
            .with_context(|| format!("cannot start `regatta {shown}`"))?;
        ensure!(
            output.status.success(),
            "`regatta {shown}` failed: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Asks the daemon to end, and makes it end if it does not.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let pid = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(pid) = pid {
            kill_process(pid, Signal::TERM).context("cannot signal the daemon")?;
        }
        if let Ok(status) = timeout(STOP_LIMIT, self.child.wait()).await {
            status?;
            return Ok(());
        }
        self.child.kill().await?;
        bail!("the daemon did not end within {} s of SIGTERM and was killed", STOP_LIMIT.as_secs())
    }

    /// Its process id; none when it has ended.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Leaves the daemon running, for a user to look around.
    pub(crate) fn leave(self) -> Option<u32> {
        let pid = self.pid();
        // Dropping a child would kill it; this process ends soon anyway.
        std::mem::forget(self.child);
        pid
    }
}

/// The end of a log, for an error message.
pub(crate) fn tail(log: &Path) -> String {
    const LINES: usize = 15;
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(LINES)..];
    format!("  the end of {}:\n  {}", log.display(), last.join("\n  "))
}

/// Kills what still runs of the given programs on the data directory: VMMs outlive their daemon
/// by design, and the demo must leave nothing behind. Returns how many there were.
pub(crate) fn sweep(programs: &[PathBuf], data: &Path) -> usize {
    let Ok(processes) = fs::read_dir("/proc") else {
        return 0;
    };
    let needle = data.as_os_str().as_encoded_bytes();
    let mut killed = 0;
    for entry in processes.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Some(pid) = Pid::from_raw(pid) else {
            continue;
        };
        // The descriptor is taken first: what is read afterwards is of this very process or of
        // none, never of a later one with the same number.
        let Ok(process) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else {
            continue;
        };
        let ours = fs::read_link(entry.path().join("exe")).is_ok_and(|exe| programs.contains(&exe))
            && fs::read(entry.path().join("cmdline")).is_ok_and(|line| contains(&line, needle));
        if ours && rustix::process::pidfd_send_signal(&process, Signal::KILL).is_ok() {
            killed += 1;
        }
    }
    killed
}

fn contains(text: &[u8], needle: &[u8]) -> bool {
    !needle.is_empty() && text.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sweep_takes_only_its_own() {
        let data = std::env::temp_dir().join(format!("xtask-sweep-{}", std::process::id()));
        let sleeper = |argument: &Path| {
            std::process::Command::new("sh")
                .args(["-c", "read never", "sh"])
                .arg(argument)
                .stdin(Stdio::piped())
                .spawn()
                .expect("sh starts")
        };
        let mut ours = sleeper(&data.join("vmm.sock"));
        let mut other = sleeper(Path::new("/elsewhere"));
        let shell = fs::read_link(format!("/proc/{}/exe", ours.id()));
        // Right after the spawn the child may not have started its program yet.
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        let mut shell = shell.expect("exe");
        while fs::read_link("/proc/self/exe").is_ok_and(|own| own == shell) {
            assert!(std::time::Instant::now() < deadline, "still {}", shell.display());
            shell = fs::read_link(format!("/proc/{}/exe", ours.id())).expect("exe");
        }
        assert_eq!(sweep(&[PathBuf::from("/no/such/program")], &data), 0);
        assert_eq!(sweep(&[shell], &data), 1);
        assert!(!ours.wait().expect("wait").success());
        assert!(other.try_wait().expect("wait").is_none(), "not ours");
        other.kill().expect("kill");
        other.wait().expect("wait");
    }
}
