//! The table, the reader, the JSON schema and the reference page agree.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};

use super::super::fields::MANIFEST;
use super::super::schema::{Exclusive, Kind, Object, Presence};
use super::super::section::default_value;
use super::*;

/// The paths of all fields, elements of lists at index 0: `metrics[0].name`.
pub(super) fn field_paths() -> Vec<String> {
    fn walk(object: &Object, path: &str, found: &mut Vec<String>) {
        for field in object.fields {
            let path = if path.is_empty() { field.name.to_owned() } else { format!("{path}.{}", field.name) };
            found.push(path.clone());
            match &field.kind {
                Kind::List { of, .. } => walk(of, &format!("{path}[0]"), found),
                kind => {
                    if let Some(object) = kind.object() {
                        walk(object, &path, found);
                    }
                }
            }
        }
    }
    let mut found = Vec::new();
    walk(&MANIFEST, "", &mut found);
    found
}

/// A manifest with nearly every field, in its long form.
pub(super) fn full_manifest() -> Json {
    let digest = "0123456789abcdef".repeat(4);
    let file = json!({ "path": "f", "sha256": digest });
    json!({
        "version": "regatta/v1", "name": "web", "tick": "1s",
        "capacity": { "min": 1, "max": 8, "initial": 2 },
        "image": {
            "disk": { "path": "d", "sha256": digest, "overlay": "raw", "size": "1GiB" },
            "kernel": file, "initramfs": file, "cmdline": "console=ttyS0",
        },
        "instance": {
            "vcpus": 2, "memory": "1GiB", "boot_timeout": "9s", "shutdown_timeout": "9s", "require_isolation": true,
            "start": "cold",
            "data_disks": [{ "name": "data", "size": "1GiB" }],
            "shared_disks": [{ "name": "models", "path": "m", "sha256": digest }],
            "cloud_init": { "seed": "disk", "user_data": "#!/bin/sh\n", "ssh_keys": ["ssh-ed25519 AAAA me"] },
        },
        "network": {
            "mode": "isolated", "pool": "10.40.0.0/24", "port": 81, "guest_address": "10.41.0.2/24",
            "outbound": { "allow": ["10.0.0.0/8"], "deny": ["10.9.0.0/16"] }, "published": true, "dns": ["9.9.9.9"],
        },
        "health": {
            "http": { "path": "/h", "port": 82 }, "interval": "1s", "timeout": "1s",
            "healthy_threshold": 1, "unhealthy_threshold": 1,
        },
        "load_balancer": { "listen": "127.0.0.1:80", "drain_timeout": "1s", "drain": "idle", "idle_timeout": "9s", "queue_timeout": "7s", "max_connections": 9, "panic_threshold": 1 },
        "metrics": [{ "name": "a", "series": "b", "path": "/m", "rate": true, "range": [-0.5, 1] }],
        "policy": {
            "name": "load", "module": "step", "params": { "a": 1 }, "follow": true,
            "limits": { "fuel": 20_000, "deadline": "1ms", "memory": "1MiB", "output": "1KiB", "log_lines": 1, "wake_after": "20ms", "table": 2 },
        },
        "combine": "max",
        "schedules": [{ "name": "day", "cron": "0 8 * * 1-5", "duration": "10h", "time_zone": "Europe/Berlin", "min": 2, "max": 7, "capacity": 3, "freeze": true }],
        "guards": { "on_failure": { "static": 3 }, "missing_data": { "default": 3 }, "scale_in_stabilization": "5m",
            "warm_up": "1s", "scale_out_limit": { "percent": 1, "count": 1, "per": "1s" },
            "scale_in_limit": { "percent": 1, "count": 1, "per": "1s" }, "tolerance": 7, "scale_out_cooldown": "1s",
            "scale_in_cooldown": "2s", "flapping": [{ "metric": "cpu", "above": 0.5 }],
            "max_cost": { "per_instance_hour": 0.25, "per_hour": 4 },
        },
        "repair": { "enabled": false, "action": "restart", "grace": "1s", "max_percent": 7, "max_unhealthy": 8, "hold_after_apply": "2m" },
        "upgrade": { "mode": "rolling", "max_batch": 1, "max_surge": 2, "max_unavailable": 3, "max_unhealthy": 4,
            "max_unhealthy_upgraded": 5, "pause": "1s", "checkpoints": [{ "percent": 6, "bake": "2s" }], "rollback": false },
        "scale_in": { "order": "oldest" },
    })
}

/// [`full_manifest`] with what excludes other fields.
fn other_manifest() -> Json {
    let mut manifest = full_manifest();
    manifest["image"] = json!({ "disk": "d", "firmware": { "path": "f", "sha256": "0".repeat(64) } });
    manifest["schedules"] =
        json!([{ "name": "eve", "start": "2026-12-24T08:00", "end": "2026-12-25T08:00:00Z", "min": 2 }]);
    manifest["health"] = json!({ "tcp": { "port": 83 } });
    manifest["instance"]["cloud_init"] = json!({ "seed": "smbios", "seed_url": "http://10.88.0.1/" });
    manifest["network"] = json!({
        "mode": "bridge", "bridge": { "name": "br0", "address": "10.9.0.1/24" }, "pool": "10.9.0.0/24",
        "gateway": "10.9.0.254", "peers": true,
    });
    manifest
}

/// [`full_manifest`] with a bridge that is there.
fn plain_bridge_manifest() -> Json {
    let mut manifest = full_manifest();
    manifest["network"] =
        json!({ "mode": "bridge", "bridge": "br0", "pool": "10.9.0.128/25", "subnet": "10.9.0.0/24" });
    manifest
}

/// [`full_manifest`] on a named image.
fn named_manifest() -> Json {
    let mut manifest = full_manifest();
    manifest["image"] = json!({ "name": "debian-13", "overlay": "raw", "size": "20GiB" });
    manifest
}

/// [`full_manifest`] with two policies.
fn manifest_with_policies() -> Json {
    let mut manifest = full_manifest();
    let fields = manifest.as_object_mut().expect("a mapping");
    let first = fields.remove("policy").expect("a policy");
    fields.insert("policies".to_owned(), json!([first, { "module": "target-tracking" }]));
    manifest
}

fn manifests() -> [Json; 5] {
    [full_manifest(), other_manifest(), plain_bridge_manifest(), named_manifest(), manifest_with_policies()]
}

/// Puts `value` where `path` points to; false when there is nothing.
pub(super) fn replace(manifest: &mut Json, path: &str, value: Json) -> bool {
    let pointer = format!("/{}", path.replace("[0]", ".0").replace('.', "/"));
    match manifest.pointer_mut(&pointer) {
        Some(place) => {
            *place = value;
            true
        }
        None => false,
    }
}

#[test]
fn every_field_of_the_table_is_read() {
    for manifest in manifests() {
        good(&manifest.to_string());
    }
    for path in field_paths() {
        // Nothing in the manifest may be `[[]]`.
        let damaged = manifests()
            .into_iter()
            .find_map(|mut base| replace(&mut base, &path, json!([[]])).then_some(base));
        let damaged = damaged.unwrap_or_else(|| panic!("no test manifest has {path}"));
        let problems = read(&damaged.to_string()).expect_err("a list of lists");
        let at = format!("{path}:");
        let at_item = format!("{path}[0]:");
        let line = |p: &Problem| format!("{}: {}", p.path, p.message);
        let found: Vec<_> = problems.problems.iter().map(line).collect();
        assert!(
            found.iter().any(|line| line.starts_with(&at) || line.starts_with(&at_item)),
            "{path}: {found:?}"
        );
    }
}

#[test]
fn every_field_of_the_table_is_exported() {
    let mut exported = BTreeSet::new();
    for manifest in manifests() {
        let json = to_manifest_json(&good(&manifest.to_string()));
        exported
            .extend(field_paths().into_iter().filter(|path| replace(&mut json.clone(), path, Json::Null)));
    }
    assert_eq!(exported, field_paths().into_iter().collect());
}

/// What the table says of fields that exclude each other, the reader does.
#[test]
fn exclusive_fields_exclude_each_other() {
    let both = |section: &str, name: &str, value: Json| {
        let mut manifest = full_manifest();
        manifest[section][name] = value;
        read(&manifest.to_string()).expect_err("both fields").problems.len()
    };
    let section =
        |name: &str| MANIFEST.field(name).and_then(|field| field.kind.object()).map(|o| o.exclusive);
    assert_eq!(section("image"), Some(Exclusive::ExactlyOne(&["name", "kernel", "firmware"])));
    assert_eq!(both("image", "name", json!("web")), 4, "disk, kernel, initramfs and cmdline");
    assert_eq!(both("image", "firmware", json!("f")), 1);
    assert_eq!(section("health"), Some(Exclusive::AtMostOne(&["http", "tcp"])));
    assert_eq!(both("health", "tcp", json!(true)), 1);
    assert_eq!(MANIFEST.exclusive, Exclusive::ExactlyOne(&["policy", "policies"]));
    let mut manifest = full_manifest();
    manifest["policies"] = json!([{ "module": "a" }]);
    assert_eq!(read(&manifest.to_string()).expect_err("both").problems.len(), 1);
}

#[test]
fn every_default_is_a_value_of_its_field() {
    for path in field_paths() {
        let Presence::Default(text) = field(&path).presence else { continue };
        let with_default = |mut manifest: Json| {
            replace(&mut manifest, &path, default_value(text)).then(|| read(&manifest.to_string()))
        };
        // A default may exclude other fields of one of the manifests, not of all.
        let tried: Vec<_> = manifests().into_iter().filter_map(with_default).collect();
        assert!(tried.iter().any(Result::is_ok), "{path}: {tried:?}");
    }
}

/// The field that a path leads to.
fn field(path: &str) -> &'static super::super::schema::Field {
    let mut object: &'static Object = &MANIFEST;
    let mut found = None;
    for name in path.replace("[0]", "").split('.') {
        let field = object.field(name).unwrap_or_else(|| panic!("no field {path}"));
        object = match &field.kind {
            Kind::List { of, .. } => of,
            kind => kind.object().unwrap_or(object),
        };
        found = Some(field);
    }
    found.unwrap_or_else(|| panic!("empty path"))
}

#[test]
fn the_committed_schema_is_the_one_of_the_table() {
    let schema = serde_json::to_string_pretty(&manifest_schema()).expect("JSON");
    assert_committed("docs/manifest.schema.json", |_| format!("{schema}\n"));
}

#[test]
fn the_reference_page_is_the_one_of_the_table() {
    assert_committed("docs/manifest.md", |page| {
        let (begin, end) = ("<!-- fields: made from the table by a test -->\n", "<!-- end of fields -->\n");
        let (before, rest) = page.split_once(begin).expect("the page has the begin mark");
        let (_, after) = rest.split_once(end).expect("the page has the end mark");
        format!("{before}{begin}{}{end}{after}", super::page::fields())
    });
}

/// A committed file must be what `make` turns it into. With `REGATTA_BLESS=1` it
/// is written instead.
fn assert_committed(path: &str, make: impl Fn(&str) -> String) {
    let file: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    let made = make(&committed);
    if std::env::var_os("REGATTA_BLESS").is_some() {
        std::fs::write(&file, made).unwrap_or_else(|error| panic!("{path}: {error}"));
        return;
    }
    assert!(
        committed == made,
        "{path} is out of date: run this test once with REGATTA_BLESS=1 and commit it"
    );
}

/// Every complete manifest on the reference page is one.
#[test]
fn the_manifests_of_the_reference_page_are_accepted() {
    let page = include_str!("../../../../../docs/manifest.md");
    let blocks = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let complete: Vec<_> = blocks.filter(|block| block.starts_with("version:")).collect();
    assert!(!complete.is_empty());
    for block in complete {
        good(block);
    }
}
