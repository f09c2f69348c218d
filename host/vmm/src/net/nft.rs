//! Running `nft` in the calling thread's network namespace.

use std::io;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::NetworkError;

/// Where `nft` is looked for; a daemon's PATH often lacks the last two.
const PROGRAMS: [&str; 3] = ["nft", "/usr/sbin/nft", "/sbin/nft"];
/// It takes milliseconds; the kernel lets one transaction wait for another.
const WITHIN: Duration = Duration::from_secs(10);

/// Applies a script as one transaction: all of it or nothing.
pub(super) async fn apply(what: &str, script: &str) -> Result<(), NetworkError> {
    let output = run(what, &["-f", "-"], script).await?;
    if output.status.success() { Ok(()) } else { Err(refused(what, &output)) }
}

/// A table as JSON; `None` when there is none, or when there is no `nft` that could have made it.
pub(super) async fn list(family: &str, table: &str) -> Result<Option<Vec<u8>>, NetworkError> {
    let what = format!("list table {table}");
    let output = match run(&what, &["-j", "list", "table", family, table], "").await {
        Err(NetworkError::NoNft) => return Ok(None),
        other => other?,
    };
    if output.status.success() {
        return Ok(Some(output.stdout));
    }
    // The words of the C library in the locale that we chose.
    if String::from_utf8_lossy(&output.stderr).contains("No such file or directory") {
        return Ok(None);
    }
    Err(refused(&what, &output))
}

async fn run(what: &str, args: &[&str], input: &str) -> Result<Output, NetworkError> {
    let error = |error: io::Error| NetworkError::Nft { what: what.to_owned(), said: error.to_string() };
    let mut program = PROGRAMS.iter();
    let mut child = loop {
        let Some(program) = program.next() else {
            return Err(NetworkError::NoNft);
        };
        let mut command = Command::new(program);
        command.args(args).env("LC_ALL", "C").kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => break other.map_err(error)?,
        }
    };
    let stdin = child.stdin.take();
    let work = async {
        if let Some(mut stdin) = stdin {
            // If it ends without reading, its words tell why.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    match tokio::time::timeout(WITHIN, work).await {
        Ok(output) => output.map_err(error),
        Err(_) => {
            let said = format!("no answer within {} s", WITHIN.as_secs());
            Err(NetworkError::Nft { what: what.to_owned(), said })
        }
    }
}

fn refused(what: &str, output: &Output) -> NetworkError {
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("Operation not permitted") {
        return NetworkError::NotPermitted { what: what.to_owned(), needs: vec!["CAP_NET_ADMIN"] };
    }
    let said = said.lines().take(3).collect::<Vec<_>>().join(" ");
    NetworkError::Nft { what: what.to_owned(), said: said.chars().take(300).collect() }
}
