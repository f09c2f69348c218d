//! `demo`: everything from a fresh machine to a set that scales, in one command.
//!
//! The first three steps are here: set-up, guests, host binaries. The rest is the program
//! `xtask-live`, which then takes the place of this process.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};

use crate::ui::Steps;
use crate::workspace::Workspace;
use crate::{build, policies, quickstart, setup};

/// A tide of requests needs this long for a scale-out and a scale-in.
const SHORTEST: Duration = Duration::from_secs(20);

/// Beyond this it is no demo any more.
const LONGEST: Duration = Duration::from_secs(3600);

/// The VMM that the quickstart's placeholder image is made for.
const STAND_IN: &str = "sim";

/// Options of `demo`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long load is driven, such as 60s or 2m.
    #[arg(long = "for", value_name = "TIME", default_value = "60s", value_parser = length)]
    length: Duration,
    /// Which VMM to run: `sim`, the stand-in that needs no KVM, or cloud-hypervisor=PATH.
    #[arg(long, value_name = "KIND[=PATH]", default_value = STAND_IN)]
    vmm: String,
    /// Leave the daemon and the set running at the end.
    #[arg(long)]
    keep: bool,
}

fn length(text: &str) -> Result<Duration> {
    let length = humantime::parse_duration(text)?;
    if !(SHORTEST..=LONGEST).contains(&length) {
        bail!("from {}s to {}s", SHORTEST.as_secs(), LONGEST.as_secs());
    }
    Ok(length)
}

/// The task; returns only when it failed.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let mut steps = Steps::new(6);
    setup::guest_target(&mut steps)?;
    policies::build(workspace, &workspace.target.join("policies"), &mut steps)?;
    let live = ["--package", "xtask", "--features", "xtask/live", "--bin", "xtask-live"];
    build::host(workspace, false, &live, &mut steps)?;
    if quickstart::image(workspace)? && args.vmm != STAND_IN {
        println!(
            "      note: target/quickstart has placeholders; a real VMM needs a real kernel and disk there"
        );
    }

    let bin = workspace.target.join("debug");
    let mut command = Command::new(bin.join("xtask-live"));
    command
        .arg("--root")
        .arg(&workspace.root)
        .arg("--bin")
        .arg(&bin)
        .arg("--logs")
        .arg(workspace.target.join("demo"))
        .arg("--seconds")
        .arg(args.length.as_secs().to_string());
    command.args(["--vmm", &args.vmm]);
    if args.keep {
        command.arg("--keep");
    }
    Err(anyhow!(command.exec()).context("cannot start xtask-live"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_has_limits() {
        assert_eq!(length("2m").expect("valid"), Duration::from_secs(120));
        for wrong in ["5s", "2h", "60", "soon"] {
            assert!(length(wrong).is_err(), "{wrong}");
        }
    }
}
