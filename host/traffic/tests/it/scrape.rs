//! Scrapes of guests.

use std::time::Duration;

use regatta_core::manifest::{GuestMetric, ValueRange};
use regatta_core::metrics::{NoValueKind, Reading};
use regatta_traffic::{GuestClient, ScrapeTarget, Scraper};
use tokio::sync::mpsc;

use crate::guest::{Answer, Guest};
use crate::soon;

fn metric(name: &str, series: &str, path: &str) -> GuestMetric {
    let range = ValueRange::ALL;
    GuestMetric {
        name: name.to_owned(),
        series: series.to_owned(),
        path: path.to_owned(),
        rate: false,
        range,
    }
}

fn values(readings: &[Reading]) -> Vec<Option<f64>> {
    readings.iter().map(|reading| reading.as_ref().ok().copied()).collect()
}

fn why(reading: &Reading) -> (NoValueKind, String) {
    let no_value = reading.as_ref().unwrap_err();
    (no_value.kind, no_value.to_string())
}

fn target(metrics: &[GuestMetric]) -> ScrapeTarget {
    ScrapeTarget::new(metrics, Duration::from_secs(10)).unwrap()
}

fn page(path: &str) -> Answer {
    match path {
        "/metrics" => {
            Answer::ok("# TYPE load gauge\nload{cpu=\"0\"} 0.25\nload{cpu=\"1\"} 0.5\nrequests_total 7\n")
        }
        "/other" => Answer::ok("queue 3\n"),
        "/broken" => Answer::ok("other 1\n<html>\n"),
        "/wild" => Answer::ok("load 1e308\n"),
        "/large" => Answer::ok("x".repeat((1 << 20) + 1)),
        "/closing" => Answer { close: true, ..Answer::ok("load 1\n") },
        _ => Answer { status: 404, ..Answer::ok("") },
    }
}

#[tokio::test]
async fn pages_are_fetched_once_each_over_one_connection() {
    let guest = Guest::start(page);
    let client = GuestClient::new(guest.addr);
    let target = target(&[
        metric("queue", "queue", "/other"),
        metric("utilization", "load", "/metrics"),
        metric("requests", "requests_total", "/metrics"),
        metric("absent", "no_such", "/metrics"),
    ]);
    for _ in 0..3 {
        let readings = target.scrape(&client).await;
        assert_eq!(values(&readings), [Some(3.0), Some(0.75), Some(7.0), None]);
        assert_eq!(
            why(&readings[3]),
            (NoValueKind::NoSeries, "`no_such` at `/metrics`: no such series".to_owned())
        );
    }
    assert_eq!(guest.accepted(), 1);
}

#[tokio::test]
async fn a_page_that_fails_leaves_the_others() {
    let guest = Guest::start(page);
    let client = GuestClient::new(guest.addr);
    for (path, kind, expected) in [
        ("/nowhere", NoValueKind::Status, "status 404 for `/nowhere`"),
        ("/broken", NoValueKind::Unreadable, "`load` at `/broken`: line 2: expected the name of a series"),
        ("/large", NoValueKind::NoAnswer, "the answer of ADDR is larger than 1048576 bytes"),
        ("/wild", NoValueKind::OutOfRange, "`load` at `/wild`: the value is 1e308: ignored"),
    ] {
        let target = target(&[metric("bad", "load", path), metric("queue", "queue", "/other")]);
        let readings = target.scrape(&client).await;
        assert_eq!(values(&readings), [None, Some(3.0)]);
        assert_eq!(why(&readings[0]), (kind, expected.replace("ADDR", &guest.addr.to_string())));
    }
}

#[tokio::test]
async fn a_guest_that_closes_after_each_answer_is_served_too() {
    let guest = Guest::start(page);
    let client = GuestClient::new(guest.addr);
    let target = target(&[metric("load", "load", "/closing")]);
    for n in 1..=3 {
        let readings = target.scrape(&client).await;
        assert_eq!((values(&readings), guest.accepted()), (vec![Some(1.0)], n));
    }
}

#[tokio::test]
async fn a_guest_that_has_restarted_is_found_again() {
    let guest = Guest::start(page);
    let (addr, client) = (guest.addr, GuestClient::new(guest.addr));
    let target = target(&[metric("queue", "queue", "/other")]);
    assert_eq!(values(&target.scrape(&client).await), [Some(3.0)]);
    guest.stop().await;
    let (kind, text) = why(&target.scrape(&client).await[0]);
    assert_eq!(kind, NoValueKind::NoAnswer);
    assert!(text.starts_with(&format!("cannot connect to {addr}")), "{text}");
    let _guest =
        crate::eventually(|| async { Guest::start_at(addr, page).map_err(|error| error.to_string()) }).await;
    assert_eq!(values(&target.scrape(&client).await), [Some(3.0)]);
}

#[tokio::test]
async fn a_scraper_reports_until_dropped_and_never_waits_for_the_reader() {
    let guest = Guest::start(page);
    let (sender, mut reports) = mpsc::channel(1);
    let interval = Duration::from_millis(10);
    let target = target(&[metric("queue", "queue", "/other")]);
    let scraper = Scraper::start(4, GuestClient::new(guest.addr), target, interval, 1, sender);
    let mut last = std::time::Instant::now();
    for _ in 0..5 {
        let report = soon(reports.recv()).await.unwrap();
        assert_eq!((report.id, values(&report.readings)), (4, vec![Some(3.0)]));
        assert!(report.at >= last);
        last = report.at;
    }
    drop(scraper);
    soon(async { while reports.recv().await.is_some() {} }).await;
}
