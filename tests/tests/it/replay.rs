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
