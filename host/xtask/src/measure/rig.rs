//! A daemon of our own on the stand-in, with a set of as many instances as a measurement asks for.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::daemon::{Daemon, sweep};
use crate::effort::Effort;

/// Name of the set that is measured.
pub(crate) const SET: &str = "bench";

/// Name of a set that only has the same policy.
const NEIGHBOUR: &str = "neighbour";

/// What a guest is told: no time to boot, as this measures us and not the model.
pub(crate) const CMDLINE: &str = "console=ttyS0 sim.boot=0ms sim.shutdown=0ms sim.service=1ms";

/// The networks that the guests answer on: of the set that is measured, and of its neighbour.
const POOL: &str = "127.46.0.0/16";
const NEIGHBOURS_POOL: &str = "127.45.0.0/16";

/// Time between two probes of an instance.
const PROBE_EVERY: &str = "1s";

/// How long a set may take until all its instances serve.
const READY_LIMIT: Duration = Duration::from_secs(180);

/// Time between two looks at the set.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks for processes that are left.
const SWEEPS: usize = 20;

/// Where things are.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Directory with the binaries of Regatta.
    pub(crate) bin: PathBuf,
    /// Directory with the built policies.
    pub(crate) policies: PathBuf,
    /// Directory for logs.
    pub(crate) logs: PathBuf,
    /// How much is measured there.
    pub(crate) effort: Effort,
}

impl Place {
    /// The stand-in for the VMM.
    pub(crate) fn vmm(&self) -> PathBuf {
        self.bin.join("regatta-chsim")
    }
}

/// A daemon in a directory of its own. Dropping it ends the daemon and every VMM, and removes the directory.
pub(crate) struct Rig {
    /// The daemon.
    pub(crate) daemon: Daemon,
    // Before the directory, which its processes use.
    _processes: Processes,
    directory: TempDir,
}

/// How long it took from the begin of `regatta apply`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Applied {
    /// Until it was answered: the manifest is checked, its policy compiled, the set stored.
    pub(crate) accepted: Duration,
    /// Until all instances were in service.
    pub(crate) in_service: Duration,
}

/// The processes that use a data directory.
struct Processes {
    programs: Vec<PathBuf>,
    data: PathBuf,
}

impl Drop for Processes {
    fn drop(&mut self) {
        // A daemon that is being killed may have started another one since the last look.
        for _ in 0..SWEEPS {
            if sweep(&self.programs, &self.data) == 0 {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Rig {
    /// Starts a daemon; `name` is that of its log.
    pub(crate) async fn start(place: &Place, name: &str) -> Result<Self> {
        let directory = directory()?;
        images(directory.path())?;
        let data = directory.path().join("data");
        fs::create_dir(&data).with_context(|| format!("cannot make {}", data.display()))?;
        fs::create_dir_all(&place.logs).with_context(|| format!("cannot make {}", place.logs.display()))?;
        let programs = ["regatta", "regatta-chsim"].map(|program| place.bin.join(program));
        let programs = programs.into_iter().filter_map(|path| path.canonicalize().ok()).collect();
        let processes = Processes { programs, data: data.clone() };
        let binary = place.bin.join("regatta");
        let log = place.logs.join(format!("{name}.log"));
        let daemon = Daemon::start(&binary, directory.path(), &data, &log, "sim", None).await?;
        Ok(Self { daemon, _processes: processes, directory })
    }

    /// Applies a set of `instances`, and returns how long it took until all of them served.
    pub(crate) async fn apply(&self, instances: u32) -> Result<Applied> {
        self.apply_as(SET, POOL, instances, "1s").await
    }

    /// As [`Rig::apply`], with ticks of another length.
    pub(crate) async fn apply_with_tick(&self, instances: u32, tick: &str) -> Result<Applied> {
        self.apply_as(SET, POOL, instances, tick).await
    }

    /// Applies another set with the same policy, so that the policy is compiled.
    pub(crate) async fn apply_neighbour(&self) -> Result<Applied> {
        self.apply_as(NEIGHBOUR, NEIGHBOURS_POOL, 1, "1s").await
    }

    async fn apply_as(&self, name: &str, pool: &str, instances: u32, tick: &str) -> Result<Applied> {
        self.file("set.yaml", &manifest(name, pool, instances, tick))?;
        let start = Instant::now();
        self.daemon.cli(&["apply", "-f", "set.yaml"]).await?;
        let accepted = start.elapsed();
        loop {
            let set: Value = self.daemon.get(&format!("/v1/sets/{name}")).await?;
            let summary = &set["summary"];
            if summary["instances"]["in-service"].as_u64() == Some(instances.into()) {
                return Ok(Applied { accepted, in_service: start.elapsed() });
            }
            if start.elapsed() > READY_LIMIT {
                bail!("after {} s the set is {summary}", READY_LIMIT.as_secs());
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Writes a file for the command line to read.
    pub(crate) fn file(&self, name: &str, text: &str) -> Result<()> {
        let path = self.directory.path().join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// A directory with a short path: it holds Unix sockets, whose paths may be at most 107 bytes.
pub(crate) fn directory() -> Result<TempDir> {
    tempfile::Builder::new().prefix("regatta-bench-").tempdir().context("cannot make a directory")
}

/// Makes what guests start from: the stand-in reads neither.
pub(crate) fn images(directory: &Path) -> Result<()> {
    for (name, bytes) in [("golden.raw", 1 << 20), ("vmlinux", 1 << 12)] {
        let path = directory.join(name);
        fs::write(&path, vec![0; bytes]).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn manifest(name: &str, pool: &str, instances: u32, tick: &str) -> String {
    format!(
        "version: regatta/v1\nname: {name}\ntick: {tick}\n\
         capacity: {{ min: {instances}, max: {instances} }}\n\
         image: {{ disk: golden.raw, kernel: vmlinux, cmdline: \"{CMDLINE}\" }}\n\
         instance: {{ vcpus: 1, memory: 64MiB, boot_timeout: 120s }}\n\
         network: {{ mode: loopback, pool: {pool}, port: 8080 }}\n\
         health: {{ http: /healthz, interval: {PROBE_EVERY}, timeout: 1s, healthy_threshold: 1, unhealthy_threshold: 10 }}\n\
         metrics: [{{ name: utilization, series: guest_utilization }}]\n\
         policy: {{ module: target-tracking, params: {{ metric: utilization, target: 0.6 }} }}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_is_valid() {
        let manifest = manifest(SET, POOL, 200, "1s");
        let read = regatta_core::manifest::read_manifest(manifest.as_bytes(), "set.yaml", "/");
        let set = read.unwrap_or_else(|problems| panic!("{problems}\n{manifest}")).set;
        assert_eq!((set.name.as_str(), set.capacity.min, set.capacity.max), (SET, 200, 200));
    }
}
