//! Differences between sets, as users read them.

use super::*;
use serde_json::json;

/// What changes when a line of the minimal manifest is replaced.
fn changes(old: &str, new: &str) -> Vec<String> {
    let line = |change: Change| {
        let value = |json: Option<serde_json::Value>| json.map_or("-".to_owned(), |json| json.to_string());
        let mark = if affects_new_instances_only(&change.path) { " (new instances)" } else { "" };
        format!("{}: {} → {}{mark}", change.path, value(change.before), value(change.after))
    };
    diff(&good(&minimal_with(old)), &good(&minimal_with(new))).into_iter().map(line).collect()
}

#[test]
fn a_change_is_told_in_the_words_of_the_manifest() {
    assert_eq!(
        changes(
            "instance: { memory: 64MiB, boot_timeout: 90s }",
            "instance: { memory: 1GiB, boot_timeout: 1m }"
        ),
        ["instance.memory: \"64MiB\" → \"1GiB\" (new instances)", "instance.boot_timeout: \"90s\" → \"1m\""],
    );
    assert_eq!(
        changes("repair: {}", "load_balancer: { listen: 127.0.0.1:80 }"),
        [
            "load_balancer: - → {\"drain\":\"wait\",\"drain_timeout\":\"30s\",\"idle_timeout\":\"5m\",\"listen\":\"127.0.0.1:80\",\"max_connections\":10000,\"panic_threshold\":50,\"queue_timeout\":\"30s\"}"
        ],
    );
    assert_eq!(
        changes("image: { kernel: a, disk: d }", "image: { kernel: a }"),
        ["image.disk: {\"overlay\":\"qcow2\",\"path\":\"/srv/web/d\"} → - (new instances)"],
    );
}

#[test]
fn what_says_the_same_is_no_change() {
    assert_eq!(changes("tick: 5s", "tick: 5000ms"), Vec::<String>::new());
    assert_eq!(changes("repair: { max_percent: 5 }", "guards: { on_failure: hold }"), Vec::<String>::new());
}

#[test]
fn elements_with_names_are_told_apart_by_them() {
    let old = "metrics: [ { name: a, series: x }, { name: b, series: y }, { name: c, series: z } ]";
    let new = "metrics: [ { name: d, series: x }, { name: c, series: z }, { name: b, series: w } ]";
    assert_eq!(
        changes(old, new),
        [
            "metrics[a]: {\"name\":\"a\",\"path\":\"/metrics\",\"range\":[-1e+21,1e+21],\"rate\":false,\"series\":\"x\"} → -",
            "metrics[b].series: \"y\" → \"w\"",
            "metrics[d]: - → {\"name\":\"d\",\"path\":\"/metrics\",\"range\":[-1e+21,1e+21],\"rate\":false,\"series\":\"x\"}",
        ],
    );
    assert_eq!(
        changes(
            "policy: { module: a, params: { l: [1, 2, 3] } }",
            "policy: { module: a, params: { l: [1, 5] } }"
        ),
        ["policy.params.l[1]: 2 → 5", "policy.params.l[2]: 3 → -"],
    );
    assert_eq!(
        changes("policy: { module: a, params: { x.y: 1 } }", "policy: { module: a, params: { x: 1 } }"),
        ["policy.params.\"x.y\": 1 → -", "policy.params.x: - → 1"],
    );
}

#[test]
fn which_changes_reach_new_instances_only() {
    for path in ["image", "image.disk.path", "image.kernel", "instance.vcpus", "instance", "network.port"] {
        assert!(affects_new_instances_only(path), "{path}");
    }
    let live = [
        "name",
        "tick",
        "capacity.max",
        "instance.boot_timeout",
        "health.http.path",
        "metrics[a].series",
        "policy.params.image",
        "nothing",
        "",
    ];
    for path in live {
        assert!(!affects_new_instances_only(path), "{path}");
    }
}

#[test]
fn the_exported_manifest_reads_as_people_write_it() {
    let set = good(include_str!("../../../../../examples/production/set.yaml"));
    insta::assert_snapshot!(to_manifest_yaml(&set));
    assert_eq!(to_manifest_json(&set)["instance"]["memory"], json!("2GiB"));
}
