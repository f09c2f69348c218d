//! `regatta policy new | build | inspect | check | bench | contract`: what an author of policies does, without a daemon.

pub(super) mod args;
mod bench;
mod build;
mod check;
mod inspect;
mod new;

use std::env;
use std::path::PathBuf;

use regatta_policy_tools::ModuleError;

use self::args::{ContractForm, PolicyToolCommand};
use super::Io;
use super::args::Output;
use super::exit::{Exit, Failure, Outcome, Stop};
use regatta_util::chain;

pub(super) fn run(command: &PolicyToolCommand, output: Output, io: &mut Io<'_>) -> Outcome<Exit> {
    match command {
        PolicyToolCommand::New(args) => new::new(args, output, io)?,
        PolicyToolCommand::Build(args) => build::build(args, output, io)?,
        PolicyToolCommand::Inspect(args) => inspect::inspect(&args.module, output, io)?,
        PolicyToolCommand::Check(args) => return check::check(args, output, io),
        PolicyToolCommand::Bench(args) => bench::bench(args, output, io)?,
        PolicyToolCommand::Contract(args) => io.out.write_all(contract(args.form).as_bytes())?,
    }
    Ok(Exit::Ok)
}

/// The published forms of the contract.
fn contract(form: ContractForm) -> &'static str {
    match form {
        ContractForm::Wit => include_str!("../../../../sdk/wit/v0.1.1/policy.wit"),
        ContractForm::C => include_str!("../../../../sdk/c/v0.1.1/regatta.h"),
        ContractForm::Json => include_str!("../../../../sdk/json/v0.1.1/policy.schema.json"),
    }
}

impl From<ModuleError> for Stop {
    fn from(error: ModuleError) -> Self {
        let (exit, code) = match &error {
            ModuleError::Load(_) => (Exit::Invalid, "invalid"),
            _ => (Exit::Failed, "failed"),
        };
        Self::Failure(Failure::new(exit, code, chain(&error)))
    }
}

/// Where compiled modules of the user are kept, so that a slow one is compiled once and not by each command:
/// `regatta/compiled` in the XDG cache directory. None without a home: then nothing is kept.
pub(super) fn cache_dir() -> Option<PathBuf> {
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
    Some(caches?.join("regatta/compiled"))
}

/// A time in the unit that leaves few digits: `850 ns`, `66.1 µs`, `61 ms`, `1.5 s`.
fn duration(us: f64) -> String {
    let three = |value: f64| match value {
        ..10.0 => format!("{value:.2}"),
        ..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    };
    match us {
        ..1.0 => format!("{:.0} ns", us * 1e3),
        ..1e3 => format!("{} µs", three(us)),
        ..1e6 => format!("{} ms", three(us / 1e3)),
        _ => format!("{} s", three(us / 1e6)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_counts_are_short() {
        for (us, text) in [
            (0.0, "0 ns"),
            (0.85, "850 ns"),
            (1.234, "1.23 µs"),
            (66.12, "66.1 µs"),
            (312.0, "312 µs"),
            (61_234.0, "61.2 ms"),
            (1_500_000.0, "1.50 s"),
        ] {
            assert_eq!(duration(us), text);
        }
    }
}
