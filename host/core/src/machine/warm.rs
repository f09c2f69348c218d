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
