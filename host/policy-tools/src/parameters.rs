//! The JSON schema of a policy's parameters as rows that a person can read.

use std::cell::Cell;
use std::collections::HashSet;

use serde::Serialize;
use serde_json::Value;

/// Nesting that is followed; a schema that refers to itself ends here.
const DEPTH: usize = 6;
/// Rows of a schema; those of a hostile one end here.
const ROWS: usize = 500;
/// Values of an enumeration that are spelled out.
const VALUES: usize = 12;
/// Schemas within the schema that are looked at for the types in words: alternatives within alternatives multiply.
const LOOKS: u32 = 10_000;
/// Characters of a name, of a type in words and of a value, and of a description; bytes of a default.
const SHORT_CHARS: usize = 200;
const LONG_CHARS: usize = 2_000;
const DEFAULT_BYTES: usize = 10_000;

/// One parameter.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Parameter {
    /// Where it stands: `target`, `steps[].above`.
    pub path: String,
    /// Its type in words, with the bounds: `number > 0`, `mean | sum`, `list of objects`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it must be given (within its object).
    pub required: bool,
    /// What holds when it is not given; none when the schema does not say.
    pub default: Option<Value>,
    /// What it is.
    pub description: String,
}

/// The parameters of a JSON schema: those that must be given first, then by name; the fields of objects and of
/// lists of objects follow the parameter that has them.
#[must_use]
pub fn parameters(schema: &Value) -> Vec<Parameter> {
    let mut rows = Vec::new();
    walk(&Root { schema, looks: Cell::new(LOOKS) }, schema, "", DEPTH, &mut rows);
    rows
}

/// The whole schema, and how much may still be looked at.
struct Root<'a> {
    schema: &'a Value,
    looks: Cell<u32>,
}

fn walk(root: &Root<'_>, schema: &Value, prefix: &str, depth: usize, rows: &mut Vec<Parameter>) {
    let schema = resolve(root.schema, schema);
    let Some(fields) = schema.get("properties").and_then(Value::as_object) else { return };
    let names = schema.get("required").and_then(Value::as_array);
    let names: HashSet<&str> = names.into_iter().flatten().filter_map(Value::as_str).collect();
    let required = |name: &str| names.contains(name);
    let mut fields: Vec<_> = fields.iter().collect();
    fields.sort_by_key(|(name, _)| (!required(name), name.as_str()));
    for (name, field) in fields {
        if rows.len() >= ROWS {
            return;
        }
        let path = format!("{prefix}{}", cut(name, SHORT_CHARS));
        let target = resolve(root.schema, field);
        // What is said where a type is used goes before what the type says of itself.
        let said = |key: &str| field.get(key).or_else(|| target.get(key));
        rows.push(Parameter {
            path: path.clone(),
            kind: kind(root, field, depth),
            required: required(name),
            default: said("default").filter(|value| value.to_string().len() <= DEFAULT_BYTES).cloned(),
            description: one_line(said("description").and_then(Value::as_str).unwrap_or_default()),
        });
        if depth == 0 {
            continue;
        }
        match target.get("items") {
            Some(items) => walk(root, items, &format!("{path}[]."), depth - 1, rows),
            None => walk(root, target, &format!("{path}."), depth - 1, rows),
        }
    }
}

fn one_line(text: &str) -> String {
    cut(text, LONG_CHARS).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What a `$ref` within the document stands for.
pub(crate) fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    let mut schema = schema;
    for _ in 0..DEPTH {
        let Some(pointer) = schema.get("$ref").and_then(Value::as_str) else { break };
        match pointer.strip_prefix('#').and_then(|pointer| root.pointer(pointer)) {
            Some(target) => schema = target,
            None => break,
        }
    }
    schema
}

fn cut(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A type in words.
fn kind(root: &Root<'_>, schema: &Value, depth: usize) -> String {
    let schema = resolve(root.schema, schema);
    let looks = root.looks.get();
    if depth == 0 || looks == 0 {
        return "…".to_owned();
    }
    root.looks.set(looks - 1);
    if let Some(value) = schema.get("const") {
        return value_text(value);
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return alternatives(values.iter().map(value_text));
    }
    for union in ["oneOf", "anyOf"] {
        if let Some(options) = schema.get(union).and_then(Value::as_array) {
            return alternatives(options.iter().map(|option| kind(root, option, depth - 1)));
        }
    }
    match schema.get("type") {
        Some(Value::String(name)) => typed(root, schema, name, depth),
        Some(Value::Array(names)) => {
            let (null, others): (Vec<&str>, Vec<&str>) =
                names.iter().filter_map(Value::as_str).partition(|&name| name == "null");
            let mut text = alternatives(others.iter().map(|name| typed(root, schema, name, depth)));
            if !null.is_empty() {
                text.push_str(" or null");
            }
            text
        }
        _ if schema.get("properties").is_some() => "object".to_owned(),
        _ => "any".to_owned(),
    }
}

fn alternatives(texts: impl Iterator<Item = String>) -> String {
    let mut texts: Vec<String> = texts.take(VALUES + 1).collect();
    if texts.len() > VALUES {
        texts.truncate(VALUES);
        texts.push("…".to_owned());
    }
    cut(&texts.join(" | "), SHORT_CHARS)
}

fn typed(root: &Root<'_>, schema: &Value, name: &str, depth: usize) -> String {
    match name {
        "number" | "integer" => format!("{name}{}", bounds(schema)),
        "array" => match schema.get("items") {
            Some(items) => format!("list of {}", plural(&kind(root, items, depth - 1))),
            None => "list".to_owned(),
        },
        "object" => match schema.get("additionalProperties") {
            Some(values) if values.is_object() && schema.get("properties").is_none() => {
                format!("map of {}", plural(&kind(root, values, depth - 1)))
            }
            _ => "object".to_owned(),
        },
        other => other.to_owned(),
    }
}

/// More than one of a type, when its name is a single word.
fn plural(kind: &str) -> String {
    match kind {
        "any" => "anything".to_owned(),
        _ if kind.chars().all(char::is_alphabetic) => format!("{kind}s"),
        _ if kind.contains(' ') => format!("({kind})"),
        _ => kind.to_owned(),
    }
}

/// ` > 0`, ` 0..1`, ` >= 1`, ` > 0, <= 1`.
fn bounds(schema: &Value) -> String {
    let number = |key: &str| schema.get(key).filter(|value| value.is_number()).map(value_text);
    let (least, above) = (number("minimum"), number("exclusiveMinimum"));
    let (most, below) = (number("maximum"), number("exclusiveMaximum"));
    if let (Some(least), Some(most), None, None) = (&least, &most, &above, &below) {
        return format!(" {least}..{most}");
    }
    let sides = [(">", above), (">=", least), ("<", below), ("<=", most)];
    let sides: Vec<String> =
        sides.into_iter().filter_map(|(sign, value)| Some(format!("{sign} {}", value?))).collect();
    if sides.is_empty() { String::new() } else { format!(" {}", sides.join(", ")) }
}

/// Short JSON: text without its quotes, whole numbers without a fraction.
fn value_text(value: &Value) -> String {
    match value {
        Value::String(text) => cut(text, SHORT_CHARS),
        Value::Number(number) => match number.as_f64() {
            Some(whole) if whole.fract() == 0.0 && whole.abs() < 1e15 => format!("{whole:.0}"),
            _ => number.to_string(),
        },
        other => cut(&other.to_string(), SHORT_CHARS),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rows(schema: &Value) -> Vec<(String, String, bool, Option<Value>)> {
        let rows = parameters(schema).into_iter();
        rows.map(|row| (row.path, row.kind, row.required, row.default)).collect()
    }

    #[test]
    fn what_must_be_given_comes_first_and_bounds_are_told() {
        let schema = json!({
            "type": "object",
            "required": ["target", "metric"],
            "properties": {
                "a": {"type": "number", "minimum": 0, "maximum": 1.0, "default": 0.1},
                "b": {"type": ["integer", "null"], "minimum": 1},
                "target": {"type": "number", "exclusiveMinimum": 0.0, "maximum": 1.5},
                "metric": {"type": "string", "description": "Its\n  name."},
                "c": {"enum": ["x", 3, null]},
                "d": true,
                "e": {"type": "array", "items": {"type": "string"}},
                "f": {"type": "object", "additionalProperties": {"type": "number"}},
            }
        });
        let row =
            |path: &str, kind: &str, required, default| (path.to_owned(), kind.to_owned(), required, default);
        assert_eq!(
            rows(&schema),
            [
                row("metric", "string", true, None),
                row("target", "number > 0, <= 1.5", true, None),
                row("a", "number 0..1", false, Some(json!(0.1))),
                row("b", "integer >= 1 or null", false, None),
                row("c", "x | 3 | null", false, None),
                row("d", "any", false, None),
                row("e", "list of strings", false, None),
                row("f", "map of numbers", false, None),
            ]
        );
        assert_eq!(parameters(&schema)[0].description, "Its name.");
    }

    #[test]
    fn references_lists_and_enumerations_are_followed() {
        let schema = json!({
            "properties": {
                "steps": {"type": "array", "items": {"$ref": "#/$defs/Step"}, "default": []},
                "fold": {"$ref": "#/$defs/Fold", "default": "mean", "description": "How."},
            },
            "$defs": {
                "Step": {"type": "object", "required": ["above"], "properties": {"above": {"type": "number"}}},
                "Fold": {"description": "A fold.", "oneOf": [{"const": "mean"}, {"const": "sum"}]},
            }
        });
        let found = parameters(&schema);
        assert_eq!(
            found.iter().map(|row| (row.path.as_str(), row.kind.as_str())).collect::<Vec<_>>(),
            [("fold", "mean | sum"), ("steps", "list of objects"), ("steps[].above", "number")]
        );
        assert_eq!(found[0].description, "How.", "what is said at the use goes first");
        assert!(found[2].required);
    }

    #[test]
    fn a_schema_without_end_ends() {
        let schema = json!({
            "$ref": "#/$defs/A",
            "$defs": {"A": {"properties": {"a": {"$ref": "#/$defs/A"}, "b": {"items": {"$ref": "#/$defs/B"}, "type": "array"}}},
                      "B": {"$ref": "#/$defs/B"}}
        });
        assert!(parameters(&schema).len() < ROWS);
        let wide: serde_json::Map<_, _> = (0..10_000).map(|n| (format!("p{n}"), json!({}))).collect();
        assert_eq!(parameters(&json!({"properties": wide})).len(), ROWS);
        assert!(parameters(&json!(true)).is_empty());
    }

    /// Two kilobytes that name themselves a hundred times over.
    #[test]
    fn alternatives_within_alternatives_end() {
        let again = vec![json!({"$ref": "#/$defs/A"}); 100];
        let schema = json!({"properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"oneOf": again}}});
        assert!(schema.to_string().len() < 3_000);
        let found = parameters(&schema);
        assert!(found.len() == 1 && found[0].kind.chars().count() <= SHORT_CHARS + 1, "{found:?}");
        let long = "x".repeat(100_000);
        let schema = json!({"properties": {&long: {"description": long, "default": long, "const": long}}});
        let [row] = &parameters(&schema)[..] else { panic!("one row") };
        assert!(row.path.len() < 1_000 && row.kind.len() < 1_000 && row.description.len() < 3_000);
        assert_eq!(row.default, None);
    }
}
