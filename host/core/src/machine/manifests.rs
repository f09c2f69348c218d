//! The manifests of a set by generation: live instances keep the one that they were made from.

use std::sync::Arc;

use crate::digest::Digest;
use crate::manifest::ScaleSet;
use crate::phase::Phase;
use crate::state::{InstanceRecord, SetState};

use super::SetMachine;

/// A manifest as it is stored, as JSON.
#[must_use]
pub fn manifest_blob(set: &ScaleSet) -> (Digest, Vec<u8>) {
    // Structs, enums and strings: none can fail.
    let json = serde_json::to_vec(set).unwrap_or_default();
    (Digest::of(&json), json)
}

impl SetMachine {
    /// The manifest that an instance was made from; the one in force when that is not known.
    #[must_use]
    pub fn manifest_of(&self, record: &InstanceRecord) -> &Arc<ScaleSet> {
        self.manifests.get(&record.generation).unwrap_or(&self.manifest)
    }

    /// Keeps only the manifests that something may still need.
    pub(super) fn prune_manifests(&self, state: &mut SetState) {
        let back = state.upgrade.as_ref().filter(|upgrade| !upgrade.status.has_ended()).map(|it| it.from);
        let used = |generation: u64| {
            generation == state.generation
                || Some(generation) == back
                || self.instances.values().any(|instance| {
                    instance.record.generation == generation && instance.record.phase != Phase::Gone
                })
        };
        let kept = state.manifests.iter().filter(|(generation, _)| used(**generation));
        state.manifests = kept.map(|(generation, digest)| (*generation, digest.clone())).collect();
        state.images.retain(|generation, _| state.manifests.contains_key(generation));
    }
}
