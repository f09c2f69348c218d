//! The active compiler: where it lives, and whether it can build guests.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::policies::TARGET;
use crate::proc;

/// The compiler that cargo will use.
pub(crate) struct Toolchain {
    /// Program to run: `RUSTC` if set, else `rustc` from PATH.
    rustc: OsString,
    /// Root of the installation; standard libraries are under `lib/rustlib/<target>/lib`.
    pub(crate) sysroot: PathBuf,
    /// Version without channel or commit, such as `1.95.0`.
    pub(crate) version: String,
}

impl Toolchain {
    /// Asks the compiler on PATH (or `RUSTC`).
    pub(crate) fn active() -> Result<Self> {
        Self::of(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
    }

    /// Asks this compiler.
    pub(crate) fn of(rustc: OsString) -> Result<Self> {
        let print = |what: &[&str]| -> Result<String> {
            let output = proc::capture(Command::new(&rustc).args(what))?;
            Ok(String::from_utf8(output)?.trim().to_owned())
        };
        let sysroot = PathBuf::from(print(&["--print", "sysroot"])?);
        let verbose = print(&["--version", "--verbose"])?;
        let version = release(&verbose)
            .with_context(|| format!("rustc does not say its release: {verbose}"))?
            .to_owned();
        Ok(Self { rustc, sysroot, version })
    }

    /// The program to start for this compiler.
    pub(crate) fn rustc(&self) -> &OsString {
        &self.rustc
    }

    /// Where targets and their standard libraries are.
    pub(crate) fn rustlib(&self) -> PathBuf {
        self.sysroot.join("lib/rustlib")
    }

    /// Compiles and links a small guest in `scratch`. That there are files of the standard
    /// library is not enough: they may be of another compiler, or the linker may be missing.
    pub(crate) fn probe_guest(&self, scratch: &Path) -> Result<()> {
        fs::create_dir_all(scratch).with_context(|| format!("cannot create {}", scratch.display()))?;
        let source = scratch.join("probe.rs");
        fs::write(
            &source,
            "#[unsafe(no_mangle)] pub extern \"C\" fn probe(n: usize) -> usize { vec![1u8; n].len() }\n",
        )
        .with_context(|| format!("cannot write {}", source.display()))?;
        let mut command = Command::new(&self.rustc);
        command
            .args(["--edition=2024", "--crate-type=cdylib", "-Cpanic=abort"])
            .args(["--target", TARGET])
            .arg("--out-dir")
            .arg(scratch)
            .arg(&source);
        proc::capture(&mut command).map(drop)
    }
}

/// The `release:` line of `rustc -vV`, without a channel suffix.
fn release(verbose: &str) -> Option<&str> {
    let line = verbose.lines().find_map(|line| line.strip_prefix("release: "))?;
    line.split('-').next()
}

#[cfg(test)]
mod tests {
    use super::release;

    #[test]
    fn the_release_is_read() {
        let text = "rustc 1.95.0 (59807616e 2026-04-14)\nbinary: rustc\nrelease: 1.95.0\n";
        assert_eq!(release(text), Some("1.95.0"));
        assert_eq!(release("release: 1.97.0-nightly\n"), Some("1.97.0"));
        assert_eq!(release("rustc 1.95.0"), None);
    }
}
