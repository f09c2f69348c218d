//! Regatta: the daemon and its command line in one binary.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use regatta::cli::serve_args::VmIds;
use regatta::cli::{self, Io};

fn main() -> ExitCode {
    // Not a command for people: the daemon starts itself so to compile modules and to run policies.
    let mut args = std::env::args_os().skip(1);
    if let (Some(command), Some(job), None) = (args.next(), args.next(), args.next())
        && command == regatta::serve::POLICY_COMMAND
    {
        return regatta_policy_host::policy_child(&job);
    }
    cli::answer_shell();
    // `NO_COLOR` counts when it is set and not empty (no-color.org).
    let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
    let mut input = io::stdin().lock();
    let mut out = io::BufWriter::new(io::stdout());
    let mut err = io::stderr();
    let mut io = Io {
        in_terminal: io::stdin().is_terminal(),
        out_terminal: io::stdout().is_terminal(),
        out_width: cli::stdout_width(),
        err_terminal: io::stderr().is_terminal(),
        input: &mut input,
        out: &mut out,
        err: &mut err,
        colour,
        clock_ms: &cli::time::system_clock_ms,
        serve: &regatta::serve::run,
        doctor: &regatta::doctor::examine,
        restore: &regatta::restore::restore,
        engine: &|compiled| regatta::serve::policy_engine(compiled, VmIds::default().policies()),
    };
    let code = cli::run(std::env::args_os(), &mut io);
    // A reader that went away (`regatta … | head`) is not a failure worth words.
    let _ = out.flush();
    ExitCode::from(code)
}
