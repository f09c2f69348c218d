//! Parameters: good ones, and ones that nobody should write.

use std::time::Instant;

use regatta_core::manifest::PolicyLimits;
use regatta_policy_host::{CompiledPolicy, ParamsError};
use serde_json::{Value, json};

use super::early_end;
use super::report::{Finding, Status};
use super::schema::Schema;
use super::subject::overruns;
use crate::bench::defaults;

/// The parameters to check with, or why there are none.
pub(super) fn choose(policy: &CompiledPolicy, given: Option<&Value>) -> Result<Value, Finding> {
    if let Some(given) = given {
        return Ok(given.clone());
    }
    defaults(&policy.manifest().params_schema).map_err(|missing| {
        let text = format!("the policy has no default for {}: give --params", missing.join(", "));
        Finding::new("parameters", Status::Failed, vec![text])
    })
}

/// Whether policy and schema both take them.
pub(super) fn accepted(
    policy: &CompiledPolicy,
    schema: &Schema<'_>,
    params: &Value,
    limits: &PolicyLimits,
) -> (bool, Finding) {
    let told = |status, lines| Finding::new("parameters", status, lines);
    match policy.validate(&params.to_string(), limits) {
        Err(ParamsError::Problems(problems)) => {
            let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
            (false, told(Status::Failed, problems))
        }
        Err(error @ ParamsError::Failed(_)) => {
            (false, told(Status::Failed, error.to_string().lines().map(str::to_owned).collect()))
        }
        Ok(()) => {
            let problems = match schema.problems(std::slice::from_ref(params)) {
                Ok(problems) => problems.concat(),
                Err(why) => return (true, told(Status::Failed, vec![format!("its schema: {why}")])),
            };
            if problems.is_empty() {
                return (true, told(Status::Ok, vec!["accepted by the policy and by its schema".to_owned()]));
            }
            let first = "the policy accepts what its own schema refuses:".to_owned();
            (true, told(Status::Failed, std::iter::once(first).chain(problems).collect()))
        }
    }
}

/// It must answer, whatever it is given: a manifest is written by people.
pub(super) fn broken(
    policy: &CompiledPolicy,
    schema: &Schema<'_>,
    params: &Value,
    limits: &PolicyLimits,
    until: Instant,
) -> Finding {
    let (mut failed, mut lax, mut accepted, mut overran) = (Vec::new(), Vec::new(), Vec::new(), 0);
    let cases = cases(params);
    let count = cases.len();
    for (what, text) in cases {
        match policy.validate(&text, limits) {
            Err(ParamsError::Problems(_)) => {}
            Err(ParamsError::Failed(call)) => {
                overran += u32::from(overruns(call.failure.kind));
                let error = ParamsError::Failed(call);
                failed.extend(format!("{what}: {error}").lines().map(str::to_owned));
            }
            Ok(()) => match serde_json::from_str::<Value>(&text) {
                Ok(params) => accepted.push((what, params)),
                Err(_) => lax.push(format!("{what}: accepted")),
            },
        }
        if let Some(end) = early_end(overran, until) {
            failed.insert(0, end);
            break;
        }
    }
    let (whats, params): (Vec<String>, Vec<Value>) = accepted.into_iter().unzip();
    let problems = schema.problems(&params).unwrap_or_else(|why| {
        failed.push(format!("its schema: {why}"));
        Vec::new()
    });
    for (what, problems) in whats.into_iter().zip(problems) {
        match problems.first() {
            Some(first) => lax.push(format!("{what}: accepted, but the schema says: {first}")),
            None if what == UNKNOWN => {
                lax.push(format!("{what}: accepted, so a mistyped name goes unnoticed"))
            }
            None => {}
        }
    }
    let name = "broken-parameters";
    match (failed.is_empty(), lax.is_empty()) {
        (true, true) => Finding::new(name, Status::Ok, vec![format!("{count} answered")]),
        (true, false) => Finding::new(name, Status::Warning, lax),
        (false, _) => Finding::new(name, Status::Failed, failed),
    }
}

const UNKNOWN: &str = "an unknown parameter";

/// What it is about, and the text.
fn cases(params: &Value) -> Vec<(String, String)> {
    let mut cases = Vec::new();
    let mut add = |what: &str, text: String| cases.push((what.to_owned(), text));
    for text in ["", "{", "nul", "\u{0}", "{\"a\":1,}"] {
        add("no JSON", text.to_owned());
    }
    for value in [json!(null), json!([]), json!(7), json!("text"), json!(true)] {
        add("no object", value.to_string());
    }
    add("an empty object", "{}".to_owned());
    add("a thousand lists in each other", "[".repeat(1_000) + &"]".repeat(1_000));
    let Some(fields) = params.as_object() else { return cases };
    let with = |name: &str, value: Value| {
        let mut changed = fields.clone();
        changed.insert(name.to_owned(), value);
        Value::Object(changed).to_string()
    };
    add(UNKNOWN, with("no-such-parameter", json!(1)));
    for name in fields.keys() {
        let mut fewer = fields.clone();
        fewer.remove(name);
        add(&format!("without `{name}`"), Value::Object(fewer).to_string());
        let long = "x".repeat(10_000);
        for value in [
            json!(null),
            json!(-1),
            json!(0),
            json!(1e308),
            json!(-1e308),
            json!(u64::MAX),
            json!(""),
            json!(long),
            json!([]),
            json!({}),
            json!([null]),
            json!(true),
        ] {
            let shown = value.to_string();
            let shown: String = shown.chars().take(20).collect();
            add(&format!("`{name}` as {shown}"), with(name, value));
        }
    }
    cases
}
