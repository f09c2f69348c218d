//! Which surplus instances are given up.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::{PlanInput, PlannedInstance};
use crate::node::FaultDomain;
use crate::phase::Phase;

/// The order in which a scale-in removes instances. Whatever it is, those not in service go before those that serve, fault
/// domains stay balanced, and the policy's preferred victims come before the others of their fault domain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScaleInOrder {
    /// The oldest generation, then the newest instance.
    #[default]
    Default,
    /// The oldest instance.
    Oldest,
    /// The newest instance.
    Newest,
    /// As by default, with unhealthy instances before those that are not in service yet.
    UnhealthyFirst,
    /// The instance with the fewest open connections at the load balancer, then as by default.
    LeastBusy,
}

impl ScaleInOrder {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Default, Self::Oldest, Self::Newest, Self::UnhealthyFirst, Self::LeastBusy];

    /// The name that users read and write.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Oldest => "oldest",
            Self::Newest => "newest",
            Self::UnhealthyFirst => "unhealthy-first",
            Self::LeastBusy => "least-busy",
        }
    }
}

/// How little is lost with an instance: the smaller, the sooner it goes. Fault domains are balanced among equals.
fn class(order: ScaleInOrder, phase: Phase) -> u8 {
    match phase {
        Phase::Unhealthy if order == ScaleInOrder::UnhealthyFirst => 0,
        Phase::Pending => 1,
        Phase::Creating => 2,
        Phase::Booting => 3,
        Phase::Initializing => 4,
        Phase::Unhealthy => 5,
        _ => 6,
    }
}

/// The order among those of one class whose fault domains have equally many instances.
fn rank(input: &PlanInput<'_>, instance: &PlannedInstance<'_>) -> (u32, u64, i64) {
    let id = i64::from(instance.id);
    let outdated = instance.generation.min(input.generation);
    match input.scale_in_order {
        ScaleInOrder::Default | ScaleInOrder::UnhealthyFirst => (0, outdated, -id),
        ScaleInOrder::Oldest => (0, 0, id),
        ScaleInOrder::Newest => (0, 0, -id),
        ScaleInOrder::LeastBusy => (instance.connections, outdated, -id),
    }
}

/// Chooses `surplus` of the candidates, the first to go first. `counted` is everything that counts as capacity: what the
/// fault domains are balanced by.
pub(super) fn choose<'a>(
    input: &PlanInput<'_>,
    counted: impl Iterator<Item = &'a PlannedInstance<'a>>,
    candidates: Vec<&'a PlannedInstance<'a>>,
    surplus: usize,
) -> Vec<&'a PlannedInstance<'a>> {
    let mut sizes: BTreeMap<&FaultDomain, u32> = BTreeMap::new();
    for instance in counted {
        *sizes.entry(&instance.placement.domain).or_default() += 1;
    }
    let preferred = places(input.victims);
    let mut ranked: Vec<_> = candidates
        .into_iter()
        .map(|it| {
            let place = preferred.get(&it.id).copied().unwrap_or(usize::MAX);
            (class(input.scale_in_order, it.phase), (place, rank(input, it)), it)
        })
        .collect();
    ranked.sort_unstable_by_key(|&(class, rank, _)| (class, rank));
    let mut queues: BTreeMap<&FaultDomain, VecDeque<_>> = BTreeMap::new();
    for (class, rank, it) in ranked {
        queues.entry(&it.placement.domain).or_default().push_back((class, rank, it));
    }
    let mut chosen = Vec::new();
    while chosen.len() < surplus {
        let heads = queues.iter().filter_map(|(domain, queue)| Some((*domain, queue.front()?)));
        let size = |domain: &FaultDomain| sizes.get(domain).copied().unwrap_or(0);
        let next = heads.min_by_key(|(domain, (class, rank, _))| (*class, Reverse(size(domain)), *rank));
        let Some((domain, _)) = next else { break };
        sizes.entry(domain).and_modify(|size| *size = size.saturating_sub(1));
        chosen.extend(queues.get_mut(domain).and_then(VecDeque::pop_front).map(|(_, _, it)| it));
    }
    chosen
}

/// Where each preferred victim first stands in its list.
fn places(victims: &[u32]) -> HashMap<u32, usize> {
    let mut places = HashMap::new();
    for (place, &id) in victims.iter().enumerate() {
        places.entry(id).or_insert(place);
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::{NodeId, Placement};
    use crate::plan::testing::{fleet, input};

    fn chosen(input: &PlanInput<'_>, surplus: usize) -> Vec<u32> {
        let all = input.instances;
        choose(input, all.iter(), all.iter().collect(), surplus).iter().map(|it| it.id).collect()
    }

    #[test]
    fn each_order_has_its_first() {
        let mut instances = fleet(&[Phase::InService; 4]);
        instances[1].generation = 0;
        for (instance, connections) in instances.iter_mut().zip([7, 3, 0, 9]) {
            instance.connections = connections;
        }
        let mut input = input(&instances, 0);
        let expected = [
            (ScaleInOrder::Default, [2, 4, 3, 1]),
            (ScaleInOrder::Oldest, [1, 2, 3, 4]),
            (ScaleInOrder::Newest, [4, 3, 2, 1]),
            (ScaleInOrder::UnhealthyFirst, [2, 4, 3, 1]),
            (ScaleInOrder::LeastBusy, [3, 2, 1, 4]),
        ];
        for (order, ids) in expected {
            input.scale_in_order = order;
            assert_eq!(chosen(&input, 4), ids, "{order:?}");
        }
    }

    #[test]
    fn what_does_not_serve_goes_first_and_unhealthy_ones_before_that_if_so_wanted() {
        let instances = fleet(&[
            Phase::InService,
            Phase::Unhealthy,
            Phase::Initializing,
            Phase::Booting,
            Phase::Creating,
            Phase::Pending,
        ]);
        let mut input = input(&instances, 0);
        for order in ScaleInOrder::ALL {
            input.scale_in_order = order;
            let expected = match order {
                ScaleInOrder::UnhealthyFirst => [2, 6, 5, 4, 3, 1],
                _ => [6, 5, 4, 3, 2, 1],
            };
            assert_eq!(chosen(&input, 6), expected, "{order:?}");
        }
    }

    #[test]
    fn the_largest_fault_domain_gives_up_first_then_the_policy_has_its_choice() {
        let place = |domain: &str| Placement { node: NodeId("n".into()), domain: FaultDomain(domain.into()) };
        let (a, b) = (place("a"), place("b"));
        let mut instances = fleet(&[Phase::InService; 5]);
        for (instance, placement) in instances.iter_mut().zip([&a, &a, &a, &b, &b]) {
            instance.placement = placement;
        }
        let mut input = input(&instances, 0);
        assert_eq!(chosen(&input, 3), [3, 5, 2], "a has three; then both have two, and the newest goes");
        input.victims = &[4, 1];
        assert_eq!(chosen(&input, 3), [1, 4, 3]);
    }
}
