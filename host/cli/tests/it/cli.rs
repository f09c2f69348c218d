//! The commands: what they print, as tables and as JSON, and their exit codes.

use std::path::Path;

use crate::canned::Canned;
use crate::harness::{Server, Surroundings, me, run, shows, web};

shows!(get_is_a_table, "get");
shows!(get_one_set, "get", "web");
shows!(get_as_json, "get", "-o", "json");
shows!(a_set_that_is_not_there, "get", "nope");
shows!(describe, "describe", "web");
shows!(describe_as_json, "describe", "web", "-o", "json");
shows!(instances, "instances", "web");
shows!(instances_as_json, "instances", "web", "-o", "json");
shows!(logs_that_are_kept, "logs", "web");
shows!(a_log_that_was_kept, "logs", "web", "web-3");
shows!(a_log_as_json, "logs", "web", "4", "--log", "vmm", "--bytes", "9", "-o", "json");
shows!(a_log_that_is_not_there, "logs", "web", "9");
shows!(scale, "scale", "web", "7");
shows!(scale_too_far, "scale", "web", "11");
shows!(hold, "hold", "web", "--capacity", "7", "--for", "1h", "--reason", "load test");
shows!(hold_until_resumed, "hold", "web");
shows!(resume, "resume", "web");
shows!(limits, "limits", "web");
shows!(limits_override, "limits", "web", "--max", "20", "--for", "4h", "--reason", "sale");
shows!(limits_clear, "limits", "web", "--clear");
shows!(freeze, "freeze", "web", "--for", "1h");
shows!(freeze_end, "freeze", "web", "--end");
shows!(protect, "protect", "web", "web-4");
shows!(protect_all, "protect", "web", "4", "--from", "all");
shows!(unprotect, "unprotect", "web", "4");
shows!(process_suspend, "process", "suspend", "web", "launch", "repair");
shows!(process_resume, "process", "resume", "web", "launch");
shows!(instance_restart, "instance", "restart", "web", "web-4");
shows!(instance_delete, "instance", "delete", "web", "4", "--shrink", "-o", "json");
shows!(protect_nothing, "protect", "web", "5");
shows!(delete_needs_a_yes, "delete", "web");
shows!(delete, "delete", "web", "--yes");
shows!(delete_twice, "delete", "busy", "--yes");
shows!(policy_list, "policy", "list", "web");
shows!(policy_list_as_json, "policy", "list", "web", "-o", "json");
shows!(policy_swap_by_name, "policy", "swap", "web", "step");
shows!(policy_swap_as_json, "policy", "swap", "web", "step", "-o", "json");
shows!(policy_shadow, "policy", "shadow", "web", "step");
shows!(policy_canary, "policy", "canary", "web", "step", "--within", "2");
shows!(policy_promote_which, "policy", "promote", "web");
shows!(policy_promote_none, "policy", "promote", "web", "#9");
shows!(policy_drop, "policy", "drop", "web", "#4");
shows!(policy_history, "policy", "history", "web");
shows!(policy_compare, "policy", "compare", "web", "--metric", "utilization", "--target", "0.6");
shows!(policy_compare_without_a_load, "policy", "compare", "web");
shows!(policy_rollback_without_a_previous_one, "policy", "rollback", "web");
shows!(policy_rollback_error_as_json, "policy", "rollback", "web", "-o", "json");
shows!(why, "why", "web");
shows!(why_it_never_scaled_in, "why", "web", "--last", "scale-in");
shows!(why_as_json, "why", "web", "--tick", "17", "-o", "json");
shows!(record_list, "record", "list");
shows!(record_list_as_json, "record", "list", "-o", "json");
shows!(record_import, "record", "import", "/srv/web.rec");
shows!(record_delete, "record", "delete", "incident");
shows!(orphans, "orphans");
shows!(orphans_as_json, "orphans", "list", "-o", "json");
shows!(orphans_delete_needs_a_yes, "orphans", "delete", "web/3");
shows!(orphans_delete, "orphans", "delete", "web/3", "web/4", "--yes");
shows!(recover_dry_run, "recover", "web", "--dry-run");
shows!(recover, "recover");
shows!(recover_as_json, "recover", "-o", "json");
shows!(backup, "backup", "/srv/regatta.redb");
shows!(backup_without_a_file, "backup");
shows!(backup_list, "backup", "--list");
shows!(restore, "restore", "/srv/good.redb", "--data", "/srv/regatta");
shows!(restore_of_what_is_damaged, "restore", "/srv/bad.redb", "--data", "/srv/regatta");
shows!(status, "status");
shows!(status_as_json, "status", "-o", "json");
shows!(a_slip_in_a_command, "gte");
shows!(a_name_that_cannot_be_one, "get", "../web");
shows!(two_ways_to_mean_a_tick, "why", "web", "--tick", "3", "--last", "change");

#[test]
fn a_terminal_gets_colours_and_a_pipe_or_no_color_none() {
    let server = web();
    let on = |out_terminal, colour| {
        server.run_on(&["get"], &Surroundings { out_terminal, colour, ..Surroundings::default() }).out
    };
    assert!(on(true, true).contains("\x1b["), "{}", on(true, true));
    assert!(!on(true, false).contains('\x1b'));
    assert!(!on(false, true).contains('\x1b'));
}

/// Nothing is left out: what stands in a line of the wide table stands below its row.
#[test]
fn tables_fit_a_terminal_of_80_columns() {
    let server = web();
    let narrow = Surroundings { out_terminal: true, out_width: Some(80), ..Surroundings::default() };
    let mut shown = String::new();
    for command in [
        &["policy", "list", "web"][..],
        &["policy", "history", "web"],
        &["image", "list"],
        &["events", "web"],
        &["orphans"],
    ] {
        let (wide, narrow) = (server.run(command), server.run_on(command, &narrow));
        let too_wide = narrow.out.lines().find(|line| line.chars().count() > 80);
        assert_eq!(too_wide, None, "{}", narrow.out);
        let told: std::collections::BTreeSet<&str> = narrow.out.split_whitespace().collect();
        let rows = wide.out.lines().filter(|line| line.contains(char::is_lowercase));
        for word in rows.flat_map(str::split_whitespace).filter(|word| *word != "-") {
            assert!(told.contains(word), "{word} is left out of {}", narrow.out);
        }
        shown.push_str(&narrow.out);
        shown.push('\n');
    }
    insta::assert_snapshot!(shown);
    assert_eq!(
        server.run(&["policy", "list", "web"]).out,
        server.run_on(&["policy", "list", "web"], &Surroundings { out_width: Some(400), ..narrow }).out
    );
}

#[test]
fn without_sets_the_table_is_empty_and_the_advice_on_standard_error() {
    let server = Server::start(Canned::default());
    let ran = server.run(&["get"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, ""));
    assert!(ran.err.contains("regatta apply -f FILE"), "{}", ran.err);
    assert_eq!(server.run(&["get", "-o", "json"]).out, "[]\n");
}

#[test]
fn apply_says_what_it_did_and_who_did_it() {
    let server = web();
    let file = server.file("web.yaml", "name: web # changed\n");
    insta::assert_snapshot!(server.run(&["apply", "-f", &file]).shown(&server));
    let dir = server.dir().display().to_string();
    let call = |dry_run| format!("apply {file} in {dir} dry_run={dry_run} by {}", me());
    assert_eq!(server.canned.called(), [call(true), call(false)]);
}

#[test]
fn apply_as_json_is_the_outcome_or_a_list_of_them() {
    let server = web();
    let (one, two) = (server.file("a.yaml", "name: a\n"), server.file("b.yaml", "name: b as it was\n"));
    let json = |args: &[&str]| serde_json::from_str::<serde_json::Value>(&server.run(args).out).unwrap();
    assert_eq!(json(&["apply", "-f", &one, "-o", "json"])["result"], "created");
    let both = json(&["apply", "-f", &one, "-f", &two, "-o", "json"]);
    assert_eq!(both.as_array().unwrap().len(), 2);
    assert_eq!(both[1]["result"], "unchanged");
}

#[test]
fn one_broken_manifest_keeps_all_from_being_applied() {
    let server = web();
    let good = server.file("good.yaml", "name: good\n");
    let broken = server.file("broken.yaml", "broken");
    let also = server.file("also.yaml", "broken too");
    let ran = server.run(&["apply", "-f", &broken, "-f", &good, "-f", &also]);
    assert_eq!(ran.code, 3);
    insta::assert_snapshot!(ran.shown(&server));
    let calls = server.canned.called();
    assert_eq!(calls.len(), 3, "{calls:?}");
    assert!(calls.iter().all(|call| call.contains("dry_run=true")), "{calls:?}");
}

#[test]
fn problems_as_json_are_on_standard_error() {
    let server = web();
    let broken = server.file("broken.yaml", "broken");
    let ran = server.run(&["apply", "-f", &broken, "-o", "json"]);
    assert_eq!((ran.code, ran.out.as_str()), (3, ""));
    let error: serde_json::Value = serde_json::from_str(&ran.err).unwrap();
    assert_eq!((&error["code"], &error["problems"][1]["line"]), (&"invalid".into(), &7.into()));
}

#[test]
fn two_files_may_not_describe_one_set() {
    let server = web();
    let (one, two) = (server.file("a.yaml", "name: web\n"), server.file("b.yaml", "name: web\n"));
    let ran = server.run(&["apply", "-f", &one, &two]);
    assert_eq!((ran.code, ran.out.as_str()), (3, ""));
    assert!(ran.err.ends_with("both describe the set web\n"), "{}", ran.err);
}

#[test]
fn what_was_applied_before_a_failure_is_told() {
    let server = web();
    let (good, full) = (server.file("a.yaml", "name: a\n"), server.file("b.yaml", "name: b # full disk\n"));
    insta::assert_snapshot!(server.run(&["apply", "-f", &good, "-f", &full]).shown(&server));
}

#[test]
fn apply_reads_standard_input_once() {
    let server = web();
    let surroundings = Surroundings { input: "name: piped\n", ..Surroundings::default() };
    let ran = server.run_on(&["apply", "-f", "-"], &surroundings);
    assert_eq!((ran.code, ran.out.as_str()), (0, "piped created (generation 1)\n"));
    assert_eq!(server.run_on(&["apply", "-f", "-", "-f", "-"], &surroundings).code, 2);
}

#[test]
fn a_manifest_that_cannot_be_read_is_named() {
    let server = web();
    let ran = server.run(&["apply", "-f", "/no/such.yaml"]);
    assert_eq!(ran.code, 1);
    assert_eq!(ran.err, "error: cannot read /no/such.yaml: No such file or directory (os error 2)\n");
    let huge = server.file("huge.yaml", vec![b'#'; (1 << 20) + 1]);
    let ran = server.run(&["apply", "-f", &huge]);
    assert_eq!(ran.code, 3);
    assert!(ran.err.ends_with("huge.yaml is larger than 1 MiB\n"), "{}", ran.err);
    let binary = server.file("binary.yaml", [0xff, 0xfe]);
    assert_eq!(server.run(&["apply", "-f", &binary]).code, 3);
    assert!(server.canned.called().is_empty());
}

#[test]
fn diff_shows_fields_and_its_exit_code_only_when_asked() {
    let server = web();
    let changed = server.file("web.yaml", "name: web # changed\n");
    insta::assert_snapshot!(server.run(&["diff", "-f", &changed]).shown(&server));
    assert_eq!(server.run(&["diff", "-f", &changed, "--exit-code"]).code, 8);
    let same = server.file("same.yaml", "name: web as it was\n");
    let ran = server.run(&["diff", "-f", &same, "--exit-code"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "web is as in the manifest\n"));
    assert!(server.canned.called().iter().all(|call| call.contains("dry_run=true")));
}

#[test]
fn delete_asks_on_a_terminal() {
    for (input, code, calls) in [("y\n", 0, 1), ("yes\n", 0, 1), ("n\n", 1, 0), ("", 1, 0), ("yikes\n", 1, 0)]
    {
        let server = web();
        let surroundings = Surroundings { input, in_terminal: true, ..Surroundings::default() };
        let ran = server.run_on(&["delete", "web"], &surroundings);
        assert_eq!(ran.code, code, "{input:?}: {}", ran.err);
        assert!(ran.err.starts_with("delete the scale set web and its 5 instances? [y/N] "), "{}", ran.err);
        assert_eq!(server.canned.called().len(), calls, "{input:?}");
    }
}

#[test]
fn swap_sends_files_and_names_and_parameters() {
    let server = web();
    let module = server.file("m.wasm", [0; 30]);
    let params = server.file("p.json", r#"{"a": 1}"#);
    for args in [
        vec!["policy", "swap", "web", &module, "--params", r#"{"target": 0.6}"#],
        vec!["policy", "swap", "web", "m", "--params", &format!("@{params}")],
    ] {
        let ran = server.run(&args);
        assert_eq!(ran.code, 0, "{}", ran.err);
    }
    let me = me();
    let expected = [
        format!("swap web to {module}, module 40 characters, params {{\"target\":0.6}} by {me}"),
        format!("swap web to m, module none, params {{\"a\":1}} by {me}"),
    ];
    assert_eq!(server.canned.called(), expected);
}

#[test]
fn a_swap_with_bad_input_never_reaches_the_daemon() {
    let server = web();
    let bad = server.run(&["policy", "swap", "web", "step", "--params", "{target: 1}"]);
    assert_eq!(bad.code, 3);
    assert_eq!(bad.err, "error: --params is not JSON: key must be a string at line 1 column 2\n");
    let missing = server.run(&["policy", "swap", "web", "./none.wasm"]);
    assert_eq!((missing.code, missing.err.contains("./none.wasm")), (1, true), "{}", missing.err);
    let large = server.file("large.wasm", vec![0; (32 << 20) + 1]);
    assert_eq!(server.run(&["policy", "swap", "web", &large]).code, 3);
    assert!(server.canned.called().is_empty());
}

#[test]
fn records_are_json_lines_over_all_pages() {
    let server = web();
    let ticks = |args: &[&str]| -> Vec<u64> {
        let ran = server.run(args);
        assert_eq!(ran.code, 0, "{}", ran.err);
        let tick = |line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["observation"]["tick"].as_u64().unwrap()
        };
        ran.out.lines().map(tick).collect()
    };
    assert_eq!(ticks(&["records", "web"]), (1..=421).collect::<Vec<_>>());
    assert_eq!(ticks(&["records", "web", "--last", "2"]), [420, 421]);
    assert_eq!(ticks(&["records", "web", "--after", "10", "--limit", "3"]), [11, 12, 13]);
    assert_eq!(ticks(&["records", "web", "--limit", "0"]), [0; 0]);
    assert_eq!(ticks(&["records", "web", "--limit", "250"]).len(), 250);
}

#[test]
fn a_daemon_that_is_not_there_is_named_with_the_way_to_start_it() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("api.sock");
    let ran = run(&socket, &["get"], &Surroundings::default());
    assert_eq!(ran.code, 5);
    let (socket, dir) = (socket.display(), dir.path().display());
    let expected = format!(
        "error: no daemon listens on {socket}; start one with `regatta serve --data {dir}`: \
         No such file or directory (os error 2)\n"
    );
    assert_eq!(ran.err, expected);
}

#[test]
fn a_socket_path_that_is_too_long_is_told() {
    let long = format!("/tmp/{}/api.sock", "x".repeat(120));
    let ran = run(Path::new(&long), &["get"], &Surroundings::default());
    assert_eq!(ran.code, 5);
    assert!(ran.err.contains("SUN_LEN"), "{}", ran.err);
}

#[test]
fn serve_gets_the_global_options() {
    let dir = tempfile::tempdir().unwrap();
    let args = [
        "serve",
        "--data",
        "/d",
        "--vmm",
        "sim",
        "--guest",
        "qemu",
        "--policies",
        "/p:/q",
        "--log-format",
        "json",
    ];
    let ran = run(&dir.path().join("s"), &args, &Surroundings::default());
    assert_eq!(ran.code, 1);
    let socket = dir.path().join("s");
    let expected = format!(
        "error: ServeArgs {{ data: Some(\"/d\"), socket: Some({socket:?}), vmm: Sim, guest: Some(Qemu), policies: [\"/p\", \"/q\"],"
    );
    assert!(ran.err.starts_with(&expected) && ran.err.ends_with("log_format: Json }\n"), "{}", ran.err);
}

#[test]
fn of_many_instances_a_description_shows_those_that_are_not_in_service_and_says_how_many_more_there_are() {
    let server = web();
    server.canned.add_instances(300, 7);
    let out = server.run(&["describe", "web"]).out;
    let shown: Vec<&str> = out.lines().filter(|line| line.trim_start().starts_with("web-")).collect();
    assert_eq!(shown.len(), 20, "{out}");
    assert_eq!(shown.iter().filter(|line| line.contains("unhealthy")).count(), 7, "{out}");
    assert!(out.contains("\n  … and 280 more: regatta instances web\n"), "{out}");
}
