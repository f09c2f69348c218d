//! What an operator should know of the daemon.

use regatta_core::manifest::Network;
use regatta_vmm::doctor;

use super::Fleet;
use crate::api::recovery_types::{ConditionKind, DaemonCondition};

impl Fleet {
    /// All of it, now.
    pub(super) fn conditions(&self) -> Vec<DaemonCondition> {
        let of_host = [self.not_probed_condition(), self.connections_condition(), self.root_vmms_condition()];
        let known = [self.orphan_condition(), self.state_condition(), self.network_condition()];
        known.into_iter().chain(of_host).flatten().collect()
    }

    fn network_condition(&self) -> Option<DaemonCondition> {
        let sets = self.sets_now().clone();
        let ruled = |network: &Network| matches!(network, Network::Isolated { .. } | Network::Bridge { .. });
        let ruled = sets.into_iter().filter(|(_, handle)| ruled(&handle.view().state.set.network));
        network_condition(ruled.map(|(name, _)| name).collect(), doctor::lacks_nft)
    }

    fn not_probed_condition(&self) -> Option<DaemonCondition> {
        let sets = self.sets_now();
        let not_probed = sets.iter().flat_map(|(set, handle)| {
            handle
                .view()
                .not_probed
                .iter()
                .map(|(id, why)| (format!("{set}-{id}"), why.clone()))
                .collect::<Vec<_>>()
        });
        let not_probed: Vec<_> = not_probed.collect();
        let (name, why) = not_probed.first()?;
        let message = format!(
            "{} not probed, for example {name}: {why}. They count as neither healthy nor unhealthy until the daemon can ask \
             again; see `ulimit -n` and the load of this host",
            match not_probed.len() {
                1 => "1 instance is".to_owned(),
                count => format!("{count} instances are"),
            }
        );
        Some(DaemonCondition { kind: ConditionKind::NotProbed, message })
    }

    fn root_vmms_condition(&self) -> Option<DaemonCondition> {
        let message = self.shared.root_vmms.clone()?;
        Some(DaemonCondition { kind: ConditionKind::RootVmms, message })
    }

    fn connections_condition(&self) -> Option<DaemonCondition> {
        let listeners = &self.shared.listeners;
        let message = || {
            format!(
                "the load balancers hold {} connections, as many as this daemon has descriptors for; new ones wait \
                 (LimitNOFILE, ulimit -Hn)",
                listeners.connections_max()
            )
        };
        listeners.is_full().then(|| DaemonCondition { kind: ConditionKind::Connections, message: message() })
    }
}

/// What `status` says when sets whose networks have rules lack the program that sets them.
fn network_condition(
    ruled: Vec<String>,
    lacking: impl FnOnce() -> Option<(&'static str, &'static str)>,
) -> Option<DaemonCondition> {
    if ruled.is_empty() {
        return None;
    }
    let (seen, fix) = lacking()?;
    let message = format!(
        "no instance of {} can be launched with its network.mode: {seen}; {fix} (`regatta doctor` checks the host)",
        ruled.join(", ")
    );
    Some(DaemonCondition { kind: ConditionKind::Network, message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_nft_is_a_condition_only_when_a_set_needs_it() {
        let missing = || Some(("there is no nft", "install nftables"));
        assert_eq!(network_condition(Vec::new(), missing), None);
        assert_eq!(network_condition(vec!["web".to_owned()], || None), None);
        let told = network_condition(vec!["db".to_owned(), "web".to_owned()], missing).expect("a condition");
        assert_eq!(told.kind, ConditionKind::Network);
        for part in ["db, web", "there is no nft", "install nftables", "regatta doctor"] {
            assert!(told.message.contains(part), "{part}: {}", told.message);
        }
    }
}
