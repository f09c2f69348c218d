//! `instance`: machine, disks and what cloud-init tells the guest.

use std::collections::BTreeSet;

use super::super::network::Network;
use super::super::report::Invalid;
use super::super::section::{Item, Section};
use super::super::types::{CloudInit, DataDisk, InstanceTemplate, SeedKind, SharedDisk, StartMode};
use super::file_fields;

pub(super) fn instance(section: &Section<'_>, base_dir: &str) -> Result<InstanceTemplate, Invalid> {
    let vcpus = section.item("vcpus").and_then(Item::integer);
    let memory_bytes = section.item("memory").and_then(Item::size_bytes);
    let boot_timeout_ms = section.item("boot_timeout").and_then(Item::duration_ms);
    let shutdown_timeout_ms = section.item("shutdown_timeout").and_then(Item::duration_ms);
    let mut names = BTreeSet::new();
    let data_disks = disks(section, "data_disks", &mut names, |section, name| {
        Ok(DataDisk { name, size_bytes: section.item("size").and_then(Item::size_bytes)? })
    });
    let shared_disks = disks(section, "shared_disks", &mut names, |section, name| {
        Ok(SharedDisk { name, file: file_fields(section, base_dir)? })
    });
    let cloud_init = section
        .optional("cloud_init")
        .and_then(|item| item.map(|item| item.section().and_then(|s| cloud_init(&s))).transpose());
    let require_isolation = section.item("require_isolation").and_then(Item::boolean);
    let start = section.item("start").and_then(Item::word).map(|word| match word {
        "snapshot" => StartMode::Snapshot,
        "auto" => StartMode::Auto,
        _ => StartMode::Cold,
    });
    let mut warm = Ok(());
    if matches!(start, Ok(StartMode::Snapshot | StartMode::Auto)) && section.has("data_disks") {
        let message = "has no place beside `data_disks`: a snapshot does not hold them";
        let hint = "leave `data_disks` out, or use `start: cold`";
        warm = Err(section.complain("start", message, Some(hint.into())));
    }
    let template = InstanceTemplate {
        vcpus: vcpus?,
        memory_bytes: memory_bytes?,
        boot_timeout_ms: boot_timeout_ms?,
        shutdown_timeout_ms: shutdown_timeout_ms?,
        data_disks: data_disks?,
        shared_disks: shared_disks?,
        cloud_init: cloud_init?,
        require_isolation: require_isolation?,
        start: start?,
    };
    warm.map(|()| template)
}

/// A restored guest has the address of the one that the snapshot is of.
pub(super) fn start_fits(section: &Section<'_>, start: StartMode, network: &Network) -> Result<(), Invalid> {
    match (start, network) {
        (StartMode::Cold, _) | (_, Network::Isolated { .. } | Network::None) => Ok(()),
        (StartMode::Snapshot | StartMode::Auto, Network::Bridge { .. } | Network::Loopback { .. }) => {
            let message = format!(
                "`{}` needs `network.mode` to be `isolated` or `none`: a restored guest keeps its address",
                start.as_str()
            );
            Err(section.complain("start", message, Some("use `start: cold`".into())))
        }
    }
}

/// Reads a list of disks; their names must be unlike each other and those in `names`.
fn disks<T>(
    section: &Section<'_>,
    list: &str,
    names: &mut BTreeSet<String>,
    read: impl Fn(&Section<'_>, String) -> Result<T, Invalid>,
) -> Result<Vec<T>, Invalid> {
    let Some(item) = section.optional(list)? else { return Ok(Vec::new()) };
    let mut disks = Vec::new();
    for section in item.sections()? {
        disks.push(section.and_then(|section| {
            let name = section.item("name").and_then(Item::text);
            let unique = name.and_then(|name| {
                if names.insert(name.clone()) {
                    Ok(name)
                } else {
                    Err(section.complain("name", format!("`{name}` is already the name of a disk"), None))
                }
            });
            // Read in any case: its own problems are reported too.
            let disk = read(&section, unique.clone().unwrap_or_default());
            unique.and(disk)
        }));
    }
    disks.into_iter().collect()
}

fn cloud_init(section: &Section<'_>) -> Result<CloudInit, Invalid> {
    let seed = section.item("seed").and_then(Item::word);
    let user_data = section.optional("user_data").and_then(|item| item.map(Item::text).transpose());
    let ssh_keys = section.optional("ssh_keys").and_then(|item| match item {
        Some(item) => item.texts(|text| Ok(text.to_owned())),
        None => Ok(Vec::new()),
    });
    let seed_url = section.optional("seed_url").and_then(|item| item.map(Item::text).transpose());
    let mut fits = Ok(());
    if let Ok(seed) = seed {
        let others: &[&str] = if seed == "disk" { &["seed_url"] } else { &["user_data", "ssh_keys"] };
        for name in others.iter().filter(|name| section.has(name)) {
            let message = format!("has no place with `seed: {seed}`");
            let hint = match seed {
                "disk" => "leave it out, or use `seed: smbios`",
                _ => "the guest fetches it from `seed_url`",
            };
            fits = Err(section.complain(name, message, Some(hint.into())));
        }
    }
    let cloud_init = CloudInit {
        seed: if seed? == "smbios" { SeedKind::Smbios } else { SeedKind::Disk },
        user_data: user_data?.unwrap_or_default(),
        ssh_keys: ssh_keys?,
        seed_url: seed_url?,
    };
    fits.map(|()| cloud_init)
}
