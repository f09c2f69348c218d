//! Endpoints leave without hurting the connections that they have.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use regatta_traffic::{DrainState, LbConfig, LoadBalancer, Timing};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::guest::{Answer, Guest, answer, ask, ask_once};
use crate::lb::{ANY, endpoint};
use crate::{eventually, soon};

async fn drained(lb: &LoadBalancer, id: u32) {
    eventually(|| async {
        match lb.drain_state(id) {
            DrainState { open: 0 } => Ok(()),
            state => Err(format!("{state:?}, {:?}", lb.stats())),
        }
    })
    .await;
}

#[tokio::test]
async fn an_idle_connection_of_a_leaving_endpoint_is_closed_in_good_order() {
    let (leaving, staying) = (Guest::named("leaving"), Guest::named("staying"));
    let lb = LoadBalancer::bind(ANY, LbConfig::default()).unwrap();
    lb.set_endpoints([endpoint(1, &leaving)]);
    let mut idle = TcpStream::connect(lb.local_addr()).await.unwrap();
    assert_eq!(soon(ask(&mut idle, "/")).await.unwrap(), "leaving");
    lb.set_endpoints([endpoint(2, &staying)]);
    assert_eq!(lb.drain_state(1), DrainState { open: 1 }, "it goes on");
    assert_eq!(soon(ask_once(lb.local_addr())).await.unwrap(), "staying");
    assert_eq!(soon(ask(&mut idle, "/")).await.unwrap(), "leaving", "a busy one is served by its endpoint");
    assert_eq!(soon(idle.read(&mut [0; 1])).await.unwrap(), 0, "closed when idle, not reset");
    drained(&lb, 1).await;
    assert_eq!(lb.stats().totals.closed_drained, 1);
}

#[tokio::test]
async fn a_quiet_connection_of_an_endpoint_that_waits_stays_until_the_cut() {
    let guest = Guest::named("waits");
    let timing = Timing { drain_idle: Duration::from_millis(1), ..Timing::default() };
    let lb = LoadBalancer::bind(ANY, LbConfig { timing, ..LbConfig::default() }).unwrap();
    lb.set_endpoints([endpoint(1, &guest)]);
    let mut quiet = TcpStream::connect(lb.local_addr()).await.unwrap();
    assert_eq!(soon(ask(&mut quiet, "/")).await.unwrap(), "waits");
    lb.set_waiting([1]);
    lb.set_endpoints([]);
    let closed = tokio::time::timeout(Duration::from_millis(100), quiet.read(&mut [0; 1])).await;
    assert!(closed.is_err(), "a hundred times what a drain without it takes to close it: {closed:?}");
    assert_eq!(soon(ask(&mut quiet, "/")).await.unwrap(), "waits");
    lb.cut(1);
    assert_eq!(soon(quiet.read(&mut [0; 1])).await.unwrap(), 0, "in the next lull, in good order");
    drained(&lb, 1).await;
    assert_eq!((lb.stats().totals.closed_drained, lb.stats().totals.closed_cut), (1, 0));
}

#[tokio::test]
async fn what_waits_is_closed_when_it_no_longer_may() {
    let guest = Guest::named("waits");
    let lb = LoadBalancer::bind(ANY, LbConfig::default()).unwrap();
    lb.set_endpoints([endpoint(1, &guest)]);
    let mut quiet = TcpStream::connect(lb.local_addr()).await.unwrap();
    assert_eq!(soon(ask(&mut quiet, "/")).await.unwrap(), "waits");
    lb.set_waiting([1]);
    lb.set_endpoints([]);
    lb.set_waiting([]);
    lb.set_endpoints([]);
    assert_eq!(soon(quiet.read(&mut [0; 1])).await.unwrap(), 0);
}

#[tokio::test]
async fn an_answer_that_takes_long_is_waited_for() {
    let asked = Arc::new(Notify::new());
    let guest = {
        let asked = Arc::clone(&asked);
        Guest::start(move |_| {
            asked.notify_one();
            // Longer than a drain takes to call a connection idle.
            Answer { after: Duration::from_millis(300), ..Answer::ok("slow") }
        })
    };
    let timing = Timing { drain_idle: Duration::from_millis(20), ..Timing::default() };
    let lb = LoadBalancer::bind(ANY, LbConfig { timing, ..LbConfig::default() }).unwrap();
    lb.set_endpoints([endpoint(1, &guest)]);
    let client = tokio::spawn(ask_once(lb.local_addr()));
    soon(asked.notified()).await;
    lb.set_endpoints([]);
    assert_eq!(soon(client).await.unwrap().unwrap(), "slow");
    drained(&lb, 1).await;
    assert_eq!(lb.stats().totals.closed_cut, 0);
}

#[tokio::test]
async fn after_the_deadline_a_connection_that_never_ends_is_cut() {
    let guest = Guest::start(|_| Answer { after: Duration::from_secs(3_600), ..Answer::ok("never") });
    let lb = LoadBalancer::bind(ANY, LbConfig::default()).unwrap();
    lb.set_endpoints([endpoint(1, &guest)]);
    let client = tokio::spawn(ask_once(lb.local_addr()));
    eventually(|| async {
        let accepted = guest.accepted();
        if accepted == 1 { Ok(()) } else { Err(format!("{accepted} accepted")) }
    })
    .await;
    lb.set_endpoints([]);
    lb.cut(1);
    assert!(soon(client).await.unwrap().is_err());
    drained(&lb, 1).await;
    assert_eq!(lb.stats().totals.closed_cut, 1);
}

/// A busy keep-alive client leaves no idle moment of the drain's length; the cut
/// then finds the lull between two of its requests.
#[tokio::test]
async fn a_cut_falls_between_two_answers() {
    let guest = Guest::start(|_| Answer { after: Duration::from_millis(5), ..Answer::ok("whole") });
    let timing = Timing {
        drain_idle: Duration::from_secs(3_600),
        cut_idle: Duration::from_millis(10),
        cut_grace: Duration::from_secs(3_600),
        ..Timing::default()
    };
    let lb = LoadBalancer::bind(ANY, LbConfig { timing, ..LbConfig::default() }).unwrap();
    lb.set_endpoints([endpoint(1, &guest)]);
    let mut stream = TcpStream::connect(lb.local_addr()).await.unwrap();
    for n in 0.. {
        if n == 3 {
            lb.set_endpoints([]);
            lb.cut(1);
        }
        // The end comes before an answer begins, never within one.
        match soon(ask(&mut stream, "/")).await {
            Ok(body) => assert_eq!(body, "whole"),
            Err(error) => panic!("an answer was owed: {error}"),
        }
        if n >= 3 {
            break;
        }
    }
    assert_eq!(soon(stream.read(&mut [0; 1])).await.unwrap(), 0);
    drained(&lb, 1).await;
    assert_eq!((lb.stats().totals.closed_drained, lb.stats().totals.closed_cut), (1, 0));
}

#[tokio::test]
async fn an_endpoint_that_comes_back_keeps_its_connections() {
    let guest = Guest::named("back");
    let timing = Timing { drain_idle: Duration::from_secs(3_600), ..Timing::default() };
    let lb = LoadBalancer::bind(ANY, LbConfig { timing, ..LbConfig::default() }).unwrap();
    lb.set_endpoints([endpoint(1, &guest)]);
    let mut stream = TcpStream::connect(lb.local_addr()).await.unwrap();
    assert_eq!(soon(ask(&mut stream, "/")).await.unwrap(), "back");
    lb.set_endpoints([]);
    lb.set_endpoints([endpoint(1, &guest)]);
    lb.cut(1);
    assert_eq!(soon(ask(&mut stream, "/")).await.unwrap(), "back");
    assert_eq!(guest.accepted(), 1);
}

#[tokio::test]
async fn a_shutdown_lets_answers_finish_and_then_refuses() {
    let asked = Arc::new(Notify::new());
    let guest = {
        let asked = Arc::clone(&asked);
        Guest::start(move |_| {
            asked.notify_one();
            Answer { after: Duration::from_millis(100), ..Answer::ok("last") }
        })
    };
    let lb = LoadBalancer::bind(ANY, LbConfig::default()).unwrap();
    let addr = lb.local_addr();
    lb.set_endpoints([endpoint(1, &guest)]);
    let client = tokio::spawn(ask_once(addr));
    soon(asked.notified()).await;
    soon(lb.shutdown(Duration::from_secs(3_600))).await;
    assert_eq!(soon(client).await.unwrap().unwrap(), "last");
    assert_eq!(lb.stats().totals.active, 0);
    assert!(TcpStream::connect(addr).await.is_err());
}

/// Instances come and go under load: endpoints leave, are waited for until they
/// have drained, and only then die. No request may fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn churn_costs_no_request() {
    const ROUNDS: u32 = 40;
    let lb = Arc::new(LoadBalancer::bind(ANY, LbConfig::default()).unwrap());
    let over = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicU32::new(0));
    let start =
        || Guest::start(|_| Answer { after: Duration::from_millis(2), ..Answer::ok("x".repeat(20_000)) });
    let mut guests = vec![(1, start()), (2, start())];
    lb.set_endpoints(guests.iter().map(|(id, guest)| endpoint(*id, guest)));

    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (over, served, addr) = (Arc::clone(&over), Arc::clone(&served), lb.local_addr());
            tokio::spawn(async move {
                while !over.load(Ordering::SeqCst) {
                    let body = ask_once(addr).await.map_err(|error| error.to_string())?;
                    assert_eq!(body.len(), 20_000);
                    served.fetch_add(1, Ordering::SeqCst);
                }
                Ok::<_, String>(())
            })
        })
        .collect();
    for round in 0..ROUNDS {
        let before = served.load(Ordering::SeqCst);
        guests.push((round + 3, start()));
        let (leaving, guest) = guests.remove(0);
        lb.set_endpoints(guests.iter().map(|(id, guest)| endpoint(*id, guest)));
        drained(&lb, leaving).await;
        guest.stop().await;
        eventually(|| async {
            let served = served.load(Ordering::SeqCst) - before;
            if served >= 10 { Ok(()) } else { Err(format!("{served} served")) }
        })
        .await;
    }
    over.store(true, Ordering::SeqCst);
    for client in clients {
        soon(client).await.unwrap().unwrap();
    }
    let totals = lb.stats().totals;
    assert_eq!((totals.unserved, totals.closed_cut, totals.closed_broken), (0, 0, 0), "{totals:?}");
}

/// The answer of a connection that ends while the client is slow to read it.
#[tokio::test]
async fn what_the_client_has_not_read_yet_is_not_lost() {
    const SIZE: usize = 8 << 20;
    let guest = Guest::start(|_| Answer::ok("y".repeat(SIZE)));
    let timing = Timing { drain_idle: Duration::from_millis(20), ..Timing::default() };
    let lb = LoadBalancer::bind(ANY, LbConfig { timing, ..LbConfig::default() }).unwrap();
    lb.set_endpoints([endpoint(1, &guest)]);
    let mut stream = TcpStream::connect(lb.local_addr()).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    // The answer stands still: no buffer on the way is large enough for it.
    let mut before = 0;
    eventually(|| {
        let bytes = lb.stats().totals.bytes_out;
        let still = bytes > 0 && bytes == std::mem::replace(&mut before, bytes);
        async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if still { Ok(()) } else { Err(format!("{bytes} bytes")) }
        }
    })
    .await;
    lb.set_endpoints([]);
    for _ in 0..20 {
        assert_eq!(lb.drain_state(1), DrainState { open: 1 }, "bytes are still on their way");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(soon(answer(&mut stream)).await.unwrap().len(), SIZE);
}
