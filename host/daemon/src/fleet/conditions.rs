//! What an operator should know of the daemon.

use super::Fleet;
use crate::api::recovery_types::{ConditionKind, DaemonCondition};

impl Fleet {
    /// All of it, now.
    pub(super) fn conditions(&self) -> Vec<DaemonCondition> {
        let of_host = [self.not_probed_condition(), self.connections_condition(), self.root_vmms_condition()];
        let known = [self.orphan_condition(), self.state_condition()];
        known.into_iter().chain(of_host).flatten().collect()
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
