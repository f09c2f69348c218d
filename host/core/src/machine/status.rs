//! What others see of a set: its state, its endpoints, and what keeps it from being as wanted.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::back_off::BackOff;
use crate::batch::Revision;
use crate::manifest::{LoadBalancer, ScaleSet};
use crate::mutant::{self, Mutant};
use crate::phase::Phase;
use crate::plan::PlanNote;
use crate::record::TickRecord;
use crate::sizing::{self, InForce, Limits};
use crate::state::{InstanceRecord, Moment, SetState};

use super::{Busy, SetMachine};

/// Where a load balancer sends connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// Of which instance.
    pub id: u32,
    /// Where its service answers.
    pub addr: SocketAddr,
}

/// Whether a load balancer sends connections to unhealthy instances as well: too few of those that should serve are healthy
/// for the rest to carry the load, and a probe that is wrong looks like this, too.
#[must_use]
pub fn fails_open(load_balancer: &LoadBalancer, phases: impl Iterator<Item = Phase>) -> bool {
    let (mut healthy, mut unhealthy) = (0_u64, 0_u64);
    for phase in phases {
        healthy += u64::from(phase == Phase::InService);
        unhealthy += u64::from(phase == Phase::Unhealthy);
    }
    healthy * 100 < (healthy + unhealthy) * u64::from(load_balancer.panic_threshold_percent)
}

impl SetMachine {
    /// The set.
    #[must_use]
    pub fn state(&self) -> &SetState {
        &self.state
    }

    /// The manifest in force.
    #[must_use]
    pub fn manifest(&self) -> &Arc<ScaleSet> {
        &self.manifest
    }

    /// Counts its commits.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Its instances, by id.
    pub fn instances(&self) -> impl Iterator<Item = &InstanceRecord> {
        self.instances.values().map(|instance| &instance.record)
    }

    /// What the last tick decided.
    #[must_use]
    pub fn last(&self) -> Option<&Arc<TickRecord>> {
        self.last.as_ref()
    }

    /// Whether its instances can be launched from what the manifest names, as far as is known.
    #[must_use]
    pub fn image_is_usable(&self) -> bool {
        self.image_problem.is_none()
    }

    /// How many launches the set may want at most, beside what counts as capacity already.
    #[must_use]
    pub fn launches_max(&self) -> u32 {
        let counted = self.instances.values().filter(|it| it.record.phase.counts_as_capacity()).count();
        let max = self.limits().max;
        // An upgrade has more for a while.
        let under_way = self.state.upgrade.as_ref().filter(|upgrade| upgrade.status.replaces());
        let most = max.saturating_add(under_way.map_or(0, |_| self.state.set.upgrade.surge(max)));
        most.saturating_sub(u32::try_from(counted).unwrap_or(u32::MAX))
    }

    /// When the next tick is due, milliseconds after the last one: a tick, or earlier when a policy wishes so, within its limit.
    #[must_use]
    pub fn next_tick_in_ms(&self) -> u64 {
        let tick_ms = self.manifest.tick_ms;
        let runs = self.last.iter().flat_map(|last| &last.runs);
        let wishes = runs.filter_map(|run| {
            let wish_ms = run.result.as_ref().ok()?.wake_after_ms?;
            Some(wish_ms.max(self.limits_of(&run.slot).wake_after_ms))
        });
        wishes.min().map_or(tick_ms, |wish_ms| wish_ms.min(tick_ms))
    }

    /// Whether the set is gone.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(self.busy, Busy::Ended(_))
    }

    /// Whether so few of those that should serve are healthy that connections go to all of them.
    #[must_use]
    pub fn fails_open(&self) -> bool {
        self.manifest.load_balancer.as_ref().is_some_and(|load_balancer| {
            fails_open(load_balancer, self.instances().map(|record| record.phase))
        })
    }

    /// Where connections may go: every instance in service, at the port that it was made for; the unhealthy as well while
    /// the load balancer [fails open](Self::fails_open).
    pub fn endpoints(&self) -> impl Iterator<Item = Endpoint> {
        let open = self.fails_open();
        let serves = move |phase| {
            phase == Phase::InService
                || open && phase == Phase::Unhealthy
                || mutant::is(Mutant::DrainingIsEndpoint) && phase == Phase::Draining
        };
        let serving = self.instances().filter(move |record| serves(record.phase));
        serving.filter_map(|record| Some(Endpoint { id: record.id, addr: self.service_of(record)? }))
    }

    /// Where the service of an instance answers: at the port that it was made for.
    #[must_use]
    pub fn service_of(&self, record: &InstanceRecord) -> Option<SocketAddr> {
        Some((record.address?, self.manifest_of(record).network.port()?).into())
    }

    /// What operators say about its size now.
    #[must_use]
    pub fn in_force(&self) -> InForce {
        sizing::in_force(&self.state, self.moment())
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.in_force().limits.unwrap_or_else(|| Limits::of(self.state.set.capacity))
    }

    /// When it last took an input in.
    #[must_use]
    pub fn at(&self) -> Moment {
        self.moment()
    }

    /// What keeps the set from being as wanted, for people.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = self.store_error.iter().cloned().collect();
        problems.extend(self.listen_error.iter().cloned());
        problems.extend(self.image_problem.iter().cloned());
        if !self.state.suspended.is_empty() {
            let names: Vec<&str> = self.state.suspended.iter().map(|process| process.as_str()).collect();
            let (listed, given) = (names.join(", "), names.join(" "));
            let name = &self.state.set.name;
            let what = match names.len() {
                1 => format!("process {listed} is"),
                _ => format!("processes {listed} are"),
            };
            problems
                .push(format!("{what} suspended by an operator: `regatta process resume {name} {given}`"));
        }
        problems.extend(self.in_force().problems(&self.state.set.name));
        if self.fails_open() {
            let unhealthy = self.instances().filter(|record| record.phase == Phase::Unhealthy).count();
            problems.push(format!(
                "{unhealthy} instances are unhealthy: the load balancer sends connections to them all the same, because too \
                 few are healthy (load_balancer.panic_threshold)"
            ));
        }
        problems.extend(self.upgrade_problem());
        problems.extend(
            self.snapshot
                .failure()
                .map(|why| format!("instances boot; there is no snapshot that they could start from: {why}")),
        );
        if let Some(last) = &self.last {
            let failed =
                last.runs.iter().filter_map(|run| run.result.as_ref().err().map(|failure| (run, failure)));
            problems.extend(failed.map(|(run, failure)| {
                format!("policy {} failed ({}): {}", run.name, failure.kind.as_str(), failure.message)
            }));
            problems.extend(last.facts.back_off.as_ref().map(BackOff::told));
            problems.extend(last.facts.balancer_full.map(|full| full.told()));
            problems.extend(last.facts.metric_gaps.iter().map(|gap| gap.told(&self.state.set.name)));
            // A batch that bakes is the usual course of an upgrade.
            let notes = last.plan.notes.iter().filter(|note| !matches!(note, PlanNote::UpgradeWaits { .. }));
            problems.extend(notes.map(ToString::to_string));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Rig;

    #[test]
    fn a_policy_may_have_the_next_tick_earlier_within_its_limit() {
        let next_tick_ms = |limits: &str, wake_after_ms| {
            let mut rig = Rig::new(&format!("tick: 10s\npolicy: {{ module: step{limits} }}"));
            rig.wake_after_ms = wake_after_ms;
            rig.tick();
            rig.machine.next_tick_in_ms()
        };
        assert_eq!(next_tick_ms("", None), 10_000);
        assert_eq!(next_tick_ms("", Some(0)), 1_000);
        assert_eq!(next_tick_ms("", Some(2_000)), 2_000);
        assert_eq!(next_tick_ms("", Some(u64::MAX)), 10_000);
        assert_eq!(next_tick_ms(", limits: { wake_after: 20ms }", Some(0)), 20);
    }
}
