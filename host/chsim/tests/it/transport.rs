//! The HTTP dialect on the wire, as recorded in `http-edge.txt` of the captures.

use std::os::unix::net::UnixStream;

use crate::support::{Client, Launch, Vmm, directory, eventually};

fn start() -> (tempfile::TempDir, Vmm) {
    let dir = directory();
    let vmm = Launch::stand_in().start(dir.path(), "a");
    (dir, vmm)
}

const UNPARSABLE: &str =
    "Server: Firecracker API\r\nConnection: keep-alive\r\nContent-Type: application/json\r\n";

#[test]
fn heads_are_upstreams_byte_for_byte() {
    let (_dir, vmm) = start();
    let mut client = vmm.connect();
    let not_found = client.call("GET", "vm.info", None);
    assert_eq!(
        not_found.head,
        "HTTP/1.1 404 \r\nServer: Cloud Hypervisor API\r\nConnection: keep-alive\r\n\
         Content-Type: application/json\r\nContent-Length: 69\r\n\r\n"
    );
    let deleted = client.call("PUT", "vm.delete", None);
    assert_eq!(
        deleted.head,
        "HTTP/1.1 204 \r\nServer: Cloud Hypervisor API\r\nConnection: keep-alive\r\n\r\n"
    );
    let patched = client.call("PATCH", "vm.boot", None);
    assert!(
        patched.head.ends_with("Content-Type: application/json\r\nContent-Length: 0\r\n\r\n"),
        "{}",
        patched.head
    );
    let posted = client.call("POST", "vm.create", Some("{}"));
    assert_eq!(posted.head, format!("HTTP/1.1 400 \r\n{UNPARSABLE}Content-Length: 110\r\n\r\n"));
    assert_eq!(
        posted.body,
        "{ \"error\": \"Invalid HTTP Method: Unsupported HTTP method.\nAll previous unanswered requests will be dropped.\" }"
    );
}

#[test]
fn the_eleventh_connection_is_told_and_closed() {
    let (_dir, vmm) = start();
    let idle: Vec<UnixStream> = (0..10).map(|_| UnixStream::connect(&vmm.socket).unwrap()).collect();
    let refused = vmm.connect().read_to_end();
    assert_eq!(
        refused,
        "HTTP/1.1 503\r\nServer: Firecracker API\r\nConnection: close\r\nContent-Length: 40\r\n\r\n\
         { \"error\": \"Too many open connections\" }"
    );
    drop(idle);
    eventually("a freed connection is usable", || {
        let mut client = Client::connect(&vmm.socket);
        client.send(b"GET /api/v1/vmm.ping HTTP/1.1\r\n\r\n");
        let mut start = [0; 12];
        std::io::Read::read_exact(&mut client.0, &mut start).map_err(|error| error.to_string())?;
        if start == *b"HTTP/1.1 200" { Ok(()) } else { Err(String::from_utf8_lossy(&start).into_owned()) }
    });
}

#[test]
fn a_body_over_the_limit_is_answered_once_per_kibibyte() {
    let (_dir, vmm) = start();
    let mut client = vmm.connect();
    let mut request = b"PUT /api/v1/vm.create HTTP/1.1\r\nContent-Length: 52026\r\n\r\n".to_vec();
    request.resize(request.len() + 52_026, b'a');
    client.send(&request);
    let first = client.read();
    assert_eq!(
        first.body,
        "{ \"error\": \"Request payload with size 52026 is larger than the limit of 51200 allowed by server.\n\
         All previous unanswered requests will be dropped.\" }"
    );
    let second = client.read();
    let garbage = format!("Invalid header. Reason: Invalid content length. Header: {}", "a".repeat(1024));
    assert!(second.head.contains("Content-Length: 1145\r\n"), "{}", second.head);
    assert!(second.body.contains(&garbage), "{}", second.body);
    for _ in 0..10 {
        assert_eq!(client.read().body, second.body);
    }
}

#[test]
fn requests_in_odd_forms() {
    let (_dir, vmm) = start();
    let mut client = vmm.connect();
    for request in [
        "GET /api/v1/vmm.ping HTTP/1.0\r\n\r\n",
        "GET http://localhost/api/v1/vmm.ping HTTP/1.1\r\n\r\n",
        "GET /api/v1/vmm.ping HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
        "GET /api/v1/vmm.ping HTTP/1.1\r\nAccept-Encoding: gzip\r\n\r\n",
    ] {
        client.send(request.as_bytes());
        let answer = client.read();
        assert_eq!(answer.status, 200, "{request}: {answer:?}");
    }
    let long = format!("X-A: {}", "a".repeat(1100));
    for (request, length, text) in [
        (
            "Accept-Encoding: identity;q=0",
            143,
            "Invalid header. Reason: Invalid value. Key:Accept-Encoding; Value:identity;q=0",
        ),
        (long.as_str(), 1145, "Invalid header. Reason: Invalid content length. Header: X-A: aaa"),
    ] {
        let mut client = vmm.connect();
        client.send(format!("GET /api/v1/vmm.ping HTTP/1.1\r\n{request}\r\n\r\n").as_bytes());
        let answer = client.read();
        assert_eq!(answer.status, 400);
        assert!(answer.body.contains(text), "{answer:?}");
        assert_eq!(answer.body.len(), length, "{answer:?}");
    }
}

#[test]
fn a_chunked_body_is_refused() {
    let (_dir, vmm) = start();
    let mut client = vmm.connect();
    client.send(b"PUT /api/v1/vm.create HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n");
    let answer = client.read();
    assert_eq!(
        answer.body,
        "{ \"error\": \"Invalid request.\nAll previous unanswered requests will be dropped.\" }"
    );
}

#[test]
fn continue_is_sent_when_asked_for() {
    let (_dir, vmm) = start();
    let mut client = vmm.connect();
    client.send(b"PUT /api/v1/vm.create HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    let proceed = client.read();
    assert_eq!(proceed.head, "HTTP/1.1 100 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n");
    client.send(b"{}");
    assert_eq!(client.read().status, 204);
    assert_eq!(client.call("PUT", "vm.delete", None).status, 204);
}

#[test]
fn calls_on_all_connections_wait_for_one_another() {
    let (dir, vmm) = start();
    let url = format!("unix:{}", dir.path().join("m.sock").display());
    let mut receiver = vmm.connect();
    let body = serde_json::json!({ "receiver_url": url }).to_string();
    receiver.send(
        format!("PUT /api/v1/vm.receive-migration HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len())
            .as_bytes(),
    );
    let sender = eventually("the receiver listens", || {
        UnixStream::connect(dir.path().join("m.sock")).map_err(|error| error.to_string())
    });
    let mut pinger = vmm.connect();
    pinger.send(b"GET /api/v1/vmm.ping HTTP/1.1\r\n\r\n");
    pinger.0.get_ref().set_read_timeout(Some(std::time::Duration::from_millis(100))).unwrap();
    let mut byte = [0];
    std::io::Read::read_exact(&mut pinger.0, &mut byte).expect_err("a ping must not be answered meanwhile");
    drop(sender);
    let answer = receiver.read();
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (
            500,
            r#"["Error from API","Error receiving migration","Socket error","failed to fill whole buffer"]"#
        )
    );
    pinger.0.get_ref().set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    assert_eq!(pinger.read().status, 200);
}
