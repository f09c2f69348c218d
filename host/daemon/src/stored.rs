//! What is stored of a set, as its machine begins with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use regatta_core::machine::Start;
use regatta_core::manifest::ScaleSet;
use regatta_core::state::SetState;
use regatta_store::{Store, StoreError, StoredSet};

use regatta_util::chain;

/// What the machine of a set begins with; none when the set is not stored.
///
/// # Errors
/// The store cannot be read.
pub(crate) fn start_of(
    store: &dyn Store,
    set: &str,
    listening: bool,
    image_problem: Option<String>,
) -> Result<Option<Start>, StoreError> {
    let stored = store.load()?.into_iter().find(|stored| stored.state.set.name == set);
    Ok(stored.map(|stored| start(store, stored, listening, image_problem)))
}

/// What the machine of a stored set begins with. What cannot be read beside the set itself is left out, and logged.
pub(crate) fn start(
    store: &dyn Store,
    stored: StoredSet,
    listening: bool,
    image_problem: Option<String>,
) -> Start {
    let StoredSet { state, instances, revision } = stored;
    let last = store.last_record(&state.set.name, None).unwrap_or_else(|why| {
        tracing::warn!(set = state.set.name, why = chain(&why), "the last record cannot be read");
        None
    });
    Start {
        manifests: manifests(store, &state),
        last: last.map(Arc::new),
        state,
        revision,
        instances,
        listening,
        image_problem,
    }
}

/// The manifests that live instances were made from.
pub(crate) fn manifests(store: &dyn Store, state: &SetState) -> BTreeMap<u64, Arc<ScaleSet>> {
    let mut manifests = BTreeMap::new();
    for (generation, digest) in &state.manifests {
        let read = store
            .blob(digest)
            .map_err(|why| chain(&why))
            .and_then(|json| json.ok_or_else(|| "it is not stored".to_owned()))
            .and_then(|json| serde_json::from_slice(&json).map_err(|why| why.to_string()));
        match read {
            Ok(manifest) => drop(manifests.insert(*generation, Arc::new(manifest))),
            Err(why) => {
                tracing::warn!(set = state.set.name, generation, why, "a manifest cannot be read");
            }
        }
    }
    manifests
}
