//! A decision vector of a recorded tick.

use regatta_core::decision::{Decision, FailureKind, PolicyRun};
use regatta_core::record::TickRecord;
use serde_json::{Value, json};

/// The file of vectors that asks of a policy what `run` decided in the tick of `record`.
///
/// # Errors
/// The run failed in a way that no vector can ask for.
pub fn vector_file(record: &TickRecord, run: &PolicyRun) -> Result<Value, String> {
    let observation = &record.observation;
    let expect = match &run.result {
        Ok(Decision { capacity, standby, victims, wake_after_ms, reasons, .. }) => json!({
            "capacity": capacity,
            "standby": standby,
            "victims": victims,
            "wake_after_ms": wake_after_ms,
            "reasons": reasons.iter().map(|reason| &reason.code).collect::<Vec<_>>(),
        }),
        Err(failure) if failure.kind == FailureKind::Refused => json!({"refused": failure.message}),
        Err(failure) => {
            return Err(format!(
                "{} made no decision in tick {} ({}): there is nothing to expect",
                run.name,
                observation.tick,
                failure.kind.as_str()
            ));
        }
    };
    let params: Value = serde_json::from_str(&run.params)
        .map_err(|error| format!("the recorded parameters of {} are not JSON: {error}", run.name))?;
    let vector = json!({
        "name": format!("{} tick {}", observation.set, observation.tick),
        "params": params,
        "state": run.state_in,
        "observation": observation,
        "expect": expect,
    });
    Ok(json!({"vectors": [vector]}))
}
