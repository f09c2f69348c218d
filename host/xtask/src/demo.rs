//! `demo`: everything from a fresh machine to a set that scales, in one command.
//!
//! The first steps are here: set-up, policies, the image of guests that really boot, host binaries. The
//! rest is the program `xtask-live`, which then takes the place of this process.

use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};

use crate::ui::Steps;
use crate::workspace::Workspace;
use crate::{build, guest_image, policies, proc, quickstart, setup};

/// Steps of every demo: three here, three in `xtask-live`.
const COMMON_STEPS: usize = 6;

/// A tide of requests needs this long for a scale-out and a scale-in.
const SHORTEST: Duration = Duration::from_secs(20);

/// Beyond this it is not a demo any more.
const LONGEST: Duration = Duration::from_secs(3600);

/// The stand-in for the VMM, which boots no kernel by itself.
const STAND_IN: &str = "sim";

/// What VMs run on that are not emulated.
const KVM: &str = "/dev/kvm";

/// How long load is driven: guests that really boot take their time.
const MODEL_LENGTH: Duration = Duration::from_secs(60);
const REAL_LENGTH: Duration = Duration::from_secs(90);

/// Options of `demo`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long load is driven, such as 60s or 2m [default: 60s; 90s with guests that really boot].
    #[arg(long = "for", value_name = "TIME", value_parser = length)]
    length: Option<Duration>,
    /// Which VMM to run: `sim`, the stand-in that needs no KVM, or cloud-hypervisor=PATH.
    #[arg(long, value_name = "KIND[=PATH]", default_value = STAND_IN)]
    vmm: String,
    /// How the stand-in runs guests: `model`, services that behave like guests, or `qemu`, real ones
    /// that need no KVM but root.
    #[arg(long, value_name = "ENGINE", default_value = "model")]
    guest: Guest,
    /// Leave the daemon and the set running at the end.
    #[arg(long)]
    keep: bool,
}

/// How the stand-in runs guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Guest {
    Model,
    Qemu,
}

fn length(text: &str) -> Result<Duration> {
    let length = regatta_util::units::parse_duration(text)?;
    if !(SHORTEST..=LONGEST).contains(&length) {
        bail!("from {}s to {}s", SHORTEST.as_secs(), LONGEST.as_secs());
    }
    Ok(length)
}

/// The task; returns only when it failed.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let real = real_guests(&args.vmm, args.guest)?;
    // Where the manifest looks, which is not cargo's target directory when that is elsewhere.
    let image = workspace.root.join("target/guest-image");
    let mut total = COMMON_STEPS;
    if real {
        needs(&Host::look(&args.vmm, args.guest))?;
        total += guest_image::steps(workspace, &image)?;
    }
    let mut steps = Steps::new(total);
    setup::guest_target(&mut steps)?;
    policies::build(workspace, &workspace.target.join("policies"), &mut steps)?;
    if real {
        guest_image::build(workspace, &image, &mut steps)?;
    } else {
        quickstart::image(workspace)?;
    }
    let live = ["--package", "xtask", "--features", "xtask/live", "--bin", "xtask-live"];
    build::host(workspace, false, &live, &mut steps)?;

    let bin = workspace.target.join("debug");
    let length = args.length.unwrap_or(if real { REAL_LENGTH } else { MODEL_LENGTH });
    let mut command = Command::new(bin.join("xtask-live"));
    command.arg("--root").arg(&workspace.root).arg("--bin").arg(&bin);
    command.arg("--logs").arg(workspace.target.join("demo"));
    command.args(["--seconds", &length.as_secs().to_string()]);
    command.args(["--step", &(steps.begun() + 1).to_string()]);
    command.args(["--vmm", &args.vmm]);
    if real {
        command.arg("--real");
    }
    if args.guest == Guest::Qemu {
        command.args(["--guest", "qemu"]);
    }
    if args.keep {
        command.arg("--keep");
    }
    Err(anyhow!(command.exec()).context("cannot start xtask-live"))
}

/// Whether guests boot a kernel.
fn real_guests(vmm: &str, guest: Guest) -> Result<bool> {
    match (is_stand_in(vmm), guest) {
        (true, Guest::Model) => Ok(false),
        (true, Guest::Qemu) => Ok(true),
        (false, Guest::Model) => Ok(true),
        (false, Guest::Qemu) => bail!("--guest qemu is for the simulator; {vmm} always runs real guests"),
    }
}

/// Whether this choice of VMM is the stand-in, by its name: what it answers is that of the real one.
fn is_stand_in(vmm: &str) -> bool {
    let name = vmm.rsplit(['=', '/']).next().unwrap_or(vmm);
    [STAND_IN, "regatta-chsim"].contains(&name)
}

/// What real guests need of a machine, as it is here.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Host {
    x86_64: bool,
    root: bool,
    tun: Result<(), String>,
    nft: bool,
    /// None: it is not needed.
    qemu: Option<bool>,
    /// None: it is not needed.
    kvm: Option<Result<(), String>>,
}

impl Host {
    fn look(vmm: &str, guest: Guest) -> Self {
        let opens = |path: &str| {
            let opened = OpenOptions::new().read(true).write(true).open(path);
            opened.map(drop).map_err(|error| format!("{path} cannot be opened: {error}"))
        };
        Self {
            x86_64: cfg!(target_arch = "x86_64"),
            root: proc::is_root(),
            tun: opens("/dev/net/tun"),
            nft: setup::there("nft"),
            qemu: (guest == Guest::Qemu).then(|| setup::there("qemu-system-x86_64")),
            kvm: (!is_stand_in(vmm)).then(|| opens(KVM)),
        }
    }
}

/// An error names all that is missing, and how to get it.
fn needs(host: &Host) -> Result<()> {
    let mut missing = Vec::new();
    if !host.x86_64 {
        missing.push("the guest image is made on x86-64 only".to_owned());
    }
    if !host.root {
        missing
            .push("each guest gets a network of its own, which takes root: run it as root (sudo)".to_owned());
    }
    missing.extend(host.tun.clone().err());
    if !host.nft {
        missing.push("there is no nft: apt-get install nftables".to_owned());
    }
    if host.qemu == Some(false) {
        missing.push("there is no qemu-system-x86_64: apt-get install qemu-system-x86".to_owned());
    }
    if let Some(Err(error)) = &host.kvm {
        missing.push(format!("{error}; without KVM, use --guest qemu and leave --vmm out"));
    }
    if host.kvm == Some(Ok(())) && missing.is_empty() {
        println!(
            "      real VMs on {KVM}: it must run a guest's user space, which a nested one may not; then no guest\n                   gets ready, and the demo ends after two minutes and says so"
        );
    }
    if missing.is_empty() { Ok(()) } else { bail!("real guests cannot run here: {}", missing.join("; ")) }
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
    fn guests_are_real_with_qemu_and_with_the_real_vmm() {
        let real = |vmm, guest| real_guests(vmm, guest).map_err(|error| error.to_string());
        assert_eq!(real("sim", Guest::Model), Ok(false));
        assert_eq!(real("sim", Guest::Qemu), Ok(true));
        assert_eq!(real("cloud-hypervisor=/opt/ch", Guest::Model), Ok(true));
        assert!(real("cloud-hypervisor", Guest::Qemu).expect_err("contradicts").contains("simulator"));
    }

    #[test]
    fn everything_that_real_guests_lack_is_named_at_once() {
        let good = Host { x86_64: true, root: true, tun: Ok(()), nft: true, qemu: None, kvm: None };
        needs(&good).expect("nothing is missing");
        needs(&Host { qemu: Some(true), ..good.clone() }).expect("nothing is missing");
        needs(&Host { kvm: Some(Ok(())), ..good }).expect("nothing is missing");
        let bad = Host {
            x86_64: false,
            root: false,
            tun: Err("no tun".to_owned()),
            nft: false,
            qemu: Some(false),
            kvm: Some(Err("no kvm".to_owned())),
        };
        let said = needs(&bad).expect_err("everything is missing").to_string();
        for part in ["x86-64", "root", "no tun", "nftables", "qemu-system-x86", "no kvm"] {
            assert!(said.contains(part), "no {part} in {said}");
        }
    }

    #[test]
    fn the_length_has_limits() {
        assert_eq!(length("2m").expect("valid"), Duration::from_secs(120));
        for wrong in ["5s", "2h", "60", "soon"] {
            assert!(length(wrong).is_err(), "{wrong}");
        }
    }
}
