//! What may be stored: looked at just before it is.

use std::collections::BTreeMap;

use regatta_core::batch::Batch;
use regatta_core::metric::MetricValue;
use regatta_core::phase::{InstanceEvent, Phase};
use regatta_core::plan::Action;
use regatta_core::record::{InstanceChange, TickRecord};
use regatta_core::requested::{Requested, returns};
use regatta_core::set_process::SetProcess;
use regatta_core::state::{InstanceRecord, Moment, SetState};
use regatta_core::tick::conclude;

use super::Checks;
use super::sizing::{at, bounds};
use crate::node::{Node, Stage};
use crate::store::{Store, StoredSet};

/// One record in this many is also taken through JSON.
const JSON_ONE_IN: u64 = 16;

impl Checks {
    /// A batch is about to be stored.
    pub(crate) fn on_commit(&mut self, store: &Store, node: &Node, set: &str, batch: &Batch) {
        self.hold(batch.expect.iter().any(|(name, _)| name == set), "guarded", || {
            format!("a batch of set {set} expects no revision")
        });
        let Some(before) = store.sets.get(set) else { return };
        for next in &batch.state.sets {
            let of_command = Moment {
                wall_ms: batch.history.events.last().map_or(0, |event| event.at_ms),
                lived_ms: next.clock.lived_ms,
            };
            self.counters(
                &before.state,
                next,
                batch.history.records.first().map_or(of_command, |record| at(record)),
            );
        }
        for (_, record) in &batch.state.instances {
            self.instance(before, record);
        }
        for (_, id) in &batch.state.removed_instances {
            self.removed(before, node, set, *id);
        }
        for _ in &batch.state.removed_sets {
            self.hold(before.state.deleting, "phases", || {
                format!("set {set} is removed and was not to be deleted")
            });
            before.instances.keys().for_each(|id| self.removed(before, node, set, *id));
        }
        for record in &batch.history.records {
            let next = batch.state.sets.first().unwrap_or(&before.state);
            let mut after = before.instances.clone();
            for (_, id) in &batch.state.removed_instances {
                after.remove(id);
            }
            for (_, instance) in &batch.state.instances {
                after.insert(instance.id, instance.clone());
            }
            self.record(store, before, next, &after, node, record);
        }
    }

    fn counters(&mut self, before: &SetState, next: &SetState, at: Moment) {
        let set = &next.set.name;
        let rising = [
            ("generation", before.generation, next.generation),
            ("next instance", u64::from(before.next_instance_id), u64::from(next.next_instance_id)),
            ("last tick", before.last_tick, next.last_tick),
            ("activations", before.activations, next.activations),
            ("epoch", before.epoch, next.epoch),
            ("lived time", before.clock.lived_ms, next.clock.lived_ms),
            ("steady time", before.clock.steady_ms, next.clock.steady_ms),
            ("deleting", u64::from(before.deleting), u64::from(next.deleting)),
        ];
        for (name, was, is) in rising {
            self.hold(is >= was, "ids", || format!("{name} of set {set} goes back from {was} to {is}"));
        }
        let (min, max) = bounds(before, at);
        self.hold(next.incarnation == before.incarnation, "ids", || format!("set {set} is another one"));
        self.hold(
            (min..=max).contains(&next.desired)
                || next.deleting
                || next.generation != before.generation
                || next.desired == before.desired,
            "maximum",
            || format!("set {set} wants {}, its limits are {min} to {max}", next.desired),
        );
    }

    fn instance(&mut self, before: &StoredSet, record: &InstanceRecord) {
        let name = format!("{}-{}", before.state.set.name, record.id);
        let Some(was) = before.instances.get(&record.id) else {
            self.hold(record.id >= before.state.next_instance_id, "ids", || {
                format!("{name} is made again: the next id is {}", before.state.next_instance_id)
            });
            self.hold(record.phase == Phase::Pending, "phases", || {
                format!("{name} begins as {}", record.phase)
            });
            self.hold(record.generation == before.state.generation, "generation", || {
                format!(
                    "{name} is of generation {}, in force is {}",
                    record.generation, before.state.generation
                )
            });
            let at_ms = self.tick_awake_ms.get(&before.state.set.name).copied().unwrap_or(0);
            let anew = self.created_ms.insert(record.uid.clone(), at_ms).is_none();
            return self.hold(anew && !record.uid.is_empty(), "ids", || {
                format!("{name} has the unique id {:?} of an earlier instance", record.uid)
            });
        };
        self.hold(was.uid == record.uid, "ids", || format!("{name} changes its unique id to {}", record.uid));
        let (from, to) = (was.phase, record.phase);
        let forgotten = returns(from, was.requested)
            && record.requested.is_none()
            && (from, was.phase_since_lived_ms) == (to, record.phase_since_lived_ms);
        self.hold(!forgotten, "restart", || format!("{name} drained to be restarted, and will not be"));
        let left = match from {
            Phase::Terminating | Phase::Gone => to != from,
            Phase::Failed | Phase::Refused => to != from && to != Phase::Terminating,
            Phase::Draining if returns(from, was.requested) => {
                matches!(to, Phase::Pending | Phase::Creating | Phase::Standby)
            }
            Phase::Draining => !matches!(to, Phase::Draining | Phase::Terminating),
            _ => to == Phase::Pending && from != to,
        };
        self.hold(!left, "phases", || format!("{name} was {from} and is {to}"));
        self.hold(!was.served || record.served, "phases", || format!("{name} has not served any more"));
    }

    fn removed(&mut self, before: &StoredSet, node: &Node, set: &str, id: u32) {
        let Some(was) = before.instances.get(&id) else { return };
        self.hold(was.phase == Phase::Terminating, "phases", || {
            format!("{set}-{id} leaves the store and was {}", was.phase)
        });
        let left = node.vms.values().any(|vm| vm.identity.uid == was.uid);
        self.hold(!left, "accounted", || format!("{set}-{id} leaves the store and is still on its node"));
    }

    fn record(
        &mut self,
        store: &Store,
        before: &StoredSet,
        next: &SetState,
        after: &BTreeMap<u32, InstanceRecord>,
        node: &Node,
        record: &TickRecord,
    ) {
        let set = &before.state.set.name;
        let tick = record.observation.tick;
        self.hold(tick == before.state.last_tick + 1 && next.last_tick == tick, "ticks", || {
            format!("tick {tick} of set {set} follows tick {}", before.state.last_tick)
        });
        self.decided_by(before, record);
        self.intents(set, after, record);
        self.limits(before, after, record);
        self.upgrade(store, before, next, after, record);
        self.sizing(before, next, record);
        self.times(store, before, next, record);
        for change in &record.changes {
            self.death(before, node, change);
        }
        for id in no_data(record) {
            let sampled = after.get(&id).is_some_and(|it| self.sampled.contains(&it.uid));
            self.hold(sampled, "no-data", || {
                format!("{set}-{id} has a fresh utilization in tick {tick} and was never sampled")
            });
        }
        self.replay(store, record);
    }

    /// Manifest, policies and their states are those that are stored.
    fn decided_by(&mut self, before: &StoredSet, record: &TickRecord) {
        let (state, tick) = (&before.state, record.observation.tick);
        let set = &state.set.name;
        self.hold(record.observation.generation == state.generation, "generation", || {
            format!(
                "tick {tick} of set {set} is of generation {}, not {}",
                record.observation.generation, state.generation
            )
        });
        self.hold(state.manifests.get(&state.generation) == Some(&record.manifest), "generation", || {
            format!(
                "tick {tick} of set {set} names another manifest than that of generation {}",
                state.generation
            )
        });
        if state.deleting {
            return;
        }
        if state.suspended.contains(&SetProcess::Policy) {
            return;
        }
        let active = state.policies.iter().map(|slot| (&slot.name, &slot.active));
        let canaries =
            state.policies.iter().filter_map(|slot| Some((&slot.name, &slot.canary.as_ref()?.activation)));
        let runs = record.runs.iter().map(|run| (&run.slot, &run.digest, &run.state_in));
        let tried = record.canaries.iter().map(|it| (&it.run.slot, &it.run.digest, &it.run.state_in));
        let same = active.map(|(slot, it)| (slot, &it.digest, &it.state)).eq(runs)
            && canaries.map(|(slot, it)| (slot, &it.digest, &it.state)).eq(tried);
        self.hold(same, "generation", || {
            format!("tick {tick} of set {set} is decided by others than the policies that are stored, or with other states")
        });
        self.hold(record.facts.next_id == state.next_instance_id, "ids", || {
            format!(
                "tick {tick} of set {set} begins with id {}, not {}",
                record.facts.next_id, state.next_instance_id
            )
        });
    }

    /// What shall be done is stored as what it leads to.
    fn intents(&mut self, set: &str, after: &BTreeMap<u32, InstanceRecord>, record: &TickRecord) {
        let mut named = std::collections::BTreeSet::new();
        for action in &record.plan.actions {
            let (id, phase) = match action {
                Action::Create { id, generation, .. } => {
                    self.hold(*generation == record.observation.generation, "generation", || {
                        format!(
                            "{set}-{id} is made of generation {generation}, in force is {}",
                            record.observation.generation
                        )
                    });
                    (*id, Phase::Pending)
                }
                Action::Drain { id, .. } => (*id, Phase::Draining),
                Action::Restart { id } => {
                    let stored = after.get(id).is_some_and(|it| it.requested == Some(Requested::Restarting));
                    self.hold(stored && named.insert(*id), "intent", || {
                        format!("the restart of {set}-{id} is not stored")
                    });
                    continue;
                }
                Action::Terminate { id, .. } => (*id, Phase::Terminating),
            };
            let stored = after.get(&id).map(|it| it.phase);
            self.hold(stored == Some(phase), "intent", || {
                format!(
                    "the plan of tick {} makes {set}-{id} {phase}, stored is {stored:?}",
                    record.observation.tick
                )
            });
            self.hold(named.insert(id), "intent", || format!("a plan names {set}-{id} twice"));
        }
    }

    /// Nothing is called dead that runs.
    fn death(&mut self, before: &StoredSet, node: &Node, change: &InstanceChange) {
        let unasked = matches!(change.event, InstanceEvent::VmmExited) && change.from.may_answer();
        let refused = change.event == InstanceEvent::Refused;
        if !unasked && !refused {
            return;
        }
        let Some(was) = before.instances.get(&change.id) else { return };
        let lives = node.vms.values().any(|vm| vm.identity.uid == was.uid && vm.stage == Stage::Running);
        self.hold(!lives, "death", || {
            let detail = change.detail.as_deref().unwrap_or_default();
            format!("{}-{} runs and was given up: {detail}", before.state.set.name, change.id)
        });
    }

    /// The record decides itself again.
    fn replay(&mut self, store: &Store, record: &TickRecord) {
        self.records += 1;
        let name = || format!("tick {} of set {}", record.observation.tick, record.observation.set);
        let Some(manifest) = store.manifests.get(&record.manifest) else {
            return self.fail("replay", || format!("the manifest of {} is not stored", name()));
        };
        let again = conclude(manifest, record.input());
        self.hold(again == *record, "replay", || {
            format!("{} is decided otherwise: {}", name(), difference(record, &again))
        });
        if self.records.is_multiple_of(JSON_ONE_IN) {
            let read =
                serde_json::to_vec(record).and_then(|json| serde_json::from_slice::<TickRecord>(&json));
            match read {
                Ok(read) => {
                    let again = conclude(manifest, read.input());
                    self.hold(read == *record && again == *record, "replay", || {
                        format!("{} is another one after JSON: {}", name(), difference(record, &read))
                    });
                }
                Err(error) => self.fail("replay", || format!("{} cannot be read again: {error}", name())),
            }
        }
    }
}

/// The instances of which the record claims a fresh utilization.
fn no_data(record: &TickRecord) -> Vec<u32> {
    let Some(metric) = record.observation.metric("utilization") else { return Vec::new() };
    let values = metric.values.iter().zip(&record.observation.instances.id);
    values.filter(|(value, _)| !matches!(value, MetricValue::Missing)).map(|(_, id)| *id).collect()
}

/// The first field in which two records differ.
fn difference(stored: &TickRecord, again: &TickRecord) -> String {
    let (stored, again) = (serde_json::to_value(stored), serde_json::to_value(again));
    let (Ok(serde_json::Value::Object(stored)), Ok(serde_json::Value::Object(again))) = (stored, again)
    else {
        return String::new();
    };
    let differs = stored.iter().find(|(key, value)| again.get(*key) != Some(value));
    differs.map_or_else(String::new, |(key, value)| {
        format!("{key} is {value}, again it is {}", again.get(key).unwrap_or(&serde_json::Value::Null))
    })
}
