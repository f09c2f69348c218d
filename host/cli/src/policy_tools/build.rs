//! `regatta policy build`.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

use regatta_policy_tools::{BuildError, Inspection, Project, ProjectError, ProjectFile, Tools, read_module};
use serde::Serialize;

use super::super::Io;
use super::super::args::Output;
use super::super::exit::{Exit, Failure, Outcome, Stop};
use super::super::render::{BOLD, json, plain_line};
use super::args::BuildArgs;
use super::{cache_dir, duration, inspect};
use regatta_util::chain;

/// What `-o json` prints.
#[derive(Serialize)]
struct Built<'a> {
    output: &'a PathBuf,
    build_ms: u64,
    #[serde(flatten)]
    inspection: &'a Inspection,
}

pub(super) fn build(args: &BuildArgs, output: Output, io: &mut Io<'_>) -> Outcome {
    let file = ProjectFile::read(&args.dir).map_err(unreadable)?;
    let out = args.out.clone().unwrap_or_else(|| args.dir.join(&file.output));
    let out = out.strip_prefix(".").map_or_else(|_| out.clone(), Path::to_owned);
    let command = file.command.as_deref();
    let project = Project { dir: &args.dir, language: file.language, name: &file.name, command };
    let tools = Tools::new(&args.dir, args.tools.as_deref());

    let start = Instant::now();
    let mut run = |command: &mut Command| run(command, io);
    let mut built = regatta_policy_tools::build(&project, &out, &tools, &mut run);
    if args.install && matches!(built, Err(BuildError::Missing { .. })) {
        built = regatta_policy_tools::install(&project, &tools, &mut run)
            .and_then(|()| regatta_policy_tools::build(&project, &out, &tools, &mut run));
    }
    let time = start.elapsed();
    built.map_err(|error| failed(&error, &file))?;

    let inspection = regatta_policy_tools::inspect(&read_module(&out)?, &(io.engine)(cache_dir()))?;
    if output == Output::Json {
        let build_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        return json(&Built { output: &out, build_ms, inspection: &inspection }, io);
    }
    writeln!(io.out, "{}: built in {}\n", out.display(), duration(time.as_secs_f64() * 1e6))?;
    inspect::table(&inspection, io)
}

/// Shows a command and lets it speak on standard error: standard output is for the result.
fn run(command: &mut Command, io: &mut Io<'_>) -> io::Result<ExitStatus> {
    let name = PathBuf::from(command.get_program());
    let name = name.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let words = command.get_args().map(|word| word.to_string_lossy().into_owned());
    let line = std::iter::once(name).chain(words).collect::<Vec<_>>().join(" ");
    let line = io.paint_err(BOLD, &format!("$ {}", plain_line(&line)));
    writeln!(io.err, "{line}")?;
    command.stdin(Stdio::null()).stdout(Stdio::from(io::stderr())).stderr(Stdio::inherit());
    command.status()
}

fn unreadable(error: ProjectError) -> Stop {
    let (exit, code) = match error {
        ProjectError::Read { .. } => (Exit::NotFound, "not-found"),
        ProjectError::Invalid { .. } => (Exit::Invalid, "invalid"),
    };
    Stop::Failure(Failure::new(exit, code, chain(&error)))
}

fn failed(error: &BuildError, file: &ProjectFile) -> Stop {
    let mut message = chain(error);
    let (exit, code) = match error {
        BuildError::Missing { .. } => {
            if !file.language.installs().is_empty() {
                message.push_str(" (in the project's directory; `regatta policy build --install` does it)");
            }
            (Exit::Failed, "missing-tool")
        }
        BuildError::Wat { .. } | BuildError::Failed { .. } | BuildError::NotWasm { .. } => {
            (Exit::Invalid, "invalid")
        }
        BuildError::Start { .. } | BuildError::File { .. } => (Exit::Failed, "failed"),
    };
    Stop::Failure(Failure::new(exit, code, message))
}
