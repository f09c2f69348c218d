//! `guest-image`: a real guest for tests and demo: kernel, initramfs and golden disk.
//!
//! The kernel and its modules are Debian's cloud kernel; all of the user space is one static program of ours
//! (`host/guest`). Nothing of the machine changes, no privilege is needed. What is there and of the same sources is
//! left alone, so a second call is instant.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::cargo::Build;
use crate::files;
use crate::ui::Steps;
use crate::workspace::Workspace;

mod disk;
mod initramfs;
mod kernel;

use kernel::Kernel;

/// Raise it when the layout of the made files changes without a change of the program.
const LAYOUT: &str = "1";
/// Everything that the guest's program is made of.
const MADE_OF: [&str; 6] = [
    "Cargo.toml",
    "Cargo.lock",
    "host/guest/Cargo.toml",
    "host/guest/src",
    "host/util/Cargo.toml",
    "host/util/src",
];
/// The package and the program of the guest.
const PROGRAM: &str = "regatta-guest";
/// What the guest runs on; the kernel is of the same architecture.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Names of the made files.
const KERNEL: &str = "vmlinuz";
const INITRAMFS: &str = "initramfs.cpio";
const DISK: &str = "disk.raw";
/// What the files were made of.
const STAMP: &str = "stamp";

/// How many steps [`build`] takes at most.
pub(crate) const STEPS: usize = 3;
/// And how many when there is nothing to do.
const STEPS_WHEN_CURRENT: usize = 2;

/// Options of `guest-image`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where the files go (default: guest-image/ in cargo's target directory).
    #[arg(long)]
    out: Option<PathBuf>,
}

/// The task.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let out = match &args.out {
        Some(out) => std::path::absolute(out)?,
        None => directory(workspace),
    };
    build(workspace, &out, &mut Steps::new(STEPS))
}

/// Where tests and demo look.
pub(crate) fn directory(workspace: &Workspace) -> PathBuf {
    workspace.target.join("guest-image")
}

/// How many steps [`build`] takes as things are now.
pub(crate) fn steps(workspace: &Workspace, out: &Path) -> Result<usize> {
    let current = match Kernel::there(out) {
        Some(kernel) => is_current(out, &stamp(workspace, &kernel)?),
        None => false,
    };
    Ok(if current { STEPS_WHEN_CURRENT } else { STEPS })
}

/// What the files are to be made of.
fn stamp(workspace: &Workspace, kernel: &Kernel) -> Result<String> {
    Ok(format!("{LAYOUT}\n{}\n{}\n", kernel.version, files::digest(workspace, MADE_OF)?))
}

/// Whether the files are there, made of this.
fn is_current(out: &Path, stamp: &str) -> bool {
    [KERNEL, INITRAMFS, DISK].iter().all(|name| out.join(name).is_file())
        && fs::read_to_string(out.join(STAMP)).is_ok_and(|old| old == stamp)
}

/// Makes the files in `out` unless they are there.
pub(crate) fn build(workspace: &Workspace, out: &Path, steps: &mut Steps) -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        println!("skipped: the guest image is made on x86-64 only");
        return Ok(());
    }
    fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    let _lock = lock(out)?;
    let stamp_path = out.join(STAMP);

    let step = steps.begin("looking for Debian's cloud kernel");
    let kernel = match Kernel::there(out) {
        Some(kernel) => {
            step.done(format_args!("{} is there", kernel.version));
            kernel
        }
        None => {
            let kernel = Kernel::fetch(out)?;
            step.done(format_args!("unpacked {}", kernel.version));
            kernel
        }
    };
    let stamp = stamp(workspace, &kernel)?;
    if is_current(out, &stamp) {
        let step = steps.begin("looking for the guest image");
        step.done(format_args!("{} is up to date", out.display()));
        return Ok(());
    }
    // Files of two makings never pass for one.
    if stamp_path.exists() {
        fs::remove_file(&stamp_path).with_context(|| format!("cannot remove {}", stamp_path.display()))?;
    }

    let step = steps.begin("compiling the guest's program");
    let program = program(workspace, step.prefix())?;
    step.done(format_args!("{} bytes, static", program.len()));

    let step = steps.begin("packing initramfs and golden disk");
    let build_id = hex::encode(Sha256::digest([program.as_slice(), stamp.as_bytes()].concat()));
    let build_id = &build_id[..12];
    let modules = kernel.modules()?;
    files::replace(&out.join(INITRAMFS), &initramfs::pack(&program, &modules)?)?;
    files::replace(&out.join(DISK), &disk::pack(&program, build_id)?)?;
    files::replace(&out.join(KERNEL), &kernel.image()?)?;
    files::replace(&out.join(STAMP), stamp.as_bytes())?;
    step.done(format_args!(
        "{KERNEL}, {INITRAMFS} ({} modules) and {DISK} (build {build_id}) are in {}",
        modules.len(),
        out.display()
    ));
    Ok(())
}

/// Makes parallel runs wait for each other; the lock lasts as long as the file is open.
fn lock(out: &Path) -> Result<File> {
    let path = out.join(".lock");
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

/// The guest's program, linked with everything that it needs.
fn program(workspace: &Workspace, title: &str) -> Result<Vec<u8>> {
    let mut build = Build::new(workspace);
    // With a target named, the flags concern the guest alone, and its files go to a directory of their own.
    build.args(["--package", PROGRAM, "--bin", PROGRAM, "--profile", "vm", "--target", TARGET]);
    build.env("RUSTFLAGS", "-Ctarget-feature=+crt-static");
    let artifacts = build.run(title)?;
    let path = artifacts
        .iter()
        .find(|path| path.file_name().is_some_and(|name| name == PROGRAM))
        .context("cargo built no program of the guest")?;
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    if !bytes.starts_with(b"\x7fELF") {
        bail!("{} is not a program", path.display());
    }
    Ok(bytes)
}
