//! `regatta policy new`.

use std::path::{Path, PathBuf};

use regatta_policy_tools::{NewError, create};
use serde::Serialize;

use super::super::Io;
use super::super::args::Output;
use super::super::exit::{Exit, Failure, Outcome, Stop};
use super::super::render::json;
use super::args::NewArgs;
use regatta_util::chain;

/// What `-o json` prints.
#[derive(Serialize)]
struct Made<'a> {
    name: &'a str,
    language: &'static str,
    dir: &'a Path,
    files: &'a [PathBuf],
}

pub(super) fn new(args: &NewArgs, output: Output, io: &mut Io<'_>) -> Outcome {
    let dir = args.dir.clone().unwrap_or_else(|| PathBuf::from(&args.name));
    let files = create(args.language, &args.name, &dir).map_err(stop)?;
    let language = args.language.as_str();
    if output == Output::Json {
        return json(&Made { name: &args.name, language, dir: &dir, files: &files }, io);
    }
    let shown = dir.display();
    writeln!(io.out, "{shown}: a policy in {}, {} files", args.language.title(), files.len())?;
    for file in files.iter().filter(|file| file.components().count() == 1) {
        writeln!(io.out, "  {}", file.display())?;
    }
    let install = if args.language.installs().is_empty() { "" } else { " --install" };
    writeln!(io.out, "\nNext:\n  cd {shown}\n  regatta policy build{install}")?;
    Ok(())
}

fn stop(error: NewError) -> Stop {
    let (exit, code) = match error {
        NewError::Name(_) => (Exit::Invalid, "invalid"),
        NewError::Exists(_) => (Exit::Conflict, "conflict"),
        NewError::Write { .. } => (Exit::Failed, "failed"),
    };
    Stop::Failure(Failure::new(exit, code, chain(&error)))
}
