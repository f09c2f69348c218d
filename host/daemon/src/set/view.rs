//! What others see of a set: published by its loop, read without waiting for it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use regatta_core::decision::PolicyFailure;
use regatta_core::machine::{Models, SetMachine};
use regatta_core::manifest::{ScaleSet, UpgradePolicy, to_manifest_json};
use regatta_core::metric::MetricValue;
use regatta_core::observation::{MetricObservation, MetricScope};
use regatta_core::phase::Phase;
use regatta_core::plan::PlanNote;
use regatta_core::record::TickRecord;
use regatta_core::set_process::SetProcess;
use regatta_core::sizing::Limits;
use regatta_core::state::{ImageDigests, InstanceRecord, PolicyActivation, SetState};
use regatta_core::upgrade::UpgradeStatus;
use regatta_traffic::LbStats;

use super::beat::Beat;
use super::size::size_info;
use crate::api::size_types::SizeInfo;
use crate::api::types::{
    InstanceInfo, MetricNow, PolicyEntry, PolicyInfo, PolicyRole, SetDetail, SetSummary, TrafficInfo,
};
use crate::api::upgrade_types::{OutdatedInstance, UpgradeInfo, UpgradePreview, UpgradeRun};
use crate::node::REQUESTED;

/// A set as its loop last published it.
#[derive(Debug, Clone)]
pub(crate) struct SetView {
    /// The stored state.
    pub state: Arc<SetState>,
    /// Instances that are not gone, by id.
    pub instances: Arc<Vec<InstanceRecord>>,
    /// Where the service of each answers.
    pub(super) services: Arc<BTreeMap<u32, SocketAddr>>,
    /// The last tick.
    pub last: Option<Arc<TickRecord>>,
    /// The manifests of its instances by generation, and which of them differ from the one in force.
    pub manifests: Arc<BTreeMap<u64, Arc<ScaleSet>>>,
    pub(super) models: Models,
    /// What keeps the set from being as wanted.
    pub problems: Vec<String>,
    /// The limits in force.
    pub limits: Limits,
    /// Who decides its size.
    pub size: SizeInfo,
    /// Instances can start from its image, as far as is known.
    pub image_usable: bool,
    /// Instances that this host could not probe the last time, and why.
    pub not_probed: BTreeMap<u32, String>,
    /// Whether its loop still turns.
    pub(super) beat: Arc<Beat>,
    /// Its load balancer.
    pub traffic: Option<Arc<Traffic>>,
}

/// A load balancer as it was last looked at.
#[derive(Debug, Clone)]
pub(crate) struct Traffic {
    /// Address of its listener.
    pub listen: SocketAddr,
    /// What it has done and holds.
    pub stats: LbStats,
}

impl SetView {
    /// What a machine knows of its set.
    #[must_use]
    pub(super) fn of(machine: &SetMachine, traffic: Option<Arc<Traffic>>, beat: Arc<Beat>) -> Self {
        let services = machine.instances().filter_map(|it| Some((it.id, machine.service_of(it)?)));
        Self {
            state: Arc::new(machine.state().clone()),
            instances: Arc::new(machine.instances().cloned().collect()),
            services: Arc::new(services.collect()),
            last: machine.last().cloned(),
            manifests: Arc::new(machine.manifests().clone()),
            models: machine.models().clone(),
            problems: machine.problems(),
            limits: machine.limits(),
            size: size_info(machine),
            image_usable: machine.image_is_usable(),
            not_probed: BTreeMap::new(),
            beat,
            traffic,
        }
    }

    /// The set in one line.
    #[must_use]
    pub(crate) fn summary(&self) -> SetSummary {
        let state = &self.state;
        let mut instances: BTreeMap<String, u32> = BTreeMap::new();
        for instance in self.instances.iter() {
            *instances.entry(instance.phase.state().as_str().to_owned()).or_default() += 1;
        }
        SetSummary {
            name: state.set.name.clone(),
            generation: state.generation,
            min: self.limits.min,
            max: self.limits.max,
            desired: state.desired,
            instances,
            policies: state.policies.iter().map(|slot| policy_info(&slot.name, &slot.active)).collect(),
            tick_ms: state.set.tick_ms,
            last_tick: state.last_tick,
            load_balancer: self.traffic.as_ref().map(|lb| lb.listen.to_string()),
            deleting: state.deleting,
            upgrade: self.upgrade_run(),
            outdated: count(self.models.outdated(self.instances.iter()).len()),
            stuck: self.stuck(),
            problems: self.problems.clone(),
            steady_ms: regatta_core::settle::steady_ms(&state.set),
            size: self.size.clone(),
        }
    }

    fn upgrade_run(&self) -> Option<UpgradeRun> {
        let upgrade = self.state.upgrade.as_ref()?;
        let left = || count(self.models.outdated(self.instances.iter()).len());
        let replaced = match upgrade.status {
            UpgradeStatus::Completed | UpgradeStatus::RolledBack => upgrade.total,
            UpgradeStatus::Canceled | UpgradeStatus::Failed if upgrade.to != self.state.generation => 0,
            _ => upgrade.done(left()),
        };
        Some(UpgradeRun {
            status: upgrade.status.as_str().to_owned(),
            why: upgrade.why.clone().map(Into::into),
            from: upgrade.from,
            to: upgrade.to,
            started_ms: upgrade.started_ms,
            ended_ms: upgrade.ended_ms,
            total: upgrade.total,
            replaced,
            batch_end: upgrade.target,
            failed: upgrade.failed.clone(),
        })
    }

    /// The upgrade that is under way, or the last one, and what is outdated.
    #[must_use]
    pub(crate) fn upgrade(&self) -> UpgradeInfo {
        let waits = |note: &&PlanNote| {
            matches!(
                note,
                PlanNote::UpgradeWaits { .. }
                    | PlanNote::UpgradeHeld { .. }
                    | PlanNote::UpgradeFrozen { .. }
                    | PlanNote::NodesFull { .. }
            )
        };
        let under_way = self.state.upgrade.as_ref().is_some_and(|it| it.status.replaces());
        let last = self.last.as_deref().filter(|_| under_way);
        UpgradeInfo {
            set: self.state.set.name.clone(),
            generation: self.state.generation,
            mode: self.state.set.upgrade.mode.as_str().to_owned(),
            upgrade: self.upgrade_run(),
            waits_for: last.and_then(|last| last.plan.notes.iter().find(waits)).map(ToString::to_string),
            outdated: self.outdated_under(&self.models),
        }
    }

    /// What a manifest with that image would do to the instances that run.
    #[must_use]
    pub(crate) fn upgrade_preview(&self, set: &ScaleSet, image: &ImageDigests) -> Option<UpgradePreview> {
        let outdated = self.outdated_under(&Models::under((set, image), &self.state.images, &self.manifests));
        let (policy, desired): (&UpgradePolicy, u32) = (&set.upgrade, self.state.desired);
        (!outdated.is_empty()).then(|| UpgradePreview {
            mode: policy.mode.as_str().to_owned(),
            batch: policy.batch(count(outdated.len())),
            surge: policy.surge(desired),
            unavailable: policy.unavailable(desired),
            outdated,
        })
    }

    fn outdated_under(&self, models: &Models) -> Vec<OutdatedInstance> {
        let name = |id: u32| format!("{}-{id}", self.state.set.name);
        let outdated = models.outdated(self.instances.iter()).into_iter();
        outdated
            .map(|(id, paths)| OutdatedInstance { name: name(id), id, differs_in: paths.to_vec() })
            .collect()
    }

    /// How its loop hangs; none if it does not.
    #[must_use]
    pub(crate) fn stuck(&self) -> Option<String> {
        self.beat.stuck().map(|stuck| stuck.to_string())
    }

    /// The set with everything that is known of it now.
    #[must_use]
    pub(crate) fn detail(&self) -> SetDetail {
        SetDetail {
            summary: self.summary(),
            manifest: to_manifest_json(&self.state.set),
            policies: self.policy_entries(),
            metrics: self.last.as_deref().map(metrics_now).unwrap_or_default(),
            traffic: self.traffic.as_deref().map(traffic_info),
            notes: self.notes(),
        }
    }

    /// All policies of the set: of each slot the active, the previous and the canary, then the shadows.
    #[must_use]
    pub(crate) fn policy_entries(&self) -> Vec<PolicyEntry> {
        let entry = |role, slot: &str, activation, within| PolicyEntry {
            role,
            policy: policy_info(slot, activation),
            within,
            failure: None,
        };
        let told = |failure: &PolicyFailure| failure.told();
        let mut entries = Vec::new();
        for slot in &self.state.policies {
            let runs = self.last.iter().flat_map(|last| &last.runs);
            let run = runs.filter(|run| run.slot == slot.name).find(|run| run.digest == slot.active.digest);
            let failure = run.and_then(|run| run.result.as_ref().err()).map(told);
            let active = entry(PolicyRole::Active, &slot.name, &slot.active, None);
            entries.push(PolicyEntry { failure, ..active });
            if let Some(canary) = &slot.canary {
                entries.push(entry(PolicyRole::Canary, &slot.name, &canary.activation, Some(canary.within)));
            }
            if let Some(previous) = &slot.previous {
                entries.push(entry(PolicyRole::Previous, &slot.name, previous, None));
            }
        }
        entries.extend(self.state.shadows.iter().map(|shadow| PolicyEntry {
            failure: shadow.failure.as_ref().map(told),
            ..entry(PolicyRole::Shadow, &shadow.slot, &shadow.activation, None)
        }));
        entries
    }

    fn notes(&self) -> Vec<String> {
        let planned = self
            .last
            .as_deref()
            .map(|record| record.plan.notes.iter().map(ToString::to_string).collect::<Vec<_>>())
            .unwrap_or_default();
        let lacking: BTreeSet<&str> = self
            .instances
            .iter()
            .flat_map(|instance| instance.not_contained.iter().map(String::as_str))
            .collect();
        planned.into_iter().chain(isolation_notes(&lacking)).collect()
    }

    /// What the set does not do by itself.
    pub(crate) fn suspended(&self) -> impl Iterator<Item = SetProcess> + use<> {
        self.state.suspended.clone().into_iter()
    }

    /// The instances, by id.
    #[must_use]
    pub(crate) fn instances(&self) -> Vec<InstanceInfo> {
        self.instances.iter().map(|instance| self.instance_info(instance)).collect()
    }

    fn instance_info(&self, instance: &InstanceRecord) -> InstanceInfo {
        let set = &self.state.set;
        let connections = self
            .traffic
            .as_ref()
            .and_then(|lb| lb.stats.endpoints.iter().find(|e| e.endpoint.id == instance.id))
            .map_or(0, |e| e.open);
        InstanceInfo {
            name: format!("{}-{}", set.name, instance.id),
            id: instance.id,
            state: instance.phase.state().as_str().to_owned(),
            state_since_ms: instance.phase_since_ms,
            created_ms: instance.created_ms,
            generation: instance.generation,
            address: self.services.get(&instance.id).map_or_else(|| "none".to_owned(), ToString::to_string),
            pid: instance.vmm.map(|vmm| vmm.pid),
            protected: instance.protection.from_scale_in(),
            protection: instance.protection.into(),
            requested: instance.requested.map(|requested| requested.as_str().to_owned()),
            connections: u64::from(connections),
            metrics: self.last.as_deref().map(|record| metrics_of(record, instance)).unwrap_or_default(),
            not_contained: instance.not_contained.clone(),
            detail: instance.detail.clone().map(Into::into),
            start: instance.start.clone(),
        }
    }
}

fn count(instances: usize) -> u32 {
    u32::try_from(instances).unwrap_or(u32::MAX)
}

/// What is to be said of measures that are not in force.
fn isolation_notes(measures: &BTreeSet<&str>) -> Vec<String> {
    let (requested, missing): (Vec<&str>, Vec<&str>) =
        measures.iter().partition(|measure| measure.ends_with(REQUESTED));
    let missing = (!missing.is_empty())
        .then(|| format!("VMMs are not contained by {}: `regatta doctor` tells why", missing.join(", ")));
    let requested = (!requested.is_empty()).then(|| {
        let names: Vec<&str> = requested.iter().map(|name| name.trim_end_matches(REQUESTED)).collect();
        format!("VMMs are asked to use {}, which cannot be verified", names.join(", "))
    });
    missing.into_iter().chain(requested).collect()
}

/// A policy as the API shows it.
#[must_use]
pub(crate) fn policy_info(slot: &str, activation: &PolicyActivation) -> PolicyInfo {
    PolicyInfo {
        slot: slot.to_owned(),
        activation: activation.number,
        name: activation.name.clone().into(),
        version: activation.version.clone().into(),
        digest: activation.digest.clone(),
        source: activation.source.clone().into(),
        params: serde_json::from_str(&activation.params).unwrap_or_default(),
        since_ms: activation.since_ms,
    }
}

fn metrics_now(record: &TickRecord) -> Vec<MetricNow> {
    let of = |metric| {
        let aggregate = record.observation.aggregate(metric);
        MetricNow {
            name: metric.name.clone(),
            mean: aggregate.mean.fresh(),
            min: aggregate.min.fresh(),
            max: aggregate.max.fresh(),
            fresh: aggregate.fresh,
            stale: aggregate.stale,
            missing: aggregate.missing,
        }
    };
    record.observation.metrics.iter().map(of).collect()
}

fn metrics_of(record: &TickRecord, instance: &InstanceRecord) -> BTreeMap<String, f64> {
    let observation = &record.observation;
    if instance.phase == Phase::Gone {
        return BTreeMap::new();
    }
    let Ok(row) = observation.instances.id.binary_search(&instance.id) else { return BTreeMap::new() };
    let value = |metric: &MetricObservation| match metric.values.get(row) {
        Some(MetricValue::Fresh(value)) if metric.scope == MetricScope::Instance => {
            Some((metric.name.clone(), *value))
        }
        _ => None,
    };
    observation.metrics.iter().filter_map(value).collect()
}

fn traffic_info(traffic: &Traffic) -> TrafficInfo {
    let (totals, endpoints) = (&traffic.stats.totals, &traffic.stats.endpoints);
    let serving = endpoints.iter().filter(|endpoint| !endpoint.draining).count();
    TrafficInfo {
        listen: traffic.listen.to_string(),
        endpoints: u32::try_from(serving).unwrap_or(u32::MAX),
        accepted: totals.accepted,
        open: u64::from(totals.active),
        unserved: totals.unserved,
        retries: totals.retries,
    }
}
