//! `policies`: the guest crates, compiled for wasm32 and laid out by name.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use crate::cargo::Build;
use crate::files;
use crate::languages::{self, Wanted};
use crate::ui::Steps;
use crate::workspace::Workspace;

/// The target every guest is compiled for: no WASI, so nothing to import but the contract.
pub(crate) const TARGET: &str = "wasm32-unknown-unknown";

/// Options of `policies`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where the modules go (default: policies/ in cargo's target directory).
    #[arg(long)]
    out: Option<PathBuf>,
    /// Build the example policy in this language (or `all`) into languages/LANGUAGE.wasm instead; repeatable. What it
    /// needs is installed under tools/ in cargo's target directory.
    #[arg(long = "language", value_name = "LANGUAGE")]
    languages: Vec<Wanted>,
}

/// One module that was laid out.
struct Module {
    name: String,
    bytes: usize,
    sha256: String,
    changed: bool,
}

/// The task.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let out = match &args.out {
        Some(out) => std::path::absolute(out)?,
        None => workspace.target.join("policies"),
    };
    if args.languages.is_empty() {
        return build(workspace, &out, &mut Steps::new(1));
    }
    let languages = languages::chosen(&args.languages);
    let mut steps = Steps::new(languages::steps(&languages));
    languages::build(workspace, &languages, &out.join("languages"), &mut steps).map(drop)
}

/// Compiles every guest and copies it to `out`, as one step of `steps`.
pub(crate) fn build(workspace: &Workspace, out: &Path, steps: &mut Steps) -> Result<()> {
    let guests = workspace.guests();
    ensure!(!guests.is_empty(), "no guest crate under policies/");
    let step = steps.begin(format_args!("compiling {} policies", guests.len()));
    let mut build = Build::new(workspace);
    build.args(["--lib", "--profile", "guest", "--target", TARGET]);
    for guest in &guests {
        build.args(["--package", guest]);
    }
    let artifacts = build.run(step.prefix())?;

    fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    let mut modules = Vec::new();
    for guest in guests {
        let file_name = format!("{}.wasm", guest.replace('-', "_"));
        let built = artifacts
            .iter()
            .find(|path| path.file_name().is_some_and(|name| name == &*file_name))
            .with_context(|| format!("cargo built no {file_name} for the package {guest}"))?;
        modules.push(lay_out(guest, built, out)?);
    }
    for module in &modules {
        println!(
            "      {:<20} {:>9} bytes  sha256:{}{}",
            module.name,
            module.bytes,
            module.sha256,
            if module.changed { "" } else { "  unchanged" }
        );
    }
    step.done(format_args!("policies are in {}", out.display()));
    Ok(())
}

/// Copies one module to its place; a reader never sees half of it.
fn lay_out(name: &str, built: &Path, out: &Path) -> Result<Module> {
    let bytes = fs::read(built).with_context(|| format!("cannot read {}", built.display()))?;
    if !bytes.starts_with(b"\0asm") {
        bail!("{} is not a WebAssembly module", built.display());
    }
    let destination = out.join(format!("{name}.wasm"));
    let changed = fs::read(&destination).map_or(true, |old| old != bytes);
    if changed {
        files::replace(&destination, &bytes)?;
    }
    Ok(Module {
        name: name.to_owned(),
        bytes: bytes.len(),
        sha256: hex::encode(Sha256::digest(&bytes)),
        changed,
    })
}
