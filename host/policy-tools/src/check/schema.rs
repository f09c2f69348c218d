//! The JSON schema of a policy's parameters.

use regatta_policy_host::CompiledPolicy;
use serde_json::Value;

use super::report::{Finding, Status};

/// A policy's schema, ready to hold parameters against it, or what is wrong with it.
pub(super) struct Schema<'a> {
    policy: &'a CompiledPolicy,
    invalid: Option<String>,
}

impl<'a> Schema<'a> {
    pub(super) fn new(policy: &'a CompiledPolicy) -> Self {
        let invalid = policy.against_schema(&[]).map_or_else(Some, |answer| answer.invalid);
        Self { policy, invalid }
    }

    pub(super) fn finding(&self) -> Finding {
        match &self.invalid {
            None => Finding::new("schema", Status::Ok, vec!["a valid JSON schema".to_owned()]),
            Some(error) => Finding::new("schema", Status::Failed, vec![error.clone()]),
        }
    }

    /// What the schema has against each of the parameters; nothing when it is not a schema.
    ///
    /// # Errors
    /// They cannot be held against it.
    pub(super) fn problems(&self, params: &[Value]) -> Result<Vec<Vec<String>>, String> {
        if self.invalid.is_some() {
            return Ok(vec![Vec::new(); params.len()]);
        }
        self.policy.against_schema(params).map(|answer| answer.problems)
    }
}

/// Whether a schema has the parameter that a JSON pointer names. One whose properties cannot be known from outside
/// (no `properties`) has every one.
pub(super) fn knows(schema: &Value, pointer: &str) -> bool {
    let mut at = resolved(schema, schema);
    for name in pointer.split('/').skip(1) {
        let name = name.replace("~1", "/").replace("~0", "~");
        let Some(properties) = at.get("properties") else { return true };
        match properties.get(&name) {
            Some(property) => at = resolved(schema, property),
            None => return false,
        }
    }
    true
}

/// What a `$ref` within the schema stands for.
fn resolved<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    let pointer = schema.get("$ref").and_then(Value::as_str).and_then(|pointer| pointer.strip_prefix('#'));
    pointer.and_then(|pointer| root.pointer(pointer)).unwrap_or(schema)
}

/// `1.2.3`, with or without what may follow.
pub(super) fn is_semantic_version(version: &str) -> bool {
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let parts: Vec<&str> = core.split('.').collect();
    let number = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    parts.len() == 3 && parts.iter().all(number)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pointers_are_followed_into_the_schema() {
        let schema = json!({
            "properties": {"metric": {"type": "string"}, "from": {"$ref": "#/$defs/From"}},
            "$defs": {"From": {"properties": {"name": {}}}}
        });
        assert!(knows(&schema, "/metric") && knows(&schema, "/from/name"));
        assert!(!knows(&schema, "/metrik") && !knows(&schema, "/from/nam"));
        assert!(knows(&json!(true), "/anything"));
    }

    #[test]
    fn versions() {
        for (version, semantic) in [
            ("1.2.3", true),
            ("0.1.0-rc.1", true),
            ("1.0", false),
            ("v1.0.0", false),
            ("", false),
            ("1..2", false),
        ] {
            assert_eq!(is_semantic_version(version), semantic, "{version}");
        }
    }
}
