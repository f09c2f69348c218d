//! `regatta plan --scenario FILE`.

use std::path::PathBuf;

use clap::Args;
use regatta_lab::scenario::{STEPS, play};

use super::Io;
use super::exit::{Exit, Outcome, invalid};
use super::policy::read_at_most;

/// Largest scenario.
const SCENARIO_LIMIT_BYTES: u64 = 1 << 20;

/// Arguments of `plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// A text of steps; `--steps` lists them
    #[arg(long, value_name = "FILE", required_unless_present = "steps")]
    pub scenario: Option<PathBuf>,
    /// Print nothing when the file already holds what comes of its steps; otherwise print that and exit with 8
    #[arg(long, requires = "scenario")]
    pub check: bool,
    /// List the steps of a scenario
    #[arg(long, conflicts_with_all = ["scenario", "check"])]
    pub steps: bool,
}

pub(super) fn plan(args: &PlanArgs, io: &mut Io<'_>) -> Outcome<Exit> {
    let Some(file) = args.scenario.as_ref().filter(|_| !args.steps) else {
        for (step, meaning) in STEPS {
            writeln!(io.out, "> {step:<22}{meaning}")?;
        }
        return Ok(Exit::Ok);
    };
    let bytes = read_at_most(file, SCENARIO_LIMIT_BYTES)?;
    let name = file.display();
    let text =
        String::from_utf8(bytes).map_err(|error| invalid(format!("{name} is not UTF-8 text: {error}")))?;
    let played = play(&text).map_err(|error| invalid(format!("{name}: {error}")))?;
    if args.check && played == text {
        return Ok(Exit::Ok);
    }
    io.out.write_all(played.as_bytes())?;
    Ok(if args.check { Exit::Differs } else { Exit::Ok })
}
