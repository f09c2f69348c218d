//! The client against a server that misbehaves in every way a VMM can.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::*;

/// Serves every connection with `serve`, counting connections.
fn server<F, Fut>(socket: &Path, serve: F) -> Arc<AtomicUsize>
where
    F: Fn(UnixStream) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = UnixListener::bind(socket).expect("bind");
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(serve(stream));
        }
    });
    connections
}

/// Reads one request: its head and its body by `Content-Length`.
async fn request(stream: &mut UnixStream) -> Option<(String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).expect("utf-8");
    let length = head
        .to_lowercase()
        .lines()
        .find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await.ok()?;
    Some((head, body))
}

async fn answer(stream: &mut UnixStream, status: u16, body: &str) {
    let text = match status {
        204 => "HTTP/1.1 204 \r\nServer: Cloud Hypervisor API\r\nConnection: keep-alive\r\n\r\n".to_owned(),
        _ => format!(
            "HTTP/1.1 {status} \r\nServer: Cloud Hypervisor API\r\nConnection: keep-alive\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ),
    };
    let _ = stream.write_all(text.as_bytes()).await;
}

const PING: &str =
    r#"{"build_version":"v53.0.0","version":"53.0.0","pid":9123,"features":["io_uring","kvm"]}"#;

/// The test itself is the VMM.
fn client_of(socket: &Path) -> VmmClient {
    VmmClient::new(socket, std::process::id() as i32)
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("temp dir");
    let socket = dir.path().join("api.sock");
    (dir, socket)
}

#[tokio::test]
async fn all_calls_share_one_connection_and_take_turns() {
    let (_dir, socket) = place();
    let busy = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&busy);
    let connections = server(&socket, move |mut stream| {
        let busy = Arc::clone(&seen);
        async move {
            while let Some((head, body)) = request(&mut stream).await {
                assert_eq!(busy.fetch_add(1, Ordering::SeqCst), 0, "two calls at once");
                tokio::task::yield_now().await;
                busy.fetch_sub(1, Ordering::SeqCst);
                match head.split_whitespace().nth(1).expect("path") {
                    "/api/v1/vmm.ping" => answer(&mut stream, 200, PING).await,
                    "/api/v1/vm.create" => {
                        let lower = head.to_lowercase();
                        assert!(lower.contains("content-length:") && !lower.contains("chunked"), "{head}");
                        assert_eq!(body, br#"{"cpus":1}"#);
                        answer(&mut stream, 204, "").await;
                    }
                    _ => answer(&mut stream, 500, r#"["Error from API","x","VM is not running"]"#).await,
                }
            }
        }
    });
    let client = client_of(&socket);
    let calls = (0..20).map(|_| {
        let client = client.clone();
        tokio::spawn(async move {
            assert_eq!(client.ping(QUICK).await.expect("ping").pid, 9123);
            client.create(&serde_json::json!({"cpus": 1})).await.expect("create");
            let error = client.info().await.expect_err("refused");
            assert_eq!(error.kind, ApiErrorKind::NotRunning);
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.expect("call");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 2, "one to ask the kernel who listens, one for all calls");
}

#[tokio::test]
async fn a_vmm_that_hangs_is_a_timeout_and_the_next_call_is_not_blocked() {
    let (_dir, socket) = place();
    let hang = Arc::new(AtomicUsize::new(1));
    let left = Arc::clone(&hang);
    server(&socket, move |mut stream| {
        let left = Arc::clone(&left);
        async move {
            while request(&mut stream).await.is_some() {
                if left.fetch_sub(1, Ordering::SeqCst) == 1 {
                    std::future::pending::<()>().await;
                }
                answer(&mut stream, 200, PING).await;
            }
        }
    });
    let client = client_of(&socket);
    let error = client.ping(Duration::from_millis(50)).await.expect_err("hangs");
    assert_eq!(error.kind, ApiErrorKind::Timeout);
    client.ping(SLOW).await.expect("a new connection works");
}

#[tokio::test]
async fn waiting_for_ones_turn_counts_towards_the_limit() {
    let (_dir, socket) = place();
    server(&socket, |mut stream| async move {
        request(&mut stream).await;
        std::future::pending::<()>().await;
    });
    let client = client_of(&socket);
    let booting = client.clone();
    let boot = tokio::spawn(async move { booting.boot(SLOW).await });
    while client.turn.try_lock().is_ok() {
        tokio::task::yield_now().await;
    }
    let error = client.ping(Duration::from_millis(50)).await.expect_err("a boot has its turn");
    assert_eq!(error.kind, ApiErrorKind::Timeout);
    boot.abort();
}

#[tokio::test]
async fn broken_connections_and_answers_have_their_classes() {
    let (dir, socket) = place();
    let client = client_of(&socket);
    let error = client.ping(QUICK).await.expect_err("no socket");
    assert_eq!(error.kind, ApiErrorKind::ConnectionLost);
    assert!(std::error::Error::source(&error).is_some());

    server(&socket, |mut stream| async move {
        request(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 \r\nContent-Length: 99\r\n\r\n{\"pid\":").await;
    });
    assert_eq!(client.ping(QUICK).await.expect_err("cut off").kind, ApiErrorKind::ConnectionLost);

    let other = dir.path().join("other.sock");
    server(&other, |mut stream| async move {
        while request(&mut stream).await.is_some() {
            answer(&mut stream, 200, "{}").await;
        }
    });
    let client = client_of(&other);
    assert_eq!(client.ping(QUICK).await.expect_err("not a ping").kind, ApiErrorKind::BadResponse);

    let flood = dir.path().join("flood.sock");
    server(&flood, |mut stream| async move {
        request(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 \r\nContent-Length: 99999999\r\n\r\n").await;
        while stream.write_all(&[b' '; 65536]).await.is_ok() {}
    });
    let client = client_of(&flood);
    assert_eq!(client.ping(SLOW).await.expect_err("endless").kind, ApiErrorKind::BadResponse);
}

#[tokio::test]
async fn a_request_that_the_vmm_cannot_read_is_never_sent() {
    let (_dir, socket) = place();
    let connections = server(&socket, |_| async {});
    let client = client_of(&socket);
    let config = serde_json::json!({"cmdline": "x".repeat(REQUEST_LIMIT_BYTES)});
    assert_eq!(client.create(&config).await.expect_err("too large").kind, ApiErrorKind::RequestTooLarge);
    assert_eq!(connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_socket_that_leads_to_another_process_is_told_nothing() {
    let (dir, socket) = place();
    let connections = server(&socket, |mut stream| async move {
        while request(&mut stream).await.is_some() {
            answer(&mut stream, 200, PING).await;
        }
    });
    let stranger = VmmClient::new(&socket, 1);
    let error = stranger.shutdown(QUICK).await.expect_err("process 1 is another");
    assert_eq!(error.kind, ApiErrorKind::Stranger);
    assert!(error.to_string().contains("(process 1)"), "{error}");

    // A VMM puts a link to its neighbor's socket in the place of its own, in the middle of things.
    let own = dir.path().join("own.sock");
    let closing = server(&own, |mut stream| async move {
        request(&mut stream).await;
        answer(&mut stream, 200, PING).await;
    });
    let (client, late) = (client_of(&own), client_of(&own));
    client.ping(QUICK).await.expect("its own");
    std::fs::remove_file(&own).expect("removed");
    std::os::unix::fs::symlink(&socket, &own).expect("link");
    client.ping(QUICK).await.expect("its own socket is held, whatever its name leads to");
    assert_eq!(late.shutdown(QUICK).await.expect_err("a link").kind, ApiErrorKind::Stranger);
    assert_eq!(closing.load(Ordering::SeqCst), 3, "the look at it, and two calls");
    assert!(connections.load(Ordering::SeqCst) <= 1, "only the stranger's own, closed without a word");
}
