//! Warm start: instances that continue from a golden snapshot.

use std::sync::Arc;

use crate::event::EventKind;
use crate::manifest::{ScaleSet, StartMode};

use super::{SetMachine, SnapshotStatus};

impl SetMachine {
    /// The manifest that a golden snapshot shall be of; none when there shall be none.
    pub(super) fn wanted_snapshot(&self) -> Option<Arc<ScaleSet>> {
        let wanted = self.manifest.instance.start != StartMode::Cold
            && !self.state.deleting
            && self.image_problem.is_none();
        wanted.then(|| Arc::clone(&self.manifest))
    }

    /// Why launches wait for the snapshot, if they do.
    pub(super) fn snapshot_hold(&self) -> Option<String> {
        match (self.manifest.instance.start, &self.snapshot) {
            // Before the first look it is not known whether there is one.
            (StartMode::Snapshot, SnapshotStatus::Making { failed: None } | SnapshotStatus::Off)
                if self.wanted_snapshot().is_some() =>
            {
                Some("the snapshot that instances start from is being made".to_owned())
            }
            _ => None,
        }
    }

    pub(super) fn on_snapshot(&mut self, status: SnapshotStatus) {
        match (&self.snapshot, &status) {
            (before, SnapshotStatus::Ready { disk_bytes })
                if !matches!(before, SnapshotStatus::Ready { .. }) =>
            {
                if matches!(before, SnapshotStatus::Making { .. }) {
                    let text = format!("instances start from a snapshot of {} MiB", disk_bytes >> 20);
                    self.tell(EventKind::SnapshotReady, text);
                }
            }
            (before, SnapshotStatus::Failed { why }) if before.failure() != Some(why) => {
                self.tell(
                    EventKind::SnapshotFailed,
                    format!("instances boot instead of being restored: {why}"),
                );
            }
            _ => {}
        }
        self.snapshot = status;
    }
}

impl SnapshotStatus {
    /// Why there is none, when that will last.
    #[must_use]
    pub fn failure(&self) -> Option<&String> {
        match self {
            Self::Failed { why } | Self::Making { failed: Some(why) } => Some(why),
            Self::Off | Self::Making { failed: None } | Self::Ready { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Rig, manifest, update};
    use super::super::{Command, Effect, Input};
    use super::*;

    const DISK: &str = "image: { kernel: k, disk: d }\nnetwork: { mode: none }";

    fn rig(mode: &str) -> Rig {
        Rig::new(&format!("{DISK}\ninstance: {{ start: {mode} }}"))
    }

    fn making(failed: Option<&str>) -> SnapshotStatus {
        SnapshotStatus::Making { failed: failed.map(ToOwned::to_owned) }
    }

    fn failed(why: &str) -> SnapshotStatus {
        SnapshotStatus::Failed { why: why.to_owned() }
    }

    fn ready() -> SnapshotStatus {
        SnapshotStatus::Ready { disk_bytes: 5 << 20 }
    }

    /// Whether a tick launches while it is so with the snapshot.
    fn launches(mode: &str, status: SnapshotStatus) -> bool {
        let mut rig = rig(mode);
        rig.run(Input::Snapshot(status));
        rig.tick();
        !rig.ids().is_empty()
    }

    #[test]
    fn launches_wait_only_where_the_manifest_wants_a_snapshot_that_is_being_made() {
        for (status, waits) in [
            (SnapshotStatus::Off, true),
            (making(None), true),
            (making(Some("no disk")), false),
            (ready(), false),
            (failed("no disk"), false),
        ] {
            assert_eq!(launches("snapshot", status.clone()), !waits, "{status:?}");
            assert!(launches("auto", status.clone()) && launches("cold", status));
        }
        let mut rig = rig("snapshot");
        rig.tick();
        let why = "the snapshot that instances start from is being made";
        assert_eq!(rig.store.last_record().facts.hold.as_deref(), Some(why));
        assert!(rig.machine.problems().iter().any(|problem| problem.contains(why)));
    }

    #[test]
    fn each_tick_tells_of_which_manifest_the_snapshot_shall_be() {
        let wanted = |rig: &mut Rig| {
            rig.effects.clear();
            rig.tick();
            let of = |effect: &Effect| match effect {
                Effect::Snapshot(wanted) => Some(wanted.clone()),
                _ => None,
            };
            let told: Vec<_> = rig.effects.iter().filter_map(of).collect();
            assert_eq!(told.len(), 1);
            told[0].clone()
        };
        let mut warm = rig("auto");
        assert_eq!(wanted(&mut warm).as_ref(), Some(warm.machine.manifest()));
        warm.command(Command::Delete).expect("begun");
        assert_eq!(wanted(&mut warm), None);
        assert_eq!(wanted(&mut rig("cold")), None);
        let mut unusable = rig("snapshot");
        let start = super::super::Start {
            image_problem: Some("no disk".to_owned()),
            ..Rig::start(&unusable.store, true)
        };
        unusable.machine = super::super::SetMachine::new(start, unusable.now);
        unusable.run(Input::InventoryComplete);
        assert_eq!(wanted(&mut unusable), None);
        assert_eq!(unusable.store.last_record().facts.hold, None, "what cannot be made is not waited for");
        assert_eq!(unusable.machine.problems()[0], "no disk");
    }

    #[test]
    fn each_end_of_the_making_is_told_once() {
        let mut rig = rig("auto");
        for status in [
            making(None),
            failed("no disk"),
            failed("no disk"),
            making(Some("no disk")),
            failed("no disk"),
            making(Some("no disk")),
            failed("no memory"),
            making(Some("no memory")),
            ready(),
            ready(),
        ] {
            rig.run(Input::Snapshot(status));
            rig.tick();
        }
        let restored = "instances boot instead of being restored";
        let expected = [format!("{restored}: no disk"), format!("{restored}: no memory")];
        assert_eq!(rig.store.told(EventKind::SnapshotFailed), expected);
        assert_eq!(rig.store.told(EventKind::SnapshotReady), ["instances start from a snapshot of 5 MiB"]);
    }

    #[test]
    fn one_that_was_found_is_no_news() {
        let mut rig = rig("auto");
        rig.run(Input::Snapshot(ready()));
        rig.tick();
        assert!(rig.store.told(EventKind::SnapshotReady).is_empty());
    }

    #[test]
    fn a_failure_that_lasts_is_a_problem() {
        let problem = Some("instances boot; there is no snapshot that they could start from: no disk");
        for (status, told) in [
            (failed("no disk"), problem),
            (making(Some("no disk")), problem),
            (making(None), None),
            (ready(), None),
            (SnapshotStatus::Off, None),
        ] {
            let mut rig = rig("auto");
            rig.run(Input::Snapshot(status));
            assert_eq!(rig.machine.problems().first().map(String::as_str), told);
        }
    }

    #[test]
    fn another_manifest_waits_for_a_snapshot_of_its_own() {
        let mut rig = rig("snapshot");
        rig.run(Input::Snapshot(ready()));
        rig.tick();
        assert_eq!(rig.ids().len(), 2);
        rig.wish = 4;
        let more = format!("{DISK}\ninstance: {{ start: snapshot, memory: 1GiB }}");
        rig.command(update(manifest(&more))).expect("applied");
        rig.tick();
        assert_eq!(rig.ids().len(), 2, "that of the manifest before is not started from");
        rig.run(Input::Snapshot(ready()));
        rig.tick();
        assert_eq!(rig.ids().len(), 4);
    }

    #[test]
    fn what_is_told_waits_for_a_tick_that_is_stored() {
        let mut rig = rig("auto");
        rig.run(Input::Snapshot(failed("no disk")));
        rig.refusals.push_back(super::super::testing::Refusal::Failed);
        rig.tick();
        assert!(rig.store.told(EventKind::SnapshotFailed).is_empty());
        rig.tick();
        rig.tick();
        assert_eq!(rig.store.told(EventKind::SnapshotFailed).len(), 1);
    }
}
