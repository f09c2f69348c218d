//! A model of the store: what is committed, with revisions.

use std::collections::BTreeMap;
use std::sync::Arc;

use regatta_core::batch::{Batch, Revision};
use regatta_core::digest::Digest;
use regatta_core::machine::CommitError;
use regatta_core::manifest::ScaleSet;
use regatta_core::record::TickRecord;
use regatta_core::state::{InstanceRecord, SetState};

/// What is stored.
#[derive(Debug, Default)]
pub(crate) struct Store {
    revision: u64,
    pub(crate) sets: BTreeMap<String, StoredSet>,
    /// Manifests by digest.
    pub(crate) manifests: BTreeMap<Digest, Arc<ScaleSet>>,
}

/// A set as it is stored.
#[derive(Debug)]
pub(crate) struct StoredSet {
    pub(crate) state: SetState,
    pub(crate) revision: Revision,
    pub(crate) instances: BTreeMap<u32, InstanceRecord>,
    pub(crate) last: Option<Arc<TickRecord>>,
}

impl Store {
    /// Whether this batch may be stored as the sets are now.
    pub(crate) fn check(&self, batch: &Batch) -> Result<(), CommitError> {
        for (name, expected) in &batch.expect {
            let found = self.sets.get(name).map_or(Revision(0), |set| set.revision);
            if found != *expected {
                return Err(CommitError::Conflict(format!(
                    "set {name} is at revision {}, not {}",
                    found.0, expected.0
                )));
            }
        }
        Ok(())
    }

    /// Stores all of it. Checked before.
    pub(crate) fn apply(&mut self, batch: &Batch) -> Revision {
        self.revision += 1;
        let revision = Revision(self.revision);
        for (digest, json) in &batch.blobs {
            if let Ok(set) = serde_json::from_slice(json) {
                self.manifests.entry(digest.clone()).or_insert_with(|| Arc::new(set));
            }
        }
        for name in &batch.state.removed_sets {
            self.sets.remove(name);
        }
        for state in &batch.state.sets {
            match self.sets.get_mut(&state.set.name) {
                Some(stored) => (stored.state, stored.revision) = (state.clone(), revision),
                None => {
                    let stored =
                        StoredSet { state: state.clone(), revision, instances: BTreeMap::new(), last: None };
                    self.sets.insert(state.set.name.clone(), stored);
                }
            }
        }
        for (name, id) in &batch.state.removed_instances {
            if let Some(set) = self.sets.get_mut(name) {
                set.instances.remove(id);
                set.revision = revision;
            }
        }
        for (name, instance) in &batch.state.instances {
            if let Some(set) = self.sets.get_mut(name) {
                set.instances.insert(instance.id, instance.clone());
                set.revision = revision;
            }
        }
        for record in &batch.history.records {
            if let Some(set) = self.sets.get_mut(&record.observation.set) {
                set.last = Some(Arc::clone(record));
            }
        }
        revision
    }

    /// What is stored of an instance.
    pub(crate) fn instance(&self, set: &str, id: u32) -> Option<&InstanceRecord> {
        self.sets.get(set)?.instances.get(&id)
    }
}
