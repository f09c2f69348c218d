//! `regatta image`: what it prints, and an import that takes its time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use regatta::api::image_types::ImportImageRequest;
use regatta::api::types::ErrorCode;
use regatta::api::{Client, ClientError};
use reqwest::Method;

use crate::canned::Canned;
use crate::harness::{Server, Surroundings, me, run_into, wait_until};
use crate::routes::ask;

fn web() -> Server {
    Server::start(Canned::with_web())
}

macro_rules! shows {
    ($name:ident, $($arg:expr),+) => {
        #[test]
        fn $name() {
            let server = web();
            insta::assert_snapshot!(server.run(&[$($arg),+]).shown(&server));
        }
    };
}

shows!(list_is_a_table, "image", "list");
shows!(list_as_json, "image", "list", "-o", "json");
shows!(show, "image", "show", "debian-13");
shows!(show_as_json, "image", "show", "tiny", "-o", "json");
shows!(show_what_is_not_there, "image", "show", "nope");
shows!(gc, "image", "gc");
shows!(gc_dry_run, "image", "gc", "--dry-run");
shows!(gc_as_json, "image", "gc", "-o", "json");
shows!(remove, "image", "remove", "debian-13");
shows!(import, "image", "import", "/srv/images/debian-13");
shows!(import_as_json, "image", "import", "/srv/images/debian-13", "--name", "d", "-o", "json");
shows!(import_of_what_is_bad, "image", "import", "/srv/bad");
shows!(import_by_a_wrong_name, "image", "import", "/srv/x", "--name", "Web_1");
shows!(import_with_two_ways_to_start, "image", "import", "/srv/x", "--kernel", "k", "--firmware", "f");

#[test]
fn an_empty_catalogue_has_advice_and_nothing_to_collect() {
    let server = Server::start(Canned::default());
    let ran = server.run(&["image", "list"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, ""));
    assert!(ran.err.contains("regatta image import FILE|DIR"), "{}", ran.err);
    assert_eq!(server.run(&["image", "gc"]).out, "nothing to remove: every stored file is in use\n");
}

#[test]
fn paths_become_absolute_and_every_option_arrives() {
    let server = web();
    let here = std::env::current_dir().unwrap();
    let args = "image import some/dir --name web --kernel ../k --initramfs /i --cmdline quiet --description d --replace";
    assert_eq!(server.run(&args.split(' ').collect::<Vec<_>>()).code, 0);
    let request = ImportImageRequest {
        path: here.join("some/dir").to_str().unwrap().into(),
        name: Some("web".into()),
        kernel: Some(here.join("../k").to_str().unwrap().into()),
        initramfs: Some("/i".into()),
        firmware: None,
        cmdline: Some("quiet".into()),
        description: Some("d".into()),
        replace: true,
    };
    assert_eq!(server.canned.called(), [format!("import {request:?} by {}", me())]);
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

/// Standard error of a command; lets the import go on once it shows how far it is.
struct Screen {
    shown: Vec<u8>,
    canned: Arc<Canned>,
}

impl std::io::Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.shown.extend(bytes);
        if self.shown.ends_with(b"(25%)") {
            self.canned.released.notify_one();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_terminal_sees_one_line_of_progress_and_no_trace_of_it_afterwards() {
    let server = web();
    let mut screen = Screen { shown: Vec::new(), canned: Arc::clone(&server.canned) };
    let surroundings = Surroundings { err_terminal: true, ..Surroundings::default() };
    let mut out = Vec::new();
    let args = ["image", "import", "/srv/big"];
    let code = run_into(&server.socket, &args, &surroundings, &mut out, &mut screen);
    assert_eq!(code, 0);
    let shown = String::from_utf8(screen.shown).unwrap();
    assert_eq!(shown, "\r\x1b[2Kimporting /srv/big: disk, 512 MiB of 2 GiB (25%)\r\x1b[2K");
    assert!(String::from_utf8(out).unwrap().starts_with("debian-13 imported, 1.5 GiB\n"));
}

#[test]
fn a_log_gets_the_outcome_only() {
    let server = web();
    server.canned.released.notify_one();
    let ran = server.run(&["image", "import", "/srv/big"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
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
