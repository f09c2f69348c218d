//! Imports of golden images: progress, and clients that go away.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use regatta_api::image_types::ImportImageRequest;
use regatta_api::types::ErrorCode;
use regatta_api::{Client, ClientError};
use reqwest::Method;

use crate::canned::Canned;
use crate::routes::ask;
use crate::server::{Server, wait_until};

fn web() -> Server {
    Server::start(Canned::with_web())
}

/// Imports `path`, letting it go on once its progress was seen.
fn import_big(server: &Server, path: &str) -> (u32, Result<String, ClientError>) {
    let client = Client::new(&server.socket).unwrap();
    let (seen, canned) = (AtomicU32::new(0), Arc::clone(&server.canned));
    let request = ImportImageRequest { path: path.into(), ..ImportImageRequest::default() };
    let imported = server.block_on(client.import_image(&request, |progress| {
        assert_eq!(
            (progress.file.as_str(), progress.done_bytes, progress.total_bytes),
            ("disk", 512 << 20, 2 << 30)
        );
        seen.fetch_add(1, Ordering::Relaxed);
        canned.released.notify_one();
    }));
    (seen.into_inner(), imported.map(|image| image.name))
}

#[test]
fn a_long_import_tells_how_far_it_is() {
    let server = web();
    let (seen, imported) = import_big(&server, "/srv/big");
    assert!(seen >= 1);
    assert_eq!(imported.unwrap(), "debian-13");
}

#[test]
fn a_failure_after_progress_is_an_api_error_like_any() {
    let server = web();
    let (seen, failed) = import_big(&server, "/srv/big-bad");
    assert!(seen >= 1);
    assert!(
        matches!(&failed, Err(ClientError::Api(error)) if error.code == ErrorCode::Unavailable),
        "{failed:?}"
    );
    for path in ["/srv/panic", "/srv/big-panic"] {
        let (_, failed) = import_big(&server, path);
        assert!(
            matches!(&failed, Err(ClientError::Api(error)) if error.code == ErrorCode::Internal),
            "{failed:?}"
        );
    }
}

#[test]
fn what_fails_at_once_has_its_status_and_the_answer_is_lines() {
    let server = web();
    let import = |path: &str| {
        let json = serde_json::json!({ "path": path }).to_string();
        ask(&server, Method::POST, "/v1/images", Some(&json))
    };
    assert_eq!(import("/srv/bad").0, 422);
    let (status, body) = import("/srv/good");
    assert_eq!((status.as_u16(), body.lines().count()), (200, 1));
    let event: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&event["event"], &event["image"]["name"]), (&"done".into(), &"debian-13".into()));
}

#[test]
fn an_import_goes_to_its_end_when_its_client_goes_away() {
    let server = web();
    let client = Client::new(&server.socket).unwrap();
    let request = ImportImageRequest { path: "/srv/big".into(), ..ImportImageRequest::default() };
    let (told, seen) = tokio::sync::oneshot::channel();
    let mut told = Some(told);
    server.block_on(async {
        let import = client.import_image(&request, |_| {
            if let Some(told) = told.take() {
                let _ = told.send(());
            }
        });
        tokio::select! {
            _ = import => panic!("it ended too early"),
            _ = seen => {}
        }
    });
    drop(client);
    server.canned.released.notify_one();
    let done = || server.canned.called().iter().any(|call| call == "the big import is done");
    wait_until("the import", done, || format!("{:?}", server.canned.called()));
}
