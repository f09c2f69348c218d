//! What was recorded can be decided again: in place, and from a file without a daemon.

use std::fs;

use regatta_policy_tools::{RecordingReader, RecordingWriter, references};
use regatta_tests::{Daemon, wait_for};

const TRACKING: &str = "policy: { module: target-tracking, params: { metric: cpu, target: 0.6 } }";

fn ticks(daemon: &Daemon, wanted: u64) {
    let begun = last_tick(daemon);
    wait_for(&format!("{wanted} ticks"), || {
        let last = last_tick(daemon);
        if last >= begun + wanted { Ok(()) } else { Err(format!("tick {last}")) }
    });
}

fn last_tick(daemon: &Daemon) -> u64 {
    daemon.json(&["describe", "web"])["summary"]["last_tick"].as_u64().expect("a number")
}

#[test]
fn ticks_across_applies_swaps_and_restarts_are_decided_again_also_from_a_file() {
    let mut daemon = Daemon::start();
    let manifest = daemon.manifest("web", "{ min: 1, max: 4, initial: 2 }", "", TRACKING);
    daemon.apply_ok(&manifest);
    daemon.wait_in_service("web", 2);
    ticks(&daemon, 3);
    daemon.apply_ok(&manifest.replace("max: 4", "max: 5"));
    let params = r#"{"metric":"cpu","scale_out":[{"above":0.9,"add":1}],"scale_in":[]}"#;
    assert_eq!(daemon.run(&["policy", "swap", "web", "step", "--params", params]).code, 0);
    ticks(&daemon, 3);
    daemon.kill();
    daemon.launch();
    ticks(&daemon, 3);
    assert_eq!(daemon.run(&["scale", "web", "3"]).code, 0);
    daemon.wait_in_service("web", 3);

    let replayed = daemon.json(&["replay", "web"]);
    assert_eq!(replayed["difference"], serde_json::Value::Null, "{replayed}");
    assert!(replayed["identical"].as_u64() >= Some(9), "{replayed}");
    let last = daemon.run(&["replay", "web", "--last", "2"]);
    assert!(last.code == 0 && last.out.contains(", all identical"), "{}{}", last.out, last.err);

    let exported = daemon.run(&["record", "export", "web", "--file", "web.rec"]);
    assert_eq!(exported.code, 0, "{}", exported.err);
    is_imported_elsewhere(&daemon);
    daemon.kill();
    let offline = daemon.run(&["replay", "./web.rec"]);
    assert_eq!(offline.code, 0, "{}{}", offline.out, offline.err);

    // Somebody has changed what was decided.
    let file = fs::File::open(daemon.home().join("web.rec")).expect("a recording");
    let mut recording = RecordingReader::new(file).expect("a recording");
    let mut forged = RecordingWriter::new(Vec::new(), "web").expect("a recording");
    while let Some(mut record) = recording.next_record().expect("a record") {
        for sha256 in references(&record) {
            let blob = recording.blob(&sha256).expect("it stands before").to_vec();
            forged.blob(&sha256, &blob).expect("written");
        }
        if record.observation.tick == 4 {
            record.guards.granted += 1;
        }
        forged.record(record).expect("written");
    }
    fs::write(daemon.home().join("forged.rec"), forged.finish().expect("written")).expect("a file");
    let differs = daemon.run(&["replay", "./forged.rec"]);
    assert_eq!(differs.code, 8, "{}{}", differs.out, differs.err);
    assert!(differs.out.contains("tick 4 differs") && differs.out.contains("granted"), "{}", differs.out);
    fs::write(daemon.home().join("cut.rec"), b"no recording").expect("a file");
    let broken = daemon.run(&["replay", "./cut.rec"]);
    assert!(broken.code == 3 && broken.err.contains("not a Regatta recording"), "{}", broken.err);
}

/// Another daemon imports `web.rec` of this one: all of it works there, nothing of it runs there.
fn is_imported_elsewhere(here: &Daemon) {
    let file = here.home().join("web.rec");
    let file = file.to_str().expect("UTF-8");
    let mut there = Daemon::start();
    there.apply_ok(&there.manifest("web", "{ min: 1, max: 1 }", "", TRACKING));
    let taken = there.run(&["record", "import", file]);
    assert!(taken.code == 6 && taken.err.contains("web is a set"), "{}", taken.err);

    let whole = fs::read(file).expect("a recording");
    let cut = there.home().join("cut.rec");
    fs::write(&cut, &whole[..whole.len() - 20]).expect("a file");
    let broken = there.run(&["record", "import", "cut.rec", "--as", "incident"]);
    assert!(broken.code == 3 && broken.err.contains("cut off"), "{}", broken.err);
    assert_eq!(there.json(&["record", "list"]), serde_json::json!([]), "nothing is left of what was refused");

    let imported = there.json(&["record", "import", file, "--as", "incident"]);
    let ticks = imported["ticks"].as_u64().expect("a number");
    assert!(imported["set"] == "web" && ticks >= 9, "{imported}");
    let again = there.run(&["record", "import", file, "--as", "incident"]);
    assert!(again.code == 6 && again.err.contains("a recording is named incident"), "{}", again.err);
    let set = there.apply(&there.manifest("incident", "{ min: 1, max: 1 }", "", TRACKING));
    assert!(set.code == 6 && set.err.contains("regatta record delete incident"), "{}", set.err);

    there.kill();
    there.launch();
    assert_eq!(there.json(&["record", "list"])[0], imported);
    let replayed = there.run(&["replay", "incident"]);
    let all = format!("incident: {ticks} ticks ({} to {})", imported["first_tick"], imported["last_tick"]);
    assert!(replayed.code == 0 && replayed.out.starts_with(&all), "{}{}", replayed.out, replayed.err);
    assert!(replayed.out.contains("all identical"), "{}", replayed.out);
    let last = there.json(&["replay", "incident", "--last", "2"]);
    assert_eq!(last["identical"], 2, "{last}");
    let tick = imported["last_tick"].to_string();
    let why = there.json(&["why", "incident"]);
    assert_eq!(why["observation"]["tick"].to_string(), tick);
    assert_eq!(there.json(&["why", "incident", "--tick", &tick]), why);
    let records = there.run(&["records", "incident", "--last", "3"]);
    assert_eq!(records.out.lines().count(), 3, "{}", records.err);
    assert_eq!(there.run(&["record", "export", "incident", "--file", "again.rec"]).code, 0);
    assert_eq!(there.run(&["replay", "./again.rec"]).code, 0);
    assert_eq!(there.run(&["get", "incident"]).code, 4, "a recording is not a set");

    assert_eq!(there.run(&["record", "delete", "incident"]).code, 0);
    let gone = there.run(&["replay", "incident"]);
    assert!(gone.code == 4 && gone.err.contains("no set is named incident"), "{}", gone.err);
    assert_eq!(fs::read_dir(there.data().join("recordings")).expect("a directory").count(), 0);
}
