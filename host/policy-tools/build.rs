//! Puts the example policies and the SDK into the program, so that `policy new` needs nothing but itself.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// What a build leaves in an example's folder, and what is written anew for each project.
const LEFT_OUT: [&str; 8] = [
    "node_modules",
    ".venv",
    "venv",
    "target",
    "__pycache__",
    "package-lock.json",
    "Cargo.lock",
    "policy.yaml",
];

fn main() {
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("set by cargo")).join("../..");
    let root = fs::canonicalize(root).expect("the workspace");
    let out = PathBuf::from(env::var("OUT_DIR").expect("set by cargo"));
    let mut text = String::new();

    let languages = root.join("examples/languages");
    constant(
        &mut text,
        "LANGUAGES",
        "The examples, each path with its language in front.",
        &languages,
        &["vectors.json"],
    );
    // The manifest is written below, without what it inherits; the SDK's tests are ours.
    constant(
        &mut text,
        "SDK",
        "The SDK without its manifest.",
        &root.join("sdk"),
        &["Cargo.toml", "tests/", "c/", "json/"],
    );

    let read = |path: PathBuf| {
        println!("cargo::rerun-if-changed={}", path.display());
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
    };
    let sdk = standing_alone(&read(root.join("sdk/Cargo.toml")), &read(root.join("Cargo.toml")));
    fs::write(out.join("sdk-Cargo.toml"), sdk).expect("the output directory can be written");
    let vectors = languages.join("vectors.json");
    println!("cargo::rerun-if-changed={}", vectors.display());
    writeln!(
        text,
        "/// The decision vectors.\npub(super) static VECTORS: &[u8] = include_bytes!({vectors:?});"
    )
    .expect("text");
    fs::write(out.join("templates.rs"), text).expect("the output directory can be written");
}

/// A constant with the files below `folder`: relative path and content.
fn constant(text: &mut String, name: &str, doc: &str, folder: &Path, left_out: &[&str]) {
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut files = Vec::new();
    collect(folder, &mut files);
    files.sort();
    writeln!(text, "/// {doc}\npub(super) static {name}: &[(&str, &[u8])] = &[").expect("text");
    for file in files {
        let path = file.strip_prefix(folder).expect("below it").to_str().expect("our names are text");
        let is_left_out = |left: &&str| path == *left || (left.ends_with('/') && path.starts_with(*left));
        if !left_out.iter().any(is_left_out) {
            writeln!(text, "    ({path:?}, include_bytes!({file:?})),").expect("text");
        }
    }
    text.push_str("];\n");
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in
        fs::read_dir(folder).unwrap_or_else(|error| panic!("cannot read {}: {error}", folder.display()))
    {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if LEFT_OUT.contains(&name.as_str()) || name.ends_with(".wasm") {
            continue;
        }
        if path.is_dir() { collect(&path, files) } else { files.push(path) }
    }
}

/// A manifest without what it inherits of its workspace, its tests' dependencies and its lints: those are ours.
fn standing_alone(manifest: &str, workspace: &str) -> String {
    let section = |name: &str| {
        let (_, rest) = workspace.split_once(&format!("[{name}]\n")).expect("a section of the workspace");
        rest.split("\n[").next().unwrap_or_default()
    };
    let inherited = |from: &str, key: &str| {
        let mut lines = section(from).lines();
        let line = lines.find(|line| line.split_once(" = ").is_some_and(|(name, _)| name == key));
        line.unwrap_or_else(|| panic!("`{key}` is not in one line of [{from}]")).to_owned()
    };
    let mut text = String::new();
    let mut from = "workspace.package";
    let mut ours = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            ours = matches!(line, "[lints]" | "[dev-dependencies]");
            from = if line == "[package]" { "workspace.package" } else { "workspace.dependencies" };
        }
        if ours {
            continue;
        }
        match line.strip_suffix(".workspace = true") {
            Some(key) => text.push_str(&inherited(from, key)),
            None => {
                assert!(
                    !line.contains("workspace = true"),
                    "cannot resolve {line:?}: give it a line `X.workspace = true`"
                );
                text.push_str(line);
            }
        }
        text.push('\n');
    }
    text
}
