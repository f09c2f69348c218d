//! Hostile modules, built from text, and what is to become of them. The end-to-end tests use this file too.

use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Where the fixtures and their table are.
pub(crate) fn hostile_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|folder| folder.join("tests/hostile"))
        .find(|folder| folder.join("README.md").is_file())
        .expect("tests/hostile is in the repository")
}

/// A row of the table in `tests/hostile/README.md`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fate {
    /// Name of the fixture, without `.wat`.
    pub name: String,
    /// What becomes of it, in the words that the table explains.
    pub record: String,
    /// What the record's message, or the refusal, begins with.
    pub says: String,
}

/// The table of all fixtures, in its order.
pub(crate) fn fates() -> Vec<Fate> {
    let table = read(&hostile_dir().join("README.md"));
    let row = |line: &str| {
        let line = line.strip_prefix("| `")?;
        let cells: Vec<&str> = line.trim_end().trim_end_matches('|').splitn(3, " | ").collect();
        let [name, record, says] = cells[..] else { panic!("a row has three cells: {line}") };
        let says = says.trim().trim_matches('`').to_owned();
        Some(Fate { name: name.trim_end_matches('`').to_owned(), record: record.trim().to_owned(), says })
    };
    table.lines().filter_map(row).collect()
}

/// The module of the fixture `<name>.wat`.
pub(crate) fn hostile(name: &str) -> Vec<u8> {
    let fixture = expand(&read(&hostile_dir().join(format!("{name}.wat"))));
    let code = fixture.lines().find(|line| !line.starts_with(";;"));
    if code.is_some_and(|line| line.starts_with("(component")) {
        return parse(&fixture);
    }
    if name.starts_with("json-") {
        return parse(&with_prelude(&fixture, include_str!("../../../../tests/hostile/prelude-json.txt")));
    }
    module(&fixture)
}

/// A module whose parameters have a schema of a few kilobytes that is 2^60 places to look at when its references are
/// followed.
pub(crate) fn exploding_schema() -> Vec<u8> {
    let levels: String = (0..60)
        .map(|n| {
            let next = format!(r##"{{"$ref":"#/$defs/a{}"}}"##, n + 1);
            format!(r#""a{n}":{{"allOf":[{next},{next}]}},"#)
        })
        .collect();
    let describe = format!(
        r##"{{"name":"hostile","version":"1.0.0","params_schema":{{"$ref":"#/$defs/a0","$defs":{{{levels}"a60":{{"required":["b"]}}}}}}}}"##
    );
    let bytes: String = describe.bytes().map(|byte| format!("\\{byte:02x}")).collect();
    let fixture = format!(
        r#"(data (i32.const 131072) "{bytes}")
        (func $describe (export "regatta_describe") (result i64)
            (call $text (i32.const 131072) (i32.const {})))"#,
        describe.len()
    );
    parse(&with_prelude(&fixture, include_str!("../../../../tests/hostile/prelude-json.txt")))
}

/// A module of the functions in `fixture`, the rest from the prelude, and the
/// component type of the contract.
pub(crate) fn module(fixture: &str) -> Vec<u8> {
    embed(&text(fixture))
}

/// The text of that module, without the component type.
pub(crate) fn text(fixture: &str) -> String {
    with_prelude(fixture, include_str!("../../../../tests/hostile/prelude.txt"))
}

/// The text of a module: what `fixture` has, and of the prelude what it lacks.
fn with_prelude(fixture: &str, prelude: &str) -> String {
    let words: Vec<&str> = fixture.split_whitespace().collect();
    let defines = |function: &str| {
        words.windows(2).any(|pair| pair[0].ends_with("(func") && pair[1] == format!("${function}"))
    };
    let mut module = format!("(module\n{fixture}\n");
    for part in prelude.split(";;; ").skip(1) {
        let (title, text) = part.split_once('\n').expect("a part of the prelude has a title");
        let own = match title {
            "memory" => fixture.contains("(memory "),
            function => defines(function),
        };
        if !own {
            module.push_str(text);
        }
    }
    module.push(')');
    module
}

/// Writes out `{{1000 × text }}`: what is too long to be kept as text.
fn expand(fixture: &str) -> String {
    let mut pieces = fixture.split("{{");
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (repeated, rest) = piece.split_once("}}").expect("`{{` is closed by `}}`");
        let (times, repeated) = repeated.split_once(" × ").expect("`{{times × text }}`");
        let times = times.parse().unwrap_or_else(|error| panic!("{times:?} times: {error}"));
        write!(text, "{}{rest}", repeated.repeat(times)).expect("text can be written to text");
    }
    text
}

/// A core module, from text, with the component type of the contract.
fn embed(module: &str) -> Vec<u8> {
    let mut bytes = parse(module);
    let mut resolve = wit_parser::Resolve::default();
    let wit = include_str!("../../../../sdk/wit/v0.1.0/policy.wit");
    let package = resolve.push_str("policy.wit", wit).expect("the contract is valid WIT");
    let world = resolve.select_world(&[package], Some("policy")).expect("the contract has the world");
    let encoding = wit_component::StringEncoding::UTF8;
    wit_component::embed_component_metadata(&mut bytes, &resolve, world, encoding)
        .expect("the component type can be embedded");
    bytes
}

fn parse(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| {
        let shown: String = text.chars().take(2_000).collect();
        panic!("{error}\n{shown}")
    })
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}
