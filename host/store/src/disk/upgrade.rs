//! What earlier versions stored, in the shape of today.

use redb::{ReadableTable, TableDefinition, TableError, WriteTransaction};
use regatta_core::digest::Digest;
use regatta_core::state::{InstanceRecord, SetState};
use regatta_core::time::SetClock;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::tables::{BLOBS, Fail, INSTANCES, REVISIONS, SEGMENTS, SETS};
use super::write::{count_commit, put_blobs};
use crate::codec::{from_json, to_json};
use crate::segment::Segment;

/// Format 1 had one policy per set.
pub(super) fn to_2(transaction: &WriteTransaction) -> Result<(), Fail> {
    let Ok(mut sets) = transaction.open_table(SETS) else { return Ok(()) };
    let mut upgraded = Vec::new();
    for row in sets.iter()? {
        let (name, state) = row?;
        let name = name.value().to_owned();
        let mut state: Map<String, Value> = from_json(&format!("set {name}"), state.value())?;
        set_to_2(&mut state);
        upgraded.push((name, to_json(&state)));
    }
    for (name, state) in upgraded {
        sets.insert(name.as_str(), state.as_slice())?;
    }
    Ok(())
}

fn set_to_2(state: &mut Map<String, Value>) {
    let (Some(active), previous) = (state.remove("policy"), state.remove("previous_policy")) else { return };
    let Some(Value::Object(set)) = state.get_mut("set") else { return };
    let mut spec = set.remove("policy").unwrap_or_default();
    // What the manifest says when it gives no name.
    let name = regatta_core::manifest::default_policy_name(spec["module"].as_str().unwrap_or_default());
    if let Value::Object(spec) = &mut spec {
        spec.insert("name".to_owned(), name.clone().into());
        spec.insert("follow".to_owned(), false.into());
    }
    set.insert("policies".to_owned(), json!([spec]));
    set.insert("combine".to_owned(), "any-out-all-in".into());
    state.insert("activations".to_owned(), active["number"].clone());
    let slot = json!({ "name": name, "active": active, "previous": previous, "canary": null });
    state.insert("policies".to_owned(), json!([slot]));
}

const MODULES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("modules");

/// Format 2 had modules for blobs, one clock, no revisions, and instances that were known by their set's name alone.
pub(super) fn to_3(transaction: &WriteTransaction) -> Result<(), Fail> {
    match transaction.rename_table(MODULES, BLOBS) {
        Ok(()) | Err(TableError::TableDoesNotExist(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let revision = count_commit(transaction)?;
    let (mut sets, mut blobs) = (Vec::new(), Vec::new());
    for row in transaction.open_table(SETS)?.iter()? {
        let (name, state) = row?;
        sets.push(from_json::<SetState>(&format!("set {}", name.value()), state.value())?);
    }
    for mut state in sets {
        let name = state.set.name.clone();
        let mut instances = Vec::new();
        for row in transaction.open_table(INSTANCES)?.range((name.as_str(), 0)..=(name.as_str(), u32::MAX))? {
            let (key, instance) = row?;
            let what = format!("instance {} of set {name}", key.value().1);
            instances.push(from_json::<InstanceRecord>(&what, instance.value())?);
        }
        let last_record_ms = last_record_ms(transaction, &name)?;
        let manifest = set_to_3(&mut state, &mut instances, last_record_ms);
        blobs.push(manifest);
        transaction.open_table(SETS)?.insert(name.as_str(), to_json(&state).as_slice())?;
        transaction.open_table(REVISIONS)?.insert(name.as_str(), revision.0)?;
        let mut table = transaction.open_table(INSTANCES)?;
        for instance in &instances {
            table.insert((name.as_str(), instance.id), to_json(instance).as_slice())?;
        }
    }
    put_blobs(transaction, &blobs)
}

/// Returns the manifest in force, as a blob.
fn set_to_3(
    state: &mut SetState,
    instances: &mut [InstanceRecord],
    last_record_ms: Option<u64>,
) -> (Digest, Vec<u8>) {
    state.incarnation = incarnation(&state.set.name, instances);
    // Was on the wall clock; a back-off that ends early does no harm.
    state.launches_resume_ms = 0;
    let newest_ms = || instances.iter().map(|instance| instance.phase_since_ms).max();
    state.clock = SetClock::starting_at(last_record_ms.or_else(newest_ms).unwrap_or(0));
    for instance in instances {
        instance.uid = format!("{:016x}-{}", state.incarnation, instance.id);
    }
    let manifest = to_json(&state.set);
    let digest = Digest::of(&manifest);
    state.manifests = [(state.generation, digest.clone())].into();
    (digest, manifest)
}

/// Would be random in a new set; here an upgrade that is repeated, on a copy of the file, comes to the same. Never 0.
fn incarnation(name: &str, instances: &[InstanceRecord]) -> u64 {
    let oldest_ms = instances.iter().map(|instance| instance.created_ms).min().unwrap_or(0);
    let digest = Sha256::new().chain_update(name).chain_update(oldest_ms.to_le_bytes()).finalize();
    u64::from_le_bytes(std::array::from_fn(|i| digest[i])).max(1)
}

/// When the last record of a set was made, Unix milliseconds.
fn last_record_ms(transaction: &WriteTransaction, set: &str) -> Result<Option<u64>, Fail> {
    let segments = transaction.open_table(SEGMENTS)?;
    let Some(row) = segments.range((set, 0)..=(set, u64::MAX))?.next_back() else { return Ok(None) };
    let segment = Segment::parse(row?.1.value())?;
    Ok(segment.entries().last().map(|last| last.now_ms))
}

#[cfg(test)]
mod tests {
    use regatta_core::state::SetState;

    use super::*;

    #[test]
    fn a_set_of_format_1_keeps_its_policy() {
        // As version 0.1.0 stored it.
        let stored = include_str!("format_1_set.json");
        let mut state: Map<String, Value> = serde_json::from_str(stored).unwrap();
        set_to_2(&mut state);
        let state: SetState = serde_json::from_value(state.into()).unwrap();
        let [slot] = state.policies.as_slice() else { panic!("{:?}", state.policies) };
        assert_eq!(slot.name, "target-tracking");
        assert_eq!((slot.active.number, state.activations), (2, 2));
        assert_eq!(slot.previous.as_ref().map(|it| it.number), Some(1));
        assert_eq!(state.set.policies[0].name, "target-tracking");
        assert_eq!(state.set.policies[0].params["target"], 0.1);
    }
}
