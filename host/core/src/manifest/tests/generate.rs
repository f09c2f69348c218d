//! Generated scale sets.

use std::net::{Ipv4Addr, SocketAddr};

use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;
use crate::combine::CombineRule;
use crate::plan::ScaleInOrder;
use crate::sizing::{Cron, ScheduleEntry, When, Zone};

/// Any set that a manifest can describe.
pub(super) fn scale_set() -> impl Strategy<Value = ScaleSet> {
    let first = ("[a-z]([a-z0-9-]{0,30}[a-z0-9])?", 100..=3_600_000_u64, capacity(), image(), instance());
    (
        first,
        network(),
        of(load_balancer()),
        metrics(),
        (policies(), combine()),
        (repair(), scale_in(), upgrade()),
    )
        .prop_flat_map(
            |(
                (name, tick_ms, capacity, image, instance),
                network,
                load_balancer,
                metrics,
                (mut policies, combine),
                (repair, scale_in, upgrade),
            )| {
                for policy in &mut policies {
                    policy.limits.deadline_ms = policy.limits.deadline_ms.min(tick_ms);
                }
                let load_balancer = load_balancer.filter(|balancer| !network.covers(balancer.listen));
                let reachable = network.port().is_some();
                let load_balancer = load_balancer.filter(|_| reachable);
                let mut instance = instance;
                let clonable = matches!(network, Network::Isolated { .. } | Network::None);
                if !clonable || !instance.data_disks.is_empty() {
                    instance.start = StartMode::Cold;
                }
                let metrics = if reachable { metrics } else { Vec::new() };
                let rest = (health(network.port()), guards(capacity), schedules(capacity));
                rest.prop_map(move |(health, guards, schedules)| ScaleSet {
                    name: name.clone(),
                    tick_ms,
                    capacity,
                    image: image.clone(),
                    instance: instance.clone(),
                    network: network.clone(),
                    health,
                    load_balancer: load_balancer.clone(),
                    metrics: metrics.clone(),
                    policies: policies.clone(),
                    combine,
                    schedules: schedules.clone(),
                    guards,
                    repair,
                    upgrade: upgrade.clone(),
                    scale_in,
                })
            },
        )
}

/// Entries of either kind, whose sizes fit the set's limits.
fn schedules(capacity: Capacity) -> impl Strategy<Value = Vec<ScheduleEntry>> {
    let zone = prop::sample::select(vec!["UTC", "Europe/Berlin", "Australia/Lord_Howe"]);
    let cron = prop::sample::select(vec!["0 8 * * mon-fri", "*/15 * 1,31 jan-mar 7"]);
    let entry = (zone, cron, 60_000..=86_400_000_u64, any::<bool>(), any::<bool>());
    vec(entry, 0..3).prop_map(move |entries| {
        let entry =
            |(index, (zone, cron, duration_ms, fixed, freeze)): (usize, (&str, &str, u64, bool, bool))| {
                let when = match fixed {
                    true => When::Fixed {
                        start: "2026-12-24T08:00:00Z".into(),
                        end: "2026-12-25T08:00:00Z".into(),
                        start_ms: 1_798_099_200_000,
                        end_ms: 1_798_185_600_000,
                    },
                    false => When::Recurring { cron: Cron::parse(cron).unwrap(), duration_ms },
                };
                let time_zone = Zone::try_from(zone.to_owned()).unwrap();
                let (min, max) = (Some(capacity.min), freeze.then_some(capacity.max));
                let name = format!("entry-{index}");
                ScheduleEntry { name, when, time_zone, min, max, capacity: Some(capacity.initial), freeze }
            };
        entries.into_iter().enumerate().map(entry).collect()
    })
}

/// JSON with texts that YAML might take for something else.
pub(super) fn json() -> impl Strategy<Value = Json> {
    let tricky = prop::sample::select(vec![
        "",
        " ",
        "~",
        "null",
        "yes",
        "no",
        "true",
        "1",
        "1_000",
        "0755",
        "0x1F",
        "1e5",
        ".nan",
        "-",
        "- a",
        "a: b",
        "#",
        "a #b",
        "<<",
        "=",
        "!tag",
        "&a",
        "*a",
        "|",
        ">",
        "%",
        "@",
        "`",
        "'",
        "\"",
        "\\",
        "a\nb",
        "\n",
        "a\n",
        " a",
        "a ",
        "\t",
        "\u{0}",
        "\u{85}",
        "\u{2028}",
        "\u{feff}",
        "日本",
        "[",
        "{",
        "]",
        "}",
        ",",
        "?",
        "? a",
        ":",
        "2001-01-01",
        "1:30",
        "...",
        "---",
    ]);
    let word = prop_oneof![
        tricky.prop_map(str::to_owned),
        "\\PC{0,12}",
        any::<String>().prop_filter("short", |s| s.len() < 40)
    ];
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        any::<f64>().prop_filter_map("finite", |f| serde_json::Number::from_f64(f).map(Json::Number)),
        word.clone().prop_map(Json::from),
    ];
    leaf.prop_recursive(3, 24, 5, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Json::from),
            btree_map(word.clone(), inner, 0..4).prop_map(|map| Json::Object(map.into_iter().collect())),
        ]
    })
}

fn capacity() -> impl Strategy<Value = Capacity> {
    (0..=10_000_u32, 0..=10_000_u32, 1..=10_000_u32).prop_map(|(a, b, max)| {
        let (a, b) = (a.min(max), b.min(max));
        Capacity { min: a.min(b), max, initial: a.max(b) }
    })
}

fn path() -> impl Strategy<Value = String> + Clone {
    "(/[^/\\p{C}]{1,20}){1,4}".prop_filter("no `.`", |path| path.split('/').all(|part| part != "."))
}

fn file() -> impl Strategy<Value = FileRef> + Clone {
    (path(), of("[0-9a-f]{64}")).prop_map(|(path, sha256)| FileRef { path, sha256 })
}

fn image() -> impl Strategy<Value = Image> {
    let overlay = prop_oneof![Just(Overlay::Qcow2), Just(Overlay::Raw)];
    let size = of((1..=(1_u64 << 26)).prop_map(|mib| mib << 20));
    let disk = (file(), overlay.clone(), size.clone()).prop_map(|(file, overlay, size_bytes)| ImageDisk {
        file,
        overlay,
        size_bytes,
    });
    let cmdline = "[^\\p{C}]{0,60}".prop_filter("allowed words", |line| {
        line.split_whitespace().all(|word| word != "--" && !word.starts_with("ip="))
    });
    let with_kernel =
        (of(disk.clone()), file(), of(file()), cmdline).prop_map(|(disk, kernel, initramfs, cmdline)| {
            Image {
                name: None,
                overlay: None,
                size_bytes: None,
                disk,
                kernel: Some(kernel),
                initramfs,
                cmdline,
                firmware: None,
            }
        });
    let with_firmware = (disk, file()).prop_map(|(disk, firmware)| Image {
        name: None,
        overlay: None,
        size_bytes: None,
        disk: Some(disk),
        kernel: None,
        initramfs: None,
        cmdline: String::new(),
        firmware: Some(firmware),
    });
    let named =
        ("[a-z]([a-z0-9-]{0,30}[a-z0-9])?", overlay, size).prop_map(|(name, overlay, size_bytes)| Image {
            name: Some(name),
            overlay: Some(overlay),
            size_bytes,
            disk: None,
            kernel: None,
            initramfs: None,
            cmdline: String::new(),
            firmware: None,
        });
    prop_oneof![with_kernel, with_firmware, named]
}

fn instance() -> impl Strategy<Value = InstanceTemplate> {
    let machine = (1..=255_u32, 16..=(16_u64 << 20), 100..=86_400_000_u64);
    let disks =
        (btree_map("[a-m][a-z0-9-]{0,9}", 1..=(1_u64 << 26), 0..4), btree_map("[t-z]{1,9}", file(), 0..4));
    let start = prop::sample::select(vec![StartMode::Cold, StartMode::Snapshot, StartMode::Auto]);
    (machine, disks, of(cloud_init()), any::<bool>(), start).prop_map(
        |((vcpus, mib, boot_timeout_ms), (data, shared), cloud_init, require_isolation, start)| {
            InstanceTemplate {
                vcpus,
                memory_bytes: mib << 20,
                boot_timeout_ms,
                shutdown_timeout_ms: boot_timeout_ms % 3_600_000,
                data_disks: data
                    .into_iter()
                    .map(|(name, mib)| DataDisk { name, size_bytes: mib << 20 })
                    .collect(),
                shared_disks: shared.into_iter().map(|(name, file)| SharedDisk { name, file }).collect(),
                cloud_init,
                require_isolation,
                start,
            }
        },
    )
}

fn cloud_init() -> impl Strategy<Value = CloudInit> {
    let key = "ssh-[a-z0-9]{2,8} [A-Za-z0-9+/]{4,20}={0,2}( [a-z@]{1,9})?";
    let disk = ("(#!/bin/sh\n|\\$\\{regatta\\.name\\}|[ -~\n]{0,20}|é: \t){0,4}", vec(key, 0..3))
        .prop_filter("no unknown variable", |(text, _)| crate::template::check(text).is_empty())
        .prop_map(|(user_data, ssh_keys)| CloudInit {
            seed: SeedKind::Disk,
            user_data,
            ssh_keys,
            seed_url: None,
        });
    let smbios = of("https?://[a-z0-9.]{1,20}/").prop_map(|seed_url| CloudInit {
        seed: SeedKind::Smbios,
        user_data: String::new(),
        ssh_keys: Vec::new(),
        seed_url,
    });
    prop_oneof![disk, smbios]
}

fn within(prefix: u8, address: u32) -> Ipv4Addr {
    Ipv4Addr::from(address & (u32::MAX << (32 - u32::from(prefix))))
}

fn network() -> impl Strategy<Value = Network> {
    // A /18 has room for the largest set.
    let loopback =
        (9..=18_u8, 0x7f80_0000..=0x7fff_ffff_u32, 1..=u16::MAX).prop_map(|(prefix, address, port)| {
            Network::Loopback { base: within(prefix, address), prefix, port }
        });
    let dns = || vec(any::<u32>().prop_map(Ipv4Addr::from), 0..=3);
    let isolated = (
        (12..=17_u8, 0x0a00_0000..=0x0a4f_ffff_u32),
        (8..=30_u8, 0xac10_0000..=0xac1f_ffff_u32),
        (outbound(), any::<bool>()),
        dns(),
        1..=u16::MAX,
    )
        .prop_map(|((prefix, address), (guest_prefix, guest), (outbound, published), dns, port)| {
            let guest = Ipv4Addr::from(u32::from(within(guest_prefix, guest)) + 1 + guest % 2);
            Network::Isolated {
                base: within(prefix, address),
                prefix,
                guest,
                guest_prefix,
                outbound,
                published,
                dns,
                port,
            }
        });
    let bridge = (
        (8..=16_u8, 0..=1_u8),
        any::<u32>(),
        any::<(bool, bool, bool)>(),
        "[a-z0-9.-]{1,12}x",
        dns(),
        1..=u16::MAX,
    )
        .prop_map(|((subnet_prefix, longer), address, (managed, gateway, peers), bridge, dns, port)| {
            let prefix = subnet_prefix + longer;
            let base = within(prefix, 0x0a00_0000 | (address & 0x00ff_ffff));
            let inside = |offset| Ipv4Addr::from(u32::from(base) + offset);
            Network::Bridge {
                bridge,
                managed: managed.then(|| inside(1)),
                base,
                prefix,
                subnet_prefix,
                gateway: gateway.then(|| inside(2)),
                peers,
                dns,
                port,
            }
        });
    prop_oneof![loopback, isolated, bridge, Just(Network::None)]
}

fn outbound() -> impl Strategy<Value = Outbound> {
    let nets = |range: std::ops::RangeInclusive<u32>| {
        let net = (1..=32_u8, range)
            .prop_map(|(prefix, address)| Ipv4Net { base: within(prefix, address), prefix });
        vec(net, 1..=4)
    };
    // A denied network may not contain an allowed one.
    let (low, high) = (0..=0x7fff_ffff, 0x8000_0000..=u32::MAX);
    let limited = (nets(low), nets(high), 0..=2_u8).prop_map(|(allow, deny, which)| match which {
        0 => Outbound::Limited { allow, deny: Vec::new() },
        1 => Outbound::Limited { allow: Vec::new(), deny },
        _ => Outbound::Limited { allow, deny },
    });
    prop_oneof![any::<bool>().prop_map(Outbound::Switch), limited]
}

fn http_path() -> impl Strategy<Value = String> {
    "/[!-\"$-~]{0,30}"
}

fn health(default_port: Option<u16>) -> impl Strategy<Value = Health> {
    let port = of(prop_oneof![Just(default_port.unwrap_or(1)), 1..=u16::MAX]);
    let probe = prop_oneof![
        (http_path(), port.clone()).prop_map(|(path, port)| Probe::Http { path, port }),
        port.prop_map(|port| Probe::Tcp { port }),
    ];
    (of(probe), 100..=3_600_000_u64, 10..=300_000_u64, 1..=100_u32, 1..=100_u32).prop_map(
        move |(probe, interval_ms, timeout_ms, healthy_threshold, unhealthy_threshold)| Health {
            probe: probe.filter(|_| default_port.is_some()),
            interval_ms,
            timeout_ms,
            healthy_threshold,
            unhealthy_threshold,
        },
    )
}

fn load_balancer() -> impl Strategy<Value = LoadBalancer> {
    let listen = any::<SocketAddr>().prop_filter_map("a port, no scope", |mut address| {
        if let SocketAddr::V6(v6) = &mut address {
            v6.set_scope_id(0);
            v6.set_flowinfo(0);
        }
        (address.port() != 0).then_some(address)
    });
    let mode = prop_oneof![Just(DrainMode::Wait), Just(DrainMode::Idle)];
    let times = (0..=3_600_000_u64, 1_000..=86_400_000_u64, 0..=3_600_000_u64);
    (listen, mode, times, 1..=1_000_000_u32, 0..=100_u32).prop_map(
        |(listen, drain_mode, times, max_connections, panic_threshold_percent)| {
            let (timeout_ms, idle_timeout_ms, queue_timeout_ms) = times;
            LoadBalancer {
                listen,
                drain: DrainPolicy { timeout_ms },
                drain_mode,
                idle_timeout_ms,
                queue_timeout_ms,
                max_connections,
                panic_threshold_percent,
            }
        },
    )
}

fn metrics() -> impl Strategy<Value = Vec<GuestMetric>> {
    let free = |name: &String| !BUILT_IN_METRICS.contains(&name.as_str());
    let range = of((-1e6..0.0, 0.5..1e20)).prop_map(|ends: Option<(f64, f64)>| {
        ends.map_or(ValueRange::ALL, |(low, high)| ValueRange::new(low, high).expect("a range"))
    });
    let metric = ("[a-zA-Z_:][a-zA-Z0-9_:]{0,20}", http_path(), any::<bool>(), range);
    btree_map("[a-z][a-z0-9_]{0,63}".prop_filter("not built in", free), metric, 0..6).prop_map(|metrics| {
        let metric = |(name, (series, path, rate, range))| GuestMetric { name, series, path, rate, range };
        metrics.into_iter().map(metric).collect()
    })
}

fn policy() -> impl Strategy<Value = PolicySpec> {
    let module = prop_oneof!["[a-z0-9_-]{1,64}", path().prop_map(|path| format!("{path}.wasm")),];
    let params = btree_map("\\PC{0,8}", json(), 0..5).prop_map(|map| Json::Object(map.into_iter().collect()));
    let limits = (
        10_000..=1_000_000_000_000_u64,
        1..=10_000_u64,
        1..=65_536_u64,
        1_024..=16_777_216_u64,
        0..=10_000_u32,
        20..=3_600_000_u64,
        1..=1_000_000_u32,
    )
        .prop_map(
            |(fuel, deadline_ms, pages, output_bytes, log_lines, wake_after_ms, table_elements)| {
                PolicyLimits {
                    fuel,
                    deadline_ms,
                    memory_bytes: pages << 16,
                    output_bytes,
                    log_lines,
                    wake_after_ms,
                    table_elements,
                }
            },
        );
    (module, params, limits, any::<bool>()).prop_map(|(module, params, limits, follow)| PolicySpec {
        name: String::new(),
        module,
        params,
        limits,
        follow,
    })
}

/// One to three policies, told apart by their names.
fn policies() -> impl Strategy<Value = Vec<PolicySpec>> {
    vec(policy(), 1..4).prop_map(|mut policies| {
        for (index, policy) in policies.iter_mut().enumerate() {
            policy.name = format!("policy-{index}");
        }
        policies
    })
}

fn combine() -> impl Strategy<Value = CombineRule> {
    prop::sample::select(vec![
        CombineRule::AnyOutAllIn,
        CombineRule::Max,
        CombineRule::Min,
        CombineRule::First,
    ])
}

fn guards(capacity: Capacity) -> impl Strategy<Value = Guards> {
    let size = capacity.min..=capacity.max;
    let on_failure =
        prop_oneof![Just(OnFailure::Hold), size.clone().prop_map(|capacity| OnFailure::Static { capacity }),];
    let missing_data = prop_oneof![
        Just(MissingData::NoScaleIn),
        Just(MissingData::Hold),
        Just(MissingData::Ignore),
        size.prop_map(|capacity| MissingData::Default { capacity }),
    ];
    let limit = || {
        let given = (0..=1_000_u32, 1..=1_000_u32, 1..=86_400_000_u64)
            .prop_map(|(percent, count, period_ms)| RateLimit { percent, count, period_ms });
        prop_oneof![Just(RateLimit::NONE), given]
    };
    let rule = |(metric, above): (&str, f64)| FlapRule { metric: metric.to_owned(), above };
    let rule = (prop::sample::select(BUILT_IN_METRICS), 0.001..1e6_f64).prop_map(rule);
    let cost = (0.001..1e3_f64, 0.001..1e6_f64);
    let cost = of(cost.prop_map(|(per_instance_hour, per_hour)| MaxCost { per_instance_hour, per_hour }));
    let more = (0..=100_u32, 0..=86_400_000_u64, 0..=86_400_000_u64, vec(rule, 0..3), cost);
    (on_failure, missing_data, 0..=3_600_000_u64, 0..86_400_001_u64, limit(), limit(), more).prop_map(
        |(
            on_failure,
            missing_data,
            warm_up_ms,
            scale_in_stabilization_ms,
            scale_out_limit,
            scale_in_limit,
            (tolerance_percent, scale_out_cooldown_ms, scale_in_cooldown_ms, flapping, max_cost),
        )| Guards {
            tolerance_percent,
            scale_out_cooldown_ms,
            scale_in_cooldown_ms,
            flapping,
            max_cost,
            on_failure,
            missing_data,
            warm_up_ms,
            scale_in_stabilization_ms,
            scale_out_limit,
            scale_in_limit,
        },
    )
}

fn scale_in() -> impl Strategy<Value = ScaleIn> {
    prop::sample::select(&ScaleInOrder::ALL[..]).prop_map(|order| ScaleIn { order })
}

fn repair() -> impl Strategy<Value = Repair> {
    let action = prop::sample::select(vec![RepairAction::Replace, RepairAction::Restart]);
    (any::<bool>(), 0..=86_400_000_u64, 1..=100_u32, 1..=100_u32, 0..=86_400_000_u64, action).prop_map(
        |(enabled, grace_ms, max_percent, max_unhealthy_percent, hold_after_apply_ms, action)| Repair {
            enabled,
            action,
            grace_ms,
            max_percent,
            max_unhealthy_percent,
            hold_after_apply_ms,
        },
    )
}

fn upgrade() -> impl Strategy<Value = UpgradePolicy> {
    let mode = prop::sample::select(vec![UpgradeMode::Manual, UpgradeMode::Rolling, UpgradeMode::AllAtOnce]);
    let percents = (1..=100_u32, 0..=100_u32, 0..=100_u32, 0..=100_u32, 0..=100_u32);
    let checkpoints = btree_map(1..=100_u32, 0..=2_592_000_000_u64, 0..=20);
    (mode, percents, 0..=86_400_000_u64, checkpoints, any::<bool>()).prop_map(
        |(mode, (batch, surge, unavailable, unhealthy, upgraded), pause_ms, checkpoints, rollback)| {
            UpgradePolicy {
                mode,
                max_batch_percent: batch,
                max_surge_percent: if unavailable == 0 { surge.max(1) } else { surge },
                max_unavailable_percent: unavailable,
                max_unhealthy_percent: unhealthy,
                max_unhealthy_upgraded_percent: upgraded,
                pause_ms,
                checkpoints: checkpoints
                    .into_iter()
                    .map(|(percent, bake_ms)| Checkpoint { percent, bake_ms })
                    .collect(),
                rollback,
            }
        },
    )
}
