//! The manifest's JSON schema, made from the table, for editors and CI.

use serde_json::{Map, Value as Json, json};

use super::fields::MANIFEST;
use super::schema::{Exclusive, Field, Kind, Object, Presence};
use super::section::default_value;

/// JSON schema (draft 2020-12) of the manifest.
///
/// The reader is stricter: ranges of durations and sizes and the rules between
/// fields are not in the schema.
#[must_use]
pub fn manifest_schema() -> Json {
    let mut schema = object(&MANIFEST);
    if let Json::Object(fields) = &mut schema {
        fields.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
        fields.insert("title".into(), "Regatta scale set".into());
    }
    schema
}

fn object(object: &Object) -> Json {
    let properties: Map<String, Json> =
        object.fields.iter().map(|field| (field.name.to_owned(), property(field))).collect();
    let required: Vec<_> =
        object.fields.iter().filter(|f| f.presence == Presence::Required).map(|f| f.name).collect();
    let mut schema = json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    });
    let alone = |names: &[&str]| names.iter().map(|name| json!({ "required": [name] })).collect::<Vec<_>>();
    match object.exclusive {
        Exclusive::None => {}
        Exclusive::ExactlyOne(names) => schema["oneOf"] = alone(names).into(),
        Exclusive::AtMostOne(names) => schema["not"] = json!({ "required": names }),
    }
    schema
}

fn property(field: &Field) -> Json {
    let mut schema = kind(&field.kind);
    if let Json::Object(fields) = &mut schema {
        fields.insert("description".into(), field.doc.into());
        if let Presence::Default(text) = field.presence {
            fields.insert("default".into(), default_value(text));
        }
    }
    schema
}

fn kind(kind: &Kind) -> Json {
    match kind {
        Kind::Integer { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Boolean => json!({ "type": "boolean" }),
        Kind::Duration { .. } => {
            json!({ "type": "string", "pattern": r"^([0-9]+(\.[0-9]+)?(d|h|m|s|ms))+$" })
        }
        Kind::Size { .. } => {
            json!({ "type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(B|[KMGT](iB)?)$" })
        }
        Kind::Text(format) => json!({ "type": "string", "pattern": format.pattern() }),
        Kind::Choice(words) => json!({ "enum": words }),
        Kind::Object(fields) => object(fields),
        Kind::List { of, max } => json!({ "type": "array", "items": object(of), "maxItems": max }),
        Kind::Texts { of, max } => {
            json!({ "type": "array", "items": { "type": "string", "pattern": of.pattern() }, "maxItems": max })
        }
        Kind::Positive => json!({ "type": "number", "exclusiveMinimum": 0 }),
        Kind::Range => {
            json!({ "type": "array", "items": { "type": "number" }, "minItems": 2, "maxItems": 2 })
        }
        Kind::Json => json!({ "type": "object" }),
        Kind::Either(kinds) => json!({ "anyOf": kinds.iter().map(self::kind).collect::<Vec<_>>() }),
    }
}
