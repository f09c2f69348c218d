//! Processes under test, a plain HTTP client, and waiting for conditions.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a condition may take to come true.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `check` gives a value; panics with what it said last.
pub(crate) fn eventually<T>(what: &str, check: impl FnMut() -> Result<T, String>) -> T {
    within(PATIENCE, what, check)
}

/// As [`eventually`], with another limit.
pub(crate) fn within<T>(limit: Duration, what: &str, mut check: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match check() {
            Ok(value) => return value,
            Err(last) if Instant::now() >= deadline => {
                panic!("{what}: not within {limit:?}; last seen: {last}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// A directory whose path is short enough for socket names.
pub(crate) fn directory() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("chs").tempdir().unwrap()
}

/// How to start a VMM.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Launch {
    /// The stand-in.
    pub(crate) fn stand_in() -> Self {
        Self::program(env!("CARGO_BIN_EXE_regatta-chsim").into())
    }

    /// Any binary with the same command line.
    pub(crate) fn program(program: PathBuf) -> Self {
        Self { program, arguments: Vec::new(), environment: Vec::new() }
    }

    pub(crate) fn arg(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A command with these settings and nothing else on it.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts a process whose files are `<directory>/<name>.*`, and waits for its socket.
    pub(crate) fn start(&self, directory: &Path, name: &str) -> Vmm {
        let socket = directory.join(format!("{name}.sock"));
        let events = directory.join(format!("{name}.events"));
        let child = self
            .command()
            .arg("--api-socket")
            .arg(format!("path={}", socket.display()))
            .arg("--event-monitor")
            .arg(format!("path={}", events.display()))
            .arg("--log-file")
            .arg(directory.join(format!("{name}.log")))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{:?}: {error}", self.program));
        let mut vmm = Vmm { child, socket, events };
        eventually("the API socket accepts", || {
            if let Some(status) = vmm.child.try_wait().unwrap() {
                panic!("the VMM ended at start: {status}");
            }
            UnixStream::connect(&vmm.socket).map_err(|error| error.to_string())
        });
        vmm
    }
}

/// A running VMM; killed when dropped.
#[derive(Debug)]
pub(crate) struct Vmm {
    child: Child,
    pub(crate) socket: PathBuf,
    pub(crate) events: PathBuf,
}

impl Vmm {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(&self.socket)
    }

    /// One call on a connection of its own.
    pub(crate) fn call(&self, method: &str, call: &str, body: Option<&Value>) -> Answer {
        self.connect().call(method, call, body.map(Value::to_string).as_deref())
    }

    /// A call that must succeed.
    pub(crate) fn ok(&self, method: &str, call: &str, body: Option<&Value>) -> Answer {
        let answer = self.call(method, call, body);
        assert!(matches!(answer.status, 200 | 204), "{call}: {answer:?}");
        answer
    }

    /// Creates and boots a VM.
    pub(crate) fn boot(&self, config: &Value) {
        self.ok("PUT", "vm.create", Some(config));
        self.ok("PUT", "vm.boot", None);
    }

    /// `vm.info`'s state; empty when there is no VM.
    pub(crate) fn state(&self) -> String {
        let info: Value = serde_json::from_str(&self.call("GET", "vm.info", None).body).unwrap();
        info["state"].as_str().unwrap_or_default().to_owned()
    }

    /// How the process ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for the process to end by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        eventually("the VMM ends", || {
            self.child.try_wait().unwrap().ok_or_else(|| "still running".to_owned())
        })
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// All events so far, as `(source/event, properties)`.
    pub(crate) fn events(&self) -> Vec<(String, Value)> {
        let text = std::fs::read_to_string(&self.events).unwrap_or_default();
        let events = serde_json::Deserializer::from_str(&text).into_iter::<Value>().map_while(Result::ok);
        let name = |event: &Value| {
            format!("{}/{}", event["source"].as_str().unwrap(), event["event"].as_str().unwrap())
        };
        events.map(|event| (name(&event), event["properties"].clone())).collect()
    }

    /// Events of the VM and the VMM, without those of drivers.
    pub(crate) fn vm_events(&self) -> Vec<String> {
        self.events().into_iter().map(|(name, _)| name).filter(|name| name.starts_with("vm")).collect()
    }

    /// Sends a line to the control socket and returns the connection; the answer may never come.
    pub(crate) fn order(&self, order: &Value) -> UnixStream {
        let mut stream = UnixStream::connect(format!("{}.sim", self.socket.display())).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        writeln!(stream, "{order}").unwrap();
        stream
    }

    /// Sends a line to the control socket and reads the answer.
    pub(crate) fn control(&self, order: &Value) -> Value {
        let stream = self.order(order);
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

impl Drop for Vmm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Status line and headers, as they came.
    pub(crate) head: String,
    pub(crate) body: String,
}

/// One connection to an API socket.
#[derive(Debug)]
pub(crate) struct Client(pub(crate) BufReader<UnixStream>);

impl Client {
    pub(crate) fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).unwrap();
    }

    /// Sends a call and reads its answer.
    pub(crate) fn call(&mut self, method: &str, call: &str, body: Option<&str>) -> Answer {
        let mut request = format!("{method} /api/v1/{call} HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n");
        if let Some(body) = body {
            request +=
                &format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        } else {
            request += "\r\n";
        }
        self.send(request.as_bytes());
        self.read()
    }

    /// Reads one answer.
    pub(crate) fn read(&mut self) -> Answer {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let read = self.0.read_line(&mut head).unwrap_or_else(|error| panic!("after {head:?}: {error}"));
            assert!(read > 0, "closed after {head:?}");
        }
        let status = head.split(' ').nth(1).and_then(|status| status.trim().parse().ok()).unwrap();
        let length =
            head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        Answer { status, head, body: String::from_utf8(body).unwrap() }
    }

    /// What comes until the connection closes.
    pub(crate) fn read_to_end(&mut self) -> String {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).unwrap();
        String::from_utf8(rest).unwrap()
    }
}

/// Waits until the process does nothing any more.
pub(crate) fn falls_asleep(vmm: &Vmm) {
    // Every thread waits without a time-out once the last connection is gone: the count of voluntary context switches
    // stands still, which it would not if anything polled.
    let switches = || -> u64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", vmm.pid())).unwrap().flatten();
        let status =
            tasks.map(|task| std::fs::read_to_string(task.path().join("status")).unwrap_or_default());
        let count = |status: String| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:").map(str::to_owned));
            line.and_then(|count| count.trim().parse::<u64>().ok()).unwrap_or(0)
        };
        status.map(count).sum()
    };
    let (mut last, mut still) = (switches(), 0);
    eventually("it falls asleep", || {
        let now = switches();
        still = if now == last { still + 1 } else { 0 };
        last = now;
        if still >= 100 { Ok(()) } else { Err(format!("{now} switches")) }
    });
}

/// A file that passes for a kernel.
pub(crate) fn kernel(directory: &Path) -> PathBuf {
    let path = directory.join("kernel");
    std::fs::write(&path, b"\x7fELF for the look of it").unwrap();
    path
}

/// A qcow2 image of 1 GiB that holds nothing, perhaps over a backing file.
pub(crate) fn qcow2(backing: Option<&str>) -> Vec<u8> {
    let mut image = vec![0u8; 4 * 65_536];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"QFI\xfb");
    put(4, &3u32.to_be_bytes());
    put(20, &16u32.to_be_bytes()); // clusters of 64 KiB
    put(24, &(1u64 << 30).to_be_bytes());
    put(36, &2u32.to_be_bytes()); // entries of the L1 table, which is the fourth cluster
    put(40, &(3u64 * 65_536).to_be_bytes());
    put(48, &65_536u64.to_be_bytes()); // refcount table, its only block is the third cluster
    put(56, &1u32.to_be_bytes());
    put(96, &4u32.to_be_bytes());
    put(100, &104u32.to_be_bytes());
    put(65_536, &(2u64 * 65_536).to_be_bytes());
    for cluster in 0..4 {
        put(2 * 65_536 + 2 * cluster, &1u16.to_be_bytes());
    }
    if let Some(name) = backing {
        put(8, &512u64.to_be_bytes());
        put(16, &(name.len() as u32).to_be_bytes());
        put(512, name.as_bytes());
    }
    image
}
