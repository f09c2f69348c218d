//! `cargo xtask fuzz`: the targets of `tests/fuzz` under cargo-fuzz.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use regatta_util::units::parse_duration;

use crate::cargo;
use crate::proc;
use crate::workspace::Workspace;

/// The cargo-fuzz that this was written for.
const CARGO_FUZZ_VERSION: &str = "0.13.1";

/// What `fuzz` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// One target; all of them, one after the other, when it is left out.
    target: Option<String>,
    /// How long each runs.
    #[arg(long = "for", value_name = "TIME", default_value = "60s", value_parser = duration)]
    time: Duration,
}

fn duration(text: &str) -> std::result::Result<Duration, String> {
    parse_duration(text).map_err(|error| format!("{error}: for example 60s"))
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let known = targets(workspace)?;
    let targets = match &args.target {
        Some(target) if known.contains(target) => vec![target.clone()],
        Some(target) => bail!("there is no fuzz target {target}: {}", known.join(", ")),
        None => known,
    };
    if !cargo::command().args(["fuzz", "--version"]).output().is_ok_and(|output| output.status.success()) {
        let mut install = cargo::command();
        install.args(["install", "cargo-fuzz", "--locked", "--version", CARGO_FUZZ_VERSION]);
        proc::run(&mut install)?;
    }
    for target in targets {
        let mut command = cargo::command();
        // No sanitizer: it needs a nightly compiler, and the host is safe Rust; panics and broken promises are found
        // without. Coverage is not stable either, and is what makes a fuzzer more than dice.
        command
            .current_dir(&workspace.root)
            .env("RUSTC_BOOTSTRAP", "1")
            .args(["fuzz", "run", "--fuzz-dir", "tests/fuzz", "--sanitizer", "none", &target])
            .args([
                "--",
                &format!("-max_total_time={}", args.time.as_secs().max(1)),
                "-max_len=16384",
                "-rss_limit_mb=4096",
            ]);
        proc::run(&mut command).with_context(|| format!("the target {target} has found something"))?;
    }
    Ok(())
}

/// The names in the manifest of the targets.
fn targets(workspace: &Workspace) -> Result<Vec<String>> {
    let path = workspace.root.join("tests/fuzz/Cargo.toml");
    let manifest =
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let binaries = manifest.split("[[bin]]").skip(1);
    let name = |binary: &str| {
        let line = binary.lines().find_map(|line| line.strip_prefix("name = "))?;
        Some(line.trim_matches('"').to_owned())
    };
    Ok(binaries.filter_map(name).collect())
}
