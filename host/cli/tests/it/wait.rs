//! Waiting with progress.

use regatta_api::types::SetSummary;

use crate::canned::{Canned, web_with};
use crate::harness::{Server, Surroundings};

fn growing() -> Canned {
    let canned = Canned::default();
    let script = [
        // What is there before the apply.
        None,
        web_with(3, 0, &[]),
        web_with(3, 1, &[("creating", 3)]),
        web_with(3, 1, &[("creating", 3)]),
        web_with(3, 2, &[("in-service", 1), ("booting", 1), ("creating", 1)]),
        web_with(3, 3, &[("in-service", 3)]),
    ];
    canned.script.lock().unwrap().extend(script);
    canned
}

#[test]
fn apply_waits_and_prints_a_line_when_something_changed() {
    let server = Server::start(growing());
    let file = server.file("web.yaml", "name: web\n");
    insta::assert_snapshot!(server.run(&["apply", "-f", &file, "--wait"]).shown(&server));
}

#[test]
fn progress_is_one_redrawn_line_on_a_terminal() {
    let server = Server::start(growing());
    let file = server.file("web.yaml", "name: web\n");
    let terminal = Surroundings { err_terminal: true, ..Surroundings::default() };
    insta::assert_snapshot!(server.run_on(&["apply", "-f", &file, "--wait"], &terminal).shown(&server));
}

#[test]
fn an_update_is_not_done_before_a_tick_has_seen_it() {
    let canned = Canned::default();
    let all = [("in-service", 3)];
    canned.script.lock().unwrap().extend([
        web_with(3, 7, &all),
        web_with(3, 7, &all),
        web_with(5, 8, &[("in-service", 3), ("creating", 2)]),
        web_with(5, 9, &[("in-service", 5)]),
    ]);
    let server = Server::start(canned);
    let file = server.file("web.yaml", "name: web # changed\n");
    let ran = server.run(&["apply", "-f", &file, "--wait"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(ran.err, "web: 3/3 in service\nweb: 3/5 in service (2 creating)\nweb: 5/5 in service\n");
}

#[test]
fn a_set_that_does_not_come_up_times_out_and_says_why() {
    let canned = Canned::default();
    let mut stuck = web_with(2, 9, &[("in-service", 1), ("failed", 1)]);
    if let Some(set) = &mut stuck {
        set.problems = vec!["3 launches failed: no space left on device".into()];
    }
    canned.script.lock().unwrap().push_back(stuck);
    let server = Server::start(canned);
    let ran = server.run(&["scale", "web", "2", "--wait", "--timeout", "300ms"]);
    assert_eq!(ran.code, 7);
    insta::assert_snapshot!(ran.shown(&server));
}

#[test]
fn a_capacity_that_a_policy_has_replaced_is_told_and_is_a_failure() {
    let canned = Canned::default();
    canned.script.lock().unwrap().extend([
        web_with(4, 422, &[("in-service", 2), ("creating", 2)]),
        web_with(2, 423, &[("in-service", 2)]),
    ]);
    let server = Server::start(canned);
    let ran = server.run(&["scale", "web", "4", "--wait"]);
    assert_eq!(ran.code, 6, "{}", ran.err);
    let told = "error: web: capacity 4 did not last: it is 2 now; the policies decide at each tick";
    assert!(ran.err.contains(told), "{}", ran.err);
}

#[test]
fn an_apply_that_does_not_stay_healthy_fails_with_the_reason() {
    let canned = Canned::default();
    let steady = |mut set: Option<_>, problems: &[&str]| {
        if let Some(SetSummary { steady_ms, problems: told, .. }) = &mut set {
            *steady_ms = 60_000;
            *told = problems.iter().map(|&problem| problem.to_owned()).collect();
        }
        set
    };
    let held = "3 of 3 instances unhealthy: repair waits";
    canned.script.lock().unwrap().extend([
        web_with(3, 7, &[("in-service", 3)]),
        steady(web_with(3, 8, &[("in-service", 3)]), &[]),
        steady(web_with(3, 9, &[("unhealthy", 3)]), &[held]),
    ]);
    let server = Server::start(canned);
    let file = server.file("web.yaml", "name: web # changed\n");
    let ran = server.run(&["apply", "-f", &file, "--wait", "--timeout", "1s"]);
    assert_eq!(ran.code, 7, "{}", ran.err);
    let told = format!("error: web: not settled after 1s: 0/3 in service (3 unhealthy); {held}\n");
    assert!(ran.err.ends_with(&told), "{}", ran.err);
}

#[test]
fn delete_waits_until_the_set_is_gone() {
    let canned = Canned::default();
    canned.script.lock().unwrap().extend([
        web_with(0, 7, &[("in-service", 2), ("draining", 3)]),
        web_with(0, 8, &[("terminating", 2)]),
        web_with(0, 9, &[]),
        None,
    ]);
    let server = Server::start(canned);
    insta::assert_snapshot!(server.run(&["delete", "web", "--yes", "--wait"]).shown(&server));
}

#[test]
fn a_delete_that_takes_too_long_times_out() {
    let canned = Canned::default();
    canned.script.lock().unwrap().push_back(web_with(0, 7, &[("draining", 3)]));
    let server = Server::start(canned);
    let ran = server.run(&["delete", "web", "--yes", "--wait", "--timeout", "0s"]);
    assert_eq!(ran.code, 7);
    assert!(ran.err.ends_with("error: web: not gone after 0s: 3 left (3 draining)\n"), "{}", ran.err);
}
