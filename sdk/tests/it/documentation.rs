//! Every public item has an example.

use std::fs;
use std::path::{Path, PathBuf};

/// The items in a file that others can see and that have no example: rustfmt has seen to it that
/// an item begins on a line of its own.
fn without_example(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).expect("a source file can be read");
    let (mut documented, mut exported, mut hidden, mut in_trait) = (false, false, false, false);
    let mut found = Vec::new();
    for line in text.lines() {
        let code = line.trim_start();
        let kind = ["fn", "struct", "enum", "trait", "const", "type", "mod"];
        let public = kind.iter().any(|kind| code.starts_with(&format!("pub {kind} ")))
            || code.starts_with("pub const fn ")
            || (code.starts_with("pub use") && path.ends_with("types.rs"))
            || (in_trait && (code.starts_with("fn ") || code.starts_with("type ")))
            || (exported && code.starts_with("macro_rules!"));
        // A module's page is in its own file; associated types are shown by their trait.
        let elsewhere = code.ends_with(';') && code.starts_with("pub mod") || code.starts_with("type ");
        if public && !hidden && !elsewhere && !documented {
            found.push(format!("{}: {code}", path.display()));
        }
        match line {
            "}" => in_trait = false,
            _ if line.starts_with("pub trait ") => in_trait = true,
            _ => {}
        }
        match code {
            _ if code.starts_with("/// ```") => documented = true,
            _ if code.starts_with("#[macro_export]") => exported = true,
            _ if code.starts_with("#[doc(hidden)]") => hidden = true,
            _ if code.starts_with("///") || code.starts_with("#[") || code.starts_with("//!") => {}
            _ => (documented, exported, hidden) = (false, false, false),
        }
    }
    found
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the sources are there") {
        let path = entry.expect("a folder entry can be read").path();
        if path.is_dir() {
            sources(&path, found);
        } else {
            found.push(path);
        }
    }
}

#[test]
fn every_public_item_has_an_example() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    // The guest's side is hidden, and only there for wasm32; the bindings are generated.
    files.retain(|path| !path.ends_with("guest.rs") && !path.ends_with("bindings.rs"));
    assert!(files.len() > 20, "{files:?}");
    let found: Vec<String> = files.iter().flat_map(|path| without_example(path)).collect();
    assert!(found.is_empty(), "no example in the documentation of\n{}", found.join("\n"));
}

#[test]
fn an_item_without_an_example_is_found() {
    let folder = std::env::temp_dir().join(format!("regatta-sdk-example-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("some.rs");
    let text = "/// Documented.\npub fn one() {}\n\n/// ```\n/// two();\n/// ```\n#[must_use]\npub fn two() {}\n\n\
        pub trait Some {\n    /// Three.\n    fn three();\n}\n";
    fs::write(&path, text).unwrap();
    let found = without_example(&path);
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(
        found[0].ends_with("pub fn one() {}")
            && found[1].ends_with("pub trait Some {")
            && found[2].ends_with("fn three();"),
        "{found:?}"
    );
}
