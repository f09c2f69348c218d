//! Debian's packages, downloaded and unpacked beside the machine's own: apt runs with its own lists and cache, and
//! nothing else of the machine changes. Needs no privilege.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use regatta_util::program::on_path;

use crate::proc;

/// Where Debian keeps the archive's keys.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// How long a download of lists may take: a blocked network must not block for ever.
const UPDATE_LIMIT: Duration = Duration::from_secs(180);

/// apt with its own lists and cache, and the machine's mirror and proxy settings.
pub(crate) struct Apt {
    root: PathBuf,
    mirrors: Vec<String>,
}

impl Apt {
    /// Keeps everything below `scratch`.
    pub(crate) fn create(scratch: &Path) -> Result<Self> {
        for tool in ["apt-get", "apt-cache", "dpkg-deb", "tar"] {
            ensure!(on_path(tool).is_some(), "there is no {tool} on PATH");
        }
        let root = scratch.join("apt");
        for directory in ["lists/partial", "cache/archives/partial", "deb"] {
            fs::create_dir_all(root.join(directory))?;
        }
        let mut command = Command::new("apt-get");
        command.args(["indextargets", "--format", "$(REPO_URI) $(RELEASE)"]);
        let targets = String::from_utf8(proc::capture(&mut command)?)?;
        let mirrors = mirrors(&targets);
        ensure!(!mirrors.is_empty(), "the apt configuration names no Debian mirror");
        Ok(Self { root, mirrors })
    }

    /// What `look` finds in the lists of the first suite that has it, on the likeliest mirror.
    pub(crate) fn search<T>(&self, suites: &[&str], look: impl Fn() -> Result<Option<T>>) -> Result<T> {
        let mut failures = Vec::new();
        for mirror in &self.mirrors {
            for suite in suites {
                match self.update(mirror, suite) {
                    Err(error) => failures.push(format!("{suite}: {error:#}")),
                    Ok(()) => match look()? {
                        Some(found) => return Ok(found),
                        None => continue,
                    },
                }
            }
        }
        bail!("asked {}\n{}", suites.join(", "), failures.join("\n"))
    }

    /// Fetches the lists of one suite, in place of those before.
    fn update(&self, mirror: &str, suite: &str) -> Result<()> {
        let signed =
            if Path::new(KEYRING).is_file() { format!("[signed-by={KEYRING}] ") } else { String::new() };
        fs::write(self.root.join("sources.list"), format!("deb {signed}{mirror} {suite} main\n"))?;
        let mut update = self.command("apt-get");
        update.args(["--quiet=2", "update"]);
        proc::limited(&mut update, UPDATE_LIMIT)
    }

    /// The table of `apt-cache madison`: `name | version | source` per line.
    pub(crate) fn versions(&self, package: &str) -> Result<String> {
        self.ask(&["madison", package])
    }

    /// What a binary package depends on, as `apt-cache depends` prints it.
    pub(crate) fn dependencies(&self, package: &str) -> Result<String> {
        self.ask(&["depends", "--no-recommends", "--no-suggests", package])
    }

    fn ask(&self, question: &[&str]) -> Result<String> {
        let mut command = self.command("apt-cache");
        command.args(question);
        Ok(String::from_utf8(proc::capture(&mut command)?)?)
    }

    /// Downloads a package (`name` or `name=version`); returns the file.
    pub(crate) fn download(&self, package: &str) -> Result<PathBuf> {
        let deb = self.root.join("deb");
        let mut download = self.command("apt-get");
        download.args(["--quiet=2", "download", package]).current_dir(&deb);
        proc::capture(&mut download)?;
        only_entry(&deb)
    }

    /// A command of apt that sees only this object's lists.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let root = self.root.display();
        for option in [
            format!("Dir::Etc::sourcelist={root}/sources.list"),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            format!("Dir::State::lists={root}/lists"),
            "Dir::State::status=/dev/null".to_owned(),
            format!("Dir::Cache={root}/cache"),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            "Acquire::IndexTargets::deb::CNF::DefaultEnabled=false".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        // The sandbox user of apt cannot write to a private directory.
        if proc::is_root() {
            command.args(["-o", "APT::Sandbox::User=root"]);
        }
        command.env("LC_ALL", "C");
        command
    }
}

/// Unpacks what matches the patterns (of `tar --wildcards`) into `to`, which is made.
pub(crate) fn extract(package: &Path, to: &Path, patterns: &[&str]) -> Result<()> {
    fs::create_dir_all(to)?;
    let mut unpacker = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start dpkg-deb")?;
    let stream = unpacker.stdout.take().context("stdout was piped")?;
    let mut tar = Command::new("tar");
    // -C only counts for the patterns after it.
    tar.args(["-x", "--wildcards", "-C"]).arg(to).args(patterns).stdin(stream);
    proc::run(&mut tar)?;
    let status = unpacker.wait()?;
    ensure!(status.success(), "dpkg-deb failed: {status}");
    Ok(())
}

/// The one entry of a directory.
pub(crate) fn only_entry(directory: &Path) -> Result<PathBuf> {
    let mut entries = fs::read_dir(directory)
        .with_context(|| format!("cannot read {}", directory.display()))?
        .collect::<std::io::Result<Vec<_>>>()?;
    match (entries.pop(), entries.is_empty()) {
        (Some(entry), true) => Ok(entry.path()),
        _ => bail!("expected exactly one entry in {}", directory.display()),
    }
}

/// Mirrors of the main archive from `URI RELEASE` lines, those that end in `/debian/` first.
/// The security archive has no other suites than its own.
fn mirrors(targets: &str) -> Vec<String> {
    let uris: BTreeSet<&str> = targets
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(_, release)| !release.ends_with("-security"))
        .map(|(uri, _)| uri)
        .collect();
    let (main, other): (Vec<&str>, Vec<&str>) =
        uris.into_iter().partition(|uri| uri.trim_end_matches('/').ends_with("/debian"));
    main.into_iter().chain(other).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_leave_out_the_security_archive() {
        let targets = "http://mirror.example/debian-security/ bookworm-security\n\
             http://mirror.example/extra/ stable\n\
             http://mirror.example/debian/ bookworm\n\
             http://mirror.example/debian/ bookworm-updates\n";
        assert_eq!(mirrors(targets), ["http://mirror.example/debian/", "http://mirror.example/extra/"]);
        assert!(mirrors("").is_empty());
    }
}
