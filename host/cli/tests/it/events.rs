//! `regatta events`, which may go on for ever.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use crate::canned::{Canned, event};
use crate::harness::{Server, Surroundings, run_into, wait_until};

/// Takes text until a line with `needle` was written, then is a broken pipe, as `head` is.
#[derive(Clone)]
struct Head {
    text: Arc<Mutex<String>>,
    needle: &'static str,
}

impl Head {
    fn until(needle: &'static str) -> Self {
        Self { text: Arc::default(), needle }
    }

    fn text(&self) -> String {
        self.text.lock().unwrap().clone()
    }
}

impl Write for Head {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut text = self.text.lock().unwrap();
        if text.contains(self.needle) && text.ends_with('\n') {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        text.push_str(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn events_are_lines() {
    let server = Server::start(Canned::with_web());
    insta::assert_snapshot!(server.run(&["events", "web"]).shown(&server));
}

#[test]
fn events_are_fetched_page_by_page_as_far_back_as_was_asked() {
    let canned = Canned::default();
    for seq in 1..=2_500 {
        canned.push_event(event(seq, "scale-out", None, &format!("number {seq}."), "ann"));
    }
    let server = Server::start(canned);
    let shown = |args: &[&str]| {
        let ran = server.run(args);
        assert_eq!(ran.code, 0, "{}", ran.err);
        let lines: Vec<String> = ran.out.lines().map(ToOwned::to_owned).collect();
        let number = |line: Option<&String>| {
            let (_, rest) = line.expect("a line").split_once("number ").expect("a number");
            rest.split('.').next().and_then(|number| number.parse::<u64>().ok()).expect("a number")
        };
        (lines.len(), number(lines.first()), number(lines.last()))
    };
    assert_eq!(shown(&["events"]), (100, 2_401, 2_500));
    assert_eq!(shown(&["events", "--limit", "2400"]), (2_400, 101, 2_500));
    assert_eq!(shown(&["events", "--limit", "9999"]), (2_500, 1, 2_500));
    // An event a second, the 60th of them now.
    assert_eq!(shown(&["events", "--since", "10s"]).1, 50);
    assert_eq!(shown(&["events", "--before", "10s", "--limit", "9999"]), (50, 1, 50));
    assert_eq!(shown(&["events", "--since", "20s", "--before", "10s"]), (11, 40, 50));
}

#[test]
fn an_event_cannot_steer_the_terminal() {
    let canned = Canned::default();
    canned.push_event(event(1, "launch-failed", Some(1), "guest says \x1b]0;owned\x07\nand more", "daemon"));
    let ran = Server::start(canned).run(&["events"]);
    assert!(ran.out.contains(r"guest says \u{1b}]0;owned\u{7} and more [daemon]"), "{}", ran.out);
}

#[test]
fn a_follower_gets_events_as_they_happen_and_ends_quietly_with_its_reader() {
    let server = Server::start(Canned::with_web());
    let out = Head::until("third");
    let (socket, mut copy) = (server.socket.clone(), out.clone());
    let follower = std::thread::spawn(move || {
        let mut err = Vec::new();
        let args = ["events", "--follow", "-o", "json"];
        let code = run_into(&socket, &args, &Surroundings::default(), &mut copy, &mut err);
        (code, String::from_utf8(err).unwrap())
    });
    let canned = &server.canned;
    let waits = |after: u64| {
        let call = format!("events None after Some({after}) wait 25000");
        wait_until("the long poll", || canned.called().contains(&call), || format!("{:?}", canned.called()));
    };
    waits(8);
    canned.push_event(event(9, "policy-swapped", None, "second", "ann"));
    waits(9);
    canned.push_event(event(10, "instance-gone", Some(2), "third", "daemon"));
    waits(10);
    canned.push_event(event(11, "instance-gone", Some(3), "unread", "daemon"));
    assert_eq!(follower.join().unwrap(), (0, String::new()));
    let seqs: Vec<u64> = out
        .text()
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(seqs, [7, 8, 9, 10]);
}

#[test]
fn a_follower_outlives_a_restart_of_the_daemon() {
    let mut first = Server::start(Canned::with_web());
    let out = Head::until("after the restart");
    let err = Head::until("never");
    let (socket, mut out_copy, mut err_copy) = (first.socket.clone(), out.clone(), err.clone());
    let follower = std::thread::spawn(move || {
        let args = ["events", "web", "--follow"];
        run_into(&socket, &args, &Surroundings::default(), &mut out_copy, &mut err_copy)
    });
    let canned = Arc::clone(&first.canned);
    let polls = || canned.called().iter().filter(|call| call.contains("wait 25000")).count();
    wait_until("the long poll", || polls() == 1, || format!("{:?}", canned.called()));
    // A daemon answers its long polls when it stops; this one cuts them off.
    first.stop();
    wait_until("word of the loss", || err.text().contains("the daemon is gone"), || err.text());
    let second = Server::start_on(&first.socket, Arc::clone(&canned));
    wait_until("the next poll", || polls() > 1, || format!("{:?}", canned.called()));
    canned.push_event(event(9, "scale-in", None, "after the restart", "daemon"));
    wait_until("the last poll", || out.text().contains("after the restart"), || out.text());
    canned.push_event(event(10, "scale-in", None, "unread", "daemon"));
    assert_eq!(follower.join().unwrap(), 0);
    assert!(err.text().ends_with("the daemon is back\n"), "{}", err.text());
    drop(second);
}
