//! Process 1 out of the initramfs: file systems, modules, identity, network, root disk; then the application.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, mount};

use crate::cmdline::{self, Address};
use crate::identity::{self, Identity};
use crate::label::{SECTOR_BYTES, fat_label};
use crate::seed::{MetaData, network_config};
use crate::{dmi, net, service};

/// Argument of the second program.
pub(crate) const APPLICATION: &str = "application";
/// Where the root disk is mounted.
pub(crate) const ROOT: &str = "/disk";
/// On the root disk: the second program, the marker of the image's build, and the boot counter.
const PROGRAM: &str = "regatta-guest";
const BUILD_ID: &str = "build-id";
const BOOTS: &str = "boots";

const ROOT_LABEL: &str = "REGATTA";
const SEED_LABEL: &str = "CIDATA";
/// In the initramfs: the modules in the order in which they load, one file name per line.
const MODULES: &str = "/modules";
const SERIAL: &str = "/sys/class/dmi/id/product_serial";

/// Runs until the application takes over.
pub(crate) fn run() -> Result<()> {
    for (kind, target) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/run")] {
        fs::create_dir_all(target).with_context(|| format!("cannot create {target}"))?;
        mount(kind, target, kind, MountFlags::empty(), None)
            .with_context(|| format!("cannot mount {kind} on {target}"))?;
    }
    load_modules();

    let cmdline = cmdline::parse(&fs::read_to_string("/proc/cmdline").unwrap_or_default());
    let seed = said("seed", read_seed()).unwrap_or_default();
    let serial = fs::read_to_string(SERIAL).ok().and_then(|serial| dmi::parse(&serial));
    let mut identity = identity::merge(seed.meta_data, serial, &cmdline);
    identity.user_data = seed.user_data;
    // A name that the kernel refuses is still the one that is told.
    let _ = rustix::system::sethostname(identity.hostname.as_bytes());

    let addresses =
        if seed.addresses.is_empty() { cmdline.address.into_iter().collect() } else { seed.addresses };
    said("network", net::up("lo"));
    for address in &addresses {
        if said("network", net::configure(address)).is_some() {
            identity.address.get_or_insert_with(|| address.address.to_string());
        }
    }

    let on_disk = said("root disk", mount_root(&mut identity)).unwrap_or(false);
    let text = serde_json::to_string(&identity).context("cannot serialize the identity")?;
    fs::write(identity::PATH, text).with_context(|| format!("cannot write {}", identity::PATH))?;
    println!(
        "regatta-guest: {} ({}), boot {}, build {:?}",
        identity.hostname, identity.instance_id, identity.boot_count, identity.build_id
    );
    if on_disk {
        exec(&Path::new(ROOT).join(PROGRAM))?;
    }
    println!("regatta-guest: no root disk with label {ROOT_LABEL}: serving from the initramfs");
    service::run()
}

/// A part of the set-up that may fail: the guest goes on without it, and the serial console says why.
fn said<T>(what: &str, outcome: Result<T>) -> Option<T> {
    outcome.map_err(|error| println!("regatta-guest: {what}: {error:#}")).ok()
}

fn exec(program: &Path) -> Result<Infallible> {
    let error = Command::new(program).arg(APPLICATION).exec();
    Err(error).with_context(|| format!("cannot run {}", program.display()))
}

fn load_modules() {
    let order = fs::read_to_string(format!("{MODULES}/order")).unwrap_or_default();
    for name in order.lines() {
        let load = || -> Result<()> {
            let file = File::open(Path::new(MODULES).join(name))?;
            rustix::system::finit_module(&file, c"", 0)?;
            Ok(())
        };
        said(&format!("module {name}"), load());
    }
}

/// The virtio disks, in the order of their names.
fn disks() -> Vec<PathBuf> {
    let entries = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| name.starts_with("vd"));
    names.sort_by_key(|name| (name.len(), name.clone()));
    names.iter().map(|name| Path::new("/dev").join(name)).collect()
}

fn with_label(label: &str) -> Option<PathBuf> {
    disks().into_iter().find(|disk| {
        let mut sector = [0; SECTOR_BYTES];
        File::open(disk).and_then(|mut file| file.read_exact(&mut sector)).is_ok()
            && fat_label(&sector).is_some_and(|found| found.eq_ignore_ascii_case(label))
    })
}

#[derive(Debug, Default)]
struct Seed {
    meta_data: MetaData,
    addresses: Vec<Address>,
    user_data: Option<String>,
}

fn read_seed() -> Result<Seed> {
    let Some(disk) = with_label(SEED_LABEL) else {
        return Ok(Seed::default());
    };
    let target = "/seed";
    fs::create_dir_all(target)?;
    mount(&disk, target, "vfat", MountFlags::RDONLY, None)
        .with_context(|| format!("cannot mount {}", disk.display()))?;
    let read = |name: &str| fs::read_to_string(Path::new(target).join(name)).ok();
    let network = read("network-config").filter(|text| !text.trim().is_empty());
    Ok(Seed {
        meta_data: said("seed", MetaData::parse(&read("meta-data").unwrap_or_default())).unwrap_or_default(),
        addresses: network.and_then(|text| said("seed", network_config(&text))).unwrap_or_default(),
        user_data: read("user-data").filter(|text| !text.is_empty()),
    })
}

/// Mounts the root disk for writing, counts this boot on it and reads its marker. `false` when there is none.
fn mount_root(identity: &mut Identity) -> Result<bool> {
    let Some(disk) = with_label(ROOT_LABEL) else {
        return Ok(false);
    };
    fs::create_dir_all(ROOT)?;
    mount(&disk, ROOT, "vfat", MountFlags::NOATIME, None)
        .with_context(|| format!("cannot mount {}", disk.display()))?;
    let path = Path::new(ROOT).join(BOOTS);
    let boots: u64 = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    identity.boot_count = boots + 1;
    fs::write(&path, format!("{}\n", identity.boot_count))
        .with_context(|| format!("cannot write {}", path.display()))?;
    // A guest may be cut off at any moment from here on.
    rustix::fs::sync();
    let build_id = fs::read_to_string(Path::new(ROOT).join(BUILD_ID)).unwrap_or_default();
    identity.build_id = build_id.trim().to_owned();
    Ok(true)
}
