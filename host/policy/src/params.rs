//! Parameters against the JSON schema that a policy gives: what can be told from outside, for policies whose `validate`
//! lets everything through.
//!
//! A schema is a guest's word, so this takes only what cannot cost more than the parameters are long: keywords that
//! look at one value, and references within the schema, a few in a row. What it does not know, it does not judge;
//! whole validators, with regular expressions and alternatives, are for `regatta policy check`.

use serde_json::{Map, Value};

use crate::error::ParamsProblem;

/// References that may lead to one another before a schema is taken to say nothing.
const REFERENCES: usize = 16;
/// Problems that are told.
const PROBLEMS: usize = 100;

/// What the schema has against the parameters.
pub(crate) fn problems(schema: &Value, params: &Value) -> Vec<ParamsProblem> {
    let mut found = Vec::new();
    look(schema, schema, params, &mut String::new(), &mut found);
    found.truncate(PROBLEMS);
    found
}

fn look(root: &Value, schema: &Value, value: &Value, path: &mut String, found: &mut Vec<ParamsProblem>) {
    let Some(schema) = resolved(root, schema) else { return };
    let mut problem = |message: String| {
        if found.len() < PROBLEMS {
            found.push(ParamsProblem { path: path.clone(), message });
        }
    };
    if !is_of_type(schema, value) {
        problem(format!("must be {}", types(schema)));
        return;
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array)
        && !values.contains(value)
    {
        let values: Vec<String> = values.iter().map(ToString::to_string).collect();
        problem(format!("must be one of {}", values.join(", ")));
    }
    match value {
        Value::Number(number) => {
            let limit = |name: &str| schema.get(name).and_then(Value::as_f64);
            let number = number.as_f64().unwrap_or(f64::NAN);
            for (name, holds, text) in [
                ("minimum", (|number, limit| number >= limit) as fn(f64, f64) -> bool, "at least"),
                ("exclusiveMinimum", |number, limit| number > limit, "above"),
                ("maximum", |number, limit| number <= limit, "at most"),
                ("exclusiveMaximum", |number, limit| number < limit, "below"),
            ] {
                if let Some(limit) = limit(name)
                    && !holds(number, limit)
                {
                    problem(format!("must be {text} {limit}"));
                }
            }
        }
        Value::String(text) => {
            let least = schema.get("minLength").and_then(Value::as_u64).unwrap_or(0);
            if least > 0 && (text.chars().count() as u64) < least {
                problem(if least == 1 {
                    "must not be empty".to_owned()
                } else {
                    format!("must have at least {least} characters")
                });
            }
        }
        Value::Array(items) => {
            if let Some(of_items) = schema.get("items") {
                for (at, item) in items.iter().enumerate() {
                    inside(path, &at.to_string(), |path| look(root, of_items, item, path, found));
                }
            }
        }
        Value::Object(fields) => {
            for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
                if let Some(name) = name.as_str()
                    && !fields.contains_key(name)
                {
                    problem(format!("misses `{name}`"));
                }
            }
            let none = Map::new();
            let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
            let others = schema.get("additionalProperties");
            for (name, field) in fields {
                match (properties.get(name), others) {
                    (Some(of_it), _) => inside(path, name, |path| look(root, of_it, field, path, found)),
                    (None, Some(Value::Bool(false))) if !schema.contains_key("patternProperties") => {
                        if found.len() < PROBLEMS {
                            let message = format!("has no `{name}`");
                            found.push(ParamsProblem { path: path.clone(), message });
                        }
                    }
                    (None, Some(of_others @ Value::Object(_))) => {
                        inside(path, name, |path| look(root, of_others, field, path, found));
                    }
                    (None, _) => {}
                }
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

/// Goes to a field and back.
fn inside(path: &mut String, name: &str, look: impl FnOnce(&mut String)) {
    let length = path.len();
    path.push('/');
    path.push_str(&name.replace('~', "~0").replace('/', "~1"));
    look(path);
    path.truncate(length);
}

/// The schema behind references; none when they lead nowhere, or around in circles.
fn resolved<'a>(root: &'a Value, schema: &'a Value) -> Option<&'a Map<String, Value>> {
    let mut at = schema.as_object()?;
    for _ in 0..REFERENCES {
        let Some(reference) = at.get("$ref") else { return Some(at) };
        at = root.pointer(reference.as_str()?.strip_prefix('#')?)?.as_object()?;
    }
    None
}

fn names(schema: &Map<String, Value>) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn is_of_type(schema: &Map<String, Value>, value: &Value) -> bool {
    let names = names(schema);
    let is = |name: &&str| match *name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        // Not a type that there is: nothing can be told.
        _ => true,
    };
    names.is_empty() || names.iter().any(is)
}

fn types(schema: &Map<String, Value>) -> String {
    let named = |name: &str| match name {
        "object" => "an object".to_owned(),
        "array" => "a list".to_owned(),
        "string" => "text".to_owned(),
        "boolean" => "true or false".to_owned(),
        "integer" => "a whole number".to_owned(),
        "number" => "a number".to_owned(),
        other => other.to_owned(),
    };
    names(schema).into_iter().map(named).collect::<Vec<_>>().join(" or ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(schema: &Value, params: &Value) -> Vec<String> {
        problems(schema, params).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_a_schema_says_is_told_with_its_place() {
        let schema = json!({
            "type": "object",
            "properties": {
                "target": {"type": "number", "exclusiveMinimum": 0},
                "metric": {"type": "string", "minLength": 1},
                "mode": {"enum": ["fast", "slow"]},
                "steps": {"type": "array", "items": {"$ref": "#/$defs/step"}},
                "limit": {"type": ["integer", "null"], "maximum": 9},
            },
            "required": ["target"],
            "additionalProperties": false,
            "$defs": {"step": {"type": "object", "properties": {"add/s": {"type": "integer", "minimum": 1}}}},
        });
        for params in [
            json!({"target": 0.5}),
            json!({"target": 1, "metric": "x", "mode": "slow", "steps": [{"add/s": 2}], "limit": null}),
            json!({"target": 1, "limit": 9.0, "steps": []}),
        ] {
            assert_eq!(told(&schema, &params), Vec::<String>::new(), "{params}");
        }
        let bad = json!({"target": 0, "metric": "", "mode": "odd", "steps": [{"add/s": 0}, 7], "limit": 10, "x": 1});
        let mut problems = told(&schema, &bad);
        problems.sort();
        assert_eq!(
            problems,
            [
                "/limit: must be at most 9",
                "/metric: must not be empty",
                "/mode: must be one of \"fast\", \"slow\"",
                "/steps/0/add~1s: must be at least 1",
                "/steps/1: must be an object",
                "/target: must be above 0",
                "has no `x`",
            ]
        );
        assert_eq!(told(&schema, &json!({})), ["misses `target`"]);
        assert_eq!(told(&schema, &json!([])), ["must be an object"]);
        assert_eq!(
            told(&schema, &json!({"target": 1, "limit": 1.5})),
            ["/limit: must be a whole number or null"]
        );
    }

    #[test]
    fn a_schema_that_is_none_or_goes_around_in_circles_says_nothing() {
        for schema in [
            json!(true),
            json!({}),
            json!({"type": 7}),
            json!({"$ref": "#"}),
            json!({"$ref": "https://example.org/schema"}),
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}),
            json!({"type": "object", "properties": {"a": {"pattern": "(a*)*$"}}}),
        ] {
            assert_eq!(
                told(&schema, &json!({"a": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!"})),
                Vec::<String>::new(),
                "{schema}"
            );
        }
        // As deep as the parameters and no deeper.
        let endless = json!({"type": "object", "additionalProperties": {"$ref": "#"}});
        assert_eq!(told(&endless, &json!({"a": {"b": {"c": 1}}})), ["/a/b/c: must be an object"]);
    }

    #[test]
    fn at_most_a_hundred_problems_are_told() {
        let schema = json!({"items": {"type": "string"}});
        assert_eq!(told(&schema, &json!(vec![1; 1_000])).len(), 100);
    }
}
