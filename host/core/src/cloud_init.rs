//! What cloud-init's NoCloud data source is told about an instance.
//!
//! Source: <https://docs.cloud-init.io/en/latest/reference/datasources/nocloud.html>. The files are YAML; JSON is YAML too.

use serde_json::{Map, Value as Json, json};

use crate::agent::Identity;
use crate::manifest::{CloudInit, GuestAddress, ScaleSet, SeedKind};
use crate::template::{Variables, render};

/// The files of a seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeedFiles {
    /// `meta-data`: instance id, hostname, keys.
    pub meta_data: String,
    /// `user-data`, with all variables replaced.
    pub user_data: String,
    /// `network-config`, version 2.
    pub network_config: Option<String>,
}

/// The name of an instance, also its hostname.
#[must_use]
pub fn instance_name(set: &str, id: u32) -> String {
    format!("{set}-{id}")
}

/// An id that no other instance of any time has: cloud-init does its first-boot work once per id.
#[must_use]
pub fn instance_id(set: &str, instance: &Identity) -> String {
    format!("{}-{}", instance_name(set, instance.id), instance.created_ms)
}

/// The files of the seed disk of an instance; none when the set does not want one.
#[must_use]
pub fn seed_files(set: &ScaleSet, instance: &Identity) -> Option<SeedFiles> {
    let cloud_init = set.instance.cloud_init.as_ref().filter(|c| c.seed == SeedKind::Disk)?;
    let guest = set.network.guest_address(instance.address);
    Some(SeedFiles {
        meta_data: meta_data(set, instance, cloud_init),
        user_data: render(&cloud_init.user_data, &variables(set, instance)),
        network_config: guest.as_ref().map(network_config),
    })
}

/// The SMBIOS serial number that tells cloud-init of an instance without a seed disk; none when the set has one, or no cloud-init.
#[must_use]
pub fn smbios_serial(set: &ScaleSet, instance: &Identity) -> Option<String> {
    let cloud_init = set.instance.cloud_init.as_ref().filter(|c| c.seed == SeedKind::Smbios)?;
    let (id, name) = (instance_id(&set.name, instance), instance_name(&set.name, instance.id));
    let mut serial = format!("ds=nocloud;i={id};h={name}");
    if let Some(url) = &cloud_init.seed_url {
        // Without the mode, cloud-init before 23 fetches the files and then leaves them unused.
        serial.push_str(";dsmode=net;s=");
        serial.push_str(&render(url, &variables(set, instance)));
    }
    Some(serial)
}

fn variables(set: &ScaleSet, instance: &Identity) -> Variables {
    let guest = set.network.guest_address(instance.address);
    Variables {
        name: instance_name(&set.name, instance.id),
        set: set.name.clone(),
        index: instance.id,
        generation: instance.generation,
        address: instance.address,
        guest_address: guest.map_or(instance.address, |guest| guest.address),
    }
}

fn meta_data(set: &ScaleSet, instance: &Identity, cloud_init: &CloudInit) -> String {
    let mut fields = json!({
        "instance-id": instance_id(&set.name, instance),
        "local-hostname": instance_name(&set.name, instance.id),
    });
    if !cloud_init.ssh_keys.is_empty() {
        fields["public-keys"] = cloud_init.ssh_keys.clone().into();
    }
    lines(&fields)
}

/// Netplan's format; the card is found by its address, since its name depends on the image.
fn network_config(guest: &GuestAddress) -> String {
    let mut card = json!({
        "match": { "macaddress": guest.mac },
        "set-name": "eth0",
        "dhcp4": false,
        "addresses": [format!("{}/{}", guest.address, guest.prefix)],
    });
    if let Some(gateway) = guest.gateway {
        card["routes"] = json!([{ "to": "0.0.0.0/0", "via": gateway }]);
    }
    if !guest.dns.is_empty() {
        card["nameservers"] = json!({ "addresses": guest.dns });
    }
    lines(&json!({ "version": 2, "ethernets": { "net0": card } }))
}

/// One field a line, so that simple guests can read it without a YAML parser.
fn lines(fields: &Json) -> String {
    let empty = Map::new();
    let mut text = String::new();
    for (name, value) in fields.as_object().unwrap_or(&empty) {
        text.push_str(name);
        text.push_str(": ");
        match value {
            // Ids and hostnames are plain words.
            Json::String(word) => text.push_str(word),
            other => text.push_str(&other.to_string()),
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::manifest::read_manifest;

    fn set(more: &str) -> ScaleSet {
        let text = format!(
            "version: regatta/v1\nname: web\ncapacity: {{ min: 1, max: 4 }}\nimage: {{ kernel: k }}\n\
             policy: {{ module: step }}\n{more}\n"
        );
        read_manifest(text.as_bytes(), "set.yaml", "/").expect("a manifest").set
    }

    fn instance() -> Identity {
        Identity {
            set: "web".into(),
            id: 7,
            uid: "1-7".into(),
            epoch: 1,
            generation: 3,
            created_ms: 1_700_000_000_000,
            address: Ipv4Addr::new(10, 213, 0, 9),
        }
    }

    #[test]
    fn a_seed_tells_name_network_and_user_data() {
        let set = set(
            "instance: { cloud_init: { user_data: \"#!/bin/sh\\necho ${regatta.name} ${regatta.guest_address}\", \
             ssh_keys: [ssh-ed25519 AAAA] } }\nnetwork: { dns: [9.9.9.9] }",
        );
        let files = seed_files(&set, &instance()).expect("a seed");
        assert_eq!(
            files.meta_data,
            "instance-id: web-7-1700000000000\nlocal-hostname: web-7\npublic-keys: [\"ssh-ed25519 AAAA\"]\n"
        );
        assert_eq!(files.user_data, "#!/bin/sh\necho web-7 10.88.0.2");
        let network = files.network_config.expect("a network");
        let card = network.lines().find_map(|line| line.strip_prefix("ethernets: ")).expect("cards");
        let card: Json = serde_json::from_str(card).expect("JSON");
        assert_eq!(
            card["net0"],
            json!({
                "match": { "macaddress": "52:54:0a:58:00:02" }, "set-name": "eth0", "dhcp4": false,
                "addresses": ["10.88.0.2/24"], "routes": [{ "to": "0.0.0.0/0", "via": "10.88.0.1" }],
                "nameservers": { "addresses": ["9.9.9.9"] },
            })
        );
        assert_eq!(smbios_serial(&set, &instance()), None);
    }

    #[test]
    fn without_a_seed_disk_the_serial_number_tells_who_it_is() {
        let set = set(
            "instance: { cloud_init: { seed: smbios, seed_url: \"http://10.88.0.1/${regatta.index}/\" } }",
        );
        let serial = "ds=nocloud;i=web-7-1700000000000;h=web-7;dsmode=net;s=http://10.88.0.1/7/";
        assert_eq!(smbios_serial(&set, &instance()).as_deref(), Some(serial));
        assert_eq!(seed_files(&set, &instance()), None);
    }

    #[test]
    fn a_set_without_cloud_init_tells_nothing() {
        let set = set("");
        assert_eq!((seed_files(&set, &instance()), smbios_serial(&set, &instance())), (None, None));
    }
}
