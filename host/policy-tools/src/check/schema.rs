//! The JSON schema of a policy's parameters.

use serde_json::Value;

use super::report::{Finding, Status};

/// A schema, ready to hold parameters against it, or what is wrong with it.
pub(super) struct Schema(Result<jsonschema::Validator, String>);

impl Schema {
    pub(super) fn new(schema: &Value) -> Self {
        // First against the meta-schema of its draft, whose messages say what is wrong with the schema itself.
        let checked = jsonschema::meta::options().validate(schema).map_err(|error| told(&error));
        let compiled = checked.and_then(|()| jsonschema::validator_for(schema).map_err(|error| told(&error)));
        Self(compiled)
    }

    pub(super) fn finding(&self) -> Finding {
        match &self.0 {
            Ok(_) => Finding::new("schema", Status::Ok, vec!["a valid JSON schema".to_owned()]),
            Err(error) => Finding::new("schema", Status::Failed, vec![error.clone()]),
        }
    }

    /// What the schema has against parameters; nothing when it is not a schema.
    pub(super) fn problems(&self, params: &Value) -> Vec<String> {
        match &self.0 {
            Ok(validator) => validator.iter_errors(params).map(|error| told(&error)).collect(),
            Err(_) => Vec::new(),
        }
    }
}

fn told(error: &jsonschema::ValidationError<'_>) -> String {
    let place = error.instance_path().to_string();
    if place.is_empty() { error.to_string() } else { format!("{place}: {error}") }
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
    fn a_schema_that_is_none_is_told() {
        assert_eq!(Schema::new(&json!({"type": "object"})).finding().status, Status::Ok);
        assert_eq!(Schema::new(&json!(true)).finding().status, Status::Ok);
        for (schema, text) in [
            (json!({"type": "objekt"}), "objekt"),
            (json!({"properties": {"a": {"minimum": "0"}}}), "/properties/a/minimum"),
            (json!({"$schema": "https://example.com/none", "type": "object"}), "example.com"),
            (json!({"$ref": "#/$defs/None"}), "None"),
        ] {
            let finding = Schema::new(&schema).finding();
            assert_eq!(finding.status, Status::Failed, "{schema}");
            assert!(finding.lines[0].contains(text), "{schema}: {:?}", finding.lines);
        }
    }

    #[test]
    fn parameters_are_held_against_it() {
        let schema = Schema::new(&json!({"properties": {"a": {"type": "number"}}, "required": ["b"]}));
        let problems = schema.problems(&json!({"a": "x"}));
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems.iter().any(|problem| problem.starts_with("/a: ")), "{problems:?}");
        assert!(schema.problems(&json!({"a": 1, "b": 2})).is_empty());
    }

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
