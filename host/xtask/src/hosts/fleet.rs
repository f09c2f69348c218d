//! Instances by way of [`VmmHost`], as the daemon launches and stops them.

use std::fs::{self, Permissions};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use regatta_vmm::{
    BinaryRequest, BootSource, CgroupRoot, FailedLogs, GoldenImage, HostNetwork, ImageStore, InstanceDir,
    IsolatedNetwork, Isolation, IsolationOptions, LaunchSpec, NetworkSpec, OverlayKind, RootDisk, Seed,
    StartFrom, StartLimiter, Vmm, VmmBinary, VmmHost,
};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Longer than any launch takes.
const BOOT_LIMIT: Duration = Duration::from_secs(60);

const IMAGE_BYTES: usize = 1 << 20;

/// Below the data directory; the name is short, as Unix sockets lie in it.
const INSTANCES: &str = "i";

/// A host without instances.
pub(crate) struct Fleet {
    host: VmmHost,
    image: GoldenImage,
    data: PathBuf,
}

impl Fleet {
    /// Everything that is there before the first instance.
    pub(crate) async fn new(vmm: &Path, data: &Path, cgroup: Option<&Path>) -> Result<Self> {
        // VMMs have users of their own, who must get through.
        fs::set_permissions(data, Permissions::from_mode(0o711)).context("cannot change the directory")?;
        fs::create_dir(data.join(INSTANCES)).context("cannot make a directory")?;
        fs::write(data.join("vmlinux"), vec![0; 4096]).context("cannot write a kernel")?;
        fs::write(data.join("golden.raw"), vec![1; IMAGE_BYTES]).context("cannot write an image")?;
        let store = ImageStore::open(&data.join("images"))?;
        let image = store.import(&data.join("golden.raw"), None).await?;
        let (binary, _) = VmmBinary::resolve(&BinaryRequest::Path(vmm.to_owned()))?;
        let cgroups = match cgroup {
            Some(dir) => CgroupRoot::at(dir),
            None => Err("there is no cgroup v2 here".to_owned()),
        };
        let isolation = Isolation::detect(IsolationOptions::default(), &cgroups);
        let failed = FailedLogs::new(&data.join("failed"), 5, 5);
        // How many are launched at once is for the caller to say.
        let host = VmmHost::new(
            binary,
            cgroups.ok(),
            failed,
            StartLimiter::new(Semaphore::MAX_PERMITS),
            HostNetwork::new(data),
        );
        Ok(Self { host: host.with_isolation(isolation), image, data: data.to_owned() })
    }

    /// The measures that VMMs do without, and why.
    pub(crate) fn containment(&self) -> Vec<String> {
        let host = self.host.isolation().host(true);
        host.missing().map(|(measure, why)| format!("{measure}: {why}")).collect()
    }

    /// Launches `count` instances, `at_once` at a time; returns how long it took until the last one's VM was booted.
    pub(crate) async fn launch(&self, count: u8, at_once: usize) -> Result<(Duration, Vec<Vmm>)> {
        self.launch_from(0, count, at_once).await
    }

    /// The same with instances that are numbered from `first` on.
    pub(crate) async fn launch_from(
        &self,
        first: u8,
        count: u8,
        at_once: usize,
    ) -> Result<(Duration, Vec<Vmm>)> {
        let specs: Vec<LaunchSpec> =
            (first..first + count).map(|number| self.spec(number)).collect::<Result<_>>()?;
        let turns = Arc::new(Semaphore::new(at_once));
        let start = Instant::now();
        let mut launching = JoinSet::new();
        for spec in specs {
            let turn = Arc::clone(&turns).acquire_owned().await?;
            let host = self.host.clone();
            launching.spawn(async move {
                let launched = host.launch(&spec).await;
                drop(turn);
                launched
            });
        }
        let mut vmms = Vec::new();
        while let Some(launched) = launching.join_next().await {
            vmms.push(launched??);
        }
        Ok((start.elapsed(), vmms))
    }

    /// Stops instances, `at_once` at a time, and waits until all that was made for them is gone.
    pub(crate) async fn stop(vmms: Vec<Vmm>, at_once: usize) -> Result<Duration> {
        let turns = Arc::new(Semaphore::new(at_once));
        let start = Instant::now();
        let mut stopping = JoinSet::new();
        for vmm in vmms {
            let turn = Arc::clone(&turns).acquire_owned().await?;
            stopping.spawn(async move {
                let stopped = vmm.stop(Duration::ZERO).await;
                drop(turn);
                stopped
            });
        }
        while let Some(stopped) = stopping.join_next().await {
            stopped??;
        }
        Ok(start.elapsed())
    }

    fn spec(&self, number: u8) -> Result<LaunchSpec> {
        let id = format!("bench-{number}");
        let address = Ipv4Addr::new(10, 213, 0, 1 + number);
        Ok(LaunchSpec {
            identity: None,
            dir: InstanceDir::new(&self.data.join(INSTANCES), "bench", &id)?,
            vcpus: 1,
            memory_bytes: 128 << 20,
            boot: BootSource::Kernel {
                kernel: self.data.join("vmlinux"),
                initramfs: None,
                // This measures us and not the model of a guest.
                cmdline: "console=ttyS0 sim.boot=0ms".to_owned(),
            },
            root: Some(RootDisk { image: self.image.clone(), overlay: OverlayKind::Qcow2, size_bytes: None }),
            data_disks: Vec::new(),
            shared_disks: Vec::new(),
            seed: Some(Seed {
                meta_data: format!("instance-id: {id}\nlocal-hostname: {id}\n"),
                user_data: "#cloud-config\n".to_owned(),
                network_config: Some("version: 2\n".to_owned()),
            }),
            smbios: None,
            start: StartFrom::Boot,
            network: NetworkSpec::Isolated(IsolatedNetwork {
                address,
                guest: Ipv4Addr::new(10, 88, 0, 2),
                prefix: 24,
                gateway: Ipv4Addr::new(10, 88, 0, 1),
                mac: format!("52:54:00:00:00:{number:02x}"),
                outbound: None,
                published: false,
            }),
            require_isolation: false,
            boot_timeout: BOOT_LIMIT,
            keep_failed_logs: false,
            id,
        })
    }
}
