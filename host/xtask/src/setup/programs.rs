//! Programs of the system that some tests need. Without them those tests say that they were skipped, so that a machine
//! where nothing can be installed still tests the rest.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regatta_util::program::{installed, on_path};

use crate::proc;
use crate::ui::Steps;

/// What is looked for, Debian's package of it, and what needs it.
const WANTED: [(&str, &str, &str); 4] = [
    ("qemu-system-x86_64", "qemu-system-x86", "real guests"),
    ("nft", "nftables", "networks of instances"),
    ("mkfs.xfs", "xfsprogs", "reflinked disks"),
    ("faketime", "faketime", "clocks that jump"),
];

/// How long one call of apt may take: a blocked network must not block for ever.
const LIMIT: Duration = Duration::from_secs(600);

/// Installs what is missing, where that is possible. One step.
pub(crate) fn programs(steps: &mut Steps) -> Result<()> {
    let step = steps.begin("looking for qemu, nftables, xfsprogs and faketime");
    let missing: Vec<_> = WANTED.into_iter().filter(|(program, ..)| !there(program)).collect();
    if missing.is_empty() {
        step.done("present");
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|(_, package, _)| *package).collect();
    match install(&packages) {
        Ok(()) => {
            step.done(format_args!("installed {}", packages.join(", ")));
        }
        Err(error) => {
            for (program, package, what) in missing {
                println!("      skipped: tests of {what} need {program} (Debian's package {package})");
            }
            step.done(format_args!("not installed: {error:#}"));
        }
    }
    Ok(())
}

/// Whether a program of the system is there.
pub(crate) fn there(program: &str) -> bool {
    installed(program).is_some()
}

fn install(packages: &[&str]) -> Result<()> {
    ensure!(on_path("apt-get").is_some(), "there is no apt-get on PATH");
    ensure!(proc::is_root(), "only root may install packages");
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.arg("-q").args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    println!("      installing {}", packages.join(", "));
    proc::limited(&mut apt(&["update"]), LIMIT).context("apt's lists cannot be had")?;
    let mut command = apt(&["install", "-y", "--no-install-recommends"]);
    proc::limited(command.args(packages), LIMIT)
}
