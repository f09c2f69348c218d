//! `demo`: everything from a fresh machine to a set that scales, in one command.
//!
//! The first three steps are here: set-up, guests, host binaries. The rest is the program
//! `xtask-live`, which then takes the place of this process.

use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::Path;
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

/// What real VMs run on.
const KVM: &str = "/dev/kvm";

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
    let placeholders = quickstart::image(workspace)?;
    if !is_stand_in(&args.vmm) {
        real_vmm(placeholders, Path::new(KVM))?;
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

/// Whether this choice of VMM boots no kernel, by its name: what it answers is that of the real one.
fn is_stand_in(vmm: &str) -> bool {
    let name = vmm.rsplit(['=', '/']).next().unwrap_or(vmm);
    [STAND_IN, "regatta-chsim"].contains(&name)
}

/// Says what a VMM that boots real kernels needs; an error names all of it that is missing.
fn real_vmm(placeholders: bool, kvm: &Path) -> Result<()> {
    println!(
        "      a real VMM needs {}, and as target/quickstart/vmlinux and golden.raw a kernel and a disk whose\n      \
         guest answers /healthz and /metrics on port 8080 of the address that `ip=` on its command line has.\n      \
         That address is one of this host's loopback (`mode: loopback`, the only one so far): a guest behind\n      \
         a network card of its own boots, but no probe reaches it, and the demo ends after a minute and says so.",
        kvm.display()
    );
    let mut missing = Vec::new();
    if let Err(error) = OpenOptions::new().read(true).write(true).open(kvm) {
        missing.push(format!("{} cannot be opened: {error}", kvm.display()));
    }
    if placeholders {
        missing.push("target/quickstart has a placeholder instead of a kernel or a disk".to_owned());
    }
    if missing.is_empty() { Ok(()) } else { bail!("the VMM cannot boot a VM: {}", missing.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stand_in_is_known_by_its_name() {
        for stand_in in ["sim", "cloud-hypervisor=/opt/regatta-chsim", "cloud-hypervisor=regatta-chsim"] {
            assert!(is_stand_in(stand_in), "{stand_in}");
        }
        for real in ["cloud-hypervisor", "cloud-hypervisor=/usr/bin/cloud-hypervisor"] {
            assert!(!is_stand_in(real), "{real}");
        }
    }

    #[test]
    fn everything_that_a_real_vmm_lacks_is_named() {
        let nowhere = Path::new("/nonexistent/kvm");
        let both = real_vmm(true, nowhere).expect_err("nothing is there").to_string();
        assert!(both.contains("/nonexistent/kvm") && both.contains("placeholder"), "{both}");
        assert!(real_vmm(false, Path::new("/dev/null")).is_ok());
    }

    #[test]
    fn the_length_has_limits() {
        assert_eq!(length("2m").expect("valid"), Duration::from_secs(120));
        for wrong in ["5s", "2h", "60", "soon"] {
            assert!(length(wrong).is_err(), "{wrong}");
        }
    }
}
