//! Parameters held against the JSON schema that a policy gives for them.
//!
//! The schema is the module's: two kilobytes whose references multiply take gigabytes to follow. So this is done where modules
//! are compiled, within limits.

use std::io;
use std::time::Duration;

use regatta_util::chain;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::compile::child::caged;
use crate::compile::{CompileLimit, CompileLimits, Job, Place, Work};
use crate::compiled::CompiledPolicy;
use crate::error::LoadError;
use crate::text::capped;

/// What one look may take: schemas that people write take milliseconds.
const LIMITS: CompileLimits =
    CompileLimits { cpu_time: Duration::from_secs(2), memory_bytes: 1 << 30, code_bytes: 1 << 20 };
/// Problems that are told of one set of parameters, and bytes of each.
const PROBLEMS: usize = 20;
const PROBLEM_BYTES: usize = 500;

#[derive(Serialize, Deserialize)]
struct Question {
    schema: Value,
    params: Vec<Value>,
}

/// What a schema has to say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaAnswer {
    /// What is wrong with the schema itself, if anything is.
    pub invalid: Option<String>,
    /// What it has against each of the parameters; nothing when it is invalid.
    pub problems: Vec<Vec<String>>,
}

impl CompiledPolicy {
    /// Holds parameters against the policy's own schema.
    ///
    /// # Errors
    /// When that takes more than it may, or the child that does it cannot be run.
    pub fn against_schema(&self, params: &[Value]) -> Result<SchemaAnswer, String> {
        let question = Question { schema: self.manifest().params_schema.clone(), params: params.to_vec() };
        let options = &self.engine.inner.options;
        let Place::Child(program) = &options.compile_in else {
            return Ok(hold(&question));
        };
        let question = serde_json::to_vec(&question).map_err(|error| error.to_string())?;
        let job = Job::new(Work::Schema, false, options.user, Some(&LIMITS));
        let answer = caged(&job, program, &LIMITS, &question);
        let answer = answer.map_err(|error| match error {
            LoadError::Limit(CompileLimit::Time { seconds }) => {
                format!("following it takes more than {seconds} s of CPU time: make it simpler")
            }
            LoadError::Limit(CompileLimit::Memory { mebibytes }) => {
                format!("following it takes more than {mebibytes} MiB of memory: make it simpler")
            }
            LoadError::Limit(CompileLimit::Crash { status }) => {
                format!("following it does not work ({status}): make it simpler")
            }
            other => format!("it cannot be followed: {}", chain(&other)),
        })?;
        serde_json::from_slice(&answer).map_err(|error| error.to_string())
    }
}

/// What the child does with its input.
pub(crate) fn answer(question: &[u8]) -> io::Result<Vec<u8>> {
    Ok(serde_json::to_vec(&hold(&serde_json::from_slice(question)?))?)
}

fn hold(question: &Question) -> SchemaAnswer {
    let Question { schema, params } = question;
    // First against the meta-schema of its draft, whose messages say what is wrong with the schema itself.
    let checked = jsonschema::meta::options().validate(schema).map_err(|error| told(&error));
    match checked.and_then(|()| jsonschema::validator_for(schema).map_err(|error| told(&error))) {
        Err(invalid) => SchemaAnswer { invalid: Some(invalid), problems: vec![Vec::new(); params.len()] },
        Ok(validator) => {
            let problems =
                |params| validator.iter_errors(params).take(PROBLEMS).map(|error| told(&error)).collect();
            SchemaAnswer { invalid: None, problems: params.iter().map(problems).collect() }
        }
    }
}

fn told(error: &jsonschema::ValidationError<'_>) -> String {
    let place = error.instance_path().to_string();
    capped(if place.is_empty() { error.to_string() } else { format!("{place}: {error}") }, PROBLEM_BYTES)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn held(schema: Value, params: Value) -> SchemaAnswer {
        hold(&Question { schema, params: vec![params] })
    }

    #[test]
    fn a_schema_that_is_none_is_told() {
        assert_eq!(held(json!({"type": "object"}), json!({})).invalid, None);
        assert_eq!(held(json!(true), json!({})).invalid, None);
        for (schema, text) in [
            (json!({"type": "objekt"}), "objekt"),
            (json!({"properties": {"a": {"minimum": "0"}}}), "/properties/a/minimum"),
            (json!({"$schema": "https://example.com/none", "type": "object"}), "example.com"),
            (json!({"$ref": "#/$defs/None"}), "None"),
        ] {
            let invalid = held(schema.clone(), json!({})).invalid.unwrap_or_default();
            assert!(invalid.contains(text), "{schema}: {invalid}");
        }
    }

    #[test]
    fn parameters_are_held_against_it() {
        let schema = json!({"properties": {"a": {"type": "number"}}, "required": ["b"]});
        let SchemaAnswer { problems, .. } = held(schema.clone(), json!({"a": "x"}));
        assert_eq!(problems[0].len(), 2, "{problems:?}");
        assert!(problems[0].iter().any(|problem| problem.starts_with("/a: ")), "{problems:?}");
        assert_eq!(held(schema, json!({"a": 1, "b": 2})).problems, [Vec::<String>::new()]);
    }
}
