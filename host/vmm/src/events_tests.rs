use std::io::Write;

use proptest::prelude::*;

use super::*;

/// A record as Cloud Hypervisor writes it.
fn record(secs: u64, source: &str, event: &str, properties: &BTreeMap<String, String>) -> String {
    let properties =
        if properties.is_empty() { serde_json::Value::Null } else { serde_json::json!(properties) };
    let value = serde_json::json!({
        "timestamp": {"secs": secs, "nanos": 190_396},
        "source": source,
        "event": event,
        "properties": properties,
    });
    format!("{}\n\n", serde_json::to_string_pretty(&value).expect("json"))
}

#[test]
fn a_tail_sees_records_as_they_are_written() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("events.json");
    let mut tail = EventTail::new(&path);
    assert_eq!(tail.poll().expect("no file yet"), []);

    let none = BTreeMap::new();
    let text = record(0, "vmm", "starting", &none) + &record(1, "vm", "booted", &none);
    let (first, second) = text.split_at(text.len() - 10);
    let mut file = File::create(&path).expect("create");
    file.write_all(first.as_bytes()).expect("write");
    let kinds = |events: Vec<VmmEvent>| events.into_iter().map(|event| event.kind).collect::<Vec<_>>();
    assert_eq!(kinds(tail.poll().expect("read")), [VmmEventKind::VmmStarting]);
    assert_eq!(kinds(tail.poll().expect("read")), []);
    file.write_all(second.as_bytes()).expect("write");
    assert_eq!(kinds(tail.poll().expect("read")), [VmmEventKind::Booted]);

    // A VMM that starts again truncates its file.
    std::fs::write(&path, record(0, "vmm", "shutdown", &none)).expect("write");
    assert_eq!(kinds(tail.poll().expect("read")), [VmmEventKind::VmmShutdown]);
    assert_eq!(tail.skipped(), 0);
}

#[test]
fn garbage_is_skipped_up_to_the_next_record_and_never_grows() {
    let none = BTreeMap::new();
    let mut parser = EventParser::default();
    let text = format!("{{\"source\": 3, oops}}\n\n{}", record(2, "guest", "panic", &none));
    let events = parser.push(text.as_bytes());
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].kind, events[0].at.as_secs(), parser.skipped()), (VmmEventKind::GuestPanic, 2, 1));

    for _ in 0..100 {
        parser.push(&[b'['; 4096]);
    }
    assert!(parser.pending.len() <= RECORD_LIMIT_BYTES + 4096, "{}", parser.pending.len());
    let events = parser.push(format!("\n\n{}", record(3, "vm", "paused", &none)).as_bytes());
    assert_eq!(events.len(), 1, "back in step after the garbage");
}

#[test]
fn hostile_bytes_take_no_more_time_than_others() {
    // Each of these places looked like the start of a record that never ended.
    let text = "\n\n{\"a\":[1,1,1".repeat(16 << 10);
    let mut parser = EventParser::default();
    for piece in text.as_bytes().chunks(POLL_LIMIT_BYTES) {
        assert_eq!(parser.push(piece), []);
    }
    // Every piece once, and none of them again: that is linear.
    assert_eq!(parser.skipped(), (16 << 10) - 1);
}

#[test]
fn one_look_takes_a_bounded_part_of_the_file_and_the_next_goes_on_there() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("events.json");
    let text = record(0, "vm", "rebooted", &BTreeMap::new());
    let count = 2 * POLL_LIMIT_BYTES / text.len();
    std::fs::write(&path, text.repeat(count)).expect("write");
    let mut tail = EventTail::new(&path);
    let mut seen = Vec::new();
    while seen.iter().sum::<usize>() < count {
        seen.push(tail.poll().expect("read").len());
    }
    assert_eq!(seen.iter().sum::<usize>(), count);
    assert!(seen.len() > 1, "{seen:?}");
}

#[test]
fn what_a_vmm_puts_in_the_place_of_its_events_is_refused_at_once() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("events.json");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).expect("pipe");
    EventTail::new(&path).poll().expect_err("a pipe");
    std::fs::remove_file(&path).expect("removed");
    std::os::unix::fs::symlink("/etc/hostname", &path).expect("link");
    EventTail::new(&path).poll().expect_err("a link");
}

proptest! {
    #[test]
    fn any_chunking_yields_the_same_events(
        records in proptest::collection::vec(
            ("[a-z-]{1,8}", "\\PC{0,12}", proptest::collection::btree_map("[a-z]{1,4}", "\\PC{0,8}", 0..3)),
            0..8,
        ),
        cuts in proptest::collection::vec(1usize..40, 0..60),
    ) {
        let text: String = records
            .iter()
            .enumerate()
            .map(|(secs, (source, event, properties))| record(secs as u64, source, event, properties))
            .collect();
        let mut parser = EventParser::default();
        let mut events = Vec::new();
        let mut rest = text.as_bytes();
        for cut in cuts {
            let (piece, left) = rest.split_at(cut.min(rest.len()));
            events.extend(parser.push(piece));
            rest = left;
        }
        events.extend(parser.push(rest));
        let seen: Vec<_> = events.into_iter().map(|event| (event.source, event.event, event.properties)).collect();
        prop_assert_eq!(seen, records);
        prop_assert_eq!(parser.skipped(), 0);
    }

    #[test]
    fn any_bytes_are_survived(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..10)) {
        let mut parser = EventParser::default();
        for piece in &pieces {
            parser.push(piece);
        }
        prop_assert!(parser.pending.len() <= RECORD_LIMIT_BYTES + 200);
    }
}
