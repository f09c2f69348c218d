//! Nothing expires before its time has been lived, whatever the wall clock says and however long a process was stopped.

use regatta_core::agent::Report;
use regatta_core::machine::Input;
use regatta_core::phase::{InstanceEvent, Phase};
use regatta_core::plan::{Action, RemovalCause};
use regatta_core::record::TickRecord;
use regatta_core::requested::Requested;
use regatta_core::state::{InstanceRecord, SetState};

use super::Checks;
use crate::store::{Store, StoredSet};

impl Checks {
    pub(super) fn times(&mut self, store: &Store, before: &StoredSet, next: &SetState, record: &TickRecord) {
        let set = &before.state.set.name;
        let now_ms = self.tick_awake_ms.get(set).copied().unwrap_or(0);
        for change in record.changes.iter().filter(|change| change.event == InstanceEvent::BootTimedOut) {
            let Some(was) = before.instances.get(&change.id) else { continue };
            let Some(&created_ms) = self.created_ms.get(&was.uid) else { continue };
            let digest = before.state.manifests.get(&was.generation);
            let Some(manifest) = digest.and_then(|digest| store.manifests.get(digest)) else { continue };
            let (lived_ms, timeout_ms) = (now_ms - created_ms, manifest.instance.boot_timeout_ms);
            self.hold(lived_ms >= timeout_ms, "boot-time", || {
                format!(
                    "{set}-{} was given up after {lived_ms} ms, it has {timeout_ms} ms to boot",
                    change.id
                )
            });
        }
        for action in &record.plan.actions {
            match action {
                Action::Terminate { id, cause: RemovalCause::Unhealthy } => {
                    let grace_ms = before.state.set.repair.grace_ms;
                    if let Some(&since_ms) = self.unhealthy_since_ms.get(&(set.clone(), *id)) {
                        let lived_ms = now_ms.saturating_sub(since_ms);
                        self.hold(lived_ms >= grace_ms, "repair-time", || {
                            format!("{set}-{id} is replaced after {lived_ms} ms, its grace is {grace_ms} ms")
                        });
                    }
                }
                Action::Drain { id, .. } => {
                    if let Some(was) = before.instances.get(id) {
                        self.drains_since_ms.insert(was.uid.clone(), now_ms);
                    }
                }
                Action::Terminate { id, cause: RemovalCause::DrainTimeout } | Action::Restart { id } => {
                    let was = before.instances.get(id);
                    let waits = |it: &InstanceRecord| {
                        it.phase == Phase::Draining && it.requested == Some(Requested::Restart)
                    };
                    let at_once = record.facts.drained.contains(id) || !was.is_some_and(waits);
                    if matches!(action, Action::Restart { .. }) && at_once {
                        continue;
                    }
                    let since_ms = before.instances.get(id).and_then(|it| self.drains_since_ms.get(&it.uid));
                    let timeout_ms =
                        before.state.set.load_balancer.as_ref().map_or(0, |lb| lb.drain.timeout_ms);
                    if let Some(&since_ms) = since_ms {
                        let lived_ms = now_ms - since_ms;
                        self.hold(lived_ms >= timeout_ms, "drain-time", || {
                            format!("{set}-{id} was drained for {lived_ms} ms, it has {timeout_ms} ms")
                        });
                    }
                }
                _ => {}
            }
        }
        self.back_off(before, next, record, now_ms);
    }

    fn back_off(&mut self, before: &StoredSet, next: &SetState, record: &TickRecord, now_ms: u64) {
        let set = &before.state.set.name;
        let failures = next.launch_failures_in_a_row;
        if record.changes.iter().any(|change| change.to == Phase::InService) {
            self.failed_launch.remove(set);
        }
        if failures == 0 {
            self.failed_launch.remove(set);
            // A launch that failed leaves its trace, unless one succeeded since.
            let failed = record.changes.iter().any(|change| change.event == InstanceEvent::LaunchFailed);
            let served = record.changes.iter().any(|change| change.event == InstanceEvent::BecameHealthy);
            return self.hold(!failed || served, "back-off", || {
                format!("a launch of set {set} failed in tick {} and is not counted", record.observation.tick)
            });
        }
        let launches = record.plan.actions.iter().any(|action| matches!(action, Action::Create { .. }));
        let counted = failures > before.state.launch_failures_in_a_row;
        self.hold(!counted || !launches, "back-off", || {
            format!("set {set} launches in the very tick that counts failure {failures} in a row")
        });
        // Another manifest may mend what kept launches from succeeding: it counts anew.
        if let Some(&(at_ms, in_a_row, generation)) = self.failed_launch.get(set)
            && generation == next.generation
            && launches
        {
            let wait_ms = (1_000_u64 << (in_a_row - 1).min(6)).min(60_000);
            let lived_ms = now_ms - at_ms;
            self.hold(lived_ms >= wait_ms, "back-off", || {
                format!("set {set} launches {lived_ms} ms after failure {in_a_row} in a row, it has to wait {wait_ms} ms")
            });
        }
        if counted || !self.failed_launch.contains_key(set) {
            self.failed_launch.insert(set.clone(), (now_ms, failures, next.generation));
        }
    }

    /// Something reaches the machine of a set.
    pub(crate) fn on_input(&mut self, set: &str, input: &Input, awake_ms: u64) {
        match input {
            Input::Probed { id, event: InstanceEvent::BecameUnhealthy, .. } => {
                self.unhealthy_since_ms.entry((set.to_owned(), *id)).or_insert(awake_ms);
            }
            Input::Probed { id, event: InstanceEvent::BecameHealthy, .. }
            | Input::Report { id, report: Report::GuestRebooted | Report::Found(_) } => {
                self.unhealthy_since_ms.remove(&(set.to_owned(), *id));
            }
            _ => {}
        }
    }
}
