//! Which node a new instance runs on.

use std::cmp::Reverse;

use super::PlannedInstance;
use crate::node::{FaultDomain, Placement};
use crate::record::NodeCapacity;

/// Spreads new instances over nodes. Integers only and no randomness, so a replay places them alike.
pub(super) struct Spread<'a> {
    nodes: Vec<Node<'a>>,
    domains: Vec<Domain<'a>>,
}

struct Node<'a> {
    placement: &'a Placement,
    /// How many more it has capacity for.
    left: u32,
    /// Index of its domain.
    domain: usize,
}

struct Domain<'a> {
    name: &'a FaultDomain,
    /// Instances of the set in it.
    instances: u32,
}

impl<'a> Spread<'a> {
    /// `instances` are those that the set keeps.
    pub(super) fn over(
        capacity: &'a [NodeCapacity],
        instances: impl Iterator<Item = &'a PlannedInstance<'a>>,
    ) -> Self {
        let mut domains: Vec<Domain<'a>> = Vec::new();
        let mut nodes = Vec::with_capacity(capacity.len());
        for node in capacity {
            let name = &node.placement.domain;
            let domain = domains.iter().position(|domain| domain.name == name).unwrap_or_else(|| {
                domains.push(Domain { name, instances: 0 });
                domains.len() - 1
            });
            nodes.push(Node { placement: &node.placement, left: node.launches, domain });
        }
        // With one domain there is nothing to choose.
        if domains.len() > 1 {
            for instance in instances.filter(|i| i.phase.counts_as_capacity()) {
                if let Some(domain) =
                    domains.iter_mut().find(|domain| *domain.name == instance.placement.domain)
                {
                    domain.instances += 1;
                }
            }
        }
        Self { nodes, domains }
    }

    /// The node for the next instance: in the domain with the fewest instances of the set, that with the most capacity left;
    /// then the first by name. None when no node has capacity.
    pub(super) fn place(&mut self) -> Option<&'a Placement> {
        let domains = &mut self.domains;
        let rank =
            |node: &&mut Node<'a>| (domains[node.domain].instances, Reverse(node.left), &node.placement.node);
        let node = self.nodes.iter_mut().filter(|node| node.left > 0).min_by_key(rank)?;
        node.left -= 1;
        domains[node.domain].instances += 1;
        Some(node.placement)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::NodeId;
    use crate::phase::Phase;
    use crate::plan::testing::fleet;

    fn node(name: &str, domain: &str, launches: u32) -> NodeCapacity {
        let placement = Placement { node: NodeId(name.into()), domain: FaultDomain(domain.into()) };
        NodeCapacity { placement, launches, why: None }
    }

    fn placed(nodes: &[NodeCapacity], instances: &[PlannedInstance<'_>]) -> Vec<String> {
        let mut spread = Spread::over(nodes, instances.iter());
        std::iter::from_fn(|| spread.place()).map(|placement| placement.node.to_string()).collect()
    }

    #[test]
    fn the_node_with_the_most_capacity_is_next_until_none_has_any() {
        assert_eq!(
            placed(&[node("a", "r", 1), node("b", "r", 3), node("c", "r", 0)], &[]),
            ["b", "b", "a", "b"]
        );
        assert!(placed(&[], &[]).is_empty());
    }

    #[test]
    fn among_equals_the_domain_with_the_fewest_instances_of_the_set_is_next() {
        let nodes = [node("a", "r1", 2), node("b", "r2", 2)];
        assert_eq!(placed(&nodes, &[]), ["a", "b", "a", "b"]);
        let there = &nodes[0].placement;
        let mut instances = fleet(&[Phase::InService]);
        instances[0].placement = there;
        assert_eq!(placed(&nodes, &instances), ["b", "a", "b", "a"]);
        instances[0].phase = Phase::Terminating;
        assert_eq!(placed(&nodes, &instances), ["a", "b", "a", "b"], "it is on its way out");
    }

    #[test]
    fn the_order_in_which_nodes_are_listed_does_not_matter() {
        let mut nodes = [node("a", "r1", 2), node("b", "r2", 2), node("c", "r1", 3)];
        let expected = placed(&nodes, &[]);
        nodes.reverse();
        assert_eq!(placed(&nodes, &[]), expected);
    }
}
