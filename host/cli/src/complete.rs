//! Completion in shells. Their scripts call this program for the candidates, so names of sets complete, too.
//!
//! `clap_complete` can also print scripts that know everything themselves, but those cannot ask the daemon, and where a set's name
//! stands would have to be found out once more in the language of each shell.

use std::env;
use std::ffi::{OsStr, OsString};
use std::time::Duration;

use clap::CommandFactory;
use clap_complete::env::Shells;
use clap_complete::{ArgValueCompleter, CompleteEnv, CompletionCandidate, Shell};
use regatta_api::{Client, paths};

use super::Io;
use super::args::Cli;
use super::exit::{Outcome, failed};

/// By which the scripts ask.
const VARIABLE: &str = "REGATTA_COMPLETE";
/// Who has pressed Tab does not wait longer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Answers the script of a shell and ends the process, if one has called it.
pub fn answer_shell() {
    CompleteEnv::with_factory(Cli::command).var(VARIABLE).complete();
}

/// Prints the script of a shell.
pub(super) fn script(shell: Shell, io: &mut Io<'_>) -> Outcome {
    let shells = Shells::builtins();
    let name = shell.to_string();
    let known = shells.completer(&name).ok_or_else(|| std::io::Error::other(format!("no script for {name}")));
    let mut script = Vec::new();
    known
        .and_then(|known| known.write_registration(VARIABLE, "regatta", "regatta", "regatta", &mut script))
        .map_err(|why| failed(format_args!("cannot print the script of {name}"), why))?;
    io.out.write_all(&script)?;
    Ok(())
}

/// Completes the name of a set.
pub(super) fn sets() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let begins = |name: &String| current.to_str().is_some_and(|current| name.starts_with(current));
        names()
            .unwrap_or_default()
            .into_iter()
            .filter(begins)
            .map(CompletionCandidate::new)
            .collect::<Vec<_>>()
    })
}

/// The sets of the daemon that the command line so far means; none when it cannot be asked.
fn names() -> Option<Vec<String>> {
    let socket = match option("--socket", "REGATTA_SOCKET") {
        Some(socket) => socket.into(),
        None => match option("--data", "REGATTA_DATA") {
            Some(data) => paths::socket_in(data.as_ref()),
            None => paths::socket_in(&paths::default_data_dir().ok()?),
        },
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let client = Client::new(socket).ok()?;
    let sets = runtime.block_on(async { tokio::time::timeout(PATIENCE, client.sets()).await });
    Some(sets.ok()?.ok()?.into_iter().map(|set| set.name).collect())
}

/// An option's value on the command line that is completed, or in the environment.
fn option(option: &str, variable: &str) -> Option<OsString> {
    let mut args = env::args_os().skip_while(|arg| arg != option);
    let joined =
        || env::args_os().find_map(|arg| Some(arg.to_str()?.strip_prefix(option)?.strip_prefix('=')?.into()));
    args.nth(1).or_else(joined).or_else(|| env::var_os(variable)).filter(|value| !value.is_empty())
}
