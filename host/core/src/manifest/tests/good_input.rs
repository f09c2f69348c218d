//! Manifests that are accepted, and what they mean.

use super::*;
use serde_json::json;

#[test]
fn the_minimal_manifest_has_the_documented_defaults() {
    insta::assert_json_snapshot!(good(MINIMAL));
}

#[test]
fn the_examples_are_accepted() {
    let examples = [
        ("quickstart", include_str!("../../../../../examples/quickstart/set.yaml")),
        ("production", include_str!("../../../../../examples/production/set.yaml")),
        ("real-guests", include_str!("../../../../../examples/real-guests/set.yaml")),
    ];
    for (name, text) in examples {
        let manifest = read_manifest(text.as_bytes(), "set.yaml", &format!("/srv/examples/{name}"));
        let set = manifest.unwrap_or_else(|problems| panic!("{}", problems.render())).set;
        insta::assert_json_snapshot!(name, set);
    }
}

#[test]
fn the_limits_default_as_the_types_do() {
    assert_eq!(good(MINIMAL).policies[0].limits, PolicyLimits::default());
}

#[test]
fn the_guards_are_on_by_default_and_scale_with_the_tick() {
    let guards = |tick: &str| good(&minimal_with(&format!("tick: {tick}"))).guards;
    let limit = |percent, period_ms| RateLimit { percent, count: 4, period_ms };
    let five_seconds = Guards {
        on_failure: OnFailure::Hold,
        missing_data: MissingData::NoScaleIn,
        warm_up_ms: 30_000,
        scale_in_stabilization_ms: 100_000,
        scale_out_limit: limit(100, 5_000),
        scale_in_limit: limit(50, 5_000),
        ..Guards::default()
    };
    assert_eq!(guards("5s"), five_seconds);
    assert_eq!(
        guards("200ms").scale_in_stabilization_ms,
        10_000,
        "load does not lull faster because ticks do"
    );
    let off =
        "guards: { warm_up: 0s, scale_in_stabilization: 0s, scale_out_limit: none, scale_in_limit: none }";
    assert_eq!(good(&minimal_with(off)).guards, Guards::default());
    // Sets that were stored before there were such guards keep to what they had.
    let stored: Guards = serde_json::from_value(serde_json::json!({
        "on_failure": { "kind": "hold" }, "missing_data": { "kind": "no-scale-in" },
    }))
    .expect("it is read");
    assert_eq!(stored, Guards::default());
}

#[test]
fn paths_count_from_the_directory_of_the_manifest() {
    let cases = [
        ("vmlinux", "/srv/web/vmlinux"),
        ("./a/../b", "/srv/web/a/../b"),
        ("/boot//vmlinux", "/boot/vmlinux"),
    ];
    for (written, path) in cases {
        let set = good(&minimal_with(&format!("image: {{ kernel: {written} }}")));
        assert_eq!(set.image.kernel.map(|file| file.path).as_deref(), Some(path));
    }
    for (written, module) in
        [("step", "step"), ("./p.wasm", "/srv/web/p.wasm"), ("p.wasm", "/srv/web/p.wasm"), ("/x/p", "/x/p")]
    {
        let set = good(&minimal_with(&format!("policy: {{ module: {written} }}")));
        assert_eq!(set.policies[0].module, module);
    }
}

#[test]
fn the_short_and_the_long_form_mean_the_same() {
    let short = good(&minimal_with("image: { kernel: k, disk: d }"));
    let long = good(&minimal_with("image: { kernel: { path: k }, disk: { path: d, overlay: qcow2 } }"));
    assert_eq!(short, long);
    let short = good(&minimal_with("health: { http: /x }"));
    let long = good(&minimal_with("health: { http: { path: /x } }"));
    assert_eq!(short, long);
    let short = good(&minimal_with("health: { tcp: true }"));
    let long = good(&minimal_with("health: { tcp: {} }"));
    assert_eq!(short, long);
    assert_eq!(good(&minimal_with("health: { tcp: false }")).health.probe, None);
}

#[test]
fn a_digest_may_look_like_a_number_and_is_lower_case_in_the_end() {
    let numeric = "1".repeat(64);
    let set = good(&minimal_with(&format!("image: {{ kernel: {{ path: k, sha256: {numeric} }} }}")));
    assert_eq!(set.image.kernel.and_then(|file| file.sha256), Some(numeric));
    let upper = "ABCDEF0123456789".repeat(4);
    let set = good(&minimal_with(&format!("image: {{ kernel: {{ path: k, sha256: {upper} }} }}")));
    assert_eq!(set.image.kernel.and_then(|file| file.sha256), Some(upper.to_lowercase()));
}

#[test]
fn params_stay_what_they_are() {
    let text = minimal_with(
        "policy: { module: step, params: { a: 1, b: -2, c: 0.5, d: [x, ~, {e: yes}], f: '1', g: true } }",
    );
    let expected = json!({"a": 1, "b": -2, "c": 0.5, "d": ["x", null, {"e": "yes"}], "f": "1", "g": true});
    assert_eq!(good(&text).policies[0].params, expected);
}

#[test]
fn anchors_merges_comments_and_windows_line_ends_are_understood() {
    let text = "\u{feff}# a comment\nversion: regatta/v1\nname: web\ncapacity: { min: 1, max: 4 }\n\
        image: { kernel: &k { path: vmlinux }, initramfs: *k }\n\
        network: { <<: { mode: loopback, port: 1 }, pool: 127.40.0.0/24, port: 81 }\n\
        policy: { module: step }\n";
    let set = good(&text.replace('\n', "\r\n"));
    assert_eq!(set.image.initramfs, set.image.kernel);
    assert_eq!(set.network.port(), Some(81));
}

#[test]
fn later_problems_are_shown_at_their_place() {
    let text = format!("{MINIMAL}repair: {{}}\n").replace(
        "policy: { module: target-tracking }",
        "policy:\n  module: target-tracking\n  params:\n    target: 7\n    steps:\n      - { above: 日本, add: -1 }",
    );
    let manifest = read(&text).unwrap_or_else(|problems| panic!("{}", problems.render()));
    let at = |pointer: &str| {
        let problem = manifest.source.problem_in_policy(0, Some(pointer), "is wrong");
        (problem.path, problem.line, problem.column, problem.mark_len)
    };
    assert_eq!(at("/target"), ("policy.params.target".into(), 9, 13, 1));
    assert_eq!(at("/steps/0/add"), ("policy.params.steps[0].add".into(), 11, 27, 2));
    assert_eq!(at("/steps/0/nothing"), ("policy.params.steps[0].nothing".into(), 11, 9, 1));
    assert_eq!(at("/steps/7"), ("policy.params.steps[7]".into(), 10, 5, 5));
    assert_eq!(at("/metric"), ("policy.params.metric".into(), 8, 3, 6));
    assert_eq!(at(""), ("policy.params".into(), 8, 3, 6));
    let kernel = manifest.source.problem_at("/image/kernel", "no such file", None);
    insta::assert_snapshot!(kernel.render("set.yaml"));
}

#[test]
fn limits_are_read_as_in_a_manifest() {
    use crate::manifest::{PolicyLimits, read_limits};
    let limits = PolicyLimits {
        fuel: 200_000_000,
        memory_bytes: 128 << 20,
        deadline_ms: 10_000,
        ..PolicyLimits::default()
    };
    assert_eq!(read_limits("fuel=200000000,memory=128MiB,deadline=10s"), Ok(limits));
    let told = |text: &str| read_limits(text).expect_err(text);
    insta::assert_snapshot!(
        [
            "",
            "fuel",
            "fuel=",
            "fuel=many",
            "fule=20000",
            "fuel=20000,fuel=20000",
            "fuel=7,memory=9999GiB",
            "fuel=20000 }, name: x",
            "fuel=20000\nname: y",
        ]
        .map(told)
        .join("\n")
    );
}
