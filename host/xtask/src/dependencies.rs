//! The stage `dependencies` of `test`: every dependency has a license that `deny.toml` allows, comes from crates.io and is not among
//! those that it denies. cargo-deny says the same and knows of vulnerabilities, too, but takes longer to build than all of this
//! (`.ci/deny`).

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::cargo;
use crate::proc;
use crate::workspace::Workspace;

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    /// None of what lies in the workspace.
    source: Option<String>,
}

/// Checks all dependencies, and tells every one that may not be.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let path = workspace.root.join("deny.toml");
    let rules = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let (allowed, denied) = (list(&rules, "allow")?, list(&rules, "deny")?);
    let mut command = cargo::command();
    command.current_dir(&workspace.root).args([
        "metadata",
        "--locked",
        "--format-version=1",
        "--filter-platform=x86_64-unknown-linux-gnu",
    ]);
    let output = proc::capture(&mut command)?;
    let metadata: Metadata =
        serde_json::from_slice(&output).context("cargo metadata printed something else")?;
    let foreign = metadata.packages.iter().filter(|package| package.source.is_some());
    let problems: Vec<String> = foreign
        .filter_map(|package| {
            let why = problem(package, &allowed, &denied)?;
            Some(format!("{} {}: {why}", package.name, package.version))
        })
        .collect();
    println!("{} dependencies", metadata.packages.iter().filter(|it| it.source.is_some()).count());
    if !problems.is_empty() {
        bail!("not allowed by deny.toml:\n{}", problems.join("\n"));
    }
    Ok(())
}

fn problem(package: &Package, allowed: &BTreeSet<String>, denied: &BTreeSet<String>) -> Option<String> {
    if denied.contains(&package.name) {
        return Some("it is denied".to_owned());
    }
    if package.source.as_deref() != Some(CRATES_IO) {
        return Some(format!("it comes from {}", package.source.as_deref().unwrap_or_default()));
    }
    match &package.license {
        None => Some("it names no license".to_owned()),
        Some(license) if !satisfied(license, allowed) => Some(format!("its license is {license}")),
        Some(_) => None,
    }
}

/// The strings of a list in `deny.toml`.
fn list(rules: &str, name: &str) -> Result<BTreeSet<String>> {
    let begin = format!("\n{name} = [");
    let (_, rest) = rules.split_once(&begin).with_context(|| format!("deny.toml has no list {name}"))?;
    let (items, _) = rest.split_once(']').with_context(|| format!("the list {name} has no end"))?;
    Ok(items.split('"').skip(1).step_by(2).map(str::to_owned).collect())
}

/// Whether allowed licenses satisfy an SPDX expression. `OR` binds less than `AND`, `WITH` belongs to its license; `/` is an old `OR`.
fn satisfied(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let holds = any(&words, &mut at, allowed);
    holds && at == words.len()
}

fn any(words: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let mut holds = all(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        holds |= all(words, at, allowed);
    }
    holds
}

fn all(words: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let mut holds = one(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        holds &= one(words, at, allowed);
    }
    holds
}

fn one(words: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let Some(&word) = words.get(*at) else { return false };
    *at += 1;
    if word == "(" {
        let holds = any(words, at, allowed);
        let closed = words.get(*at) == Some(&")");
        *at += 1;
        return holds && closed;
    }
    match (words.get(*at), words.get(*at + 1)) {
        (Some(&"WITH"), Some(exception)) => {
            *at += 2;
            allowed.contains(&format!("{word} WITH {exception}"))
        }
        _ => allowed.contains(word),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_satisfied_by_what_is_allowed() {
        let allowed: BTreeSet<String> =
            ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned).into();
        for good in [
            "MIT",
            "GPL-3.0 OR MIT",
            "MIT/GPL-3.0",
            "(MIT OR GPL-3.0) AND Apache-2.0",
            "Apache-2.0 WITH LLVM-exception OR GPL-3.0",
        ] {
            assert!(satisfied(good, &allowed), "{good}");
        }
        for bad in
            ["", "GPL-3.0", "MIT AND GPL-3.0", "MIT OR GPL-3.0 )", "(MIT", "MIT WITH GPL", "MIT Apache-2.0"]
        {
            assert!(!satisfied(bad, &allowed), "{bad}");
        }
    }

    #[test]
    fn what_is_not_allowed_is_told() {
        let (allowed, denied) = ([String::from("MIT")].into(), [String::from("bad")].into());
        let package = |name: &str, license: Option<&str>, source: &str| Package {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            license: license.map(str::to_owned),
            source: Some(source.to_owned()),
        };
        assert_eq!(problem(&package("good", Some("MIT"), CRATES_IO), &allowed, &denied), None);
        for (package, why) in [
            (package("bad", Some("MIT"), CRATES_IO), "it is denied"),
            (package("good", Some("GPL-3.0"), CRATES_IO), "its license is GPL-3.0"),
            (package("good", None, CRATES_IO), "it names no license"),
            (package("good", Some("MIT"), "git+https://x"), "it comes from git+https://x"),
        ] {
            assert_eq!(problem(&package, &allowed, &denied).as_deref(), Some(why));
        }
    }
}
