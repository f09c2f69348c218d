//! `build`: set-up, policies, and the host binaries that a user runs.

use anyhow::Result;

use crate::cargo::Build;
use crate::setup;
use crate::ui::Steps;
use crate::workspace::Workspace;
use crate::{bench, policies, quickstart, ui};

/// Packages whose binaries make a working Regatta.
const HOST_PACKAGES: [&str; 2] = ["regatta", "regatta-chsim"];

/// Options of `build`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Build the host binaries optimised (target/release).
    #[arg(long)]
    release: bool,
    /// Build what `bench` runs as well.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The task.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let mut steps = Steps::new(3);
    setup::guest_target(&mut steps)?;
    policies::build(workspace, &workspace.target.join("policies"), &mut steps)?;
    // In one run of cargo: two would choose other features of shared crates, and build them twice.
    let extra: &[&str] = if args.bench { &bench::PROGRAM } else { &[] };
    host(workspace, args.release, extra, &mut steps)?;
    quickstart::image(workspace)?;
    Ok(())
}

/// Compiles the host binaries and `extra` cargo arguments' targets, as one step of `steps`.
pub(crate) fn host(
    workspace: &Workspace,
    release: bool,
    extra: &[&str],
    steps: &mut ui::Steps,
) -> Result<()> {
    let step = steps.begin("compiling the daemon and the stand-in VMM");
    let mut build = Build::new(workspace);
    for package in HOST_PACKAGES {
        build.args(["--package", package, "--bin", package]);
    }
    if release {
        build.args(["--release"]);
    }
    build.args(extra.iter().copied());
    build.run(step.prefix())?;
    let profile = if release { "release" } else { "debug" };
    step.done(format_args!("binaries are in {}", workspace.target.join(profile).display()));
    Ok(())
}
