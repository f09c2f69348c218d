//! The wasm32 standard library, built from Debian's `rust-src` of exactly the active version.
//!
//! rustup's servers are not reachable from everywhere, a Debian mirror usually is. The package
//! holds the standard library's sources and its vendored dependencies; `-Zbuild-std` compiles
//! them. The result goes to the place where `rustup target add` would put it, and nothing else
//! of the machine changes: apt runs with its own lists, and cargo builds under a shadow sysroot
//! of links, because it looks for the sources in the sysroot and nowhere else.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::apt::{self, Apt};
use crate::cargo;
use crate::policies::TARGET;
use crate::proc;
use crate::ui;

use super::toolchain::Toolchain;

/// Where a version may be found, the likeliest first; each is asked only if those before it
/// do not have the version, since every list is megabytes.
const SUITES: [&str; 6] = ["trixie-backports", "testing", "sid", "trixie", "bookworm-backports", "bookworm"];

/// The sources' names: the second follows the browser and has other versions.
const PACKAGES: [&str; 2] = ["rust-src", "rust-web-src"];

/// Name of the empty crate whose dependencies are the standard library.
const CARRIER: &str = "regatta_std_carrier";

/// Builds and installs the library; returns `package=version` of the sources.
pub(crate) fn install(toolchain: &Toolchain, scratch: &Path) -> Result<String> {
    let apt = Apt::create(scratch)?;
    let found = said("looking for the sources on the Debian mirror", || find(&apt, &toolchain.version))?;
    let library =
        said(&format!("downloading and unpacking {found} (45 MB)"), || unpack(&apt, &found, scratch))?;
    let shadow = Shadow::create(toolchain, &library, scratch)?;
    let built = said("compiling the standard library", || shadow.build(scratch))?;
    place(toolchain, &built)?;
    toolchain.probe_guest(scratch).context("the library was built, but the compiler does not take it")?;
    Ok(found)
}

/// Prints what is done and how long it took.
fn said<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("      {what} …");
    let start = Instant::now();
    let value = work().with_context(|| format!("{what} failed"))?;
    println!("      … {}", ui::seconds(start.elapsed()));
    Ok(value)
}

/// The first source package of this version, as `name=version`.
fn find(apt: &Apt, version: &str) -> Result<String> {
    let matching = || {
        for package in PACKAGES {
            if let Some(found) = matching(&apt.versions(package)?, package, version) {
                return Ok(Some(format!("{package}={found}")));
            }
        }
        Ok(None)
    };
    let what = || format!("no suite of the mirror has {} in version {version}", PACKAGES.join(" or "));
    apt.search(&SUITES, matching).with_context(what)
}

/// Downloads the package and unpacks its `library` directory; returns the directory that
/// holds it.
fn unpack(apt: &Apt, package: &str, scratch: &Path) -> Result<PathBuf> {
    let file = apt.download(package)?;
    let sources = scratch.join("src");
    apt::extract(&file, &sources, &["./usr/src/rustc-*/library/*"])?;
    fs::remove_file(&file)?;
    apt::only_entry(&sources.join("usr/src"))
}

/// The package version in a table of `apt-cache madison` whose upstream part is `version`.
fn matching<'a>(table: &'a str, package: &str, version: &str) -> Option<&'a str> {
    table.lines().find_map(|line| {
        let mut columns = line.split('|').map(str::trim);
        let (name, candidate) = (columns.next()?, columns.next()?);
        let upstream = candidate.split(['+', '-']).next()?;
        (name == package && upstream == version).then_some(candidate)
    })
}

/// A sysroot of links to the real one, but with the sources in it.
struct Shadow {
    rustc: PathBuf,
}

impl Shadow {
    fn create(toolchain: &Toolchain, library: &Path, scratch: &Path) -> Result<Self> {
        let root = scratch.join("sysroot");
        let rustlib = root.join("lib/rustlib");
        fs::create_dir_all(rustlib.join("src"))?;
        for entry in fs::read_dir(toolchain.rustlib())? {
            let entry = entry?;
            let name = entry.file_name();
            if name != "src" && name != TARGET {
                symlink(entry.path(), rustlib.join(name))?;
            }
        }
        symlink(library, rustlib.join("src/rust"))?;
        let rustc = scratch.join("rustc");
        fs::write(
            &rustc,
            format!(
                "#!/bin/sh\nexec {} --sysroot {} \"$@\"\n",
                quoted(Path::new(toolchain.rustc())),
                quoted(&root)
            ),
        )?;
        fs::set_permissions(&rustc, fs::Permissions::from_mode(0o755))?;
        Ok(Self { rustc })
    }

    /// Compiles the library; returns the directory with its `.rlib` files.
    fn build(&self, scratch: &Path) -> Result<PathBuf> {
        let carrier = scratch.join("carrier");
        fs::create_dir_all(carrier.join("src"))?;
        fs::write(carrier.join("src/lib.rs"), "#![no_std]\n")?;
        fs::write(
            carrier.join("Cargo.toml"),
            format!(
                "[package]\nname = \"{CARRIER}\"\nversion = \"0.0.0\"\nedition = \"2021\"\n[workspace]\n"
            ),
        )?;
        let target = scratch.join("target");
        let mut command = cargo::command();
        command
            .current_dir(&carrier)
            .args(["build", "--quiet", "--release", "--target", TARGET])
            .arg("-Zbuild-std=std,panic_abort")
            .env("CARGO_TARGET_DIR", &target)
            .env("RUSTC", &self.rustc)
            // The one way to use an unstable cargo option with a stable toolchain.
            .env("RUSTC_BOOTSTRAP", "1")
            // Guests are linked with LTO.
            .env("RUSTFLAGS", "-Cembed-bitcode=yes")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env_remove("RUSTC_WRAPPER")
            .env_remove("RUSTC_WORKSPACE_WRAPPER");
        proc::capture(&mut command)?;
        let made = target.join(TARGET).join("release/deps");
        let libraries = scratch.join("std");
        fs::create_dir_all(&libraries)?;
        let mut copied = 0;
        for entry in fs::read_dir(&made)? {
            let path = entry?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            if name.ends_with(".rlib") && !name.starts_with(&format!("lib{CARRIER}-")) {
                fs::copy(&path, libraries.join(name))?;
                copied += 1;
            }
        }
        ensure!(copied > 0, "cargo built no library in {}", made.display());
        Ok(libraries)
    }
}

/// A path as one word of a shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}

/// Puts the libraries into the toolchain: copied beside their place, then renamed, so that a
/// crash leaves either nothing or all of it.
fn place(toolchain: &Toolchain, libraries: &Path) -> Result<()> {
    let home = toolchain.rustlib().join(TARGET);
    let pid = std::process::id();
    let new = toolchain.rustlib().join(format!(".{TARGET}.new.{pid}"));
    let old = toolchain.rustlib().join(format!(".{TARGET}.old.{pid}"));
    let copy = || -> Result<()> {
        fs::create_dir_all(new.join("lib"))?;
        for entry in fs::read_dir(libraries)? {
            let entry = entry?;
            fs::copy(entry.path(), new.join("lib").join(entry.file_name()))?;
        }
        if home.exists() {
            fs::rename(&home, &old)?;
        }
        fs::rename(&new, &home)?;
        Ok(())
    };
    let copied = copy().with_context(|| format!("cannot install into {}", home.display()));
    if copied.is_err() {
        // The first error says what is wrong; a leftover is harmless.
        let _ = fs::remove_dir_all(&new);
    }
    let _ = fs::remove_dir_all(&old);
    copied
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_version_matches() {
        let table = " rust-src | 1.95.1+dfsg1-1 | http://mirror.example/debian sid/main amd64 Packages\n \
             rust-src | 1.95.0+dfsg1-2~bpo13+1 | http://mirror.example/debian trixie-backports/main amd64 Packages\n";
        assert_eq!(matching(table, "rust-src", "1.95.0"), Some("1.95.0+dfsg1-2~bpo13+1"));
        assert_eq!(matching(table, "rust-src", "1.9"), None);
        assert_eq!(matching(table, "rust-web-src", "1.95.0"), None);
        let beta = " rust-src | 1.95.0~rc1+dfsg1-1 | sid";
        assert_eq!(matching(beta, "rust-src", "1.95.0"), None);
    }

    #[test]
    fn paths_are_quoted_for_the_shell() {
        assert_eq!(quoted(Path::new("/a b/it's")), "'/a b/it'\\''s'");
    }
}
