//! The measurements in their order, printed as JSON on stdout and as tables on stderr.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use regatta_policy_host::{Engine, EngineOptions};
use regatta_util::percentile;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::compare::{self, Costs, Sample, Way};
use crate::effort::Effort;
use crate::figure::{rounded, us};
use crate::modules;
use crate::tables::{self, Line};
use crate::verdicts::{Medians, verdicts};

/// The size that the promises are about.
const PROMISED_AT: u32 = 1_000;

/// Options of measuring.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Directory with the built policies; those of other languages are in `languages` below it.
    #[arg(long)]
    policies: PathBuf,
    /// Directory with an example per language.
    #[arg(long)]
    languages: PathBuf,
    /// Measure as little as shows that everything still runs.
    #[arg(long)]
    quick: bool,
}

/// Measures and prints.
pub(crate) fn run(runtime: &Runtime, args: &Args) -> Result<()> {
    let path = args.policies.join("target-tracking.wasm");
    let module = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let engine = Engine::new(EngineOptions::default())?;
    let policy = engine.load(&module)?;
    let effort = Effort::new(args.quick);
    let costs = compare::measure(runtime, &policy, effort)?;
    let (modules, skipped) = modules::measure(&args.policies, &args.languages, effort)?;
    eprintln!("\n{}\n{}", tables::comparison(&lines(&costs)), tables::modules(&modules));
    let figures = verdicts(&medians(&costs));
    for figure in &figures {
        let verdict = effort.verdict(figure.met);
        eprintln!("{}: {} {} ({verdict})", figure.target, figure.value, figure.unit);
    }
    let comparison: Vec<Value> = costs.iter().map(told).collect();
    let report = json!({
        "figures": figures,
        "pooling": engine.pooling(),
        "counted": "from an observation to an answer, everything: native: fold, decide; sandbox: fold, fresh instance, \
                    call, checks, tearing down; plugin and webhook (connected before): encode the instance table and \
                    the metrics that the policy asks for, send, decode, fold, decide, encode, send, decode",
        "comparison": comparison,
        "modules": modules,
        "skipped": skipped,
    });
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}

impl Costs {
    fn share(&self, share: f64, part: fn(&Sample) -> Duration) -> f64 {
        percentile(&self.samples.iter().map(part).collect::<Vec<_>>(), share).map_or(f64::NAN, us)
    }

    fn median(&self) -> f64 {
        self.share(0.5, |sample| sample.total)
    }

    /// CPU time of one decision on average, µs.
    fn cpu_us(&self) -> f64 {
        rounded(self.cpu.as_secs_f64() * 1e6 / self.samples.len() as f64)
    }
}

fn told(costs: &Costs) -> Value {
    let mut told = json!({
        "way": costs.way,
        "instances": costs.instances,
        "median_us": costs.median(),
        "p99_us": costs.share(0.99, |sample| sample.total),
        "cpu_us": costs.cpu_us(),
        "decisions": costs.samples.len(),
    });
    if matches!(costs.way, Way::Native | Way::Sandbox) {
        let fuel: Vec<u64> = costs.samples.iter().map(|sample| sample.fuel).collect();
        let named = costs.samples.iter().map(|sample| sample.fold + sample.instantiate + sample.policy);
        let rest = costs.samples.iter().zip(named).map(|(sample, named)| sample.total.saturating_sub(named));
        told["median_us_of"] = json!({
            "folding_the_observation": costs.share(0.5, |sample| sample.fold),
            "making_the_instance": costs.share(0.5, |sample| sample.instantiate),
            "the_policy": costs.share(0.5, |sample| sample.policy),
            "checks_and_tearing_down": percentile(&rest.collect::<Vec<_>>(), 0.5).map(us),
        });
        told["fuel"] = json!(percentile(&fuel, 0.5));
    }
    told
}

fn of<'a>(costs: &'a [Costs], ways: &'a [Way]) -> impl Iterator<Item = &'a Costs> {
    costs.iter().filter(|costs| costs.instances == PROMISED_AT && ways.contains(&costs.way))
}

fn medians(costs: &[Costs]) -> Medians {
    // The faster one of a peer here and there: it is the harder one to compare with.
    let fastest = |ways: &[Way]| of(costs, ways).map(Costs::median).fold(f64::NAN, f64::min);
    let policy = |way| {
        let ways = [way];
        let shares = of(costs, &ways).map(|costs| costs.share(0.5, |sample| sample.policy));
        shares.fold(f64::NAN, f64::min)
    };
    Medians {
        native: fastest(&[Way::Native]),
        sandbox: fastest(&[Way::Sandbox]),
        grpc: fastest(&[Way::GrpcSameCpu, Way::GrpcOtherCpu]),
        webhook: fastest(&[Way::WebhookSameCpu, Way::WebhookOtherCpu]),
        native_policy: policy(Way::Native),
        sandbox_policy: policy(Way::Sandbox),
    }
}

/// One line per way, in the order in which they were measured.
fn lines(costs: &[Costs]) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for costs in costs {
        let size = (costs.instances, costs.median(), costs.share(0.99, |sample| sample.total));
        let title = costs.way.title();
        let place = lines.iter().position(|line| line.title == title).unwrap_or_else(|| {
            lines.push(Line { title, by_instances: Vec::new(), cpu_us: f64::NAN });
            lines.len() - 1
        });
        lines[place].by_instances.push(size);
        if costs.instances == PROMISED_AT {
            lines[place].cpu_us = costs.cpu_us();
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(way: Way, instances: u32, us: u64) -> Costs {
        let sample = Sample {
            total: Duration::from_micros(us),
            policy: Duration::from_micros(us / 2),
            ..Sample::default()
        };
        Costs { way, instances, samples: vec![sample; 4], cpu: Duration::from_micros(8 * us) }
    }

    #[test]
    fn the_faster_peer_at_the_promised_size_counts() {
        let all = [
            costs(Way::Native, 10, 1),
            costs(Way::Native, 1_000, 4),
            costs(Way::Sandbox, 1_000, 20),
            costs(Way::GrpcSameCpu, 10, 5),
            costs(Way::GrpcSameCpu, 1_000, 300),
            costs(Way::GrpcOtherCpu, 1_000, 200),
            costs(Way::WebhookSameCpu, 1_000, 900),
        ];
        let medians = medians(&all);
        assert_eq!((medians.native, medians.sandbox), (4.0, 20.0));
        assert_eq!((medians.grpc, medians.webhook), (200.0, 900.0));
        assert_eq!((medians.native_policy, medians.sandbox_policy), (2.0, 10.0));
        let lines = lines(&all);
        assert_eq!(lines[0].by_instances, [(10, 1.0, 1.0), (1_000, 4.0, 4.0)]);
        assert_eq!((lines.len(), lines[0].cpu_us), (5, 8.0), "two µs of CPU per µs, over 4 decisions");
    }
}
