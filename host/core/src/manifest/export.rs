//! [`ScaleSet`] → the manifest that says the same, with every default spelt out.

use std::net::SocketAddr;

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::Value as Json;

use super::fields::VERSION;
use super::network::Network;
use super::outbound::Outbound;
use super::rate_limit::RateLimit;
use super::types::{
    Checkpoint, CloudInit, DrainMode, DrainPolicy, FileRef, FlapRule, GuestMetric, Image, InstanceTemplate,
    MaxCost, MissingData, OnFailure, Overlay, PolicySpec, Probe, RepairAction, ScaleSet, SeedKind,
    UpgradeMode,
};
use super::units::{format_duration_ms, format_size_bytes};
use super::value_range::ValueRange;
use crate::plan::ScaleInOrder;
use crate::sizing::{ScheduleEntry, When};

/// A manifest in the order in which people write it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Tree {
    /// Neither a list nor a mapping.
    Scalar(Json),
    List(Vec<Tree>),
    Map(Vec<(String, Tree)>),
}

/// The manifest of a set as YAML. [`super::read_manifest`] reads it back.
#[must_use]
pub fn to_manifest_yaml(set: &ScaleSet) -> String {
    // Serializing a tree of plain values into memory does not fail; JSON is YAML too.
    serde_saphyr::to_string(&tree(set)).unwrap_or_else(|_| to_manifest_json(set).to_string())
}

/// The manifest of a set as JSON: the same fields and units as in YAML.
#[must_use]
pub fn to_manifest_json(set: &ScaleSet) -> Json {
    tree(set).into_json()
}

/// The manifest of a set as a tree.
pub(crate) fn tree(set: &ScaleSet) -> Tree {
    let mut fields = vec![
        ("version", text(VERSION)),
        ("name", text(&set.name)),
        ("tick", duration(set.tick_ms)),
        (
            "capacity",
            map([
                ("min", number(set.capacity.min)),
                ("max", number(set.capacity.max)),
                ("initial", number(set.capacity.initial)),
            ]),
        ),
        ("image", image(&set.image)),
        ("instance", instance(&set.instance)),
        ("network", network(&set.network)),
        ("health", set.health.tree()),
    ];
    fields.extend(set.load_balancer.as_ref().map(|balancer| ("load_balancer", balancer.tree())));
    if !set.metrics.is_empty() {
        fields.push(("metrics", Tree::List(set.metrics.iter().map(GuestMetric::tree).collect())));
    }
    match set.policies.as_slice() {
        [one] => fields.push(("policy", policy(one))),
        several => fields.push(("policies", Tree::List(several.iter().map(policy).collect()))),
    }
    fields.push(("combine", text(set.combine.as_str())));
    if !set.schedules.is_empty() {
        fields.push(("schedules", Tree::List(set.schedules.iter().map(schedule).collect())));
    }
    fields.push(("guards", set.guards.tree()));
    fields.push(("repair", set.repair.tree()));
    fields.push(("upgrade", set.upgrade.tree()));
    fields.push(("scale_in", set.scale_in.tree()));
    map(fields)
}

fn schedule(entry: &ScheduleEntry) -> Tree {
    let mut fields = vec![("name", text(&entry.name))];
    match &entry.when {
        When::Recurring { cron, duration_ms } => {
            fields.extend([("cron", text(cron.as_str())), ("duration", duration(*duration_ms))]);
        }
        When::Fixed { start, end, .. } => fields.extend([("start", text(start)), ("end", text(end))]),
    }
    fields.push(("time_zone", text(entry.time_zone.as_str())));
    let sizes = [("min", entry.min), ("max", entry.max), ("capacity", entry.capacity)];
    fields.extend(sizes.into_iter().filter_map(|(name, size)| Some((name, number(size?)))));
    fields.push(("freeze", boolean(entry.freeze)));
    map(fields)
}

fn image(image: &Image) -> Tree {
    let mut fields = Vec::new();
    let overlay = |overlay| match overlay {
        Overlay::Qcow2 => text("qcow2"),
        Overlay::Raw => text("raw"),
    };
    if let Some(name) = &image.name {
        fields.push(("name", text(name)));
        fields.push(("overlay", overlay(image.overlay())));
        fields.extend(image.size_bytes.map(|bytes| ("size", size(bytes))));
    }
    if let Some(disk) = &image.disk {
        let mut disk_fields = file_fields(&disk.file);
        disk_fields.push(("overlay", overlay(disk.overlay)));
        disk_fields.extend(disk.size_bytes.map(|bytes| ("size", size(bytes))));
        fields.push(("disk", map(disk_fields)));
    }
    let files = [("kernel", &image.kernel), ("initramfs", &image.initramfs), ("firmware", &image.firmware)];
    fields
        .extend(files.into_iter().filter_map(|(name, file)| Some((name, map(file_fields(file.as_ref()?))))));
    if !image.cmdline.is_empty() {
        fields.push(("cmdline", text(&image.cmdline)));
    }
    map(fields)
}

fn file_fields(file: &FileRef) -> Vec<(&'static str, Tree)> {
    let mut fields = vec![("path", text(&file.path))];
    fields.extend(file.sha256.as_deref().map(|digest| ("sha256", text(digest))));
    fields
}

fn instance(instance: &InstanceTemplate) -> Tree {
    let mut fields = vec![
        ("vcpus", number(instance.vcpus)),
        ("memory", size(instance.memory_bytes)),
        ("boot_timeout", duration(instance.boot_timeout_ms)),
        ("shutdown_timeout", duration(instance.shutdown_timeout_ms)),
    ];
    if !instance.data_disks.is_empty() {
        let disk = |disk: &super::types::DataDisk| {
            map([("name", text(&disk.name)), ("size", size(disk.size_bytes))])
        };
        fields.push(("data_disks", Tree::List(instance.data_disks.iter().map(disk).collect())));
    }
    if !instance.shared_disks.is_empty() {
        let disk = |disk: &super::types::SharedDisk| {
            map([("name", text(&disk.name))].into_iter().chain(file_fields(&disk.file)))
        };
        fields.push(("shared_disks", Tree::List(instance.shared_disks.iter().map(disk).collect())));
    }
    fields.extend(instance.cloud_init.as_ref().map(|given| ("cloud_init", cloud_init(given))));
    fields.push(("require_isolation", boolean(instance.require_isolation)));
    fields.push(("start", text(instance.start.as_str())));
    map(fields)
}

fn cloud_init(given: &CloudInit) -> Tree {
    let seed = match given.seed {
        SeedKind::Disk => "disk",
        SeedKind::Smbios => "smbios",
    };
    let mut fields = vec![("seed", text(seed))];
    if !given.user_data.is_empty() {
        fields.push(("user_data", text(&given.user_data)));
    }
    if !given.ssh_keys.is_empty() {
        fields.push(("ssh_keys", texts(&given.ssh_keys)));
    }
    fields.extend(given.seed_url.as_ref().map(|url| ("seed_url", text(url))));
    map(fields)
}

fn network(network: &Network) -> Tree {
    let net = |base: &dyn std::fmt::Display, prefix: u8| text(&format!("{base}/{prefix}"));
    let mut fields = Vec::new();
    match network {
        Network::Isolated { base, prefix, guest, guest_prefix, outbound, published, dns, port } => {
            fields.extend([
                ("mode", text("isolated")),
                ("pool", net(base, *prefix)),
                ("port", number(*port)),
                ("guest_address", net(guest, *guest_prefix)),
                ("outbound", self::outbound(outbound)),
                ("published", boolean(*published)),
            ]);
            if !dns.is_empty() {
                fields.push(("dns", texts(dns)));
            }
        }
        Network::Bridge { bridge, managed, base, prefix, subnet_prefix, gateway, peers, dns, port } => {
            let bridge = match managed {
                Some(address) => map([("name", text(bridge)), ("address", net(address, *subnet_prefix))]),
                None => text(bridge),
            };
            let subnet = std::net::Ipv4Addr::from(u32::from(*base) & !(u32::MAX >> subnet_prefix));
            fields.extend([
                ("mode", text("bridge")),
                ("pool", net(base, *prefix)),
                ("port", number(*port)),
                ("bridge", bridge),
            ]);
            if managed.is_none() {
                fields.push(("subnet", net(&subnet, *subnet_prefix)));
            }
            fields.extend(gateway.map(|gateway| ("gateway", text(&gateway.to_string()))));
            fields.push(("peers", boolean(*peers)));
            if !dns.is_empty() {
                fields.push(("dns", texts(dns)));
            }
        }
        Network::Loopback { base, prefix, port } => {
            fields.extend([("mode", text("loopback")), ("pool", net(base, *prefix)), ("port", number(*port))])
        }
        Network::None => fields.push(("mode", text("none"))),
    }
    map(fields)
}

fn outbound(outbound: &Outbound) -> Tree {
    match outbound {
        Outbound::Switch(open) => boolean(*open),
        Outbound::Limited { allow, deny } => {
            let lists = [("allow", allow), ("deny", deny)].into_iter().filter(|(_, nets)| !nets.is_empty());
            map(lists.map(|(name, nets)| (name, texts(nets))))
        }
    }
}

pub(crate) fn boolean(value: bool) -> Tree {
    Tree::Scalar(Json::Bool(value))
}

fn texts<T: ToString>(items: &[T]) -> Tree {
    Tree::List(items.iter().map(|item| text(&item.to_string())).collect())
}

pub(crate) fn probe(probe: &Option<Probe>) -> Option<(&'static str, Tree)> {
    Some(match probe.as_ref()? {
        Probe::Http { path, port: None } => ("http", text(path)),
        Probe::Http { path, port: Some(port) } => {
            ("http", map([("path", text(path)), ("port", number(*port))]))
        }
        Probe::Tcp { port: None } => ("tcp", boolean(true)),
        Probe::Tcp { port: Some(port) } => ("tcp", map([("port", number(*port))])),
    })
}

pub(crate) fn millis(ms: &u64) -> Tree {
    duration(*ms)
}

pub(crate) fn rate_limit(limit: &RateLimit) -> Tree {
    if *limit == RateLimit::NONE {
        return text("none");
    }
    let RateLimit { percent, count, period_ms } = *limit;
    map([("percent", number(percent)), ("count", number(count)), ("per", duration(period_ms))])
}

pub(crate) fn address(address: &SocketAddr) -> Tree {
    text(&address.to_string())
}

pub(crate) fn deadline(deadline_ms: &u64) -> Tree {
    duration(*deadline_ms)
}

pub(crate) fn drain(drain: &DrainPolicy) -> Tree {
    duration(drain.timeout_ms)
}

pub(crate) fn drain_mode(mode: &DrainMode) -> Tree {
    text(match mode {
        DrainMode::Wait => "wait",
        DrainMode::Idle => "idle",
    })
}

fn policy(policy: &PolicySpec) -> Tree {
    map([
        ("name", text(&policy.name)),
        ("module", text(&policy.module)),
        ("params", Tree::from_json(&policy.params)),
        ("limits", policy.limits.tree()),
        ("follow", Tree::Scalar(policy.follow.into())),
    ])
}

pub(crate) fn on_failure(on_failure: &OnFailure) -> Tree {
    match *on_failure {
        OnFailure::Hold => text("hold"),
        OnFailure::Static { capacity } => map([("static", number(capacity))]),
    }
}

pub(crate) fn missing_data(missing_data: &MissingData) -> Tree {
    match *missing_data {
        MissingData::NoScaleIn => text("no-scale-in"),
        MissingData::Hold => text("hold"),
        MissingData::Ignore => text("ignore"),
        MissingData::Default { capacity } => map([("default", number(capacity))]),
    }
}

/// One value, so that a change of it is one.
pub(crate) fn range(range: &ValueRange) -> Tree {
    #[expect(clippy::cast_possible_truncation, reason = "whole numbers that an i64 holds")]
    let number = |end: f64| match end {
        end if end.fract() == 0.0 && end.abs() < 1e15 => Json::from(end as i64),
        end => Json::from(end),
    };
    Tree::Scalar(Json::Array(range.ends().map(number).to_vec()))
}

pub(crate) fn map(fields: impl IntoIterator<Item = (&'static str, Tree)>) -> Tree {
    Tree::Map(fields.into_iter().map(|(name, tree)| (name.to_owned(), tree)).collect())
}

pub(super) fn upgrade_mode(mode: &UpgradeMode) -> Tree {
    text(mode.as_str())
}

pub(super) fn checkpoints(checkpoints: &[Checkpoint]) -> Tree {
    let one = |it: &Checkpoint| map([("percent", number(it.percent)), ("bake", duration(it.bake_ms))]);
    Tree::List(checkpoints.iter().map(one).collect())
}

fn decimal(number: f64) -> Tree {
    Tree::Scalar(number.into())
}

pub(super) fn flapping(rules: &[FlapRule]) -> Tree {
    let one = |rule: &FlapRule| map([("metric", text(&rule.metric)), ("above", decimal(rule.above))]);
    Tree::List(rules.iter().map(one).collect())
}

pub(super) fn max_cost(cost: &Option<MaxCost>) -> Tree {
    cost.map_or_else(
        || text("none"),
        |cost| {
            let price = ("per_instance_hour", decimal(cost.per_instance_hour));
            map([price, ("per_hour", decimal(cost.per_hour))])
        },
    )
}

pub(crate) fn repair_action(action: &RepairAction) -> Tree {
    text(action.as_str())
}

pub(crate) fn scale_in_order(order: &ScaleInOrder) -> Tree {
    text(order.as_str())
}

pub(crate) fn text(text: &str) -> Tree {
    Tree::Scalar(text.into())
}

pub(crate) fn number(number: impl Into<u64>) -> Tree {
    Tree::Scalar(number.into().into())
}

pub(crate) fn duration(ms: u64) -> Tree {
    Tree::Scalar(format_duration_ms(ms).into())
}

pub(crate) fn size(bytes: u64) -> Tree {
    Tree::Scalar(format_size_bytes(bytes).into())
}

impl Tree {
    pub(crate) fn from_json(json: &Json) -> Self {
        match json {
            Json::Array(items) => Self::List(items.iter().map(Self::from_json).collect()),
            Json::Object(fields) => {
                Self::Map(fields.iter().map(|(key, value)| (key.clone(), Self::from_json(value))).collect())
            }
            scalar => Self::Scalar(scalar.clone()),
        }
    }

    pub(crate) fn into_json(self) -> Json {
        match self {
            Self::Scalar(scalar) => scalar,
            Self::List(items) => Json::Array(items.into_iter().map(Self::into_json).collect()),
            Self::Map(fields) => {
                Json::Object(fields.into_iter().map(|(key, tree)| (key, tree.into_json())).collect())
            }
        }
    }
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Scalar(scalar) => scalar.serialize(serializer),
            Self::List(items) => {
                let mut seq = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    seq.serialize_element(item)?;
                }
                seq.end()
            }
            Self::Map(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                for (key, tree) in fields {
                    map.serialize_entry(key, tree)?;
                }
                map.end()
            }
        }
    }
}
