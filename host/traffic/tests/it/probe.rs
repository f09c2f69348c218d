//! Probers find out what guests are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use regatta_core::manifest::{Health, Probe};
use regatta_traffic::{
    GuestClient, ProbeEvent, ProbeFailure, ProbeOutcome, ProbePhase, ProbeReport, ProbeTarget, Prober,
    WatchRuntime,
};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::guest::{Answer, Guest};
use crate::lb::ANY;
use crate::{eventually, soon};

fn http() -> Health {
    let probe = Some(Probe::Http { path: "/healthz".to_owned(), port: None });
    Health { probe, interval_ms: 20, timeout_ms: 5_000, healthy_threshold: 2, unhealthy_threshold: 2 }
}

fn target(addr: std::net::SocketAddr) -> ProbeTarget {
    ProbeTarget { id: 7, client: GuestClient::new(addr), phase: ProbePhase::Booting }
}

async fn next(reports: &mut mpsc::Receiver<ProbeReport>) -> (ProbeEvent, ProbeOutcome) {
    let report = soon(reports.recv()).await.unwrap();
    assert_eq!(report.id, 7);
    (report.event, report.outcome)
}

#[tokio::test]
async fn a_guest_boots_dies_and_comes_back() {
    let placeholder = Guest::named("");
    let addr = placeholder.addr;
    placeholder.stop().await;

    let (sender, mut reports) = mpsc::channel(8);
    let prober = Prober::start(target(addr), &http(), 1, sender).unwrap();
    eventually(|| async {
        let status = prober.status();
        let refused = status.last == Some(ProbeOutcome::Failed(ProbeFailure::Refused));
        if status.probes >= 3 && refused { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;

    let status = Arc::new(AtomicU16::new(503));
    let start = || {
        let status = Arc::clone(&status);
        Guest::start_at(addr, move |path| {
            assert_eq!(path, "/healthz");
            Answer { status: status.load(Ordering::SeqCst), ..Answer::ok("") }
        })
        .map_err(|error| error.to_string())
    };
    let guest = eventually(|| async { start() }).await;
    let not_ready = ProbeOutcome::Failed(ProbeFailure::Status(503));
    assert_eq!(next(&mut reports).await, (ProbeEvent::FirstProbeAnswered, not_ready));
    status.store(204, Ordering::SeqCst);
    assert_eq!(next(&mut reports).await, (ProbeEvent::BecameHealthy, ProbeOutcome::Passed));

    let probes = prober.status().probes;
    eventually(|| async {
        let more = prober.status().probes - probes;
        if more >= 5 { Ok(()) } else { Err(format!("{more} more probes")) }
    })
    .await;
    assert_eq!(guest.accepted(), 1, "the connection is kept");

    guest.stop().await;
    let (event, outcome) = next(&mut reports).await;
    assert_eq!(event, ProbeEvent::BecameUnhealthy);
    assert!(matches!(outcome, ProbeOutcome::Failed(_)));
    let _guest = eventually(|| async { start() }).await;
    assert_eq!(next(&mut reports).await.0, ProbeEvent::BecameHealthy);
}

#[tokio::test]
async fn a_guest_that_hangs_times_out() {
    let guest = Guest::start(|_| Answer { after: Duration::from_secs(3_600), ..Answer::ok("") });
    let (sender, mut reports) = mpsc::channel(8);
    let health = Health { timeout_ms: 30, ..http() };
    let target = ProbeTarget { phase: ProbePhase::Healthy, ..target(guest.addr) };
    let _prober = Prober::start(target, &health, 1, sender).unwrap();
    let timed_out = ProbeOutcome::Failed(ProbeFailure::TimedOut);
    assert_eq!(next(&mut reports).await, (ProbeEvent::BecameUnhealthy, timed_out));
}

#[tokio::test]
async fn what_speaks_no_http_does_not_pass() {
    let listener = TcpListener::bind(ANY).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"220 mail.example ESMTP\r\n").await;
        }
    });
    let (sender, mut reports) = mpsc::channel(8);
    let target = ProbeTarget { phase: ProbePhase::Healthy, ..target(addr) };
    let _prober = Prober::start(target, &http(), 1, sender).unwrap();
    let (event, outcome) = next(&mut reports).await;
    assert_eq!(event, ProbeEvent::BecameUnhealthy);
    assert!(matches!(outcome, ProbeOutcome::Failed(ProbeFailure::Other(_))), "{outcome:?}");
    server.abort();
}

#[tokio::test]
async fn a_tcp_probe_asks_for_a_connection_only() {
    let listener = TcpListener::bind(ANY).await.unwrap();
    let health = Health { probe: Some(Probe::Tcp { port: None }), ..http() };
    let (sender, mut reports) = mpsc::channel(8);
    let _prober = Prober::start(target(listener.local_addr().unwrap()), &health, 1, sender).unwrap();
    assert_eq!(next(&mut reports).await.0, ProbeEvent::FirstProbeAnswered);
    assert_eq!(next(&mut reports).await.0, ProbeEvent::BecameHealthy);
    drop(listener);
    let refused = ProbeOutcome::Failed(ProbeFailure::Refused);
    assert_eq!(next(&mut reports).await, (ProbeEvent::BecameUnhealthy, refused));
}

#[tokio::test]
async fn without_a_probe_an_instance_is_healthy_at_once() {
    let (sender, mut reports) = mpsc::channel(8);
    let health = Health { probe: None, ..http() };
    let _prober = Prober::start(target(ANY), &health, 1, sender).unwrap();
    assert_eq!(next(&mut reports).await.0, ProbeEvent::FirstProbeAnswered);
    assert_eq!(next(&mut reports).await.0, ProbeEvent::BecameHealthy);
    assert!(soon(reports.recv()).await.is_none(), "and that is all");
}

#[tokio::test]
async fn probes_run_on_a_thread_of_their_own() {
    let guest = Guest::named("");
    let (sender, mut reports) = mpsc::channel(8);
    let watching = WatchRuntime::start().unwrap();
    let prober = {
        let _entered = watching.enter();
        Prober::start(target(guest.addr), &http(), 1, sender).unwrap()
    };
    assert_eq!(next(&mut reports).await.0, ProbeEvent::FirstProbeAnswered);
    assert_eq!(next(&mut reports).await.0, ProbeEvent::BecameHealthy);
    drop(watching);
    assert!(soon(reports.recv()).await.is_none(), "its thread is gone");
    drop(prober);
}

#[tokio::test]
async fn a_path_that_is_none_is_refused() {
    let (sender, _reports) = mpsc::channel(8);
    for path in ["healthz", "/health z", "http://elsewhere/"] {
        let probe = Some(Probe::Http { path: path.to_owned(), port: None });
        let error = Prober::start(target(ANY), &Health { probe, ..http() }, 1, sender.clone()).unwrap_err();
        assert_eq!(error.to_string(), format!("invalid path `{path}`"));
    }
}
