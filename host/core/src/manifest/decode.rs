//! The tree of a manifest → [`ScaleSet`], with the rules between fields.

mod instance;
mod network;
mod policy;
mod schedule;

use self::instance::{instance, start_fits};
use self::network::network;
pub use self::policy::default_policy_name;
use self::policy::{combine_rule, policies};
use self::schedule::schedules;
use super::formats;
use super::network::Network;
use super::node::Node;
use super::rate_limit::RateLimit;
use super::report::{Invalid, Report};
use super::section::{Item, Section};
use super::types::{
    Capacity, Checkpoint, DrainMode, DrainPolicy, FileRef, FlapRule, Guards, GuestMetric, Health, Image,
    ImageDisk, LoadBalancer, MaxCost, MissingData, OnFailure, Overlay, Probe, Repair, RepairAction, ScaleIn,
    ScaleSet, UpgradeMode, UpgradePolicy,
};
use super::value_range::ValueRange;
use crate::plan::ScaleInOrder;

/// Reads the whole manifest. Everything that can be checked is checked, whatever
/// else is wrong.
pub(crate) fn scale_set(report: &Report<'_>, node: &Node, base_dir: &str) -> Result<ScaleSet, Invalid> {
    let root = Section::root(report, node)?;
    let version = root.item("version").and_then(Item::word);
    let name = root.item("name").and_then(Item::text);
    let tick_ms = root.item("tick").and_then(Item::duration_ms);
    let (bounds, capacity) = match root.item("capacity").and_then(Item::section) {
        Ok(section) => capacity(&section),
        Err(invalid) => (Bounds::default(), Err(invalid)),
    };
    let image = root.item("image").and_then(Item::section).and_then(|s| image(&s, base_dir));
    let of_instance = root.item("instance").and_then(Item::section);
    let instance = of_instance.as_ref().map_err(|Invalid| Invalid).and_then(|s| instance(s, base_dir));
    let network = root.item("network").and_then(Item::section).and_then(|s| network(&s, bounds));
    let mut startable = Ok(());
    if let (Ok(instance), Ok(network), Ok(section)) = (&instance, &network, &of_instance) {
        startable = start_fits(section, instance.start, network);
    }
    let port = network
        .as_ref()
        .map_or(ProbePort::Unknown, |n| n.port().map_or(ProbePort::NoNetwork, |_| ProbePort::OfService));
    let health = root.item("health").and_then(Item::section).and_then(|s| health(&s, port));
    let load_balancer = root.optional("load_balancer").and_then(|item| {
        item.map(|item| item.section().and_then(|s| load_balancer(&s, network.as_ref().ok()))).transpose()
    });
    let metrics = root.optional("metrics").and_then(|item| item.map_or(Ok(Vec::new()), metrics));
    let mut reachable = Ok(());
    if matches!(network, Ok(Network::None)) {
        for name in ["load_balancer", "metrics"] {
            if root.has(name) {
                let message = "needs a network; `network.mode` is `none`";
                reachable = Err(root.complain(name, message, None));
            }
        }
    }
    let policies = policies(&root, tick_ms.ok(), base_dir);
    let combine = root.item("combine").and_then(Item::word).map(combine_rule);
    let schedules = root
        .optional("schedules")
        .and_then(|item| item.map_or(Ok(Vec::new()), |item| schedules(item, bounds, network.as_ref().ok())));
    let known = metrics.as_ref().ok().map(Vec::as_slice);
    let guards =
        root.item("guards").and_then(Item::section).and_then(|s| guards(&s, bounds, tick_ms.ok(), known));
    let repair = root
        .item("repair")
        .and_then(Item::section)
        .and_then(|s| Repair::read(&s, s.item("action").and_then(Item::word).map(repair_action)));
    let upgrade = root.item("upgrade").and_then(Item::section).and_then(|s| upgrade(&s));
    let scale_in = root.item("scale_in").and_then(Item::section).and_then(|s| {
        let order = s.item("order").and_then(Item::word).map(scale_in_order);
        ScaleIn::read(&s, order)
    });
    version?;
    reachable?;
    startable?;
    Ok(ScaleSet {
        name: name?,
        tick_ms: tick_ms?,
        capacity: capacity?,
        image: image?,
        instance: instance?,
        network: network?,
        health: health?,
        load_balancer: load_balancer?,
        metrics: metrics?,
        policies: policies?,
        combine: combine?,
        schedules: schedules?,
        guards: guards?,
        repair: repair?,
        upgrade: upgrade?,
        scale_in: scale_in?,
    })
}

/// What is known of the capacity, even when not all of it could be read.
#[derive(Debug, Clone, Copy, Default)]
struct Bounds {
    min: Option<u32>,
    max: Option<u32>,
}

fn capacity(section: &Section<'_>) -> (Bounds, Result<Capacity, Invalid>) {
    let min = section.item("min").and_then(Item::integer::<u32>);
    let max = section.item("max").and_then(Item::integer::<u32>);
    let initial = section.optional("initial").and_then(|item| item.map(Item::integer::<u32>).transpose());
    let mut ordered = Ok(());
    if let (Ok(min), Ok(max)) = (min, max)
        && min > max
    {
        ordered =
            Err(section.complain("min", format!("must not be greater than `max`: {min} > {max}"), None));
    }
    if let Ok(Some(initial)) = initial {
        if let Ok(max) = max
            && initial > max
        {
            let message = format!("must not be greater than `max`: {initial} > {max}");
            ordered = Err(section.complain("initial", message, None));
        } else if let Ok(min) = min
            && ordered.is_ok()
            && initial < min
        {
            let message = format!("must not be less than `min`: {initial} < {min}");
            ordered = Err(section.complain("initial", message, None));
        }
    }
    let bounds = match ordered {
        Ok(()) => Bounds { min: min.ok(), max: max.ok() },
        // Bounds that contradict each other are not a measure for anything else.
        Err(Invalid) => Bounds::default(),
    };
    let read = || {
        let (min, max, initial) = (min?, max?, initial?);
        ordered?;
        Ok(Capacity { min, max, initial: initial.unwrap_or(min) })
    };
    (bounds, read())
}

fn image(section: &Section<'_>, base_dir: &str) -> Result<Image, Invalid> {
    let name = section.optional("name").and_then(|item| item.map(Item::text).transpose());
    let overlay =
        section.optional("overlay").and_then(|item| item.map(Item::word).transpose()).map(|o| o.map(overlay));
    let size_bytes = section.optional("size").and_then(|item| item.map(Item::size_bytes).transpose());
    let file =
        |name| section.optional(name).and_then(|item| item.map(|item| file_ref(item, base_dir)).transpose());
    let disk = section.optional("disk").and_then(|item| item.map(|item| disk(item, base_dir)).transpose());
    let kernel = file("kernel");
    let initramfs = file("initramfs");
    let firmware = file("firmware");
    let cmdline = section.optional("cmdline").and_then(|item| item.map(Item::text).transpose());
    let mut consistent = Ok(());
    for own in ["overlay", "size"] {
        if !section.has("name") && section.has(own) {
            let hint = format!("files have theirs at the disk: `disk: {{ path: …, {own}: … }}`");
            consistent = Err(section.complain(own, "needs a `name`", Some(hint)));
        }
    }
    match (section.has("kernel"), section.has("firmware")) {
        _ if section.has("name") => {
            for other in ["disk", "kernel", "initramfs", "cmdline", "firmware"] {
                if section.has(other) {
                    let message = "must not be given together with `name`";
                    let hint = "the named image has everything; leave one of them out";
                    consistent = Err(section.complain(other, message, Some(hint.into())));
                }
            }
        }
        (true, true) => {
            let message = "must not be given together with `kernel`";
            consistent = Err(section.complain("firmware", message, Some("leave one of them out".into())));
        }
        (false, false) => {
            let message = "needs a `name`, a `kernel` or a `firmware`";
            consistent = Err(section.complain_here(message, None));
        }
        (false, true) => {
            for name in ["initramfs", "cmdline"] {
                if section.has(name) {
                    let message = "needs a `kernel`; with a `firmware` the disk's boot loader decides";
                    consistent = Err(section.complain(name, message, None));
                }
            }
            if !section.has("disk") {
                let message = "needs a `disk` for the `firmware` to start from";
                consistent = Err(section.complain_here(message, None));
            }
        }
        (true, false) => {}
    }
    let (name, overlay) = (name?, overlay?);
    let image = Image {
        overlay: name.as_ref().map(|_| overlay.unwrap_or(Overlay::Qcow2)),
        name,
        size_bytes: size_bytes?,
        disk: disk?,
        kernel: kernel?,
        initramfs: initramfs?,
        cmdline: cmdline?.unwrap_or_default(),
        firmware: firmware?,
    };
    consistent.map(|()| image)
}

fn file_ref(item: Item<'_>, base_dir: &str) -> Result<FileRef, Invalid> {
    let item = item.choose()?;
    if !item.is_mapping() {
        return Ok(FileRef { path: absolute(base_dir, &item.text()?), sha256: None });
    }
    file_fields(&item.section()?, base_dir)
}

fn file_fields(section: &Section<'_>, base_dir: &str) -> Result<FileRef, Invalid> {
    let path = section.item("path").and_then(Item::text);
    let sha256 = section.optional("sha256").and_then(|item| item.map(Item::text).transpose());
    Ok(FileRef {
        path: absolute(base_dir, &path?),
        sha256: sha256?.map(|digest| digest.to_ascii_lowercase()),
    })
}

fn disk(item: Item<'_>, base_dir: &str) -> Result<ImageDisk, Invalid> {
    let item = item.choose()?;
    if !item.is_mapping() {
        let file = FileRef { path: absolute(base_dir, &item.text()?), sha256: None };
        return Ok(ImageDisk { file, overlay: Overlay::Qcow2, size_bytes: None });
    }
    let section = item.section()?;
    let file = file_fields(&section, base_dir);
    let overlay = section.item("overlay").and_then(Item::word).map(overlay);
    let size_bytes = section.optional("size").and_then(|item| item.map(Item::size_bytes).transpose());
    Ok(ImageDisk { file: file?, overlay: overlay?, size_bytes: size_bytes? })
}

fn repair_action(word: &str) -> RepairAction {
    if word == "restart" { RepairAction::Restart } else { RepairAction::Replace }
}

fn scale_in_order(word: &str) -> ScaleInOrder {
    ScaleInOrder::ALL.into_iter().find(|order| order.as_str() == word).unwrap_or_default()
}

fn overlay(word: &str) -> Overlay {
    if word == "raw" { Overlay::Raw } else { Overlay::Qcow2 }
}

/// Where probes go that name no port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProbePort {
    /// The network's, as each instance was made with it.
    OfService,
    /// Nowhere.
    NoNetwork,
    /// The network could not be read, and that has been reported.
    Unknown,
}

impl ProbePort {
    /// None for that of the instance's service, which is what it was made with.
    fn get(self) -> Result<Option<u16>, Invalid> {
        match self {
            Self::OfService => Ok(None),
            Self::NoNetwork | Self::Unknown => Err(Invalid),
        }
    }
}

fn health(section: &Section<'_>, port: ProbePort) -> Result<Health, Invalid> {
    let http = section.optional("http").and_then(|item| item.map(|item| http_probe(item, port)).transpose());
    let tcp = section.optional("tcp").and_then(|item| item.map(|item| tcp_probe(item, port)).transpose());
    let mut one_probe = Ok(());
    if port == ProbePort::NoNetwork {
        for name in ["http", "tcp"] {
            if section.has(name) {
                let message = "needs a network; `network.mode` is `none`";
                one_probe = Err(section.complain(name, message, None));
            }
        }
    }
    if section.has("http") && section.has("tcp") {
        let message = "must not be given together with `http`";
        one_probe = Err(section.complain("tcp", message, Some("leave one of them out".into())));
    }
    let health = Health::read(section, http.and_then(|http| Ok(http.or(tcp?.flatten()))));
    one_probe.and(health)
}

fn http_probe(item: Item<'_>, default_port: ProbePort) -> Result<Probe, Invalid> {
    let item = item.choose()?;
    if !item.is_mapping() {
        let path = item.text()?;
        return Ok(Probe::Http { path, port: default_port.get()? });
    }
    let section = item.section()?;
    let path = section.item("path").and_then(Item::text);
    let port = probe_port(&section, default_port);
    Ok(Probe::Http { path: path?, port: port? })
}

fn tcp_probe(item: Item<'_>, default_port: ProbePort) -> Result<Option<Probe>, Invalid> {
    let item = item.choose()?;
    if !item.is_mapping() {
        let probed = item.boolean()?;
        return Ok(if probed { Some(Probe::Tcp { port: default_port.get()? }) } else { None });
    }
    Ok(Some(Probe::Tcp { port: probe_port(&item.section()?, default_port)? }))
}

/// The probe's own port or the network's. When the network could not be read,
/// that has been reported.
fn probe_port(section: &Section<'_>, default_port: ProbePort) -> Result<Option<u16>, Invalid> {
    match section.optional("port")? {
        Some(item) => item.integer().map(Some),
        None => default_port.get(),
    }
}

fn load_balancer(section: &Section<'_>, network: Option<&Network>) -> Result<LoadBalancer, Invalid> {
    let listen = section.item("listen").and_then(|item| item.parse(formats::listen)).and_then(|listen| {
        if !network.is_some_and(|network| network.covers(listen)) {
            return Ok(listen);
        }
        let message = format!("{listen} is also an address of instances");
        let hint = "choose another port, or an address outside `network.pool`";
        Err(section.complain("listen", message, Some(hint.into())))
    });
    let timeout_ms = section.item("drain_timeout").and_then(Item::duration_ms);
    let mode = section.item("drain").and_then(Item::word).map(|word| match word {
        "idle" => DrainMode::Idle,
        _ => DrainMode::Wait,
    });
    LoadBalancer::read(section, listen, timeout_ms.map(|timeout_ms| DrainPolicy { timeout_ms }), mode)
}

fn metrics(item: Item<'_>) -> Result<Vec<GuestMetric>, Invalid> {
    let sections = item.sections()?;
    let mut names: Vec<(String, usize)> = Vec::new();
    let mut read = Vec::with_capacity(sections.len());
    for (index, section) in sections.into_iter().enumerate() {
        read.push(section.and_then(|section| {
            let name = section.item("name").and_then(Item::text);
            let unique = name.and_then(|name| {
                if let Some((_, first)) = names.iter().find(|(other, _)| *other == name) {
                    let message = format!("`{name}` is already the name of metrics[{first}]");
                    return Err(section.complain("name", message, None));
                }
                names.push((name.clone(), index));
                Ok(name)
            });
            let range =
                section.optional("range").and_then(|item| item.map_or(Ok(ValueRange::ALL), Item::range));
            GuestMetric::read(&section, unique, range)
        }));
    }
    read.into_iter().collect()
}

/// `metrics` are those of the manifest, if they could be read.
fn guards(
    section: &Section<'_>,
    bounds: Bounds,
    tick_ms: Option<u64>,
    metrics: Option<&[GuestMetric]>,
) -> Result<Guards, Invalid> {
    let on_failure = section.item("on_failure").and_then(Item::choose).and_then(|item| {
        if item.is_mapping() {
            Ok(OnFailure::Static { capacity: size_within(&item.section()?, "static", bounds)? })
        } else {
            item.word().map(|_| OnFailure::Hold)
        }
    });
    let missing_data = section.item("missing_data").and_then(Item::choose).and_then(|item| {
        if item.is_mapping() {
            return Ok(MissingData::Default { capacity: size_within(&item.section()?, "default", bounds)? });
        }
        Ok(match item.word()? {
            "hold" => MissingData::Hold,
            "ignore" => MissingData::Ignore,
            _ => MissingData::NoScaleIn,
        })
    });
    let warm_up_ms = duration_or(section, "warm_up", tick_ms.map(|tick_ms| 6 * tick_ms));
    let window_ms = tick_ms.map(|tick_ms| (20 * tick_ms).max(10_000));
    let stabilization_ms = duration_or(section, "scale_in_stabilization", window_ms);
    let [scale_out, scale_in] = [("scale_out_limit", 100), ("scale_in_limit", 50)].map(|(name, percent)| {
        let default = tick_ms.map(|period_ms| RateLimit { percent, count: 4, period_ms });
        section.optional(name).and_then(|item| match item {
            Some(item) => rate_limit(item, tick_ms),
            None => default.ok_or(Invalid),
        })
    });
    let flapping = section
        .optional("flapping")
        .and_then(|item| item.map_or(Ok(Vec::new()), |item| flap_rules(item, metrics)));
    let max_cost = section.optional("max_cost").and_then(|item| item.map_or(Ok(None), max_cost));
    Guards::read(
        section,
        on_failure,
        missing_data,
        warm_up_ms,
        stabilization_ms,
        scale_out,
        scale_in,
        flapping,
        max_cost,
    )
}

fn upgrade(section: &Section<'_>) -> Result<UpgradePolicy, Invalid> {
    let mode = section.item("mode").and_then(Item::word).map(|word| match word {
        "rolling" => UpgradeMode::Rolling,
        "all-at-once" => UpgradeMode::AllAtOnce,
        _ => UpgradeMode::Manual,
    });
    let checkpoints =
        section.optional("checkpoints").and_then(|item| item.map_or(Ok(Vec::new()), checkpoints));
    let upgrade = UpgradePolicy::read(section, mode, checkpoints)?;
    if (upgrade.max_surge_percent, upgrade.max_unavailable_percent) == (0, 0) {
        let message = "must not be 0 together with `max_unavailable`: no instance could ever be replaced";
        return Err(section.complain("max_surge", message, None));
    }
    Ok(upgrade)
}

/// Each further than the one before: an upgrade never goes back.
fn checkpoints(item: Item<'_>) -> Result<Vec<Checkpoint>, Invalid> {
    let mut reached = 0;
    let read = item.sections()?.into_iter().map(|section| {
        let section = section?;
        let percent: Result<u32, _> = section.item("percent").and_then(Item::integer);
        let bake_ms = section.item("bake").and_then(Item::duration_ms);
        let (percent, bake_ms) = (percent?, bake_ms?);
        if percent <= reached {
            let message = format!("must be more than that of the checkpoint before, {reached}");
            return Err(section.complain("percent", message, None));
        }
        reached = percent;
        Ok(Checkpoint { percent, bake_ms })
    });
    read.collect::<Vec<_>>().into_iter().collect()
}

fn flap_rules(item: Item<'_>, metrics: Option<&[GuestMetric]>) -> Result<Vec<FlapRule>, Invalid> {
    let read = item.sections()?.into_iter().map(|section| {
        let section = section?;
        let metric = section.item("metric").and_then(Item::text).and_then(|metric| {
            let own = metrics.map(|metrics| metrics.iter().map(|it| it.name.as_str()));
            let known =
                own.map(|own| own.chain(formats::BUILT_IN_METRICS.iter().copied()).collect::<Vec<_>>());
            match known {
                Some(known) if !known.contains(&metric.as_str()) => {
                    let hint = format!("there are {}", formats::list(&known));
                    Err(section.complain("metric", format!("there is no metric `{metric}`"), Some(hint)))
                }
                _ => Ok(metric),
            }
        });
        let above = section.item("above").and_then(Item::positive);
        Ok(FlapRule { metric: metric?, above: above? })
    });
    read.collect::<Vec<_>>().into_iter().collect()
}

fn max_cost(item: Item<'_>) -> Result<Option<MaxCost>, Invalid> {
    let item = item.choose()?;
    if !item.is_mapping() {
        return item.word().map(|_| None);
    }
    let section = item.section()?;
    let per_instance_hour = section.item("per_instance_hour").and_then(Item::positive);
    let per_hour = section.item("per_hour").and_then(Item::positive);
    Ok(Some(MaxCost { per_instance_hour: per_instance_hour?, per_hour: per_hour? }))
}

/// A duration, or its default, which another field decides.
fn duration_or(section: &Section<'_>, name: &str, default_ms: Option<u64>) -> Result<u64, Invalid> {
    match section.optional(name)? {
        Some(item) => item.duration_ms(),
        None => default_ms.ok_or(Invalid),
    }
}

fn rate_limit(item: Item<'_>, tick_ms: Option<u64>) -> Result<RateLimit, Invalid> {
    let item = item.choose()?;
    if !item.is_mapping() {
        return item.word().map(|_| RateLimit::NONE);
    }
    let section = item.section()?;
    let percent = section.item("percent").and_then(Item::integer);
    let count = section.item("count").and_then(Item::integer);
    let period_ms = duration_or(&section, "per", tick_ms);
    Ok(RateLimit { percent: percent?, count: count?, period_ms: period_ms? })
}

/// A size that the bounds of the capacity allow.
fn size_within(section: &Section<'_>, name: &str, bounds: Bounds) -> Result<u32, Invalid> {
    let size: u32 = section.item(name).and_then(Item::integer)?;
    match bounds {
        Bounds { max: Some(max), .. } if size > max => Err(section.complain(
            name,
            format!("must not be greater than `capacity.max`: {size} > {max}"),
            None,
        )),
        Bounds { min: Some(min), .. } if size < min => {
            Err(section.complain(name, format!("must not be less than `capacity.min`: {size} < {min}"), None))
        }
        _ => Ok(size),
    }
}

/// A path, counted from `base_dir` when it is relative. `.` is dropped; `..`
/// stays, because what it means depends on symbolic links.
fn absolute(base_dir: &str, path: &str) -> String {
    let joined = if path.starts_with('/') { path.to_owned() } else { format!("{base_dir}/{path}") };
    let parts: Vec<_> = joined.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    format!("/{}", parts.join("/"))
}
