//! Which VMM program runs the instances. Nothing else in the code depends on which one it is.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use regatta_util::program;

const REAL: &str = "cloud-hypervisor";
const STAND_IN: &str = "regatta-chsim";
/// The oldest release that works: it made "guest power-off ends the process" the default.
const OLDEST_MAJOR: u32 = 52;
/// The first release that restores memory on demand.
const ON_DEMAND_MAJOR: u32 = 53;
const VERSION_WITHIN: Duration = Duration::from_secs(10);
const VERSION_LIMIT_BYTES: u64 = 4096;

/// A VMM program that was found to work with us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmmBinary {
    path: PathBuf,
    version: String,
}

/// Which program the operator asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum BinaryRequest {
    /// Whatever this host can run.
    #[default]
    Auto,
    /// This one.
    Path(PathBuf),
}

/// No usable VMM program.
#[derive(Debug, thiserror::Error)]
pub enum BinaryError {
    /// Neither program is there.
    #[error("no VMM found: {}; install {REAL}, or put {STAND_IN} beside this program or on PATH", tried.join("; "))]
    NotFound {
        /// What was tried, in words.
        tried: Vec<String>,
    },
    /// The program does not run.
    #[error("cannot run {} --version", path.display())]
    Run {
        /// The program.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It runs, but does not say a version.
    #[error("{} does not look like a VMM: --version says \"{said}\"", path.display())]
    NotAVmm {
        /// The program.
        path: PathBuf,
        /// What it said, at most 200 characters.
        said: String,
    },
    /// It is too old.
    #[error("{} is version {version}; {OLDEST_MAJOR} or later is needed", path.display())]
    TooOld {
        /// The program.
        path: PathBuf,
        /// Its version.
        version: String,
    },
}

impl VmmBinary {
    /// Finds the program: the one asked for; else `cloud-hypervisor` on PATH if /dev/kvm can be used; else the stand-in, beside our own
    /// program or on PATH. Returns it with the reason for the choice, in words for people. Runs it once to learn its version. Blocking.
    ///
    /// # Errors
    /// None is there, or the one chosen does not run or is too old. A program that was asked for is never replaced by another.
    pub fn resolve(request: &BinaryRequest) -> Result<(Self, String), BinaryError> {
        let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_path_buf()));
        let search = Search { path: std::env::var_os("PATH").unwrap_or_default(), beside, kvm: kvm_usable() };
        let (path, why) = search.choose(request)?;
        let version = ask_version(&path)?;
        Ok((Self { path, version }, why))
    }

    /// The program.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it can fault in the memory of a restored VM; earlier ones ignore the wish.
    pub(crate) fn restores_on_demand(&self) -> bool {
        parse_version(&self.version).is_some_and(|(major, _)| major >= ON_DEMAND_MAJOR)
    }

    /// Whether it is the simulator, whose guests are a model.
    #[must_use]
    pub fn is_simulator(&self) -> bool {
        self.path.file_name().is_some_and(|name| name == STAND_IN)
    }

    /// Its version as it tells it, such as `53.0`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }
}

/// Where to look; apart from [`VmmBinary::resolve`] for tests.
struct Search {
    path: std::ffi::OsString,
    beside: Option<PathBuf>,
    /// Whether KVM can be used, or why not.
    kvm: Result<(), String>,
}

impl Search {
    fn choose(&self, request: &BinaryRequest) -> Result<(PathBuf, String), BinaryError> {
        if let BinaryRequest::Path(path) = request {
            let path = std::path::absolute(path)
                .map_err(|source| BinaryError::Run { path: path.clone(), source })?;
            let why = format!("{}: asked for", path.display());
            return Ok((path, why));
        }
        let mut tried = Vec::new();
        let real = program::find(&self.path, REAL);
        match (&real, &self.kvm) {
            (Some(path), Ok(())) => {
                return Ok((
                    path.clone(),
                    format!("{}: found on PATH, and /dev/kvm is usable", path.display()),
                ));
            }
            (Some(path), Err(why)) => tried.push(format!("{} is there, but {why}", path.display())),
            (None, Ok(())) => tried.push(format!("/dev/kvm is usable, but there is no {REAL} on PATH")),
            (None, Err(why)) => tried.push(format!("there is no {REAL} on PATH, and {why}")),
        }
        let beside =
            self.beside.as_ref().map(|dir| dir.join(STAND_IN)).filter(|path| program::is_program(path));
        match beside.or_else(|| program::find(&self.path, STAND_IN)) {
            Some(path) => {
                let why = format!("{}: the simulated VMM, because {}", path.display(), tried.join("; "));
                Ok((path, why))
            }
            None => {
                tried.push(format!("there is no {STAND_IN}"));
                Err(BinaryError::NotFound { tried })
            }
        }
    }
}

/// Opening it is the only sure test: permissions, device policy and missing hardware all show there.
fn kvm_usable() -> Result<(), String> {
    match File::options().read(true).write(true).open("/dev/kvm") {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("/dev/kvm is not usable ({error})")),
    }
}

fn ask_version(path: &Path) -> Result<String, BinaryError> {
    let run_error = |source| BinaryError::Run { path: path.to_path_buf(), source };
    let mut child = Command::new(path)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(run_error)?;
    let deadline = Instant::now() + VERSION_WITHIN;
    loop {
        match child.try_wait().map_err(run_error)? {
            Some(_) => break,
            None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
            None => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(run_error(io::Error::new(io::ErrorKind::TimedOut, "no answer within 10 s")));
            }
        }
    }
    let mut said = Vec::new();
    if let Some(output) = child.stdout.take() {
        use std::io::Read;
        output.take(VERSION_LIMIT_BYTES).read_to_end(&mut said).map_err(run_error)?;
    }
    let said = String::from_utf8_lossy(&said);
    let not_a_vmm =
        || BinaryError::NotAVmm { path: path.to_path_buf(), said: said.trim().chars().take(200).collect() };
    let (major, version) = parse_version(&said).ok_or_else(not_a_vmm)?;
    if major < OLDEST_MAJOR {
        return Err(BinaryError::TooOld { path: path.to_path_buf(), version });
    }
    Ok(version)
}

/// Finds `v53.0`, `53.0.0` or `v53.0-12-gabcdef` among the words, and returns the major number and the version without its `v`.
fn parse_version(said: &str) -> Option<(u32, String)> {
    said.split_whitespace().find_map(|word| {
        let version = word.strip_prefix('v').unwrap_or(word);
        let (major, rest) = version.split_once('.')?;
        rest.starts_with(|c: char| c.is_ascii_digit()).then_some(())?;
        Some((major.parse().ok()?, version.to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    /// Written by another process: a file that this one has open for writing while a parallel test forks cannot be run (ETXTBSY).
    fn program(dir: &Path, name: &str, script: &str) -> PathBuf {
        let path = dir.join(name);
        let written = Command::new("sh")
            .args(["-c", "printf '#!/bin/sh\\n%s\\n' \"$1\" > \"$0\" && chmod 755 \"$0\""])
            .args([path.as_os_str(), OsStr::new(script)])
            .status();
        assert!(written.expect("shell").success());
        path
    }

    fn search(path: &Path, beside: &Path, kvm: bool) -> Search {
        Search {
            path: OsStr::new(path).to_owned(),
            beside: Some(beside.to_path_buf()),
            kvm: if kvm { Ok(()) } else { Err("/dev/kvm is not usable (no such device)".to_owned()) },
        }
    }

    #[test]
    fn versions_are_found_in_what_vmms_print() {
        assert_eq!(parse_version("cloud-hypervisor v53.0\n"), Some((53, "53.0".to_owned())));
        assert_eq!(
            parse_version("cloud-hypervisor v53.0.0-12-gabc"),
            Some((53, "53.0.0-12-gabc".to_owned()))
        );
        assert_eq!(parse_version("regatta-chsim 53.0.0 (stand-in)"), Some((53, "53.0.0".to_owned())));
        assert_eq!(parse_version("busybox"), None);
        assert_eq!(parse_version("e.g. this"), None);
    }

    #[test]
    fn the_real_one_is_taken_only_with_kvm() {
        let (on_path, beside) = (tempfile::tempdir().expect("dir"), tempfile::tempdir().expect("dir"));
        let real = program(on_path.path(), REAL, "");
        let stand_in = program(beside.path(), STAND_IN, "");
        let choose =
            |kvm| search(on_path.path(), beside.path(), kvm).choose(&BinaryRequest::Auto).expect("found");
        assert_eq!(choose(true).0, real);
        let (path, why) = choose(false);
        assert_eq!(path, stand_in);
        assert!(why.contains("/dev/kvm is not usable"), "{why}");
        std::fs::remove_file(&real).expect("remove");
        assert!(choose(true).1.contains("no cloud-hypervisor on PATH"));
    }

    #[test]
    fn nothing_there_says_what_was_tried_and_a_request_is_never_replaced() {
        let empty = tempfile::tempdir().expect("dir");
        let search = search(empty.path(), empty.path(), false);
        let error = search.choose(&BinaryRequest::Auto).expect_err("nothing").to_string();
        assert!(error.contains("/dev/kvm") && error.contains(STAND_IN), "{error}");

        let wanted = empty.path().join("my-vmm");
        let error = VmmBinary::resolve(&BinaryRequest::Path(wanted.clone())).expect_err("missing");
        assert!(matches!(error, BinaryError::Run { path, .. } if path == wanted));
    }

    #[test]
    fn version_checks_on_real_processes() {
        let dir = tempfile::tempdir().expect("dir");
        let resolve = |name: &str, script: &str| {
            VmmBinary::resolve(&BinaryRequest::Path(program(dir.path(), name, script)))
                .map(|(binary, _)| binary)
        };
        assert_eq!(resolve("new", "echo cloud-hypervisor v53.0").expect("works").version(), "53.0");
        assert!(matches!(resolve("old", "echo cloud-hypervisor v51.1"), Err(BinaryError::TooOld { .. })));
        assert!(matches!(resolve("odd", "echo hello"), Err(BinaryError::NotAVmm { .. })));
    }
}
