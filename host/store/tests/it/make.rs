//! Sets, instances and events to store.
#![allow(dead_code, reason = "shared by the tests and the measuring example, each uses its part")]

use std::sync::Arc;

use regatta_core::batch::{Batch, History, StateChange};
use regatta_core::catalogue::{NamedDisk, NamedFile, NamedImage};
use regatta_core::combine::CombineRule;
use regatta_core::event::{Actor, Event, EventKind};
use regatta_core::guard::GuardMemory;
use regatta_core::manifest::{
    Capacity, FileRef, Guards, Health, Image, InstanceTemplate, Network, PolicyLimits, PolicySpec, Repair,
    ScaleSet,
};
use regatta_core::phase::Phase;
use regatta_core::record::TickRecord;
use regatta_core::state::{
    ImageDigests, InstanceRecord, Moment, PolicyActivation, PolicySlot, SetState, VmmProcessId,
};
use regatta_core::time::SetClock;

pub(crate) fn set(name: &str, last_tick: u64, digest: &str) -> SetState {
    SetState {
        set: ScaleSet {
            name: name.to_owned(),
            tick_ms: 5_000,
            capacity: Capacity { min: 1, max: 100, initial: 2 },
            image: Image {
                name: None,
                overlay: None,
                size_bytes: None,
                disk: None,
                kernel: Some(FileRef { path: "/images/vmlinux".to_owned(), sha256: None }),
                initramfs: None,
                cmdline: "console=ttyS0".to_owned(),
                firmware: None,
            },
            instance: InstanceTemplate {
                vcpus: 1,
                memory_bytes: 512 << 20,
                boot_timeout_ms: 120_000,
                ..InstanceTemplate::default()
            },
            network: Network::Loopback { base: [127, 10, 0, 0].into(), prefix: 16, port: 8080 },
            health: Health {
                probe: None,
                interval_ms: 5_000,
                timeout_ms: 2_000,
                healthy_threshold: 2,
                unhealthy_threshold: 3,
            },
            load_balancer: None,
            metrics: Vec::new(),
            policies: vec![PolicySpec {
                name: "load".to_owned(),
                module: "target-tracking".to_owned(),
                params: serde_json::json!({"target": 0.1, "deep": [1, 2.5, null]}),
                limits: PolicyLimits::default(),
                follow: false,
            }],
            combine: CombineRule::default(),
            schedules: Vec::new(),
            guards: Guards::default(),
            upgrade: regatta_core::manifest::UpgradePolicy::default(),
            scale_in: Default::default(),
            repair: Repair {
                action: Default::default(),
                enabled: true,
                grace_ms: 10_000,
                max_percent: 5,
                max_unhealthy_percent: 100,
                hold_after_apply_ms: 0,
            },
        },
        generation: 1,
        desired: 2,
        next_instance_id: 3,
        last_tick,
        deleting: false,
        suspended: Default::default(),
        repair: Default::default(),
        policies: vec![PolicySlot {
            name: "load".to_owned(),
            active: activation(digest),
            previous: None,
            earlier: Vec::new(),
            canary: None,
        }],
        shadows: Vec::new(),
        activations: 1,
        launch_failures_in_a_row: 0,
        launches_resume_ms: 0,
        early_deaths: 0,
        launch_failure: String::new(),
        early_death_ms: 0,
        image: ImageDigests::default(),
        incarnation: 7,
        epoch: 1,
        clock: SetClock { lived_ms: last_tick * 5_000, steady_ms: last_tick * 5_000 },
        guard_memory: GuardMemory::default(),
        sizing: Default::default(),
        changed_ms: None,
        images: std::collections::BTreeMap::new(),
        upgrade: None,
        manifests: std::collections::BTreeMap::new(),
    }
}

/// A batch that puts sets and appends records.
pub(crate) fn batch(sets: Vec<SetState>, records: Vec<TickRecord>) -> Batch {
    Batch {
        state: StateChange { sets, ..StateChange::default() },
        history: History { records: records.into_iter().map(Arc::new).collect(), events: Vec::new() },
        ..Batch::default()
    }
}

pub(crate) fn event_batch(events: Vec<Event>) -> Batch {
    Batch { history: History { records: Vec::new(), events }, ..Batch::default() }
}

pub(crate) fn blob_batch(blobs: Vec<(regatta_core::digest::Digest, Vec<u8>)>) -> Batch {
    Batch { blobs, ..Batch::default() }
}

/// A batch that forgets a set.
pub(crate) fn removal(set: &str) -> Batch {
    Batch {
        state: StateChange { removed_sets: vec![set.to_owned()], ..StateChange::default() },
        ..Batch::default()
    }
}

pub(crate) fn activation(digest: &str) -> PolicyActivation {
    PolicyActivation {
        number: 1,
        digest: digest.into(),
        name: "target-tracking".into(),
        version: "0.1.0".into(),
        source: "target-tracking".into(),
        params: "{}".to_owned(),
        state_version: 1,
        state: String::new(),
        since_ms: 1,
        wishes: Vec::new(),
    }
}

pub(crate) fn instance(id: u32, since_ms: u64) -> InstanceRecord {
    InstanceRecord {
        phase: Phase::InService,
        address: Some([127, 10, 0, id as u8].into()),
        served: true,
        vmm: Some(VmmProcessId { pid: 4_000 + id, start_time_ticks: 99 }),
        ..InstanceRecord::pending(id, Moment { wall_ms: since_ms, lived_ms: 0 }, 1)
    }
}

pub(crate) fn event(set: &str, text: &str) -> Event {
    Event {
        at_ms: 1,
        set: set.to_owned(),
        kind: EventKind::Protection,
        instance: None,
        text: text.to_owned().into(),
        actor: Actor::Daemon,
        policy: None,
    }
}

pub(crate) fn image(name: &str, seed: u8) -> NamedImage {
    let file =
        |n: u8| NamedFile { digest: format!("sha256:{n:064x}").into(), size_bytes: u64::from(n) << 20 };
    NamedImage {
        name: name.to_owned(),
        description: format!("image number {seed}"),
        source: "/srv/images/web".to_owned(),
        imported_ms: 1_000 + u64::from(seed),
        disk: seed.is_multiple_of(2).then(|| NamedDisk {
            file: file(seed),
            format: "qcow2".to_owned(),
            virtual_size_bytes: 1 << 30,
        }),
        kernel: Some(file(100)),
        initramfs: None,
        cmdline: "console=ttyS0".to_owned(),
        firmware: None,
    }
}
