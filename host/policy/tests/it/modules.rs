//! Hostile modules, built from text. The end-to-end tests use this file too.

use std::path::Path;

/// The module of the fixture `<name>.wat` in `folder`.
pub(crate) fn hostile(folder: &Path, name: &str) -> Vec<u8> {
    let path = folder.join(format!("{name}.wat"));
    let fixture = std::fs::read_to_string(&path);
    module(&fixture.unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display())))
}

/// A module of the functions in `fixture`, the rest from the prelude, and the
/// component type of the contract.
pub(crate) fn module(fixture: &str) -> Vec<u8> {
    embed(&text(fixture))
}

/// The text of that module, without the component type.
pub(crate) fn text(fixture: &str) -> String {
    let words: Vec<&str> = fixture.split_whitespace().collect();
    let defines = |function: &str| {
        words.windows(2).any(|pair| pair[0].ends_with("(func") && pair[1] == format!("${function}"))
    };
    let mut module = format!("(module\n{fixture}\n");
    for part in include_str!("../hostile/prelude.txt").split(";;; ").skip(1) {
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

/// A core module, from text, with the component type of the contract.
fn embed(module: &str) -> Vec<u8> {
    let mut bytes = wat::parse_str(module).unwrap_or_else(|error| panic!("{error}\n{module}"));
    let mut resolve = wit_parser::Resolve::default();
    let wit = include_str!("../../../../sdk/wit/v0.1.0/policy.wit");
    let package = resolve.push_str("policy.wit", wit).expect("the contract is valid WIT");
    let world = resolve.select_world(&[package], Some("policy")).expect("the contract has the world");
    let encoding = wit_component::StringEncoding::UTF8;
    wit_component::embed_component_metadata(&mut bytes, &resolve, world, encoding)
        .expect("the component type can be embedded");
    bytes
}
