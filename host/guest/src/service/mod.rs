//! The application: a small HTTP/1.1 service with a bounded number of workers that burn CPU time on demand.

mod meter;
mod work;

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use regatta_util::guest_http::{Parsed, Request, parse, response};
use serde_json::json;

use crate::identity::{self, Identity};
use crate::power;
use work::Workers;

/// Connections at a time; the next one is closed unanswered.
const MAX_CONNECTIONS: usize = 256;
/// Largest request body; it is read and dropped.
const MAX_BODY_BYTES: usize = 16 << 10;
/// A connection on which nothing moved for so long is closed.
const IDLE: Duration = Duration::from_secs(75);
/// Small machines have many of these.
const STACK_BYTES: usize = 128 << 10;

struct Service {
    identity: Identity,
    workers: Workers,
    requests: AtomicU64,
    connections: AtomicUsize,
    hung: AtomicBool,
    started: Instant,
}

/// Serves until the machine goes down.
pub(crate) fn run() -> Result<()> {
    let text = fs::read_to_string(identity::PATH)
        .with_context(|| format!("{} cannot be read: init did not run", identity::PATH))?;
    let identity: Identity = serde_json::from_str(&text).context("the identity cannot be read")?;
    let workers = match identity.workers {
        0 => thread::available_parallelism().map_or(1, usize::from),
        workers => workers,
    };
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, identity.port))
        .with_context(|| format!("cannot listen on port {}", identity.port))?;
    println!("regatta-guest: {} serves port {}", identity.hostname, identity.port);
    let service = Arc::new(Service {
        identity,
        workers: Workers::new(workers),
        requests: AtomicU64::new(0),
        connections: AtomicUsize::new(0),
        hung: AtomicBool::new(false),
        started: Instant::now(),
    });
    let button = Arc::clone(&service);
    power::watch(move || {
        button.stay_hung();
        let Err(error) = power::off();
        println!("regatta-guest: {error:#}");
    });
    for stream in listener.incoming().flatten() {
        service.stay_hung();
        if service.connections.fetch_add(1, Ordering::SeqCst) >= MAX_CONNECTIONS {
            service.connections.fetch_sub(1, Ordering::SeqCst);
            continue;
        }
        let service = Arc::clone(&service);
        let serve = move || {
            // A client that went away is not news.
            let _ = service.serve(&stream);
            service.connections.fetch_sub(1, Ordering::SeqCst);
        };
        thread::Builder::new().stack_size(STACK_BYTES).spawn(serve).context("no more threads")?;
    }
    Ok(())
}

/// What a request is answered with.
struct Answer {
    status: u16,
    kind: &'static str,
    body: String,
}

fn text(status: u16, body: impl Into<String>) -> Answer {
    Answer { status, kind: "text/plain", body: body.into() }
}

impl Service {
    fn serve(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(IDLE))?;
        stream.set_write_timeout(Some(IDLE))?;
        let mut input = BufReader::new(stream);
        let mut head = Vec::new();
        loop {
            let read = input.fill_buf()?;
            if read.is_empty() {
                return Ok(());
            }
            head.extend_from_slice(read);
            let taken = read.len();
            input.consume(taken);
            while !head.is_empty() {
                let request = match parse(&head, MAX_BODY_BYTES) {
                    Parsed::Partial => break,
                    Parsed::Bad(status) => {
                        return (&mut &*stream).write_all(&response(status, "text/plain", "", false, false));
                    }
                    Parsed::Request(request) if head.len() < request.head_bytes + request.body_bytes => break,
                    Parsed::Request(request) => request,
                };
                self.stay_hung();
                head.drain(..request.head_bytes + request.body_bytes);
                let answer = self.answer(&request);
                let bytes =
                    response(answer.status, answer.kind, &answer.body, request.keep_alive, request.head);
                (&mut &*stream).write_all(&bytes)?;
                if !request.keep_alive {
                    return Ok(());
                }
            }
        }
    }

    /// Does not return once the guest hangs.
    fn stay_hung(&self) {
        while self.hung.load(Ordering::SeqCst) {
            thread::park();
        }
    }

    fn answer(&self, request: &Request) -> Answer {
        let failed = |outcome: Result<std::convert::Infallible>| match outcome {
            Ok(never) => match never {},
            Err(error) => text(500, format!("{error:#}\n")),
        };
        match request.path.as_str() {
            "/healthz" => text(200, "ok\n"),
            "/metrics" => Answer { status: 200, kind: "text/plain; version=0.0.4", body: self.metrics() },
            "/identity" => Answer { status: 200, kind: "application/json", body: self.who() },
            "/user-data" => text(200, self.identity.user_data.clone().unwrap_or_default()),
            "/panic" => failed(power::panic()),
            "/poweroff" => failed(power::off()),
            "/reboot" => failed(power::reset()),
            "/hang" => {
                self.hung.store(true, Ordering::SeqCst);
                self.stay_hung();
                text(200, "")
            }
            // Any other path: this much CPU time, then the guest's name.
            _ => {
                if !self.workers.burn(request.work.unwrap_or_default()) {
                    return text(503, "overloaded\n");
                }
                let count = self.requests.fetch_add(1, Ordering::SeqCst) + 1;
                text(200, format!("{} {count}\n", self.identity.hostname))
            }
        }
    }

    fn who(&self) -> String {
        let identity = &self.identity;
        let first_line = identity.user_data.as_deref().and_then(|text| text.lines().next());
        json!({
            "hostname": identity.hostname,
            "instance_id": identity.instance_id,
            "address": identity.address,
            "boot_count": identity.boot_count,
            "build_id": identity.build_id,
            "user_data": first_line,
        })
        .to_string()
    }

    fn metrics(&self) -> String {
        let load = self.workers.load();
        let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
        let uptime = uptime.split(' ').next().unwrap_or_default().to_owned();
        let serving = self.started.elapsed().as_secs_f64();
        let requests = self.requests.load(Ordering::SeqCst) + load.refused;
        let mut text = String::new();
        for (name, kind, help, value) in [
            (
                "guest_requests_total",
                "counter",
                "Work requests answered, refused ones included.",
                requests.to_string(),
            ),
            (
                "guest_requests_rejected_total",
                "counter",
                "Work requests refused because too many waited.",
                load.refused.to_string(),
            ),
            (
                "guest_inflight",
                "gauge",
                "Work requests being worked on or waiting.",
                load.in_flight.to_string(),
            ),
            ("guest_queue_depth", "gauge", "Work requests waiting for a worker.", load.waiting.to_string()),
            (
                "guest_utilization",
                "gauge",
                "Busy share of the workers over the last two seconds, 0 to 1.",
                load.utilization.to_string(),
            ),
            (
                "guest_boot_count",
                "gauge",
                "How often the root disk was booted.",
                self.identity.boot_count.to_string(),
            ),
            ("guest_uptime_seconds", "gauge", "Time since the kernel started.", uptime),
            ("guest_serving_seconds", "gauge", "Time since the service started.", serving.to_string()),
        ] {
            text += &format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
        }
        text
    }
}
