//! `regatta policy check`.

use regatta_policy_tools::check::{CheckOptions, CheckReport, parse_vectors};
use regatta_policy_tools::{load_module, read_module};
use serde::Serialize;

use super::super::Io;
use super::super::args::Output;
use super::super::exit::{Exit, Outcome, failed, invalid};
use super::super::policy::{read_at_most, read_params};
use super::super::render::{json, plain};
use super::super::wait::Line;
use super::args::CheckArgs;
use super::cache_dir;
use regatta_util::chain;

/// Largest file of vectors.
const VECTORS_LIMIT_BYTES: u64 = 64 << 20;

/// What `-o json` prints.
#[derive(Serialize)]
struct Checked<'a> {
    passed: bool,
    verdict: String,
    #[serde(flatten)]
    report: &'a CheckReport,
}

pub(super) fn check(args: &CheckArgs, output: Output, io: &mut Io<'_>) -> Outcome<Exit> {
    let bytes = read_module(&args.module)?;
    let params = args.params.as_deref().map(read_params).transpose()?;
    let vectors = match &args.vectors {
        Some(path) => {
            let shown = path.display();
            let text = String::from_utf8(read_at_most(path, VECTORS_LIMIT_BYTES)?)
                .map_err(|error| failed(format_args!("cannot read {shown}"), error))?;
            parse_vectors(&text).map_err(|error| invalid(format!("{shown}: {}", chain(&error))))?
        }
        None => Vec::new(),
    };
    let mut line = Line::default();
    let mut step = |step: &str, io: &mut Io<'_>| {
        if io.err_terminal {
            // Progress that cannot be shown changes nothing.
            let _ = line.show(&format!("{step} …"), io);
        }
    };
    step("compiling", io);
    let loaded = load_module(&bytes, &(io.engine)(cache_dir()));
    let report = loaded.map(|policy| {
        let skip = args.skip.clone();
        let defaults = CheckOptions::default();
        let options = CheckOptions {
            params,
            vectors,
            skip,
            seed: args.seed,
            full_at: args.full_at,
            limits: args.limits.unwrap_or_default(),
            budget: args.budget,
            ..defaults
        };
        regatta_policy_tools::check::check(&policy, &options, &mut |next| step(next, io))
    });
    line.clear(io)?;
    let report = report?;
    match output {
        Output::Json => {
            let verdict = report.verdict();
            json(&Checked { passed: report.passed(), verdict, report: &report }, io)?;
        }
        Output::Table => write!(io.out, "{}", plain(&report.to_string()))?,
    }
    Ok(if report.passed() { Exit::Ok } else { Exit::Invalid })
}
