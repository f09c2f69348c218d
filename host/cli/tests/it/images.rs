//! `regatta image`: what it prints, and an import that takes its time.

use std::sync::Arc;

use regatta_api::image_types::ImportImageRequest;

use crate::canned::Canned;
use crate::harness::{Server, Surroundings, me, run_into, shows, web};

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
