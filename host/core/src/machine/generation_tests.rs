//! Fields that describe what an instance is made of reach new instances only.

use serde_json::Value as Json;

use super::testing::{Rig, manifest, update};
use super::*;
use crate::agent::Order;
use crate::manifest::{Probe, affects_new_instances_only, diff, to_manifest_json};
use crate::metric::MetricValue;
use crate::metrics::CPU;

const OLD: &str = "image: { kernel: k, disk: d, cmdline: old }\n\
    instance: { vcpus: 4, memory: 128MiB, boot_timeout: 60s, shutdown_timeout: 7s, require_isolation: false, \
     data_disks: [{ name: data, size: 1GiB }], cloud_init: { user_data: \"#!/bin/sh\" } }\n\
    network: { mode: loopback, pool: 127.40.0.0/24, port: 8080 }\n\
    health: { http: /healthz }\n\
    load_balancer: { listen: \"127.0.0.1:8000\" }";

const NEW: &str = "image: { kernel: other, disk: other, cmdline: new }\n\
    instance: { vcpus: 1, memory: 64MiB, boot_timeout: 6s, shutdown_timeout: 1s, require_isolation: true, \
     data_disks: [{ name: data, size: 2GiB }], cloud_init: { user_data: \"#!/bin/bash\" } }\n\
    network: { mode: loopback, pool: 127.41.0.0/24, port: 8081 }\n\
    health: { http: /healthz }\n\
    load_balancer: { listen: \"127.0.0.1:8000\" }";

/// Paths of all values that a manifest writes.
fn leaves(path: &str, value: &Json, found: &mut Vec<String>) {
    match value {
        Json::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                leaves(&path, value, found);
            }
        }
        _ => found.push(path.to_owned()),
    }
}

/// Whether both manifests differ in every field that reaches new instances only, so that none of them is left out below.
#[test]
fn the_manifests_differ_in_every_field_that_reaches_new_instances_only() {
    let (old, new) = (manifest(OLD), manifest(NEW));
    let changed: Vec<String> = diff(&old, &new).into_iter().map(|change| change.path).collect();
    let mut paths = Vec::new();
    leaves("", &to_manifest_json(&old), &mut paths);
    // Only one mode works without a host, a snapshot does not hold data disks, and the rest is the same by default.
    let same = [
        "network.mode",
        "instance.start",
        "instance.data_disks",
        "image.disk.overlay",
        "image.size",
        "instance.cloud_init.seed",
    ];
    for path in paths.iter().filter(|path| affects_new_instances_only(path) && !same.contains(&path.as_str()))
    {
        assert!(
            changed.iter().any(|it| it.starts_with(path.as_str())),
            "{path} is the same in both: {changed:?}"
        );
    }
    assert!(changed.iter().any(|path| path.starts_with("instance.data_disks")));
}

#[test]
fn what_runs_keeps_the_manifest_that_it_was_made_from() {
    let mut rig = Rig::serving(OLD);
    let old = Arc::clone(rig.machine.manifest());
    let endpoints: Vec<_> = rig.machine.endpoints().collect();
    assert_eq!(endpoints[0].addr.port(), 8080);
    rig.effects.clear();
    rig.command(update(manifest(NEW))).expect("applied");
    assert_eq!(rig.machine.endpoints().collect::<Vec<_>>(), endpoints, "traffic goes where it went");
    let orders: Vec<_> = rig
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Want(want) => Some((want.id, want.order.clone())),
            _ => None,
        })
        .collect();
    assert_eq!(orders.len(), 2, "both are told of the new watch");
    for (id, order) in orders {
        let Order::Run { manifest, watch, .. } = order else { panic!("{id} shall run") };
        assert_eq!(manifest, old, "{id} is what it was made from");
        let Some(Probe::Http { port, .. }) = &watch.health.probe else { panic!("{id} is probed") };
        assert_eq!(*port, None, "probes go to the port of its own service");
    }

    let second = 1_000_000_000;
    for cpu_time_ns in [0, second] {
        let reading = ProcessReading { id: 1, cpu_time_ns: Some(cpu_time_ns), rss_bytes: None };
        rig.facts.processes = vec![reading];
        rig.tick_after(1_000);
    }
    let cpu = rig.store.last_record().observation.metric(CPU).expect("the metric").values[0];
    assert_eq!(cpu, MetricValue::Fresh(0.25), "one second of four CPUs");
}
