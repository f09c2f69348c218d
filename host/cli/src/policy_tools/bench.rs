//! `regatta policy bench`.

use regatta_policy_tools::{Bench, BenchError, BenchOptions, read_module};

use super::super::Io;
use super::super::args::Output;
use super::super::exit::{Exit, Failure, Outcome, Stop};
use super::super::policy::read_params;
use super::super::render::{Columns, RED, json, paint, pair, plain_line, right};
use super::super::time::size;
use super::super::wait::Line;
use super::args::BenchArgs;
use regatta_util::thousands;

use super::duration;
use regatta_util::chain;

pub(super) fn bench(args: &BenchArgs, output: Output, io: &mut Io<'_>) -> Outcome {
    let bytes = read_module(&args.module)?;
    let params = args.params.as_deref().map(read_params).transpose()?;
    let limits = args.limits.unwrap_or_default();
    let options = BenchOptions { params, instances: args.instances.clone(), limits };
    let engine = (io.engine)(None);
    let mut line = Line::default();
    let measured = regatta_policy_tools::bench(&bytes, &engine, &options, &mut |step| {
        if io.err_terminal {
            // Progress that cannot be shown changes nothing.
            let _ = line.show(&format!("{step} …"), io);
        }
    });
    line.clear(io)?;
    let bench = measured.map_err(stop)?;
    match output {
        Output::Json => json(&bench, io),
        Output::Table => table(&bench, io),
    }
}

fn stop(error: BenchError) -> Stop {
    match error {
        BenchError::Module(error) => error.into(),
        error @ BenchError::Cache(_) => Stop::Failure(Failure::new(Exit::Failed, "failed", chain(&error))),
        error => Stop::Failure(Failure::new(Exit::Invalid, "invalid", chain(&error))),
    }
}

fn table(bench: &Bench, io: &mut Io<'_>) -> Outcome {
    pair("Policy", &format!("{} {} ({})", bench.name, bench.version, bench.digest.short()), io)?;
    pair("Parameters", &bench.params.to_string(), io)?;
    pair("ABI", &bench.abi, io)?;
    pair(
        "Size",
        &format!("{}, compiled to {}", size_of(bench.size_bytes), size_of(bench.compiled_bytes)),
        io,
    )?;
    let times = if bench.compiles == 1 { "once".to_owned() } else { format!("median of {}", bench.compiles) };
    pair("Compile", &format!("{} ({times})", duration(bench.compile_us)), io)?;
    let load =
        if bench.cached_load_us > 0.0 { duration(bench.cached_load_us) } else { "not kept".to_owned() };
    pair("Cached load", &load, io)?;
    writeln!(io.out)?;
    let headings =
        ["INSTANCES", "DECIDE", "P99", "INSTANTIATE", "GUEST", "FUEL", "OF LIMIT", "MEMORY", "RUNS"];
    let mut columns = Columns::new(&headings, io);
    for row in &bench.decisions {
        columns.row(vec![
            right(thousands(row.instances.into())),
            right(duration(row.median_us)),
            right(duration(row.p99_us)),
            right(duration(row.instantiate_us)),
            right(duration(row.guest_us)),
            right(thousands(row.fuel)),
            right(format!("{:.1} %", row.fuel_share * 100.0)),
            right(size(row.memory_bytes)),
            right(row.runs),
        ]);
    }
    columns.print(0, io)?;
    for row in &bench.decisions {
        if let Some(failed) = &row.failed {
            let first = plain_line(&failed.first);
            let (failures, runs) = (failed.runs, row.runs);
            writeln!(
                io.out,
                "\nWith {} instances {failures} of {runs} decisions failed: {first}",
                row.instances
            )?;
        }
    }
    if bench.decisions.iter().any(|row| row.failed.as_ref().is_some_and(|failed| failed.broken)) {
        writeln!(
            io.out,
            "\nNothing was measured after that. If the limits are too low, raise them with --limits."
        )?;
    }
    if !bench.optimised {
        let note = "This is a debug build: its figures are not those of a release.";
        writeln!(io.out, "\n{}", paint(io.out_colour(), RED, note))?;
    }
    Ok(())
}

fn size_of(bytes: usize) -> String {
    size(bytes as u64)
}
