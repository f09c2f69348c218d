//! The JSON schema of everything that goes over this door, made of the types that read and write it.

use std::path::Path;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Value, json};

use super::{answers, arguments, columns};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../sdk/json/v0.1.1/policy.schema.json");

fn inline<T: JsonSchema>(settings: SchemaSettings) -> Value {
    let settings = settings.with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = SchemaGenerator::new(settings).into_root_schema_for::<T>();
    schema.remove("title");
    schema.into()
}

/// What the host writes.
fn given<T: JsonSchema>() -> Value {
    inline::<T>(SchemaSettings::draft2020_12().for_serialize())
}

/// What the host reads.
fn read<T: JsonSchema>() -> Value {
    inline::<T>(SchemaSettings::draft2020_12().for_deserialize())
}

fn schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Regatta's policy contract as JSON through memory, version 0.1.1",
        "description": "Each definition is one text: *-argument is what the host writes, *-result what it reads. \
            The argument of regatta_validate is the parameters themselves.",
        "$defs": {
            "describe-result": read::<answers::Manifest<'_>>(),
            "validate-result": read::<Vec<answers::Problem>>(),
            "decide-argument": given::<arguments::Decide<'_>>(),
            "decide-result": read::<answers::Answer<answers::Outcome<'_>>>(),
            "migrate-argument": given::<arguments::Migrate<'_>>(),
            "migrate-result": read::<answers::Answer<Value>>(),
            "instances": given::<columns::Instances<'_>>(),
            "metric": given::<columns::Metric>(),
            "window": given::<columns::Window<'_>>(),
        },
    })
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a file of the source tree")]
fn the_published_schema_is_that_of_the_types() {
    let text = format!("{:#}\n", schema());
    if std::env::var_os("REGATTA_BLESS").is_some() {
        std::fs::write(FILE, &text).expect("the file can be written");
    }
    let kept = std::fs::read_to_string(FILE).unwrap_or_default();
    assert!(kept == text, "{} is old: REGATTA_BLESS=1 writes it", Path::new(FILE).display());
}

fn valid(definition: &str, text: &str) -> bool {
    let mut schema = schema();
    schema["$ref"] = format!("#/$defs/{definition}").into();
    let value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{definition}: {error} in {text}"));
    jsonschema::is_valid(&schema, &value)
}

/// The examples of the document are what the schema and the reader say.
#[test]
fn the_schema_and_the_reader_agree_on_the_examples_of_the_contract() {
    let contract = include_str!("../../../../../docs/policy-contract.md");
    let example = |title: &str| {
        let (_, rest) = contract.split_once(&format!("### `{title}`\n")).expect(title);
        let rest = rest.split("\n### ").next().unwrap_or_default();
        let blocks: Vec<&str> =
            rest.split("```json\n").skip(1).filter_map(|block| block.split("\n```").next()).collect();
        blocks.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let describe = example("describe");
    assert!(valid("describe-result", &describe[0]));
    answers::manifest(&describe[0]).expect("the reader takes it");
    let decide = example("decide");
    assert!(valid("decide-argument", &decide[0]), "{}", decide[0]);
    assert!(valid("decide-result", &decide[1]));
    answers::outcome(&decide[1]).expect("the reader takes it").expect("an outcome");
}

#[test]
fn the_schema_refuses_what_the_reader_refuses() {
    for (text, is_right) in [
        (r#"{"ok": {"capacity": 3}}"#, true),
        (r#"{"error": "no"}"#, true),
        (
            r#"{"ok": {"capacity": 3, "reasons": [{"code": "a", "evidence": [["x", "1"]]}], "state": 7}}"#,
            true,
        ),
        (r#"{"ok": {"capacity": -3}}"#, false),
        (r#"{"ok": {"capacity": 3.5}}"#, false),
        (r#"{"ok": {"capacity": 3, "capacities": 3}}"#, false),
        (r#"{"ok": {"capacity": 3, "reasons": [{"text": "a"}]}}"#, false),
        (r#"{"capacity": 3}"#, false),
        (r#"{"ok": {"capacity": 3}, "error": "no"}"#, false),
    ] {
        assert_eq!(valid("decide-result", text), is_right, "the schema of {text}");
        assert_eq!(answers::outcome(text).is_ok(), is_right, "the reader of {text}");
    }
}
