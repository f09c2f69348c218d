//! The policy in the README and the commands below it, run as they are printed.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use regatta_tests::{Daemon, bin_dir, policies_dir};

use crate::policy_tools::script;

const SET: &str = "policy: { module: target-tracking, params: { metric: connections, target: 20 } }";

/// What stands between two texts, the first time.
fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let (_, rest) = text.split_once(from).unwrap_or_else(|| panic!("the README has no {from:?}"));
    rest.split_once(to).unwrap_or_else(|| panic!("the README has no {to:?} after {from:?}")).0
}

#[test]
fn the_policy_of_the_readme_takes_over_by_the_commands_below_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let readme = fs::read_to_string(root.join("README.md")).expect("it is there");
    let section = between(&readme, "## Write a policy\n", "\n## ");
    let commands: Vec<&str> = between(section, "```console\n", "\n```")
        .lines()
        .filter_map(|line| line.strip_prefix("$ "))
        .collect();
    assert!(commands.len() >= 7, "{commands:?}");

    let daemon = Daemon::start();
    let set = format!("load_balancer: {{ listen: \"{}\" }}\n{SET}", Daemon::free_port());
    daemon.apply_ok(&daemon.manifest("web", "{ min: 1, max: 3 }", "", &set));
    daemon.wait_in_service("web", 1);
    let file = |name: &str| daemon.home().join(name);
    fs::write(file("snippet.rs"), between(section, "```rust\n", "\n```")).expect("written");
    fs::copy(root.join("Cargo.lock"), file("Cargo.lock")).expect("copied");
    // Who edits: puts the snippet in place, and the crates that the workspace has, as there may be no registry.
    script(&file("edit"), "#!/bin/sh -e\ncp \"$HERE/snippet.rs\" \"$1\"\ncp \"$HERE/Cargo.lock\" .\n");
    let path = std::env::join_paths(
        [bin_dir()].into_iter().chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    );
    let shell = Command::new("sh")
        .args(["-ec", &commands.join("\n")])
        .current_dir(daemon.home())
        .env("PATH", path.expect("a path"))
        .env("HERE", daemon.home())
        .env("EDITOR", file("edit"))
        .env("REGATTA_DATA", daemon.data())
        .env("XDG_CACHE_HOME", file("cache"))
        .env("CARGO_NET_OFFLINE", "true")
        .env("CARGO_TARGET_DIR", policies_dir().parent().expect("target"))
        .stdin(Stdio::null())
        .output()
        .expect("sh starts");
    let out = String::from_utf8_lossy(&shell.stdout);
    assert!(shell.status.success(), "{out}{}", String::from_utf8_lossy(&shell.stderr));
    assert!(out.contains("\npassed\n"), "a policy to begin with has no warnings: {out}");
    let active = daemon.json(&["describe", "web"])["summary"]["policies"][0]["name"].clone();
    assert_eq!(active, "by-connections", "{out}");
    let params = daemon.run(&[
        "policy",
        "swap",
        "web",
        "by-connections/by-connections.wasm",
        "--params",
        r#"{"per_instance": 0}"#,
    ]);
    assert!(params.code == 3 && params.err.contains("/per_instance: must be above 0"), "{}", params.err);
}
