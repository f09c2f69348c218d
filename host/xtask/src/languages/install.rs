//! The tools of the languages, from public registries into `target/tools/<name>` and nowhere else. What is there is
//! not asked for again, so building works offline from then on.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regatta_policy_build::Language;
use regatta_util::program::on_path;

use crate::apt::{self, Apt};
use crate::proc;
use crate::setup;
use crate::ui::Steps;
use crate::workspace::Workspace;

use super::EXAMPLES;

/// How long one call of a package manager may take: a blocked network must not block for ever.
const LIMIT: Duration = Duration::from_secs(300);

/// In a folder of tools, written last: what was asked for.
const INSTALLED: &str = "installed.txt";

/// The least Go that exports functions from a reactor, and what Debian calls those that do, the most tried first.
const GO: (u32, u32) = (1, 24);
const GO_PACKAGES: [&str; 4] = ["golang-1.24", "golang-1.25", "golang-1.26", "golang-1.27"];

/// Suites of Debian that may have one, the most stable first: each list is megabytes.
const SUITES: [&str; 5] = ["trixie", "bookworm-backports", "trixie-backports", "testing", "sid"];

/// Suites of Debian whose Nim may run here: the oldest first, as it wants the oldest C library.
const NIM_SUITES: [&str; 3] = ["bookworm", "trixie", "sid"];

/// Makes sure that the tools of a language are there.
pub(super) fn ready(workspace: &Workspace, language: Language, homes: &Path) -> Result<()> {
    let source = workspace.root.join(EXAMPLES).join(language.as_str());
    match language {
        Language::Rust => setup::guest_target(&mut Steps::new(1)),
        Language::Wat | Language::Other => Ok(()),
        Language::JavaScript | Language::AssemblyScript => {
            once(homes, language.as_str(), &read(&source.join("package.json"))?, |home| npm(&source, home))
        }
        Language::Python => {
            once(homes, "python", &read(&source.join("requirements.txt"))?, |home| pip(&source, home))
        }
        // Zig compiles all three.
        Language::C | Language::Cpp | Language::Zig => {
            once(homes, "zig", &read(&source.join("requirements.txt"))?, |home| pip(&source, home))
        }
        Language::Nim => {
            let source = workspace.root.join(EXAMPLES).join("zig");
            once(homes, "zig", &read(&source.join("requirements.txt"))?, |home| pip(&source, home))?;
            if on_path("nim").is_some() { Ok(()) } else { once(homes, "nim", "nim", nim) }
        }
        Language::Go if go_on_path() => Ok(()),
        Language::Go => once(homes, "go", &GO_PACKAGES.join(" "), go),
    }
}

/// Runs `install` for the folder `name`, unless that was done for the same `wanted` before. Others wait meanwhile.
fn once(homes: &Path, name: &str, wanted: &str, install: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    fs::create_dir_all(homes).with_context(|| format!("cannot create {}", homes.display()))?;
    let lock = homes.join(format!(".{name}.lock"));
    let lock = File::create(&lock).with_context(|| format!("cannot create {}", lock.display()))?;
    lock.lock().context("cannot lock the folder of tools")?;
    let home = homes.join(name);
    if fs::read_to_string(home.join(INSTALLED)).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    // Half of an installation, or one of other versions.
    if home.exists() {
        fs::remove_dir_all(&home).with_context(|| format!("cannot remove {}", home.display()))?;
    }
    fs::create_dir_all(&home).with_context(|| format!("cannot create {}", home.display()))?;
    install(&home)?;
    fs::write(home.join(INSTALLED), wanted).context("cannot note what is installed")
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn npm(source: &Path, home: &Path) -> Result<()> {
    ensure!(on_path("npm").is_some(), "there is no npm on PATH");
    println!("      npm install, into {}", home.display());
    fs::copy(source.join("package.json"), home.join("package.json")).context("cannot copy package.json")?;
    let mut command = Command::new("npm");
    command
        .args(["install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"])
        .current_dir(home);
    proc::limited(&mut command, LIMIT)
}

fn pip(source: &Path, home: &Path) -> Result<()> {
    ensure!(on_path("python3").is_some(), "there is no python3 on PATH");
    println!("      pip install, into {}", home.display());
    let venv = home.join("venv");
    proc::limited(Command::new("python3").args(["-m", "venv"]).arg(&venv), LIMIT)?;
    let mut command = Command::new(venv.join("bin/pip"));
    command.args(["install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:", "-r"]);
    proc::limited(command.arg(source.join("requirements.txt")), LIMIT)
}

/// Whether the machine's own Go is new enough.
fn go_on_path() -> bool {
    let version = proc::capture(Command::new("go").args(["env", "GOVERSION"]).env("GOTOOLCHAIN", "local"));
    version.ok().and_then(|text| go_version(&String::from_utf8_lossy(&text))).is_some_and(|found| found >= GO)
}

/// `go1.24.4` as (1, 24).
fn go_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.trim().strip_prefix("go")?.split(['.', 'r', 'b', '-', ' ']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Go of the machine's Debian mirror, unpacked: compiler and sources of the standard library.
fn go(home: &Path) -> Result<()> {
    let scratch = home.join("scratch");
    let apt = Apt::create(&scratch)?;
    let newest = || {
        for name in GO_PACKAGES {
            if let Some(version) = apt.versions(&format!("{name}-go"))?.split('|').nth(1) {
                return Ok(Some((name, version.trim().to_owned())));
            }
        }
        Ok(None)
    };
    let (name, version) = apt.search(&SUITES, newest).with_context(|| {
        format!("no Go {}.{} or newer on PATH, and none on the Debian mirror", GO.0, GO.1)
    })?;
    println!("      downloading {name} {version} of Debian (50 MB), into {}", home.display());
    for part in ["go", "src"] {
        let file = apt.download(&format!("{name}-{part}={version}"))?;
        apt::extract(&file, home, &["./usr/*"])?;
        fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
    }
    let program: PathBuf = home.join(format!("usr/lib/{}/bin/go", name.replace("golang", "go")));
    proc::capture(Command::new(&program).arg("version")).context("Debian's Go does not run here")?;
    fs::remove_dir_all(&scratch).with_context(|| format!("cannot remove {}", scratch.display()))
}

/// Nim of the machine's Debian mirror, unpacked: the compiler with its libraries, which needs no other package.
fn nim(home: &Path) -> Result<()> {
    let scratch = home.join("scratch");
    let apt = Apt::create(&scratch)?;
    let there = || Ok(apt.versions("nim")?.split('|').nth(1).map(|version| version.trim().to_owned()));
    let version =
        apt.search(&NIM_SUITES, there).context("there is no Nim on PATH, and none on the Debian mirror")?;
    println!("      downloading nim {version} of Debian (4 MB), into {}", home.display());
    let file = apt.download(&format!("nim={version}"))?;
    apt::extract(&file, home, &["./usr/bin/*", "./usr/lib/*"])?;
    proc::capture(Command::new(home.join("usr/bin/nim")).arg("--version"))
        .context("Debian's Nim does not run here")?;
    fs::remove_dir_all(&scratch).with_context(|| format!("cannot remove {}", scratch.display()))
}

#[cfg(test)]
mod tests {
    use super::go_version;

    #[test]
    fn versions_of_go_are_read() {
        assert_eq!(go_version("go1.24.4\n"), Some((1, 24)));
        assert_eq!(go_version("go1.27rc1"), Some((1, 27)));
        assert_eq!(go_version("go1.26-abc X:y"), Some((1, 26)));
        assert_eq!(go_version("devel"), None);
    }
}
