//! The invariants of `docs/ARCHITECTURE.md` that can be read off the tree.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// Crates that depend on `dependency` outside of their tests, by folder.
fn dependents(dependency: &str) -> Vec<String> {
    let root = root();
    let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("the workspace's manifest");
    let members =
        manifest.split_once("members = [").and_then(|(_, rest)| rest.split_once(']')).expect("members").0;
    let members =
        members.split(',').map(|member| member.trim().trim_matches('"')).filter(|member| !member.is_empty());
    let depends = |member: &&str| {
        let manifest = fs::read_to_string(root.join(member).join("Cargo.toml")).expect("a member's manifest");
        let outside_tests = manifest.split("[dev-dependencies]").next().unwrap_or_default();
        outside_tests
            .lines()
            .any(|line| line.strip_prefix(dependency).is_some_and(|rest| rest.starts_with(['.', ' ', '='])))
    };
    members.filter(depends).map(ToOwned::to_owned).collect()
}

/// Rust files below `folder`, without tests.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path());
    entries
        .filter(|path| path.file_stem().is_none_or(|name| name != "tests"))
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

/// Lines of code (no comments) below `folder` that contain `word`.
fn lines_with(folder: &str, word: &str) -> Vec<String> {
    let mut found = Vec::new();
    for path in sources(&root().join(folder)) {
        let text = fs::read_to_string(&path).expect("a source");
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        found.extend(
            code.filter(|line| line.contains(word)).map(|line| format!("{}: {line}", path.display())),
        );
    }
    found
}

#[test]
fn only_the_policy_host_knows_wasmtime() {
    assert_eq!(dependents("wasmtime"), ["host/policy"]);
}

#[test]
fn only_the_store_knows_the_database() {
    assert_eq!(dependents("redb"), ["host/store"]);
}

#[test]
fn the_core_knows_no_io() {
    for dependency in ["tokio", "reqwest", "hyper", "rustix", "libc", "rand", "tracing", "tempfile"] {
        assert!(!dependents(dependency).contains(&"host/core".to_owned()), "{dependency}");
    }
    for word in ["std::fs", "std::process::", "async fn", "unsafe "] {
        assert_eq!(lines_with("host/core/src", word), Vec::<String>::new(), "{word}");
    }
}

#[test]
fn only_vmm_and_the_stand_in_speak_cloud_hypervisors_api() {
    for folder in [
        "host/core/src",
        "host/policy/src",
        "host/store/src",
        "host/traffic/src",
        "host/metrics/src",
        "host/api/src",
        "host/cli/src",
        "host/daemon/src",
    ] {
        for word in ["vm.create", "vm.boot\"", "/api/v1/", "boot_vcpus", "backing_files"] {
            assert_eq!(lines_with(folder, word), Vec::<String>::new(), "{folder} {word}");
        }
    }
}

#[test]
fn the_command_line_reaches_the_daemon_only_through_the_api() {
    for dependency in [
        "regatta",
        "regatta-store",
        "regatta-traffic",
        "regatta-metrics",
        "regatta-vmm",
        "regatta-policy-host",
        "reqwest",
        "axum",
        "hyper",
    ] {
        assert!(!dependents(dependency).contains(&"host/cli".to_owned()), "{dependency}");
    }
    let manifest = fs::read_to_string(root().join("host/cli/Cargo.toml")).expect("a manifest");
    let api = manifest.lines().find(|line| line.starts_with("regatta-api")).expect("a dependency");
    assert_eq!(api, "regatta-api.workspace = true", "without the daemon's side");
}

#[test]
fn the_api_knows_nothing_of_those_that_it_joins() {
    let ours =
        ["regatta", "regatta-cli", "regatta-store", "regatta-traffic", "regatta-vmm", "regatta-policy-host"];
    for dependency in ours {
        assert!(!dependents(dependency).contains(&"host/api".to_owned()), "{dependency}");
    }
    assert_eq!(dependents("utoipa"), ["host/api"]);
}

#[test]
fn the_load_balancer_never_calls_the_reconciler() {
    for dependent in ["regatta-store", "regatta-policy-host", "regatta-vmm", "regatta"] {
        assert!(!dependents(dependent).contains(&"host/traffic".to_owned()), "{dependent}");
    }
}

/// Phrases that no native speaker writes, in what users read: help, messages and documents. Comments are not looked at.
#[test]
fn what_users_read_is_plain_english() {
    const NOT_ENGLISH: [&str; 12] = [
        "so many of",
        "so many records",
        "by hand",
        "put in force",
        "puts it in force",
        "in charge",
        "by and by",
        "goes on with",
        "utilisation",
        "behaviour",
        "stopped hard",
        "written down",
    ];
    let is_no = |text: &str| {
        text.match_indices(" is no ").any(|(at, found)| {
            let (before, after) = (&text[..at], &text[at + found.len()..]);
            let fine = ["longer", "more", "need", "reason", "one", "such", "way"];
            !before.to_lowercase().ends_with("there") && !fine.iter().any(|word| after.starts_with(word))
        })
    };
    let mut found = Vec::new();
    let mut look = |place: &str, text: &str| {
        let phrase = NOT_ENGLISH.into_iter().find(|phrase| text.contains(phrase));
        let phrase = phrase.or_else(|| is_no(text).then_some("is no"));
        found.extend(phrase.map(|phrase| format!("{place}: \"{phrase}\" in: {}", text.trim())));
    };
    let folders =
        ["api", "cli", "core", "daemon", "policy", "policy-build", "policy-tools", "store", "traffic", "vmm"];
    for path in folders.iter().flat_map(|name| sources(&root().join("host").join(name).join("src"))) {
        let text = fs::read_to_string(&path).expect("a source");
        let is_help = path.file_stem().is_some_and(|name| name.to_string_lossy().ends_with("args"));
        for line in text.split("#[cfg(test)]\nmod ").next().unwrap_or_default().lines() {
            let comment = line.trim_start().starts_with("//");
            if comment == (is_help && line.trim_start().starts_with("///")) && (comment || line.contains('"'))
            {
                look(&path.display().to_string(), line);
            }
        }
    }
    for page in [
        "README.md",
        "docs/cli.md",
        "docs/manifest.md",
        "docs/operations.md",
        "docs/policies.md",
        "docs/sdk.md",
    ] {
        for line in fs::read_to_string(root().join(page)).expect("a page").lines() {
            look(page, line);
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
