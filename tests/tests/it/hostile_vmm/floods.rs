//! More than the daemon can take in: events, consoles, logs.

use super::*;

/// Ticks are due every 200 ms. Beyond this the flood is what the set works on; the machine of the test may be busy.
const LATE_MS: u64 = 3_000;
/// Kept of a log, and what may come on top of it between two looks.
const LOG_DISK_BYTES: u64 = (16 << 20) + (16 << 20);

/// The longest time between two ticks after `from`, ms.
fn longest_gap_ms(daemon: &Daemon, from: u64) -> u64 {
    let records = daemon.run(&["records", "web", "--after", &from.to_string()]);
    assert_eq!(records.code, 0, "{}", records.err);
    let at = |line: &str| {
        let record: Value = serde_json::from_str(line).expect("a record");
        record["observation"]["now_ms"].as_u64().expect("a time")
    };
    let at: Vec<u64> = records.out.lines().map(at).collect();
    at.windows(2).map(|pair| pair[1] - pair[0]).max().expect("ticks")
}

#[test]
fn hostile_events_hold_no_tick() {
    let daemon = attacked("events");
    let pids = run_set(&daemon, 2);
    let from = last_tick(&daemon);
    for (id, _) in &pids {
        go(&daemon, *id);
    }
    // So many take in all of it, 64 KiB each.
    wait_for_ticks(&daemon, (7 << 20) / (64 << 10));
    let gap = longest_gap_ms(&daemon, from);
    assert!(gap < LATE_MS, "{gap} ms without a tick");
    assert_eq!(daemon.vm_pids("web"), pids);
    assert!(peak_bytes(&daemon) < PEAK_BYTES, "{} bytes", peak_bytes(&daemon));
}

#[test]
fn forged_reboots_neither_fill_the_history_nor_hold_a_tick() {
    let daemon = attacked("reboots@1");
    let pids = run_set(&daemon, 2);
    let from = last_tick(&daemon);
    go(&daemon, 1);
    wait_for_ticks(&daemon, (1 << 20) / (64 << 10) + 5);
    let gap = longest_gap_ms(&daemon, from);
    assert!(gap < LATE_MS, "{gap} ms without a tick");
    let told = events(&daemon, "guest-rebooted").len() as u64;
    assert!(told <= last_tick(&daemon) - from, "at most one a tick: {told}");
    assert!(daemon.vm_pids("web").contains(&pids[1]), "its neighbor is as it was");
}

fn disk_bytes(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |it| it.blocks() * 512)
}

fn becomes_short(log: &Path) {
    wait_for("the log to be cut", || match disk_bytes(log) {
        bytes if bytes <= LOG_DISK_BYTES => Ok(()),
        bytes => Err(format!("{bytes} bytes")),
    });
}

#[test]
fn a_console_at_full_speed_is_cut() {
    let daemon = attacked("serial");
    run_set(&daemon, 1);
    let log = dir_of(&daemon, 1).join("serial.log");
    go(&daemon, 1);
    assert!(fs::metadata(&log).expect("there").len() > 200 << 20, "it was printed");
    becomes_short(&log);
}

#[test]
fn a_console_that_grows_in_a_hole_is_cut() {
    let daemon = attacked("serial-in-a-hole");
    run_set(&daemon, 1);
    let log = dir_of(&daemon, 1).join("serial.log");
    go(&daemon, 1);
    becomes_short(&log);
}

#[test]
fn a_vmm_that_prints_at_full_speed_is_cut_and_steers_no_terminal() {
    let daemon = attacked("print");
    run_set(&daemon, 1);
    let log = dir_of(&daemon, 1).join("vmm.log");
    wait_for("it to print", || match fs::metadata(&log).map_or(0, |it| it.len()) {
        bytes if bytes > 120 << 20 => Ok(()),
        bytes => Err(format!("{bytes} bytes")),
    });
    becomes_short(&log);
    let shown = daemon.run(&["logs", "web", "1"]);
    assert!(!shown.out.contains(['\u{1b}', '\u{7}', '\u{9b}', '\u{202e}']), "{:?}", &shown.out[..200]);
}
