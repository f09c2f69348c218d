//! A daemon under test.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

mod succession;

use crate::wait::{PATIENCE, wait_for, wait_within};

/// Where the programs under test are.
///
/// # Panics
/// When they have not been built.
#[must_use]
pub fn bin_dir() -> PathBuf {
    let dir = std::env::var_os("REGATTA_BIN_DIR").map(PathBuf::from).unwrap_or_else(|| {
        // target/debug/deps/it-… → target/debug
        let exe = std::env::current_exe().expect("a test knows its program");
        exe.parent().and_then(Path::parent).expect("target/debug").to_owned()
    });
    for program in ["regatta", "regatta-chsim"] {
        assert!(
            dir.join(program).is_file(),
            "{program} is not in {}: run `cargo xtask build`, or `cargo xtask test`, which does it",
            dir.display()
        );
    }
    dir
}

/// Where the built policies are.
///
/// # Panics
/// When they have not been built.
#[must_use]
pub fn policies_dir() -> PathBuf {
    let dir = std::env::var_os("REGATTA_POLICIES")
        .map(PathBuf::from)
        .unwrap_or_else(|| bin_dir().parent().expect("target").join("policies"));
    assert!(
        dir.join("target-tracking.wasm").is_file(),
        "no policies in {}: run `cargo xtask policies`",
        dir.display()
    );
    dir
}

/// What a command printed.
#[derive(Debug, Clone)]
pub struct CommandOutput {
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// A daemon with a data directory of its own. Dropped, it and all its VMs end; first it must be possible to decide again
/// everything that it has recorded.
#[derive(Debug)]
pub struct Daemon {
    home: TempDir,
    child: Option<Child>,
    environment: Vec<(String, String)>,
    vmm: Vec<String>,
    log: PathBuf,
    replay: bool,
    inherited: Option<OwnedFd>,
    open_files: Option<u32>,
    open_devices: bool,
}

/// Sets of tests that run side by side must not share addresses.
/// Guards that let a set follow its policy at once.
const FOLLOWING: &str =
    "guards: { warm_up: 0s, scale_in_stabilization: 0s, scale_out_limit: none, scale_in_limit: none }";

static NEXT_POOL: AtomicU32 = AtomicU32::new(0);

impl Daemon {
    /// Starts a daemon and waits until it answers.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// As [`Daemon::start`], with more environment.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_with(environment: &[(&str, &str)]) -> Self {
        let mut daemon = Self::prepare(environment);
        daemon.launch();
        daemon
    }

    /// A daemon that is not started yet: its directory and an image.
    ///
    /// # Panics
    /// When the directory cannot be made.
    #[must_use]
    pub fn prepare(environment: &[(&str, &str)]) -> Self {
        // Short: Unix sockets have at most 107 bytes of path.
        let home = tempfile::Builder::new().prefix("rg").tempdir_in("/tmp").expect("a directory");
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let log = home.path().join("daemon.log");
        let vmm = ["--vmm", "sim"].map(str::to_owned).to_vec();
        let daemon = Self {
            home,
            child: None,
            environment,
            vmm,
            log,
            replay: true,
            inherited: None,
            open_files: None,
            open_devices: false,
        };
        daemon.make_image();
        daemon
    }

    /// Runs other VMMs than the stand-in from the next start on: arguments of `regatta serve`.
    pub fn run_vmms_by(&mut self, arguments: &[&str]) {
        self.vmm = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    }

    /// Does not decide everything again at the end, for example because its modules take minutes to compile.
    pub fn without_replay(&mut self) {
        self.replay = false;
    }

    /// Decides everything again that the daemon has recorded. Returns what differs.
    fn replay(&self) -> Option<String> {
        let sets = self.run(&["-o", "json", "get"]);
        let sets: Value = serde_json::from_str(&sets.out).unwrap_or_default();
        // Compiled once for all tests.
        let cache = bin_dir().join("../tmp/replay");
        let names = sets.as_array().into_iter().flatten().filter_map(|set| set["name"].as_str());
        for name in names {
            let replay = self.command(&["replay", name]).env("XDG_CACHE_HOME", &cache).output();
            let replay = replay.expect("regatta runs");
            let differs = replay.status.code() == Some(EXIT_DIFFERS);
            // The records of a set that is deleted meanwhile go with it.
            if differs || !replay.status.success() && !self.is_going(name) {
                let told = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
                return Some(format!("{}{}", told(&replay.stdout), told(&replay.stderr)));
            }
        }
        None
    }

    fn is_going(&self, set: &str) -> bool {
        let described = self.run(&["-o", "json", "describe", set]);
        let summary: Value = serde_json::from_str(&described.out).unwrap_or_default();
        described.code == EXIT_NOT_FOUND || summary["summary"]["deleting"] == true
    }

    /// The directory of this test.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The daemon's data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.home().join("d")
    }

    /// Process id of the daemon.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running daemon").id()
    }

    /// Starts the daemon again, on the same data.
    ///
    /// # Panics
    /// When it does not start.
    pub fn launch(&mut self) {
        self.spawn();
        self.wait_until_it_answers();
    }

    fn wait_until_it_answers(&mut self) {
        wait_for("the daemon to answer", || {
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                panic!("the daemon ended with {status}; its log:\n{}", self.log());
            }
            let status = self.run(&["status"]);
            if status.code == 0 { Ok(()) } else { Err(status.err) }
        });
    }

    /// Adds to the environment of the next start; its VMMs inherit what begins with `REGATTA_CHSIM_`.
    pub fn set_environment(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Hands a listening socket to the next daemon, as a service manager does.
    pub fn inherit(&mut self, listener: OwnedFd) {
        self.inherited = Some(listener);
    }

    /// Leaves the daemon this many descriptors from the next start on.
    pub fn limit_open_files(&mut self, open_files: u32) {
        self.open_files = Some(open_files);
    }

    /// Has the next daemons see devices that everyone may use, so that their VMMs can have users of their own: in a mount namespace, and
    /// nothing but files without content stands for the devices.
    ///
    /// # Panics
    /// When the directory of the test cannot be opened to these users.
    pub fn open_devices(&mut self) {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
        let device = self.home().join("device");
        fs::write(&device, "").and_then(|()| mode(&device, 0o666)).expect("a device");
        mode(self.home(), 0o711).expect("its mode");
        self.open_devices = true;
    }

    /// Starts the daemon and does not wait for it.
    ///
    /// # Panics
    /// When its program cannot be run.
    pub fn spawn(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(&self.log).expect("a log");
        let regatta = bin_dir().join("regatta");
        let (mut command, stdin) = match (self.inherited.take(), self.open_files) {
            (None, open_files) if self.open_devices => {
                let limit = open_files.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string());
                let script = r#"for device in /dev/kvm /dev/net/tun; do
                    [ ! -e $device ] || mount --bind "$0" $device || exit
                    done; [ "$1" = unlimited ] || ulimit -n $1; shift; exec "$@""#;
                let mut shell = Command::new("unshare");
                shell.args(["--mount", "sh", "-c", script]).arg(self.home().join("device"));
                shell.arg(limit).arg(regatta);
                (shell, Stdio::null())
            }
            (None, None) => (Command::new(regatta), Stdio::null()),
            (None, Some(open_files)) => {
                let mut shell = Command::new("sh");
                shell.arg("-c").arg(format!(r#"ulimit -n {open_files}; exec "$0" "$@""#)).arg(regatta);
                (shell, Stdio::null())
            }
            (Some(listener), _) => {
                let script = r#"LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" "$@" 3<&0 </dev/null"#;
                let mut shell = Command::new("sh");
                shell.arg("-c").arg(script).arg(regatta);
                (shell, listener.into())
            }
        };
        command
            .arg("serve")
            .args(&self.vmm)
            .arg("--policies")
            .arg(policies_dir())
            .env("REGATTA_DATA", self.data())
            .env("REGATTA_LOG", "info,regatta=debug")
            // Guests of the stand-in use next to nothing of what they are given.
            .env("REGATTA_MEMORY_OVERCOMMIT", "100")
            .env("REGATTA_CPU_OVERCOMMIT", "1000")
            .envs(self.environment.iter().map(|(k, v)| (k, v)))
            .stdin(stdin)
            .stdout(Stdio::null())
            .stderr(log);
        self.child = Some(command.spawn().expect("regatta starts"));
    }

    /// Starts the daemon and waits until it has ended by itself.
    ///
    /// # Panics
    /// When its program cannot be run.
    pub fn start_in_vain(&mut self) -> ExitStatus {
        self.start_another_in_vain(&[])
    }

    /// Kills the daemon, as a crash would.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("a running daemon");
        child.kill().expect("kill");
        child.wait().expect("wait");
    }

    /// Asks the daemon to stop, and waits for it.
    ///
    /// # Panics
    /// When it does not run.
    pub fn stop(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("a running daemon");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signal");
        child.wait().expect("wait")
    }

    /// Runs a command of the command line.
    ///
    /// # Panics
    /// When the program cannot be run.
    #[must_use]
    pub fn run(&self, args: &[&str]) -> CommandOutput {
        let output = self.command(args).output().expect("regatta runs");
        CommandOutput {
            code: output.status.code().unwrap_or(-output.status.signal().unwrap_or(1)),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// A command of the command line, ready to be run.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(bin_dir().join("regatta"));
        command.args(args).env("REGATTA_DATA", self.data()).current_dir(self.home()).stdin(Stdio::null());
        command
    }

    /// Runs a command that must succeed, and parses what it prints as JSON.
    ///
    /// # Panics
    /// When it fails, or prints no JSON.
    #[must_use]
    pub fn json(&self, args: &[&str]) -> Value {
        let args: Vec<&str> = ["-o", "json"].into_iter().chain(args.iter().copied()).collect();
        let output = self.run(&args);
        assert_eq!(output.code, 0, "regatta {args:?}: {}\nthe daemon's log:\n{}", output.err, self.log());
        serde_json::from_str(&output.out)
            .unwrap_or_else(|e| panic!("regatta {args:?}: {e} in {}", output.out))
    }

    /// Writes a manifest and applies it.
    #[must_use]
    pub fn apply(&self, manifest: &str) -> CommandOutput {
        let file = self.home().join("set.yaml");
        fs::write(&file, manifest).expect("a manifest");
        self.run(&["apply", "-f", "set.yaml"])
    }

    /// Applies a manifest that must be accepted.
    ///
    /// # Panics
    /// When it is not.
    pub fn apply_ok(&self, manifest: &str) {
        let output = self.apply(manifest);
        assert_eq!(output.code, 0, "{}\n{}\nthe daemon's log:\n{}", output.out, output.err, self.log());
    }

    /// A manifest for a set on the stand-in: quick to boot, probed often.
    /// `extra` is YAML of the top level. Without guards of its own, a set follows its policy at once.
    #[must_use]
    pub fn manifest(&self, name: &str, capacity: &str, sim: &str, extra: &str) -> String {
        // Tests run in processes of their own: the process id tells them apart.
        let pool = NEXT_POOL.fetch_add(1, Ordering::Relaxed);
        let unique = (std::process::id() % 4_000) * 4 + pool % 4;
        let (b, c) = (64 + unique / 256, unique % 256);
        let guards = match extra.contains("guards:") {
            true => "",
            false => FOLLOWING,
        };
        format!(
            "version: regatta/v1\n\
             name: {name}\n\
             tick: 200ms\n\
             capacity: {capacity}\n\
             image: {{ disk: golden.raw, kernel: vmlinux, cmdline: \"console=ttyS0 sim.boot=30ms {sim}\" }}\n\
             instance: {{ vcpus: 1, memory: 64MiB, boot_timeout: 20s }}\n\
             network: {{ mode: loopback, pool: 127.{b}.{c}.0/24, port: 8080 }}\n\
             health: {{ http: /healthz, interval: 200ms, timeout: 2s, healthy_threshold: 1, unhealthy_threshold: 3 }}\n\
             {guards}\n\
             {extra}\n"
        )
    }

    /// Waits until exactly `count` instances of a set are in service and there are no others.
    pub fn wait_in_service(&self, set: &str, count: u64) {
        self.wait_in_service_within(PATIENCE, set, count);
    }

    /// As [`Daemon::wait_in_service`], for guests that really boot.
    pub fn wait_in_service_within(&self, patience: Duration, set: &str, count: u64) {
        wait_within(patience, &format!("{count} instances of {set} in service, and no others"), || {
            let detail = self.json(&["describe", set]);
            let instances = &detail["summary"]["instances"];
            let in_service = instances["in-service"].as_u64().unwrap_or(0);
            let all: u64 =
                instances.as_object().map(|o| o.values().filter_map(Value::as_u64).sum()).unwrap_or(0);
            if (in_service, all) == (count, count) { Ok(()) } else { Err(detail["summary"].to_string()) }
        });
    }

    /// Process ids of the VMs of a set, by instance.
    ///
    /// # Panics
    /// When an instance has none.
    #[must_use]
    pub fn vm_pids(&self, set: &str) -> Vec<(u64, u32)> {
        let instances = self.json(&["instances", set]);
        let pid_of = |instance: &Value| {
            let pid = instance["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
            (instance["id"].as_u64().expect("an id"), pid.expect("a pid"))
        };
        instances.as_array().expect("instances").iter().map(pid_of).collect()
    }

    /// Gives the stand-in of an instance an order on its control socket; the daemon must run with `REGATTA_CHSIM_CONTROL=1`.
    ///
    /// # Panics
    /// When it does not obey.
    pub fn order(&self, set: &str, id: u64, order: &Value) {
        let socket = self.data().join(format!("instances/{set}/{id}/api.sock.sim"));
        let mut stream = UnixStream::connect(&socket).expect("the control socket of the stand-in");
        writeln!(stream, "{order}").expect("an order");
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).expect("an answer");
        assert!(answer.contains("\"ok\":true"), "{answer}");
    }

    /// Process ids of all VMMs that belong to this daemon's data directory, by `/proc`.
    #[must_use]
    pub fn vmm_processes(&self) -> Vec<u32> {
        let prefix = self.data().join("instances").display().to_string();
        let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
        let mut found: Vec<u32> = processes
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| {
                let command_line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                String::from_utf8_lossy(&command_line).contains(&prefix)
            })
            .collect();
        found.sort_unstable();
        found
    }

    /// The process in which this daemon's policies run.
    ///
    /// # Panics
    /// When there is none, or more than one.
    #[must_use]
    pub fn policy_worker(&self) -> u32 {
        let ours = format!("PPid:\t{}\n", self.pid());
        let workers: Vec<u32> = fs::read_dir("/proc")
            .expect("/proc")
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| {
                let read = |file| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
                read("status").contains(&ours) && read("cmdline").contains("policy-child\0{\"work\":\"Run\"")
            })
            .collect();
        let [worker] = workers[..] else { panic!("{workers:?}") };
        worker
    }

    /// What the daemon has logged.
    #[must_use]
    pub fn log(&self) -> String {
        let is_file = fs::metadata(&self.log).is_ok_and(|log| log.is_file());
        if is_file { fs::read_to_string(&self.log).unwrap_or_default() } else { String::new() }
    }

    /// Where the next start logs to.
    pub fn log_to(&mut self, log: &Path) {
        log.clone_into(&mut self.log);
    }

    /// A small disk and a file that stands for a kernel.
    fn make_image(&self) {
        let mut disk = b"golden image of a test\n".to_vec();
        disk.resize(1 << 20, 0);
        fs::write(self.home().join("golden.raw"), disk).expect("a disk");
        fs::write(self.home().join("vmlinux"), b"stands for a kernel\n").expect("a kernel");
    }

    /// A free port of the loopback interface.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn free_port() -> SocketAddr {
        TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr()).expect("a free port")
    }
}

/// Of a command that names a set which is not there.
const EXIT_NOT_FOUND: i32 = 4;

/// Of `regatta replay`, when a tick is decided otherwise.
const EXIT_DIFFERS: i32 = 8;

impl Drop for Daemon {
    fn drop(&mut self) {
        let judged = self.replay && self.child.is_some() && !std::thread::panicking();
        let differs = if judged { self.replay() } else { None };
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        for pid in self.vmm_processes() {
            if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log());
        }
        if let Some(differs) = differs {
            panic!("what was recorded cannot be decided again: {differs}\nthe daemon's log:\n{}", self.log());
        }
    }
}
