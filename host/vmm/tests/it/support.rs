//! A data directory with everything a launch needs, and waiting on conditions.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use regatta_vmm::{
    BinaryRequest, BootSource, FailedLogs, HostNetwork, InstanceDir, Isolation, IsolationOptions, LaunchSpec,
    NetworkSpec, OverlayKind, RootDisk, StartFrom, StartLimiter, VmmBinary, VmmHost,
};

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The VMM under test, by `REGATTA_BIN_DIR`, else beside the test programs of this build.
pub(crate) fn vmm_binary() -> VmmBinary {
    let path = match (std::env::var_os("CLOUD_HYPERVISOR"), std::env::var_os("REGATTA_BIN_DIR")) {
        (Some(path), _) => PathBuf::from(path),
        (None, Some(dir)) => PathBuf::from(dir).join("regatta-chsim"),
        (None, None) => {
            let test = std::env::current_exe().expect("own program");
            let target = test.ancestors().nth(2).expect("target directory");
            target.join("regatta-chsim")
        }
    };
    assert!(path.exists(), "{} is missing: build it first (cargo build -p regatta-chsim)", path.display());
    VmmBinary::resolve(&BinaryRequest::Path(path)).expect("a usable VMM").0
}

pub(crate) struct Data {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) host: VmmHost,
}

impl Data {
    pub(crate) fn new() -> Self {
        Self::with(vmm_binary())
    }

    pub(crate) fn with(binary: VmmBinary) -> Self {
        let dir = data_dir();
        let host = host(binary, dir.path());
        std::fs::write(dir.path().join("kernel"), kernel()).expect("kernel");
        Self { dir, host }
    }

    /// A VMM that is a shell script: says its version, else runs `body`.
    pub(crate) fn scripted(body: &str) -> Self {
        let data = data_dir();
        let path = data.path().join("vmm.sh");
        let script = format!("#!/bin/sh\n[ \"$1\" = --version ] && echo fake v53.0 && exit\n{body}\n");
        write_program(&path, &script);
        let binary = VmmBinary::resolve(&BinaryRequest::Path(path)).expect("script runs").0;
        let host = host(binary, data.path());
        std::fs::write(data.path().join("kernel"), kernel()).expect("kernel");
        Self { dir: data, host }
    }

    /// The host as a restarted daemon has it.
    pub(crate) fn restarted(&self) -> VmmHost {
        host(self.host.binary().clone(), self.path())
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn instances(&self) -> PathBuf {
        self.path().join("i")
    }

    pub(crate) fn instance(&self, id: &str) -> InstanceDir {
        InstanceDir::new(&self.instances(), "set", id).expect("dir")
    }

    pub(crate) fn spec(&self, id: &str) -> LaunchSpec {
        spec(self.path(), &self.instances(), id)
    }

    /// A golden image of 1 MiB, and a root disk of the given kind on it.
    pub(crate) async fn root(&self, overlay: OverlayKind) -> RootDisk {
        let source = self.path().join("golden.raw");
        if !source.exists() {
            std::fs::write(&source, vec![1; 1 << 20]).expect("image");
        }
        let store = regatta_vmm::ImageStore::open(&self.path().join("images")).expect("store");
        let image = store.import(&source, None).await.expect("imported");
        RootDisk { image, overlay, size_bytes: None }
    }

    /// The VMMs that run for instances in this data directory, without a store that knows any.
    pub(crate) fn discover(&self) -> Vec<regatta_vmm::FoundVmm> {
        self.host.discover(&self.instances(), |_| None).expect("discovered")
    }

    /// Process ids of the VMMs that run for instances in this data directory.
    pub(crate) fn running(&self) -> Vec<i32> {
        let found = self.discover();
        found.into_iter().map(|vmm| vmm.identity.pid).collect()
    }

    /// Names of what was kept of failed instances.
    pub(crate) fn failures(&self) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(self.path().join("failed")) else {
            return Vec::new();
        };
        entries.map(|entry| entry.expect("entry").path()).collect()
    }
}

impl Drop for Data {
    /// A failing test must not leave VMMs behind.
    fn drop(&mut self) {
        for pid in self.running() {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

/// Writes an executable file by way of another process: if this one had it open for writing while another thread starts a process, it
/// could not be run for a moment (ETXTBSY).
fn write_program(path: &Path, text: &str) {
    use std::io::Write;
    let mut shell = std::process::Command::new("sh")
        .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
        .arg(path)
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("shell");
    shell.stdin.take().expect("stdin").write_all(text.as_bytes()).expect("write");
    assert!(shell.wait().expect("shell").success());
}

/// A directory that VMMs with users of their own can get through, as the daemon makes its data directory.
fn data_dir() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("temp dir");
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).expect("mode");
    dir
}

/// Contains its VMMs as far as this machine lets it: every test shows that they work that way.
fn host(binary: VmmBinary, data: &Path) -> VmmHost {
    let failed = FailedLogs::new(&data.join("failed"), 5, 5);
    VmmHost::new(binary, None, failed, StartLimiter::default(), HostNetwork::new(data))
        .with_isolation(isolation())
}

pub(crate) fn isolation() -> Isolation {
    let mut options = IsolationOptions::default();
    // The stand-in opens no such device, so it does not matter who may; a real VMM does.
    if std::env::var_os("CLOUD_HYPERVISOR").is_none() {
        options.kvm = "/nonexistent".into();
    }
    Isolation::detect(options, &Err("the test asked for none".to_owned()))
}

pub(crate) fn spec(data: &Path, instances: &Path, id: &str) -> LaunchSpec {
    LaunchSpec {
        identity: None,
        id: id.to_owned(),
        dir: InstanceDir::new(instances, "set", id).expect("dir"),
        start: StartFrom::Boot,
        vcpus: 1,
        memory_bytes: 128 << 20,
        boot: BootSource::Kernel {
            kernel: data.join("kernel"),
            initramfs: None,
            cmdline: "console=ttyS0".to_owned(),
        },
        root: None,
        data_disks: Vec::new(),
        shared_disks: Vec::new(),
        seed: None,
        smbios: None,
        network: NetworkSpec::Host,
        require_isolation: false,
        boot_timeout: PATIENCE,
        keep_failed_logs: true,
    }
}

/// Enough of a bzImage to be taken for a kernel.
fn kernel() -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    bytes[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    bytes[0x202..0x206].copy_from_slice(b"HdrS");
    bytes[0x206..0x208].copy_from_slice(&0x020c_u16.to_le_bytes());
    bytes
}

/// Waits until `check` returns a value, or fails with what `what` says.
pub(crate) async fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn signal(pid: i32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid).expect("pid");
    rustix::process::kill_process(pid, signal).expect("signal");
}

/// One request on a VMM's socket, past our own client; the status.
pub(crate) fn raw_put(socket: &Path, call: &str, body: &str) -> u16 {
    use std::io::{Read, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(socket).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("time-out");
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    write!(stream, "PUT /api/v1/{call} HTTP/1.1\r\nHost: x\r\n{length}\r\n{body}").expect("write");
    let mut head = [0; 12];
    stream.read_exact(&mut head).expect("read");
    std::str::from_utf8(&head[9..]).expect("utf-8").parse().expect("status")
}
