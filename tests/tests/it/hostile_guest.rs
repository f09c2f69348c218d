//! Guests that answer probes and scrapes with whatever they like, beside a set that must not notice. Each answer by itself is held to in
//! `host/traffic` (`guest_client`) and `host/metrics` (`text`).

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use regatta_tests::{Daemon, IDLE, get, wait_for};
use serde_json::Value;

/// Bytes that one hostile answer has at most, and so what the test sends in all is bounded.
const MOST: usize = 100 << 20;
const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\n";

/// What a guest says to any request.
type Answer = fn(&mut TcpStream) -> std::io::Result<()>;

fn for_long(to: &mut TcpStream, head: &[u8], again: &[u8]) -> std::io::Result<()> {
    to.write_all(head)?;
    let block = again.repeat((64 << 10) / again.len() + 1);
    for _ in 0..MOST / block.len() {
        to.write_all(&block)?;
    }
    Ok(())
}

fn once(to: &mut TcpStream, text: &[u8]) -> std::io::Result<()> {
    to.write_all(text)
}

/// A page of metrics with `Content-Length`.
fn page(to: &mut TcpStream, text: &str) -> std::io::Result<()> {
    write!(to, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len())
}

const ANSWERS: &[(&str, Answer)] = &[
    ("headers without end", |to| for_long(to, HEAD, b"X-Header: value\r\n")),
    ("a header without end", |to| for_long(to, b"HTTP/1.1 200 OK\r\nX: ", b"x")),
    ("interim answers without end", |to| for_long(to, b"", b"HTTP/1.1 100 Continue\r\n\r\n")),
    ("a body of 100 MB", |to| {
        for_long(to, b"HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n", b"x 1\n")
    }),
    ("a body without end", |to| for_long(to, b"HTTP/1.1 200 OK\r\n\r\n", b"guest_load 1\n")),
    ("chunks without end", |to| {
        for_long(to, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n")
    }),
    ("a chunk size without end", |to| {
        for_long(to, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0")
    }),
    ("a chunk extension without end", |to| {
        for_long(to, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;a=", b"b")
    }),
    ("trailers without end", |to| {
        for_long(to, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"T: t\r\n")
    }),
    ("a redirect to the cloud's metadata", |to| {
        once(to, b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n")
    }),
    ("answers that nobody asked for", |to| {
        for_long(to, b"", b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
    }),
    ("no HTTP", |to| for_long(to, b"", b"\x00\xff\x1b[2J\r\n")),
    ("nothing", |_| Ok(())),
    ("a status that steers", |to| {
        once(to, "HTTP/1.1 500 \x1b[2J\u{202e}\u{9b}31m\r\nContent-Length: 0\r\n\r\n".as_bytes())
    }),
    ("two lengths", |to| once(to, b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx")),
    ("a length of 2^64 - 1", |to| {
        once(to, b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\nx")
    }),
    ("a million series", |to| {
        let series: String = (0..1_000_000).map(|nth| format!("series_{nth} 1\n")).collect();
        page(to, &series)
    }),
    ("the greatest number", |to| page(to, "guest_load 1.7976931348623157e308\n")),
    ("no number", |to| page(to, "guest_load NaN\n")),
    ("less than nothing", |to| page(to, "guest_load -1e300\n")),
    ("a line of a megabyte", |to| page(to, &format!("guest_load{{a=\"{}\"}} 1\n", "x".repeat(1 << 20)))),
    ("a million lines of nothing", |to| page(to, &"\n".repeat(1 << 20))),
    ("names that steer", |to| page(to, "guest_load{a=\"\x1b[2J\u{202e}\"} 1\n\x1b[31m 5\n")),
];

/// Serves `address` as a guest that is well until it is told to be hostile, and then says one thing after the other. Counts its answers.
struct Guest {
    hostile: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
}

impl Guest {
    fn at(addresses: impl Iterator<Item = Ipv4Addr>) -> Self {
        let guest = Self { hostile: Arc::default(), answered: Arc::default() };
        for address in addresses {
            // Before the simulator's own guest does; that one goes on without a service then.
            let listener = TcpListener::bind((address, 8080)).expect("an address of the test's own");
            let (hostile, answered) = (Arc::clone(&guest.hostile), Arc::clone(&guest.answered));
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let (hostile, answered) = (Arc::clone(&hostile), Arc::clone(&answered));
                    thread::spawn(move || serve(stream, &hostile, &answered));
                }
            });
        }
        guest
    }
}

/// Ends when the daemon has had enough.
fn serve(mut stream: TcpStream, hostile: &AtomicBool, answered: &AtomicUsize) {
    let Ok(asked) = stream.try_clone() else { return };
    let mut lines = BufReader::new(asked).lines();
    while let Some(Ok(line)) = lines.next() {
        if !line.is_empty() {
            continue;
        }
        if !hostile.load(Ordering::SeqCst) {
            if page(&mut stream, "guest_load 0.5\n").is_err() {
                return;
            }
            continue;
        }
        let nth = answered.fetch_add(1, Ordering::SeqCst);
        // What is left of it is of no use to anybody.
        let _ = ANSWERS[nth % ANSWERS.len()].1(&mut stream);
        return;
    }
}

fn peak_bytes(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a field");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

fn tick(daemon: &Daemon, set: &str) -> u64 {
    daemon.json(&["describe", set])["summary"]["last_tick"].as_u64().expect("a tick")
}

#[test]
fn what_guests_answer_harms_their_own_set_alone() {
    let daemon = Daemon::start();
    let lb = Daemon::free_port();
    let good = daemon.manifest(
        "good",
        "{ min: 2, max: 2 }",
        "",
        &format!("load_balancer: {{ listen: \"{lb}\" }}\n{IDLE}"),
    );
    daemon.apply_ok(&good);
    let extra =
        format!("metrics: [ {{ name: load, series: guest_load }} ]\nrepair: {{ enabled: false }}\n{IDLE}");
    let evil = daemon.manifest("evil", "{ min: 1, max: 1 }", "", &extra);
    let (_, pool) = evil.split_once("pool: ").expect("a pool");
    let network: Ipv4Addr = pool.split_once('/').expect("a prefix").0.parse().expect("an address");
    let evil = evil.replace("timeout: 2s", "timeout: 100ms").replace(".0/24", ".0/29");
    let guest = Guest::at((1..7).map(|host| Ipv4Addr::from_bits(network.to_bits() + host)));
    daemon.apply_ok(&evil);
    daemon.wait_in_service("good", 2);
    daemon.wait_in_service("evil", 1);
    let (before, vms) = (peak_bytes(&daemon), daemon.vm_pids("good"));
    let (from, evils) = (tick(&daemon, "good"), tick(&daemon, "evil"));

    guest.hostile.store(true, Ordering::SeqCst);
    wait_for("every answer to be given twice", || match guest.answered.load(Ordering::SeqCst) {
        answered if answered >= 2 * ANSWERS.len() => Ok(()),
        answered => {
            assert_eq!(get(lb, "/").expect("an answer").status, 200, "the neighbor serves on");
            Err(format!("{answered} of {}", 2 * ANSWERS.len()))
        }
    });
    wait_for("both sets to tick on", || {
        match (tick(&daemon, "good") - from, tick(&daemon, "evil") - evils) {
            (5.., 5..) => Ok(()),
            ticks => Err(format!("{ticks:?}")),
        }
    });
    assert_eq!(daemon.vm_pids("good"), vms);
    let grown = peak_bytes(&daemon).saturating_sub(before);
    assert!(grown < 100 << 20, "the daemon took {} MiB more", grown >> 20);
    // It is told, and what is told steers nothing.
    let Value::Array(events) = daemon.json(&["events"]) else { panic!("a list") };
    assert!(events.iter().any(|event| event["kind"] == "unhealthy" && event["set"] == "evil"), "{events:?}");
    for shown in [daemon.run(&["events"]).out, daemon.run(&["describe", "evil"]).out, daemon.log()] {
        let steers = |c: char| c != '\n' && (c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c));
        assert!(!shown.contains(steers), "{shown:?}");
    }
}
