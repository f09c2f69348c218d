//! Tests of the reader as a whole.

mod bad_input;
mod diffs;
mod generate;
mod good_input;
mod page;
mod properties;
mod table;

use super::*;

/// Reads a manifest under the name and directory that all tests use.
fn read(text: &str) -> Result<Manifest, Problems> {
    read_manifest(text.as_bytes(), "set.yaml", "/srv/web")
}

/// The set that a good manifest describes.
fn good(text: &str) -> ScaleSet {
    read(text).unwrap_or_else(|problems| panic!("{}", problems.render())).set
}

/// The problems of a bad manifest: line, column, path, message, hint.
fn bad(text: &str) -> Vec<String> {
    let problems = read(text).map(|_| text).expect_err("the manifest should be refused");
    assert_eq!(problems.total, problems.problems.len());
    let line = |p: &Problem| {
        let hint = p.hint.as_ref().map(|hint| format!(" [{hint}]")).unwrap_or_default();
        format!("{}:{} {}: {}{hint}", p.line, p.column, p.path, p.message)
    };
    problems.problems.iter().map(line).collect()
}

/// The least that a manifest needs.
const MINIMAL: &str = "\
version: regatta/v1
name: web
capacity: { min: 1, max: 4 }
image: { kernel: vmlinux }
network: { mode: loopback, pool: 127.40.0.0/24 }
policy: { module: target-tracking }
";

/// [`MINIMAL`] with one line replaced by another (found by its first word).
fn minimal_with(line: &str) -> String {
    let key = line.split(':').next().unwrap_or_default();
    // They stand in each other's place.
    let key = if key == "policies" { "policy" } else { key };
    let mut text: String = MINIMAL
        .lines()
        .filter(|old| !old.starts_with(&format!("{key}:")))
        .map(|old| format!("{old}\n"))
        .collect();
    text.push_str(line);
    text.push('\n');
    text
}
