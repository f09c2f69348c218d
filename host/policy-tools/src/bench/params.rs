//! Parameters for a policy that was given none.

use serde_json::{Map, Value};

use crate::parameters::resolve;

/// Bytes of JSON that a manifest takes as parameters.
const MOST_BYTES: usize = 64 << 10;

/// An object with what the schema of the parameters demands: defaults, else the only or the first value of an
/// enumeration, else the first example.
///
/// # Errors
/// The names of the parameters that must be given.
pub(crate) fn defaults(schema: &Value) -> Result<Value, Vec<String>> {
    let mut params = Map::new();
    let (mut missing, mut left) = (Vec::new(), MOST_BYTES);
    let required = schema.get("required").and_then(Value::as_array);
    for name in required.into_iter().flatten().filter_map(Value::as_str) {
        let field = schema.get("properties").and_then(|fields| fields.get(name));
        let field = field.map(|field| resolve(schema, field));
        let first = |key: &str| field.and_then(|field| field.get(key)?.get(0));
        let value = field.and_then(|field| field.get("default").or_else(|| field.get("const")));
        let value = value.or_else(|| first("enum")).or_else(|| first("examples"));
        // A schema may name one long value many times.
        let bytes = value.map_or(0, |value| value.to_string().len());
        match value.filter(|_| bytes <= left) {
            Some(value) => {
                left -= bytes;
                params.insert(name.to_owned(), value.clone());
            }
            None => missing.push(format!("`{name}`")),
        }
    }
    if missing.is_empty() { Ok(Value::Object(params)) } else { Err(missing) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_can_be_known_is_filled_in_and_the_rest_is_named() {
        let schema = json!({
            "required": ["a", "b", "c"],
            "properties": {
                "a": {"default": 1}, "b": {"enum": ["x", "y"]}, "c": {"$ref": "#/$defs/C"}, "d": {"default": 5},
            },
            "$defs": {"C": {"examples": ["cpu"]}}
        });
        assert_eq!(defaults(&schema), Ok(json!({"a": 1, "b": "x", "c": "cpu"})));
        let schema = json!({"required": ["a", "b"], "properties": {"a": {"type": "string"}}});
        assert_eq!(defaults(&schema), Err(vec!["`a`".to_owned(), "`b`".to_owned()]));
        assert_eq!(defaults(&json!(true)), Ok(json!({})));
        let long = json!({"default": "x".repeat(40_000)});
        let schema = json!({"required": ["a", "b"], "properties": {"a": long, "b": long}});
        assert_eq!(defaults(&schema), Err(vec!["`b`".to_owned()]));
    }
}
