//! The routes over raw HTTP: statuses, headers and bodies.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use regatta_api::types::{ApiError, ErrorCode};
use regatta_api::{BODY_LIMIT, Client, ClientError, UPLOAD_LIMIT};
use reqwest::{Method, StatusCode, header};

use crate::canned::Canned;
use crate::server::{Server, me, wait_until};

/// Sends a request and gives status and body.
pub(crate) fn ask(server: &Server, method: Method, path: &str, json: Option<&str>) -> (StatusCode, String) {
    let client = reqwest::Client::builder().unix_socket(server.socket.clone()).no_proxy().build().unwrap();
    let mut request = client.request(method, format!("http://regatta{path}"));
    if let Some(json) = json {
        request = request.header(header::CONTENT_TYPE, "application/json").body(json.to_owned());
    }
    server.block_on(async {
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()[header::SERVER], concat!("regatta/", env!("CARGO_PKG_VERSION")));
        (response.status(), response.text().await.unwrap())
    })
}

fn refused(server: &Server, method: Method, path: &str, json: Option<&str>) -> (u16, ErrorCode, String) {
    let (status, body) = ask(server, method, path, json);
    let error: ApiError = serde_json::from_str(&body).unwrap_or_else(|why| panic!("{path}: {why}: {body}"));
    (status.as_u16(), error.code, error.message)
}

#[test]
fn whatever_is_wrong_with_a_request_answers_with_an_api_error() {
    let server = Server::start(Canned::with_web());
    let (get, post, put) = (Method::GET, Method::POST, Method::PUT);
    let cases = [
        (&get, "/", None),
        (&get, "/v2/sets", None),
        (&get, "/v1/sets/", None),
        (&put, "/v1/sets", None),
        (&post, "/v1/apply", None),
        (&post, "/v1/apply", Some("{")),
        (&post, "/v1/apply", Some("{\"source\": 1}")),
        (&post, "/v1/sets/web/scale", Some("{\"capacity\": -1}")),
        (&post, "/v1/sets/web/scale", Some("{\"capacity\": 4294967296}")),
        (&post, "/v1/sets/web/scale", Some("{\"capacity\": 3, \"dry_run\": true}")),
        (&put, "/v1/sets/web/instances/x/protection", Some("{\"protection\": \"all\"}")),
        (&get, "/v1/sets/web/why?tick=soon", None),
        (&get, "/v1/sets/web/why?tik=3", None),
        (&get, "/v1/sets/web/why?tick=3&last=scale-in", None),
        (&get, "/v1/sets/web/why?last=scale-up", None),
        (&get, "/v1/sets/web/records?limit=0", None),
        (&get, "/v1/sets/web/records?limit=1001", None),
        (&get, "/v1/events?wait_ms=30001", None),
        (&get, "/v1/sets/%ff", None),
        (&post, "/v1/images", Some("{\"path\": \"/d\", \"replce\": true}")),
        (&get, "/v1/images/gc", None),
        (&post, "/v1/images/gc", Some("{\"dry\": true}")),
    ];
    let mut text = String::new();
    for (method, path, json) in cases {
        let (status, code, message) = refused(&server, method.clone(), path, json);
        let body = json.unwrap_or("");
        text += &format!("{method} {path} {body}\n  {status} {}: {message}\n", code.as_str());
    }
    insta::assert_snapshot!(text);
    assert!(
        server.canned.called().is_empty(),
        "nothing of this reached the daemon: {:?}",
        server.canned.called()
    );
}

#[test]
fn the_code_of_an_error_decides_its_status() {
    let server = Server::start(Canned::with_web());
    let refused = |method, path: &str, json| refused(&server, method, path, json).0;
    assert_eq!(refused(Method::GET, "/v1/sets/none", None), 404);
    assert_eq!(refused(Method::POST, "/v1/sets/web/scale", Some("{\"capacity\": 11}")), 409);
    let broken = r#"{"source": "s", "base_dir": "/", "text": "broken"}"#;
    assert_eq!(refused(Method::POST, "/v1/apply", Some(broken)), 422);
    assert_eq!(refused(Method::POST, "/v1/sets/web/policy/rollback", None), 409);
    let apply = r#"{"source": "s", "base_dir": "/", "text": "full disk"}"#;
    assert_eq!(refused(Method::POST, "/v1/apply", Some(apply)), 503);
    let swap = r#"{"source": "panic"}"#;
    assert_eq!(refused(Method::POST, "/v1/sets/web/policy/swap", Some(swap)), 500);
    assert_eq!(
        ask(&server, Method::GET, "/v1/status", None).0,
        200,
        "a panic ends nothing but its own request"
    );
}

#[test]
fn a_body_over_the_limit_is_refused_and_a_large_module_is_not() {
    let server = Server::start(Canned::with_web());
    let swap =
        |characters: usize| format!("{{\"source\": \"big\", \"module\": \"{}\"}}", "A".repeat(characters));
    let path = "/v1/sets/web/policy/swap";
    let (status, code, message) = refused(&server, Method::POST, path, Some(&swap(UPLOAD_LIMIT.bytes)));
    assert_eq!((status, code), (413, ErrorCode::BadRequest));
    assert_eq!(message, "the body is larger than 48 MiB");
    assert_eq!(ask(&server, Method::POST, path, Some(&swap(43 << 20))).0, 200);

    let scale = format!("{{\"capacity\": 3, \"note\": \"{}\"}}", "A".repeat(BODY_LIMIT.bytes));
    let (status, _, message) = refused(&server, Method::POST, "/v1/sets/web/scale", Some(&scale));
    assert_eq!((status, message.as_str()), (413, "the body is larger than 1 MiB"));
}

#[test]
fn a_body_that_does_not_come_in_time_is_answered_and_ends_the_connection() {
    let server = Server::start(Canned::with_web());
    let mut caller = UnixStream::connect(&server.socket).unwrap();
    let head = "POST /v1/sets/web/scale HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{";
    caller.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    caller.read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 408 ") && answer.contains("the body did not come within 10 s"),
        "{answer}"
    );
}

#[test]
fn the_caller_is_named_by_the_kernel() {
    let server = Server::start(Canned::with_web());
    ask(&server, Method::DELETE, "/v1/sets/web", None);
    assert_eq!(server.canned.called(), [format!("delete web by {}", me())]);
}

#[test]
fn a_change_goes_to_its_end_when_its_client_goes_away() {
    let server = Server::start(Canned::with_web());
    let canned = &server.canned;
    let seen = || format!("{:?}", canned.called());
    let client = reqwest::Client::builder().unix_socket(server.socket.clone()).no_proxy().build().unwrap();
    let swap =
        client.post("http://regatta/v1/sets/web/policy/swap").json(&serde_json::json!({"source": "slow"}));
    server.block_on(async {
        let call = tokio::spawn(swap.send());
        while canned.called().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
        // Later connections are served after the end of this one was seen.
        for _ in 0..20 {
            Client::new(&server.socket).unwrap().status().await.unwrap();
        }
    });
    canned.released.notify_one();
    wait_until("the end of the swap", || canned.called().iter().any(|c| c == "the slow swap is done"), seen);
}

#[test]
fn metrics_are_openmetrics() {
    let server = Server::start(Canned::with_web());
    let client = Client::new(&server.socket).unwrap();
    assert_eq!(server.block_on(client.metrics()).unwrap(), "# EOF\n");
}

#[test]
fn the_client_tells_a_strange_server_from_an_old_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let answers = [
        "HTTP/1.1 200 OK\r\nserver: nginx\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nserver: regatta/9.9.9\r\ncontent-length: 2\r\nconnection: close\r\n\r\n[]",
        "HTTP/1.1 404 Not Found\r\nserver: regatta/9.9.9\r\nconnection: close\r\n\r\n\
         {\"code\":\"bad-request\",\"message\":\"there is no route /v1/status\"}",
        "HTTP/1.1 200 OK\r\ncontent-length: 50\r\nconnection: close\r\n\r\n{",
    ];
    let mut errors = Vec::new();
    runtime.block_on(async {
        let listener = regatta_api::bind(&socket).unwrap();
        let serving = tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = [0; 4096];
                let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut head).await.unwrap();
                tokio::io::AsyncWriteExt::write_all(&mut stream, answer.as_bytes()).await.unwrap();
            }
        });
        for _ in 0..answers.len() {
            errors.push(Client::new(&socket).unwrap().status().await.unwrap_err());
        }
        serving.await.unwrap();
    });
    assert!(matches!(&errors[0], ClientError::NotRegatta { .. }), "{:?}", errors[0]);
    assert!(
        matches!(&errors[1], ClientError::VersionMismatch { daemon, .. } if daemon == "9.9.9"),
        "{:?}",
        errors[1]
    );
    assert!(matches!(&errors[2], ClientError::VersionMismatch { .. }), "{:?}", errors[2]);
    assert!(matches!(&errors[3], ClientError::Broken { .. }), "{:?}", errors[3]);
}
