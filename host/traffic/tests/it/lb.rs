//! The load balancer picks, retries, waits and counts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use regatta_traffic::{Endpoint, LbConfig, LbError, LoadBalancer, Timing};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::guest::{Answer, Guest, ask, ask_once};
use crate::{eventually, soon};

pub(crate) const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

pub(crate) fn endpoint(id: u32, guest: &Guest) -> Endpoint {
    Endpoint { id, addr: guest.addr }
}

/// An address where nobody listens, and nobody else will: the socket is bound.
fn dead_address() -> (SocketAddr, tokio::net::TcpSocket) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(ANY).unwrap();
    (socket.local_addr().unwrap(), socket)
}

#[tokio::test]
async fn connections_are_spread_and_counted() {
    let guests: Vec<Guest> = (0..4).map(|n| Guest::named(format!("guest-{n}"))).collect();
    let lb = LoadBalancer::bind(ANY, LbConfig::default()).unwrap();
    lb.set_endpoints(guests.iter().zip(1..).map(|(guest, id)| endpoint(id, guest)));
    let mut open = Vec::new();
    let mut by_guest = BTreeMap::<String, u32>::new();
    for _ in 0..40 {
        let mut stream = TcpStream::connect(lb.local_addr()).await.unwrap();
        *by_guest.entry(soon(ask(&mut stream, "/")).await.unwrap()).or_default() += 1;
        open.push(stream);
    }
    assert_eq!(by_guest.len(), 4);
    assert!(by_guest.values().all(|n| (7..=13).contains(n)), "40 open over 4 guests: {by_guest:?}");

    let stats = lb.stats();
    assert_eq!((stats.totals.accepted, stats.totals.active, stats.totals.connects), (40, 40, 40));
    assert_eq!(stats.endpoints.iter().map(|e| e.open).sum::<u32>(), 40);
    assert_eq!(stats.totals.bytes_in, 40 * "GET / HTTP/1.1\r\nHost: x\r\n\r\n".len() as u64);
    assert_eq!(stats.endpoints.iter().map(|e| e.bytes_out).sum::<u64>(), stats.totals.bytes_out);
    assert!(stats.totals.connect_us > 0 && stats.totals.failed_connects == 0);

    drop(open);
    eventually(|| async {
        let stats = lb.stats();
        let left = stats.endpoints.iter().map(|e| e.open).sum::<u32>() + stats.totals.active;
        if left == 0 { Ok(()) } else { Err(format!("{left} open")) }
    })
    .await;
}

#[tokio::test]
async fn a_dead_endpoint_costs_no_connection() {
    let alive = Guest::named("alive");
    let (dead, _kept) = dead_address();
    let lb = LoadBalancer::bind(ANY, LbConfig::default()).unwrap();
    lb.set_endpoints([endpoint(1, &alive), Endpoint { id: 2, addr: dead }]);
    for _ in 0..100 {
        assert_eq!(soon(ask_once(lb.local_addr())).await.unwrap(), "alive");
    }
    let stats = lb.stats();
    let dead = stats.endpoints.iter().find(|e| e.endpoint.id == 2).unwrap();
    assert!(dead.failed_connects >= 1, "it was tried");
    assert!(dead.failed_connects <= 50, "and then avoided: {}", dead.failed_connects);
    assert_eq!((dead.connects, stats.totals.retries), (0, dead.failed_connects));
    assert_eq!(stats.totals.unserved, 0);
}

#[tokio::test]
async fn a_client_waits_a_while_for_an_endpoint() {
    let guest = Guest::named("late");
    let lb = LoadBalancer::bind(ANY, LbConfig::default()).unwrap();
    let client = tokio::spawn(ask_once(lb.local_addr()));
    eventually(|| async {
        let active = lb.stats().totals.active;
        if active == 1 { Ok(()) } else { Err(format!("{active} active")) }
    })
    .await;
    assert_eq!(lb.stats().totals.waiting, 1);
    lb.set_endpoints([endpoint(1, &guest)]);
    assert_eq!(soon(client).await.unwrap().unwrap(), "late");
    assert_eq!(lb.stats().totals.waiting, 0);
}

#[tokio::test]
async fn a_client_does_not_wait_for_ever() {
    let config = LbConfig { queue_timeout: Duration::from_millis(50), ..LbConfig::default() };
    let lb = LoadBalancer::bind(ANY, config).unwrap();
    let mut stream = TcpStream::connect(lb.local_addr()).await.unwrap();
    assert_eq!(soon(stream.read(&mut [0; 1])).await.unwrap(), 0, "closed in good order");
    assert_eq!(lb.stats().totals.unserved, 1);
}

#[tokio::test]
async fn a_restart_of_the_only_instance_refuses_nobody() {
    let guest = Guest::named("before");
    let addr = guest.addr;
    let lb = LoadBalancer::bind(ANY, LbConfig::default()).unwrap();
    lb.set_endpoints([endpoint(1, &guest)]);
    assert_eq!(soon(ask_once(lb.local_addr())).await.unwrap(), "before");
    guest.stop().await;
    let client = tokio::spawn(ask_once(lb.local_addr()));
    eventually(|| async {
        let failed = lb.stats().totals.failed_connects;
        if failed >= 2 { Ok(()) } else { Err(format!("{failed} failed connects")) }
    })
    .await;
    let _guest = eventually(|| async {
        Guest::start_at(addr, |_| Answer::ok("after")).map_err(|error| error.to_string())
    })
    .await;
    assert_eq!(soon(client).await.unwrap().unwrap(), "after");
}

#[tokio::test]
async fn a_side_that_has_finished_still_hears_the_other() {
    let listener = TcpListener::bind(ANY).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = String::new();
        stream.read_to_string(&mut request).await.unwrap();
        stream.write_all(format!("you said {}", request.len()).as_bytes()).await.unwrap();
    });
    let lb = LoadBalancer::bind(ANY, LbConfig::default()).unwrap();
    lb.set_endpoints([Endpoint { id: 1, addr }]);
    let mut client = TcpStream::connect(lb.local_addr()).await.unwrap();
    soon(client.write_all(&vec![b'x'; 1 << 20])).await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = String::new();
    soon(client.read_to_string(&mut answer)).await.unwrap();
    assert_eq!(answer, "you said 1048576");
    soon(server).await.unwrap();
    assert_eq!(lb.stats().totals.bytes_in, 1 << 20);
}

#[tokio::test]
async fn more_connections_than_allowed_are_reset_at_once() {
    let guest = Guest::named("one");
    let lb = LoadBalancer::bind(ANY, LbConfig { max_connections: 1, ..LbConfig::default() }).unwrap();
    lb.set_endpoints([endpoint(1, &guest)]);
    let mut first = TcpStream::connect(lb.local_addr()).await.unwrap();
    assert_eq!(soon(ask(&mut first, "/")).await.unwrap(), "one");
    for refused in 1..=3 {
        let mut second = TcpStream::connect(lb.local_addr()).await.unwrap();
        let answer = soon(second.read(&mut [0; 1])).await.unwrap_err();
        assert_eq!(answer.kind(), std::io::ErrorKind::ConnectionReset);
        assert_eq!((lb.stats().totals.accepted, lb.stats().totals.refused), (1, refused));
    }
    assert_eq!(soon(ask(&mut first, "/")).await.unwrap(), "one", "what is open goes on");

    lb.set_limits(2, Duration::from_secs(60), Duration::from_secs(30));
    assert_eq!(soon(ask_once(lb.local_addr())).await.unwrap(), "one");
}

#[tokio::test]
async fn an_idle_time_out_holds_for_what_is_open_and_frees_the_place() {
    let guest = Guest::named("one");
    let timing = Timing { idle: Duration::from_millis(400), ..Timing::default() };
    let config = LbConfig { max_connections: 1, timing, ..LbConfig::default() };
    let lb = LoadBalancer::bind(ANY, config).unwrap();
    lb.set_endpoints([endpoint(1, &guest)]);
    let mut idle = TcpStream::connect(lb.local_addr()).await.unwrap();
    assert_eq!(soon(ask(&mut idle, "/")).await.unwrap(), "one");
    lb.set_limits(1, Duration::from_millis(10), Duration::from_secs(30));
    assert_eq!(soon(idle.read(&mut [0; 1])).await.unwrap(), 0, "closed in good order");
    drop(idle);
    eventually(|| async { ask_once(lb.local_addr()).await.map_err(|error| error.to_string()) }).await;
    assert_eq!(lb.stats().totals.closed_idle, 1);
}

#[tokio::test]
async fn a_taken_address_is_named_and_a_move_keeps_what_is_open() {
    let guest = Guest::named("here");
    let lb = LoadBalancer::bind(ANY, LbConfig::default()).unwrap();
    lb.set_endpoints([endpoint(1, &guest)]);
    let before = lb.local_addr();
    let error = LoadBalancer::bind(before, LbConfig::default()).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot listen on {before}"));
    let LbError::Bind { source, .. } = error else { panic!("{error}") };
    assert_eq!(source.kind(), std::io::ErrorKind::AddrInUse);
    assert!(lb.rebind(guest.addr).is_err());
    assert_eq!(lb.local_addr(), before, "a failed move leaves it where it was");

    let mut open = TcpStream::connect(before).await.unwrap();
    assert_eq!(soon(ask(&mut open, "/")).await.unwrap(), "here");
    lb.rebind(ANY).unwrap();
    assert_ne!(lb.local_addr(), before);
    assert_eq!(soon(ask_once(lb.local_addr())).await.unwrap(), "here");
    assert_eq!(soon(ask(&mut open, "/")).await.unwrap(), "here");
    eventually(|| async {
        match TcpStream::connect(before).await {
            Err(_) => Ok(()),
            Ok(_) => Err("the old address still accepts".to_owned()),
        }
    })
    .await;
}
