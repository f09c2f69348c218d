//! The command line of Regatta. It reaches the daemon only through `regatta-api`.
//!
//! `serve`, which is the daemon, `doctor`, which looks at the host, and `restore` are passed in by the binary; the tools of
//! `policy` work on an author's files and need no daemon.

mod apply;
mod args;
pub mod backup;
mod complete;
pub mod doctor;
mod events;
mod exit;
mod image;
mod image_args;
mod instance_args;
mod logs;
mod orphan_args;
mod orphans;
mod plan;
mod policy;
mod policy_compare;
mod policy_tools;
mod process_args;
mod record_args;
mod recording;
mod records;
mod render;
mod replay;
pub mod serve_args;
mod sets;
mod size;
mod size_args;
mod status;
mod ticks;
pub mod time;
mod upgrade;
mod wait;

use std::ffi::OsString;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use regatta_api::Client;
use regatta_api::paths;
use regatta_api::types::ProtectionLevel;
use regatta_policy_tools::EngineOptions;

pub use args::Cli;
pub use complete::answer_shell;
pub use exit::Exit;

use self::args::{Command, Global, Output, PolicyCommand, ProtectFrom};
use self::backup::RestoredState;
use self::doctor::{Check, Examination};
use self::exit::{Failure, Outcome, Stop};
use self::serve_args::ServeArgs;

/// What a command reads, writes and knows of its surroundings.
pub struct Io<'a> {
    /// Standard input.
    pub input: &'a mut dyn BufRead,
    /// Standard output: results.
    pub out: &'a mut dyn Write,
    /// Standard error: failures, questions and progress.
    pub err: &'a mut dyn Write,
    /// Standard input is a terminal.
    pub in_terminal: bool,
    /// Standard output is a terminal.
    pub out_terminal: bool,
    /// Columns of the terminal that standard output is.
    pub out_width: Option<usize>,
    /// Standard error is a terminal.
    pub err_terminal: bool,
    /// Colours are welcome on a terminal.
    pub colour: bool,
    /// The time, Unix milliseconds.
    pub clock_ms: &'a dyn Fn() -> u64,
    /// Runs the daemon.
    pub serve: &'a dyn Fn(ServeArgs) -> anyhow::Result<()>,
    /// Examines this host.
    pub doctor: &'a dyn Fn(&Examination) -> Vec<Check>,
    /// Puts a backup in the place of the state in a data directory.
    pub restore: &'a dyn Fn(&Path, &Path) -> anyhow::Result<RestoredState>,
    /// The daemon's engine for policies, with that directory for compiled modules: what a tool takes, the daemon takes.
    pub engine: &'a dyn Fn(Option<PathBuf>) -> EngineOptions,
}

impl Io<'_> {
    /// Results may have colours.
    fn out_colour(&self) -> bool {
        self.colour && self.out_terminal
    }

    /// `text` in a colour when standard error takes some.
    fn paint_err(&self, colour: &str, text: &str) -> String {
        render::paint(self.colour && self.err_terminal, colour, text)
    }
}

/// Columns of the terminal that standard output of this process is.
#[must_use]
pub fn stdout_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|&width| width > 0)
}

/// Runs the command line `args` (the first one is the program's name) and returns
/// its exit code; [`Exit`] has their meanings.
pub fn run(args: impl IntoIterator<Item = impl Into<OsString> + Clone>, io: &mut Io<'_>) -> u8 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return print_usage(&error, io) as u8,
    };
    let output = cli.global.output;
    let ended = execute(cli, io).and_then(|exit| {
        io.out.flush()?;
        Ok(exit)
    });
    let exit = match ended {
        Ok(exit) | Err(Stop::Quiet(exit)) => exit,
        Err(Stop::Failure(failure)) => {
            // What was printed so far comes before what went wrong. When standard
            // error is gone there is nobody left to tell.
            let _ = io.out.flush();
            let _ = failure.print(output, io);
            failure.exit
        }
    };
    exit as u8
}

/// Prints help and version on standard output, wrong usage on standard error.
fn print_usage(error: &clap::Error, io: &mut Io<'_>) -> Exit {
    let text = error.render();
    let styled = |colour: bool| if colour { text.ansi().to_string() } else { text.to_string() };
    // A reader that went away is not a failure worth words.
    if error.use_stderr() {
        let text = styled(io.colour && io.err_terminal);
        let _ = io.err.write_all(text.as_bytes());
        Exit::Usage
    } else {
        let text = styled(io.out_colour());
        let _ = io.out.write_all(text.as_bytes());
        let _ = io.out.flush();
        Exit::Ok
    }
}

/// A daemon that was started right before a command needs a moment until it listens.
const STARTING: Duration = Duration::from_secs(2);

fn execute(cli: Cli, io: &mut Io<'_>) -> Outcome<Exit> {
    let Cli { global, command } = cli;
    match command {
        Command::Serve(args) => {
            let args = ServeArgs { data: global.data, socket: global.socket, ..args };
            // `{:#}` is the whole chain in one line.
            (io.serve)(args)
                .map_err(|error| Stop::Failure(Failure::new(Exit::Failed, "failed", format!("{error:#}"))))?;
            Ok(Exit::Ok)
        }
        Command::Completions { shell } => {
            complete::script(shell, io)?;
            Ok(Exit::Ok)
        }
        Command::Doctor(args) => doctor::doctor(&args, global.data, global.output, io),
        Command::Restore { file } => {
            backup::restore(&file, global.data, global.output, io)?;
            Ok(Exit::Ok)
        }
        Command::Plan(args) => plan::plan(&args, io),
        Command::Policy(PolicyCommand::Tool(command)) => policy_tools::run(&command, global.output, io),
        command => {
            let client = client(&global)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| exit::failed("cannot start", error))?;
            runtime.block_on(async {
                client.wait_until_it_listens(STARTING).await;
                call(command, &client, global.output, io).await
            })
        }
    }
}

fn client(global: &Global) -> Outcome<Client> {
    let socket = match (&global.socket, &global.data) {
        (Some(socket), _) => socket.clone(),
        (None, Some(data)) => paths::socket_in(data),
        (None, None) => paths::socket_in(&paths::default_data_dir()?),
    };
    Ok(Client::new(socket)?)
}

async fn call(command: Command, client: &Client, output: Output, io: &mut Io<'_>) -> Outcome<Exit> {
    match command {
        Command::Apply(args) => apply::apply(client, &args, output, io).await?,
        Command::Diff(args) => return apply::diff(client, &args, output, io).await,
        Command::Get { set } => sets::get(client, set.as_deref(), output, io).await?,
        Command::Describe(args) => sets::describe(client, &args.set, output, io).await?,
        Command::Instances(args) => sets::instances(client, &args.set, output, io).await?,
        Command::Logs(args) => logs::logs(client, &args, output, io).await?,
        Command::Scale(args) => size::scale(client, &args, output, io).await?,
        Command::Hold(args) => size::hold(client, &args, output, io).await?,
        Command::Resume(args) => size::resume(client, &args.set, output, io).await?,
        Command::Limits(args) => size::limits(client, &args, output, io).await?,
        Command::Freeze(args) => size::freeze(client, &args, output, io).await?,
        Command::Delete(args) => sets::delete(client, &args, output, io).await?,
        Command::Protect { set, instance, from } => {
            let level = match from {
                ProtectFrom::ScaleIn => ProtectionLevel::ScaleIn,
                ProtectFrom::All => ProtectionLevel::All,
            };
            sets::protect(client, &set, &instance, level, output, io).await?;
        }
        Command::Upgrade(command) => upgrade::run(client, command, output, io).await?,
        Command::Unprotect { set, instance } => {
            sets::protect(client, &set, &instance, ProtectionLevel::None, output, io).await?;
        }
        Command::Process(command) => sets::processes(client, &command, output, io).await?,
        Command::Instance(command) => sets::instance_action(client, &command, output, io).await?,
        Command::Policy(command) => policy::run(client, command, output, io).await?,
        Command::Image(command) => image::run(client, &command, output, io).await?,
        Command::Why(args) => records::why(client, &args, output, io).await?,
        Command::Records(args) => records::records(client, &args, io).await?,
        Command::Replay(args) => return replay::replay(client, &args, output, io).await,
        Command::Record(command) => recording::run(client, &command, output, io).await?,
        Command::Events(args) => events::events(client, args, output, io).await?,
        Command::Orphans { command } => orphans::run(client, command, output, io).await?,
        Command::Backup { file: Some(file), .. } => backup::backup(client, &file, output, io).await?,
        Command::Backup { file: None, .. } => backup::list(client, output, io).await?,
        Command::Recover { sets, dry_run } => {
            orphans::recover(client, sets, dry_run, output, io).await?;
        }
        Command::Status => status::status(client, output, io).await?,
        // These are handled before a client is needed.
        Command::Serve(_)
        | Command::Doctor(_)
        | Command::Restore { .. }
        | Command::Completions { .. }
        | Command::Plan(_) => {}
    }
    Ok(Exit::Ok)
}
