//! What earlier versions stored, in the shape of today.

use redb::{ReadableTable, WriteTransaction};
use serde_json::{Map, Value, json};

use super::tables::{Fail, SETS};
use crate::codec::{from_json, to_json};

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
