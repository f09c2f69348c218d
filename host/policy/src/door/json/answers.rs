//! What a module of the JSON door answers. A field that the contract does not have is a mistake, and is named.

use regatta_core::decision::PolicyFailure;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::text::compact;
use crate::bindings::regatta::policy::types;
use crate::failure::bad_output;

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest<'a> {
    name: String,
    version: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(borrow)]
    #[cfg_attr(test, schemars(with = "serde_json::Value"))]
    params_schema: &'a RawValue,
    #[serde(default)]
    metrics: Option<Vec<MetricRequest>>,
    #[serde(default)]
    state_version: Option<u32>,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct MetricRequest {
    name: String,
    #[serde(default)]
    window_ms: Option<u64>,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct Problem {
    path: String,
    message: String,
}

/// Exactly one of the two.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub(super) enum Answer<T> {
    Ok(T),
    Error(String),
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct Outcome<'a> {
    capacity: u32,
    #[serde(default)]
    standby: Option<u32>,
    #[serde(default)]
    victims: Option<Vec<u32>>,
    #[serde(default)]
    wake_after_ms: Option<u64>,
    #[serde(default)]
    reasons: Option<Vec<Reason>>,
    #[serde(default, borrow)]
    #[cfg_attr(test, schemars(with = "serde_json::Value"))]
    state: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Reason {
    code: String,
    #[serde(default)]
    text: String,
    #[serde(default)]
    evidence: Vec<(String, String)>,
}

fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, PolicyFailure> {
    serde_json::from_str(text)
        .map_err(|error| bad_output(format!("its answer is not the JSON of the contract: {error}")))
}

/// The answer of `regatta_describe`.
pub(super) fn manifest(text: &str) -> Result<types::Manifest, PolicyFailure> {
    let manifest: Manifest<'_> = read(text)?;
    let wish = |wish: MetricRequest| types::MetricRequest {
        name: wish.name,
        window_ms: wish.window_ms.unwrap_or_default(),
    };
    Ok(types::Manifest {
        name: manifest.name,
        version: manifest.version,
        description: manifest.description.unwrap_or_default(),
        params_schema: manifest.params_schema.get().to_owned(),
        metrics: manifest.metrics.unwrap_or_default().into_iter().map(wish).collect(),
        state_version: manifest.state_version.unwrap_or(1),
    })
}

/// The answer of `regatta_validate`.
pub(super) fn problems(text: &str) -> Result<Vec<types::Problem>, PolicyFailure> {
    let problems: Vec<Problem> = read(text)?;
    let problem = |problem: Problem| types::Problem { path: problem.path, message: problem.message };
    Ok(problems.into_iter().map(problem).collect())
}

/// The answer of `regatta_decide`.
pub(super) fn outcome(text: &str) -> Result<Result<types::Outcome, String>, PolicyFailure> {
    let outcome: Outcome<'_> = match read(text)? {
        Answer::Ok(outcome) => outcome,
        Answer::Error(message) => return Ok(Err(message)),
    };
    let reason =
        |reason: Reason| types::Reason { code: reason.code, text: reason.text, evidence: reason.evidence };
    Ok(Ok(types::Outcome {
        capacity: outcome.capacity,
        standby: outcome.standby,
        victims: outcome.victims.unwrap_or_default(),
        wake_after_ms: outcome.wake_after_ms,
        reasons: outcome.reasons.unwrap_or_default().into_iter().map(reason).collect(),
        state: outcome.state.map(stored).unwrap_or_default(),
    }))
}

/// The answer of `regatta_migrate`.
pub(super) fn migrated(text: &str) -> Result<Result<Vec<u8>, String>, PolicyFailure> {
    let answer: Answer<Option<&RawValue>> = read(text)?;
    Ok(match answer {
        Answer::Ok(state) => Ok(state.map(stored).unwrap_or_default()),
        Answer::Error(message) => Err(message),
    })
}

/// The state as it is kept.
fn stored(state: &RawValue) -> Vec<u8> {
    compact(state).into_bytes()
}
