//! Whether a set has become what a request asked for.

use crate::manifest::ScaleSet;

/// What a request asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
    /// Only a tick after this one has seen the request; none when any has.
    pub after_tick: Option<u64>,
    /// The capacity, when the request was about it.
    pub capacity: Option<u32>,
    /// How long all must stay well before the request counts as done.
    pub steady_ms: u64,
}

/// A set at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Number of its last tick.
    pub last_tick: u64,
    /// Capacity in force.
    pub desired: u32,
    /// Instances in service.
    pub in_service: u32,
    /// Instances in any state.
    pub instances: u32,
    /// How it is with their upgrade.
    pub upgrade: UpgradeSeen,
}

/// How it is with the upgrade that a request began or goes on with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UpgradeSeen {
    /// There is none, or it is complete.
    #[default]
    Done,
    /// Instances are being replaced, or go back.
    UnderWay,
    /// It ended otherwise, or waits for an operator.
    Stopped,
}

/// What became of a request so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is under way.
    Waiting,
    /// It is done.
    Settled,
    /// Another decision has replaced its capacity, or its upgrade has stopped.
    Undone,
}

/// Follows one request from look to look.
#[derive(Debug)]
pub struct Settling {
    asked: Asked,
    /// Since when all looks were good.
    steady_since_ms: Option<u64>,
}

impl Settling {
    /// A request that was just accepted.
    #[must_use]
    pub fn new(asked: Asked) -> Self {
        Self { asked, steady_since_ms: None }
    }

    /// What the set says of the request at `now_ms`, on a clock that never goes back.
    pub fn look(&mut self, now_ms: u64, seen: Seen) -> Verdict {
        if self.asked.capacity.is_some_and(|capacity| capacity != seen.desired) {
            return Verdict::Undone;
        }
        if seen.upgrade == UpgradeSeen::Stopped {
            return Verdict::Undone;
        }
        let decided = self.asked.after_tick.is_none_or(|tick| seen.last_tick > tick);
        // More than desired is not what was asked for either: protected instances stay.
        let upgraded = seen.upgrade == UpgradeSeen::Done;
        let as_wanted = seen.in_service == seen.desired && seen.instances == seen.in_service && upgraded;
        if !(decided && as_wanted) {
            self.steady_since_ms = None;
            return Verdict::Waiting;
        }
        let since_ms = *self.steady_since_ms.get_or_insert(now_ms);
        if now_ms.saturating_sub(since_ms) >= self.asked.steady_ms {
            Verdict::Settled
        } else {
            Verdict::Waiting
        }
    }
}

/// How long the instances of a set must stay healthy until its probes have had their say about a change.
#[must_use]
pub fn steady_ms(set: &ScaleSet) -> u64 {
    let health = &set.health;
    if health.probe.is_none() {
        return 0;
    }
    // As many failures as make an instance unhealthy must have had the time to show, the last of them by a time-out.
    let probes = health.healthy_threshold.max(health.unhealthy_threshold);
    health.interval_ms.saturating_mul(u64::from(probes)).saturating_add(health.timeout_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::testing::manifest;
    use crate::manifest::{Health, Probe};

    fn seen(last_tick: u64, desired: u32, in_service: u32, instances: u32) -> Seen {
        Seen { last_tick, desired, in_service, instances, upgrade: UpgradeSeen::Done }
    }

    #[test]
    fn a_request_is_done_once_a_later_tick_has_what_it_asked_for() {
        let mut scale = Settling::new(Asked { after_tick: Some(7), capacity: Some(4), steady_ms: 0 });
        assert_eq!(scale.look(0, seen(7, 4, 4, 4)), Verdict::Waiting, "no tick has seen it");
        assert_eq!(scale.look(1, seen(8, 4, 3, 4)), Verdict::Waiting);
        assert_eq!(scale.look(2, seen(9, 4, 4, 5)), Verdict::Waiting, "one is still on its way");
        assert_eq!(scale.look(3, seen(9, 4, 5, 5)), Verdict::Waiting, "a surplus instance is kept");
        assert_eq!(scale.look(4, seen(9, 4, 4, 4)), Verdict::Settled);
        assert_eq!(scale.look(5, seen(10, 2, 2, 2)), Verdict::Undone, "settled, but not as asked");
    }

    #[test]
    fn an_apply_is_done_when_all_stayed_well_for_the_time_that_probes_need() {
        let mut apply = Settling::new(Asked { after_tick: Some(1), capacity: None, steady_ms: 100 });
        assert_eq!(apply.look(0, seen(2, 2, 2, 2)), Verdict::Waiting);
        assert_eq!(apply.look(99, seen(3, 2, 2, 2)), Verdict::Waiting);
        assert_eq!(apply.look(100, seen(4, 2, 1, 2)), Verdict::Waiting, "one became unhealthy");
        assert_eq!(apply.look(150, seen(5, 2, 2, 2)), Verdict::Waiting, "from the beginning");
        assert_eq!(apply.look(249, seen(6, 2, 2, 2)), Verdict::Waiting);
        assert_eq!(apply.look(250, seen(7, 2, 2, 2)), Verdict::Settled);
    }

    #[test]
    fn an_apply_is_done_when_its_upgrade_has_ended() {
        let mut apply = Settling::new(Asked { after_tick: Some(1), capacity: None, steady_ms: 0 });
        let upgrade = |upgrade| Seen { upgrade, ..seen(2, 2, 2, 2) };
        assert_eq!(apply.look(0, upgrade(UpgradeSeen::UnderWay)), Verdict::Waiting, "between two batches");
        assert_eq!(apply.look(1, upgrade(UpgradeSeen::Done)), Verdict::Settled);
        assert_eq!(apply.look(2, upgrade(UpgradeSeen::Stopped)), Verdict::Undone);
    }

    #[test]
    fn probes_need_the_time_in_which_they_would_find_a_fault() {
        let mut set = manifest("");
        set.health = Health {
            probe: Some(Probe::Tcp { port: None }),
            interval_ms: 2_000,
            timeout_ms: 500,
            healthy_threshold: 2,
            unhealthy_threshold: 3,
        };
        assert_eq!(steady_ms(&set), 6_500);
        set.health.probe = None;
        assert_eq!(steady_ms(&set), 0);
    }
}
