//! The guest target: found, else from rustup, else built from Debian's sources, else explained.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use regatta_util::program::on_path;

use crate::policies::TARGET;
use crate::proc;
use crate::ui::{self, Steps};

use super::debian;
use super::toolchain::Toolchain;

/// How long one rustup call may take: a blocked network must not block for ever.
pub(crate) const RUSTUP_LIMIT: Duration = Duration::from_secs(180);

/// Set to `debian` to build the standard library from Debian's sources without asking rustup.
const CHOICE: &str = "REGATTA_GUEST_STD";

/// Makes `cargo build --target wasm32-unknown-unknown` work. One step.
pub(crate) fn guest_target(steps: &mut Steps) -> Result<()> {
    let step = steps.begin(format_args!("looking for the guest target {TARGET}"));
    let toolchain = Toolchain::active()?;
    let scratch = Scratch::create()?;
    if toolchain.probe_guest(&scratch.0).is_ok() {
        step.done(format_args!("present for rustc {}", toolchain.version));
        return Ok(());
    }

    let lock = lock(&toolchain.rustlib())?;
    // Another run may have done it while this one waited.
    let Err(missing) = toolchain.probe_guest(&scratch.0) else {
        step.done("present, installed by another run");
        return Ok(());
    };
    println!("      not there for rustc {}", toolchain.version);
    let mut tried = vec![format!("looked: {missing:#}")];
    if std::env::var_os(CHOICE).is_some_and(|choice| choice == "debian") {
        tried.push(format!("rustup: not asked, {CHOICE} is `debian`"));
    } else {
        match rustup(&toolchain, &scratch.0) {
            Ok(()) => {
                step.done("added by rustup");
                return Ok(());
            }
            Err(error) => {
                println!("      rustup did not help: {}", first_line(&error));
                tried.push(format!("rustup: {error:#}"));
            }
        }
    }
    match debian::install(&toolchain, &scratch.0) {
        Ok(package) => {
            step.done(format_args!("built from Debian's {package}"));
            drop(lock);
            Ok(())
        }
        Err(error) => {
            tried.push(format!("Debian: {error:#}"));
            Err(advice(&toolchain, &tried))
        }
    }
}

/// `rustup target add`, then a look whether the active compiler has it.
fn rustup(toolchain: &Toolchain, scratch: &Path) -> Result<()> {
    if on_path("rustup").is_none() {
        return Err(anyhow!("there is no rustup on PATH"));
    }
    println!("      rustup target add {TARGET}");
    let mut command = Command::new("rustup");
    command.args(["target", "add", TARGET]);
    proc::limited(&mut command, RUSTUP_LIMIT)?;
    toolchain.probe_guest(scratch).context("rustup added it, but the active rustc still cannot use it")
}

/// What a person can do when nothing worked.
fn advice(toolchain: &Toolchain, tried: &[String]) -> anyhow::Error {
    let version = &toolchain.version;
    let tried = tried.join("\n  ");
    anyhow!(
        "no standard library for {TARGET}, and none could be made\n  {tried}\n\
         One of these helps:\n\
         - with rustup and a network: rustup target add {TARGET}\n\
         - on Debian with rustc {version} from rustup: a mirror in the apt configuration that has \
         the package rust-src {version}, then {CHOICE}=debian cargo xtask setup\n\
         - on Debian with Debian's own rustc: apt install libstd-rust-dev-wasm32 lld\n\
         - elsewhere: unpack rust-std-{version}-{TARGET} of the Rust release into {}",
        toolchain.sysroot.display()
    )
}

/// Locks the toolchain against other set-ups until the file is dropped.
fn lock(rustlib: &Path) -> Result<File> {
    let path = rustlib.join(".regatta-setup.lock");
    let file = File::create(&path).with_context(|| {
        format!(
            "the toolchain lacks {TARGET} and is not writable for this user: cannot create {}",
            path.display()
        )
    })?;
    if file.try_lock().is_err() {
        println!("      another set-up is at work: waiting for it");
        file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    }
    Ok(file)
}

/// The first line of an error's whole chain.
fn first_line(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    text.lines().next().unwrap_or_default().to_owned()
}

/// A private directory, removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn create() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("regatta-setup-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            ui::error(&anyhow!(error).context(format!("cannot remove {}", self.0.display())));
        }
    }
}
