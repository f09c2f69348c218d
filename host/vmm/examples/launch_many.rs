//! Measures what launching through this crate costs over the barest loop that starts and boots the same VMMs.
//!
//! `cargo run --release -p regatta-vmm --example launch_many -- /path/to/regatta-chsim 200` prints one line of JSON.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use regatta_vmm::{
    BinaryRequest, BootSource, FailedLogs, HostNetwork, ImageStore, InstanceDir, LaunchSpec, NetworkSpec,
    OverlayKind, RootDisk, StartFrom, StartLimiter, VmmBinary, VmmHost,
};

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let vmm = PathBuf::from(args.next().expect("usage: launch_many VMM [COUNT]"));
    let count: usize = args.next().map_or(200, |text| text.parse().expect("a number"));
    let data = tempfile::tempdir().expect("temp dir");
    std::fs::write(data.path().join("kernel"), vec![0; 4096]).expect("kernel");
    std::fs::write(data.path().join("golden.raw"), vec![0; 1 << 20]).expect("image");

    let bare = bare_loop(&vmm, data.path(), count);
    let launched = launch_all(&vmm, data.path(), count).await;
    println!(
        r#"{{"count":{count},"bare_loop_ms":{},"launch_ms":{},"ratio":{:.3}}}"#,
        bare.as_millis(),
        launched.as_millis(),
        launched.as_secs_f64() / bare.as_secs_f64()
    );
}

async fn launch_all(vmm: &Path, data: &Path, count: usize) -> Duration {
    let binary = VmmBinary::resolve(&BinaryRequest::Path(vmm.to_path_buf())).expect("VMM").0;
    let failed = FailedLogs::new(&data.join("failed"), 5);
    let host = VmmHost::new(binary, None, failed, StartLimiter::default(), HostNetwork::new(data));
    let store = ImageStore::open(&data.join("images")).expect("store");
    let image = store.import(&data.join("golden.raw"), None).await.expect("image");

    let start = Instant::now();
    let launches: Vec<_> = (0..count)
        .map(|number| {
            let id = format!("i{number}");
            let spec = LaunchSpec {
                identity: None,
                dir: InstanceDir::new(&data.join("i"), "set", &id).expect("dir"),
                id,
                start: StartFrom::Boot,
                vcpus: 1,
                memory_bytes: 128 << 20,
                boot: BootSource::Kernel {
                    kernel: data.join("kernel"),
                    initramfs: None,
                    cmdline: String::new(),
                },
                root: Some(RootDisk { image: image.clone(), overlay: OverlayKind::Qcow2, size_bytes: None }),
                data_disks: Vec::new(),
                shared_disks: Vec::new(),
                seed: None,
                smbios: None,
                network: NetworkSpec::None,
                require_isolation: false,
                boot_timeout: Duration::from_secs(60),
                keep_failed_logs: false,
            };
            let host = host.clone();
            tokio::spawn(async move { host.launch(&spec).await })
        })
        .collect();
    let mut vmms = Vec::new();
    for launch in launches {
        vmms.push(launch.await.expect("task").expect("launched"));
    }
    let took = start.elapsed();
    for vmm in vmms {
        vmm.stop(Duration::ZERO).await.expect("stopped");
    }
    took
}

fn bare_loop(vmm: &Path, data: &Path, count: usize) -> Duration {
    let start = Instant::now();
    let running: Vec<Bare> = (0..count).map(|number| Bare::boot(vmm, data, number)).collect();
    let took = start.elapsed();
    drop(running);
    took
}

struct Bare(Child);

impl Bare {
    fn boot(vmm: &Path, data: &Path, number: usize) -> Self {
        let socket = data.join(format!("bare{number}.sock"));
        let child = Command::new(vmm)
            .arg("--api-socket")
            .arg(&socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("VMM");
        let mut stream = loop {
            match UnixStream::connect(&socket) {
                Ok(stream) => break stream,
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        let kernel = data.join("kernel");
        let body = format!(r#"{{"payload":{{"kernel":"{}"}},"console":{{"mode":"Off"}}}}"#, kernel.display());
        put(&mut stream, "vm.create", &body);
        put(&mut stream, "vm.boot", "");
        Self(child)
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn put(stream: &mut UnixStream, call: &str, body: &str) {
    let length = body.len();
    write!(stream, "PUT /api/v1/{call} HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{body}").expect("write");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("read");
        answer.push(byte[0]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 204"), "{call}: {}", String::from_utf8_lossy(&answer));
}
