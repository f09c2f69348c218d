//! What there is of instances on this host, counted by asking the kernel and not by asking Regatta.
//!
//! This process is the first of a PID namespace: `/proc` shows only what it started, so all of it is to be gone at the end.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::Value;

/// The name of the tap in every isolated network.
const TAP: &str = "rg-tap";

/// The kernel takes namespaces apart in the background.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How many there are of each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Present {
    /// Network namespaces with a process, a mount or a descriptor of ours.
    pub(crate) namespaces: usize,
    /// Interfaces in our own one.
    pub(crate) interfaces: usize,
    /// Taps in all of them.
    pub(crate) taps: usize,
    /// Tables, chains, rules, sets and elements of nftables in our own one.
    pub(crate) rules: usize,
    /// Files and directories below the data directory.
    pub(crate) files: usize,
    /// Below the one that we were given.
    pub(crate) cgroups: usize,
    /// All of this PID namespace.
    pub(crate) processes: usize,
}

impl Present {
    /// Counts.
    pub(crate) fn count(data: &Path, cgroup: Option<&Path>) -> Result<Self> {
        let processes = processes()?;
        let (mut namespaces, mut taps) = (BTreeSet::new(), 0);
        for process in &processes {
            for namespace in namespaces_of(process) {
                if namespaces.insert(namespace) {
                    taps += interfaces(&fs::read_to_string(format!("{process}/net/dev")).unwrap_or_default())
                        .filter(|name| *name == TAP)
                        .count();
                }
            }
        }
        namespaces.extend(kept_namespaces(&processes)?);
        let own = fs::read_to_string("/proc/self/net/dev").context("cannot read the interfaces")?;
        Ok(Self {
            namespaces: namespaces.len(),
            interfaces: interfaces(&own).count(),
            taps,
            rules: rules()?,
            files: below(data, |_| true)?,
            cgroups: cgroup.map_or(Ok(0), |dir| below(dir, fs::FileType::is_dir))?,
            processes: processes.len(),
        })
    }

    /// Counts again until there is no more than `before`, or for ten seconds; how long that took.
    pub(crate) fn settled(before: &Self, count: impl Fn() -> Result<Self>) -> Result<(Self, Duration)> {
        let start = Instant::now();
        loop {
            let now = count()?;
            if now.beyond(before).is_empty() || start.elapsed() > SETTLE_LIMIT {
                return Ok((now, start.elapsed()));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// What there is more of than before, in words.
    pub(crate) fn beyond(&self, before: &Self) -> Vec<String> {
        let kinds = [
            ("namespaces", self.namespaces, before.namespaces),
            ("interfaces", self.interfaces, before.interfaces),
            ("taps", self.taps, before.taps),
            ("rules", self.rules, before.rules),
            ("files", self.files, before.files),
            ("cgroups", self.cgroups, before.cgroups),
            ("processes", self.processes, before.processes),
        ];
        let more = kinds.into_iter().filter(|(_, now, before)| now > before);
        more.map(|(kind, now, before)| format!("{} {kind}", now - before)).collect()
    }
}

/// Directories of the processes in `/proc`.
fn processes() -> Result<Vec<String>> {
    let entries = fs::read_dir("/proc").context("cannot read /proc")?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .map(|name| format!("/proc/{name}"))
        .collect())
}

/// Those of all threads of a process; none of one that has ended.
fn namespaces_of(process: &str) -> BTreeSet<u64> {
    let threads = fs::read_dir(format!("{process}/task")).into_iter().flatten().flatten();
    threads.filter_map(|thread| Some(fs::metadata(thread.path().join("ns/net")).ok()?.ino())).collect()
}

/// Those that a mount or an open descriptor keeps.
fn kept_namespaces(processes: &[String]) -> Result<BTreeSet<u64>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read the mounts")?;
    let mut kept: BTreeSet<u64> = mounts.lines().filter_map(|line| number(line.split(' ').nth(3)?)).collect();
    for process in processes {
        let open = fs::read_dir(format!("{process}/fd")).into_iter().flatten().flatten();
        let targets = open.filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
        kept.extend(targets.filter_map(|target| number(target.to_str()?)));
    }
    Ok(kept)
}

/// The number in `net:[4026531840]`.
fn number(name: &str) -> Option<u64> {
    name.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

/// Names in `/proc/net/dev`, but for the loopback interface.
fn interfaces(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, _)| name.trim())
        .filter(|name| *name != "lo")
}

fn rules() -> Result<usize> {
    let output = Command::new("nft").args(["-j", "list", "ruleset"]).output().context("cannot run nft")?;
    ensure!(output.status.success(), "nft: {}", String::from_utf8_lossy(&output.stderr).trim());
    count_rules(&output.stdout)
}

fn count_rules(listed: &[u8]) -> Result<usize> {
    let listed: Value = serde_json::from_slice(listed).context("nft printed no JSON")?;
    let objects = listed["nftables"].as_array().context("nft printed something else")?;
    let elements = |object: &Value| object["set"]["elem"].as_array().map_or(0, Vec::len);
    let real = objects.iter().filter(|object| object.get("metainfo").is_none());
    Ok(real.map(|object| 1 + elements(object)).sum())
}

/// Entries below a directory.
fn below(dir: &Path, counted: impl Fn(&fs::FileType) -> bool + Copy) -> Result<usize> {
    let entries = match fs::read_dir(dir) {
        // It went while we looked.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        other => other.with_context(|| format!("cannot read {}", dir.display()))?,
    };
    let mut count = 0;
    for entry in entries {
        let entry = entry?;
        let kind = entry.file_type()?;
        count += usize::from(counted(&kind));
        if kind.is_dir() {
            count += below(&entry.path(), counted)?;
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nft_lists_is_counted_with_the_elements() {
        let listed = br#"{"nftables": [{"metainfo": {"version": "1.0.6"}}, {"table": {"name": "t"}},
            {"set": {"name": "links", "elem": ["a", "b"]}}, {"set": {"name": "none"}}, {"rule": {"expr": []}}]}"#;
        assert_eq!(count_rules(listed).expect("counted"), 6);
        assert!(count_rules(b"{}").is_err());
    }

    #[test]
    fn more_than_before_is_told_by_kind_and_less_is_not() {
        let some = |files, taps| Present {
            namespaces: 1,
            interfaces: 0,
            taps,
            rules: 0,
            files,
            cgroups: 0,
            processes: 1,
        };
        assert_eq!(some(7, 2).beyond(&some(4, 0)), ["2 taps", "3 files"]);
        assert_eq!(some(3, 0).beyond(&some(4, 0)), [""; 0]);
    }

    #[test]
    fn names_in_proc_are_read() {
        assert_eq!(number("net:[4026531840]"), Some(4_026_531_840));
        assert_eq!(number("mnt:[4026531840]"), None);
        let text = "Inter-|\n face |bytes\n    lo: 1 2\nrg-tap: 0 0\n";
        assert_eq!(interfaces(text).collect::<Vec<_>>(), [TAP]);
    }

    #[test]
    fn entries_are_counted_at_every_depth() {
        let dir = std::env::temp_dir().join(format!("xtask-present-{}", std::process::id()));
        fs::create_dir_all(dir.join("a/b")).expect("directories");
        fs::write(dir.join("a/b/c"), "").expect("a file");
        let counts = (below(&dir, |_| true), below(&dir, fs::FileType::is_dir));
        fs::remove_dir_all(&dir).expect("clean");
        assert_eq!((counts.0.expect("all"), counts.1.expect("directories")), (3, 2));
        assert_eq!(below(&dir, |_| true).expect("gone"), 0);
    }
}
