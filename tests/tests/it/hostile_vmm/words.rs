//! What a VMM answers.

use super::*;

/// Characters that no screen, JSON, log or file may hold as they are.
const STEERING: [char; 8] =
    ['\u{1b}', '\u{7}', '\r', '\u{9b}', '\u{202e}', '\u{200b}', '\u{2028}', '\u{feff}'];

fn wait_for_failed_launches(daemon: &Daemon) {
    daemon.apply_ok(&daemon.manifest("web", "{ min: 1, max: 1 }", "", IDLE));
    wait_for("two failed launches", || match events(daemon, "launch-failed").len() {
        0 | 1 => Err(daemon.log()),
        _ => Ok(()),
    });
}

#[test]
fn its_words_forge_no_screen_no_json_no_log_and_no_file() {
    let daemon = attacked("hostile-words");
    wait_for_failed_launches(&daemon);
    let commands: [&[&str]; 12] = [
        &["events"],
        &["-o", "json", "events"],
        &["describe", "web"],
        &["-o", "json", "describe", "web"],
        &["why", "web"],
        &["-o", "json", "why", "web"],
        &["instances", "web"],
        &["-o", "json", "instances", "web"],
        &["records", "web"],
        &["get"],
        &["logs", "web", "1"],
        &["status"],
    ];
    for command in commands {
        let output = daemon.run(command);
        let shown = output.out + &output.err;
        assert!(!shown.contains(STEERING), "{command:?}: {shown:?}");
        // What it says may be quoted, and begins no line.
        let forged = |line: &str| {
            line.starts_with("2026-12-01T00:00:00Z")
                || line.starts_with("  guards    none") && command[0] != "why"
        };
        assert!(!shown.lines().any(forged), "{command:?}: {shown}");
    }
    assert!(!daemon.log().contains(STEERING), "{:?}", daemon.log());
    let mut reasons = 0;
    for kept in fs::read_dir(daemon.data().join("failed")).expect("kept").flatten() {
        let reason = fs::read_to_string(kept.path().join("reason.txt")).expect("a reason");
        assert!(reason.contains("owned") && !reason.contains(STEERING), "{reason:?}");
        assert_eq!(reason.lines().count(), 1, "{reason:?}");
        reasons += 1;
    }
    assert!(reasons > 0);
}

#[test]
fn answers_without_end_cost_a_launch_and_no_memory() {
    for attack in ["long-answer", "endless-headers"] {
        let daemon = attacked(attack);
        wait_for_failed_launches(&daemon);
        assert!(peak_bytes(&daemon) < PEAK_BYTES, "{attack}: {} bytes", peak_bytes(&daemon));
        assert!(daemon.log().len() < 1 << 20, "{attack}: {} bytes of log", daemon.log().len());
    }
}

#[test]
fn an_answer_nested_without_end_ends_nothing() {
    let mut daemon = attacked("nested-info@1");
    daemon.apply_ok(&daemon.manifest("web", "{ min: 1, max: 1 }", "", IDLE));
    let pid = wait_for("the daemon to have asked", || {
        let pid = daemon.vmm_processes();
        pid.first().copied().ok_or_else(|| daemon.log())
    });
    assert!(pid > 0);
    wait_for_ticks(&daemon, 5);
    daemon.kill();
    daemon.launch();
    wait_for_ticks(&daemon, 5);
    delete(&daemon);
}
