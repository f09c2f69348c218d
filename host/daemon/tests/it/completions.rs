//! The real binary: completion scripts, and pipes that break.

use std::io::{Read, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::canned::Canned;
use crate::server::Server;

const BINARY: &str = env!("CARGO_BIN_EXE_regatta");

fn completions(shell: &str) -> String {
    let output = Command::new(BINARY).args(["completions", shell]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_shell_gets_a_script_that_asks_the_program() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(completions(shell).contains("REGATTA_COMPLETE"), "{shell}");
        let mut program = Command::new(BINARY);
        program.env("REGATTA_COMPLETE", shell).env("_CLAP_COMPLETE_INDEX", "2").env("_CLAP_IFS", "\n");
        let output = program.args(["--", "regatta", "policy", "s"]).output().unwrap();
        let offered = String::from_utf8(output.stdout).unwrap();
        let word =
            |line: &str| line.split(|c: char| !c.is_alphanumeric() && c != '-').next().map(str::to_owned);
        let words: Vec<String> = offered.lines().filter_map(word).collect();
        assert_eq!(words, ["swap", "shadow"], "{shell}: {offered:?}");
    }
}

#[test]
fn bash_completes_with_the_script() {
    // Sources the script and asks it what it asks bash to offer.
    let script = format!(
        "{}\nCOMP_WORDS=(regatta policy s); COMP_CWORD=2; _clap_complete_regatta regatta s policy; \
         printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        completions("bash")
    );
    // Longer than an argument may be.
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(script.as_bytes()).unwrap();
    let dir = Path::new(BINARY).parent().unwrap();
    let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap());
    let output = Command::new("bash").arg("--norc").arg(file.path()).env("PATH", path).output().unwrap();
    let words: Vec<String> =
        String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect();
    assert_eq!(words, ["swap", "shadow"], "{output:?}");
}

#[test]
fn a_reader_that_goes_away_is_met_with_silence() {
    let server = Server::start(Canned::with_web());
    let mut child = Command::new(BINARY)
        .args(["records", "web", "--socket"])
        .arg(&server.socket)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // As `head -c 10` does; more than a pipe's buffer is left unread.
    let mut first = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_full_disk_under_standard_output_is_no_silence() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = Command::new(BINARY).args(["completions", "bash"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(err.starts_with("error: cannot write the output"), "{err}");
}
