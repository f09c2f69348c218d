//! What a policy that is only judged would have done, beside the active one.
//!
//! A shadow sees the fleet as the active policy made it, not the fleet that it
//! would have made itself. So this tells how the two differ on the same
//! observations; where the shadow alone would have led is for a simulation to say.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::decision::PolicyRun;
use crate::digest::Digest;
use crate::observation::{MetricScope, Observation};
use crate::record::{ShadowRun, TickRecord};

/// By what the load is measured: instances' worth of it are `sum(metric) / target`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadBasis {
    /// Name of the metric.
    pub metric: String,
    /// What one instance carries, above 0.
    pub target: f64,
}

/// One policy over the ticks that were compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// SHA-256 of the module.
    pub digest: Digest,
    /// Ticks in which it gave no decision.
    pub failures: u64,
    /// Metrics that it asks for and the set does not have; empty for one that is no longer in the set.
    #[serde(default)]
    pub unknown_metrics: Vec<String>,
    /// What its capacity costs: instances × seconds, within the set's bounds.
    pub instance_seconds: f64,
    /// Load that its capacity leaves uncarried, instances × seconds; none without a basis.
    pub short_instance_seconds: Option<f64>,
    /// Capacity beyond the load, instances × seconds; none without a basis.
    pub spare_instance_seconds: Option<f64>,
    /// Mean fuel of a decision.
    pub mean_fuel: u64,
    /// Mean wall-clock time of a decision.
    pub mean_duration_us: u64,
}

/// A shadow beside the policy whose place it would take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// Number of the shadow's activation.
    pub number: u64,
    /// The place.
    pub slot: String,
    /// Ticks in which both gave a decision.
    pub judged: u64,
    /// Those of them in which both wanted the same capacity, within the set's bounds.
    pub agreed: u64,
    /// Mean of shadow minus active, instances.
    pub mean_difference: f64,
    /// Greatest difference, shadow minus active, and the first tick that has it.
    pub greatest_difference: Option<(i64, u64)>,
    /// The shadow.
    pub shadow: Side,
    /// The active policy, over the same ticks.
    pub active: Side,
}

/// All shadows of a set beside the active policies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// First and last tick that was looked at; none when there is no record.
    pub ticks: Option<(u64, u64)>,
    /// By what the load is measured, if it is.
    pub load: Option<LoadBasis>,
    /// One per shadow that was judged, by number.
    pub pairs: Vec<Pair>,
}

/// Compares over `records`, in the order of their ticks. A gap between two of them
/// counts as two ticks of `tick_ms` at most: nobody decided while no daemon ran.
#[must_use]
pub fn compare(records: &[TickRecord], tick_ms: u64, load: Option<LoadBasis>) -> Comparison {
    let mut ticks = BTreeMap::new();
    for (index, record) in records.iter().enumerate() {
        let now_ms = record.observation.now_ms;
        let next_ms = records.get(index + 1).map_or(now_ms + tick_ms, |next| next.observation.now_ms);
        let lasted_ms = next_ms.saturating_sub(now_ms).min(tick_ms.saturating_mul(2));
        ticks.insert(record.observation.tick, (record, seconds(lasted_ms)));
    }
    let mut pairs: BTreeMap<u64, Sums> = BTreeMap::new();
    for shadow in records.iter().flat_map(|record| &record.shadows) {
        // Its tick may be older than the first record.
        let Some(&(record, lasted_s)) = ticks.get(&shadow.tick) else { continue };
        let Some(active) = record.runs.iter().find(|run| run.slot == shadow.run.slot) else { continue };
        let demand = load.as_ref().and_then(|load| demand(&record.observation, load));
        pairs.entry(shadow.number).or_insert_with(|| Sums::new(shadow)).add(
            shadow,
            active,
            &record.observation,
            demand,
            lasted_s,
        );
    }
    let first_and_last =
        |records: &[TickRecord]| Some((records.first()?.observation.tick, records.last()?.observation.tick));
    Comparison {
        ticks: first_and_last(records),
        pairs: pairs.into_iter().map(|(number, sums)| sums.finish(number, load.is_some())).collect(),
        load,
    }
}

/// The load in instances' worth; none while it is not known of every instance in service.
#[must_use]
pub fn demand(observation: &Observation, load: &LoadBasis) -> Option<f64> {
    let metric = observation.metric(&load.metric)?;
    let aggregate = observation.aggregate(metric);
    if metric.scope == MetricScope::Instance && aggregate.stale + aggregate.missing > 0 {
        return None;
    }
    let demand = aggregate.sum.fresh()? / load.target;
    demand.is_finite().then_some(demand.max(0.0))
}

/// Sums over the ticks of one shadow.
struct Sums {
    slot: String,
    judged: u64,
    agreed: u64,
    difference: i64,
    greatest: Option<(i64, u64)>,
    shadow: SideSums,
    active: SideSums,
}

impl Sums {
    fn new(shadow: &ShadowRun) -> Self {
        Self {
            slot: shadow.run.slot.clone(),
            judged: 0,
            agreed: 0,
            difference: 0,
            greatest: None,
            shadow: SideSums::default(),
            active: SideSums::default(),
        }
    }

    fn add(
        &mut self,
        shadow: &ShadowRun,
        active: &PolicyRun,
        observation: &Observation,
        demand: Option<f64>,
        lasted_s: f64,
    ) {
        let theirs = self.shadow.add(&shadow.run, observation, demand, lasted_s);
        let ours = self.active.add(active, observation, demand, lasted_s);
        let (Some(theirs), Some(ours)) = (theirs, ours) else { return };
        let difference = i64::from(theirs) - i64::from(ours);
        self.judged += 1;
        self.agreed += u64::from(difference == 0);
        self.difference += difference;
        if difference != 0 && self.greatest.is_none_or(|(most, _)| difference.abs() > most.abs()) {
            self.greatest = Some((difference, shadow.tick));
        }
    }

    fn finish(self, number: u64, has_basis: bool) -> Pair {
        Pair {
            number,
            slot: self.slot,
            judged: self.judged,
            agreed: self.agreed,
            mean_difference: mean(self.difference, self.judged),
            greatest_difference: self.greatest,
            shadow: self.shadow.finish(has_basis),
            active: self.active.finish(has_basis),
        }
    }
}

#[derive(Default)]
struct SideSums {
    /// The last of its runs: a swap in between changes the name.
    last: Option<(String, String, Digest)>,
    runs: u64,
    failures: u64,
    instance_seconds: f64,
    short: f64,
    spare: f64,
    fuel: u64,
    duration_us: u64,
}

impl SideSums {
    /// The capacity that it wanted, within the set's bounds. One that gave no
    /// decision leaves the size in force.
    fn add(
        &mut self,
        run: &PolicyRun,
        observation: &Observation,
        demand: Option<f64>,
        lasted_s: f64,
    ) -> Option<u32> {
        let wanted = run.result.as_ref().ok().map(|decision| decision.capacity);
        let bounded = |capacity: u32| capacity.max(observation.min).min(observation.max);
        let capacity = f64::from(wanted.map_or(observation.desired, bounded));
        self.last = Some((run.name.clone().into(), run.version.clone().into(), run.digest.clone()));
        self.runs += 1;
        self.failures += u64::from(wanted.is_none());
        self.instance_seconds += capacity * lasted_s;
        if let Some(demand) = demand {
            self.short += (demand - capacity).max(0.0) * lasted_s;
            self.spare += (capacity - demand).max(0.0) * lasted_s;
        }
        self.fuel = self.fuel.saturating_add(run.fuel);
        self.duration_us = self.duration_us.saturating_add(run.duration_us);
        wanted.map(bounded)
    }

    fn finish(self, has_basis: bool) -> Side {
        let (name, version, digest) = self.last.unwrap_or_default();
        let runs = self.runs.max(1);
        Side {
            name,
            version,
            digest,
            failures: self.failures,
            unknown_metrics: Vec::new(),
            instance_seconds: self.instance_seconds,
            short_instance_seconds: has_basis.then_some(self.short),
            spare_instance_seconds: has_basis.then_some(self.spare),
            mean_fuel: self.fuel / runs,
            mean_duration_us: self.duration_us / runs,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "spans of ticks stay far below 2^53 ms")]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "a mean for people")]
fn mean(sum: i64, count: u64) -> f64 {
    if count == 0 { 0.0 } else { sum as f64 / count as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::combine::Combined;
    use crate::decision::{Decision, FailureKind, PolicyFailure};
    use crate::guard::GuardTrail;
    use crate::instance_state::InstanceState;
    use crate::metric::MetricValue;
    use crate::observation::{InstanceRow, InstanceTable, MetricObservation};
    use crate::plan::Plan;
    use crate::record::PlanFacts;

    fn run(digest: &str, capacity: Option<u32>) -> PolicyRun {
        PolicyRun {
            slot: "load".into(),
            name: digest.to_uppercase().into(),
            version: "1".into(),
            digest: digest.into(),
            params: "{}".into(),
            state_in: String::new(),
            result: capacity
                .map(|capacity| Decision {
                    capacity,
                    standby: None,
                    victims: Vec::new(),
                    wake_after_ms: None,
                    reasons: Vec::new(),
                })
                .ok_or(PolicyFailure { kind: FailureKind::Trap, message: "trapped".into() }),
            fuel: 100,
            duration_us: 10,
            log: Vec::new(),
        }
    }

    /// A tick of a second with two instances at `load` each.
    fn record(tick: u64, load: f64, active: Option<u32>, shadows: Vec<(u64, Option<u32>)>) -> TickRecord {
        let mut instances = InstanceTable::default();
        for id in 1..=2 {
            instances.push(InstanceRow {
                id,
                state: InstanceState::InService,
                state_since_ms: 0,
                created_ms: 0,
                generation: 1,
                protected: false,
            });
        }
        let observation = Observation {
            set: "web".into(),
            tick,
            now_ms: tick * 1000,
            generation: 1,
            min: 1,
            max: 10,
            desired: 2,
            instances,
            metrics: vec![MetricObservation {
                name: "load".into(),
                scope: MetricScope::Instance,
                values: vec![MetricValue::Fresh(load), MetricValue::Fresh(load)],
                window: Vec::new(),
            }],
            last: None,
            schedule: Vec::new(),
        };
        TickRecord {
            v: 2,
            wall_ms: tick * 1000,
            manifest: Digest::default(),
            wanted_metrics: Vec::new(),
            observation,
            changes: Vec::new(),
            facts: PlanFacts::default(),
            runs: vec![run("active", active)],
            canaries: Vec::new(),
            shadows: shadows
                .into_iter()
                .map(|(tick, capacity)| ShadowRun { tick, number: 7, run: run("shadow", capacity) })
                .collect(),
            combined: Combined {
                capacity: active,
                standby: None,
                victims: Vec::new(),
                wake_after_ms: None,
                reasons: Vec::new(),
                decided_by: None,
                decided_by_digest: None,
                votes: Vec::new(),
            },
            guards: GuardTrail { granted: 2, ..GuardTrail::default() },
            plan: Plan::default(),
            operator: Vec::new(),
        }
    }

    #[test]
    fn shadows_are_set_beside_the_tick_that_they_were_given() {
        let records = [
            record(1, 0.5, Some(2), vec![]),
            // Two instances at 1.5 are 6 instances' worth at a target of 0.5.
            record(2, 1.5, Some(4), vec![(1, Some(2))]),
            record(3, 0.5, None, vec![(2, Some(40))]),
            record(4, 0.5, Some(2), vec![(3, Some(1)), (99, Some(3))]),
        ];
        let basis = LoadBasis { metric: "load".into(), target: 0.5 };
        let comparison = compare(&records, 1000, Some(basis));
        assert_eq!(comparison.ticks, Some((1, 4)));
        let [pair] = comparison.pairs.as_slice() else { panic!("{comparison:?}") };
        // Tick 3 has no decision to compare with, tick 99 is not among the records.
        assert_eq!((pair.number, pair.judged, pair.agreed), (7, 2, 1));
        // 40 is no more than the set's max of 10.
        assert_eq!(pair.greatest_difference, Some((6, 2)));
        assert!((pair.mean_difference - 3.0).abs() < 1e-9);
        assert_eq!((pair.active.failures, pair.shadow.failures), (1, 0));
        // Active: 2, 4 and, without a decision, the 2 in force; loads of 2, 6 and 2.
        assert!((pair.active.instance_seconds - 8.0).abs() < 1e-9);
        assert_eq!(pair.active.short_instance_seconds, Some(2.0));
        assert!((pair.shadow.instance_seconds - 13.0).abs() < 1e-9);
        assert_eq!(pair.shadow.short_instance_seconds, Some(1.0));
        assert_eq!(pair.shadow.spare_instance_seconds, Some(4.0));
        assert_eq!((pair.active.mean_fuel, pair.active.name.as_str()), (100, "ACTIVE"));
    }

    #[test]
    fn without_a_basis_or_data_nothing_is_said_of_the_load() {
        let records = [record(1, 0.5, Some(2), vec![]), record(2, 0.5, Some(2), vec![(1, Some(2))])];
        let comparison = compare(&records, 1000, None);
        assert_eq!(comparison.pairs[0].active.short_instance_seconds, None);
        let absent = LoadBasis { metric: "absent".into(), target: 1.0 };
        assert_eq!(demand(&records[0].observation, &absent), None);
    }

    #[test]
    fn a_gap_in_the_records_costs_two_ticks_at_most() {
        let mut records = [record(1, 0.5, Some(2), vec![]), record(2, 0.5, Some(2), vec![(1, Some(2))])];
        records[1].observation.now_ms = 3_600_000;
        let comparison = compare(&records, 1000, None);
        assert!((comparison.pairs[0].active.instance_seconds - 4.0).abs() < 1e-9);
    }
}
