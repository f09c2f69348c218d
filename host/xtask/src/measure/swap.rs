//! Swaps of policies through the daemon, as an operator makes them.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::figure::{Figure, Promise, percentile};
use crate::policy::swap_in_process;
use crate::rig::{Place, Rig, SET};

const PROMISE: Promise = Promise {
    name: "swap",
    target: "a swap of a module that is compiled: the loop is held ≤ 5 ms",
    unit: "ms",
    at_most: 5.0,
    method: "`regatta policy swap` to and fro between step and target-tracking on a set that ticks every second; the \
             time that the daemon says the loop was held, the durable write included; median of 40",
};

/// Swaps that are counted.
const COUNTED: usize = 40;

/// The figure.
pub(crate) async fn measure(place: &Place) -> Result<Figure> {
    let rig = Rig::start(place, "swap").await?;
    rig.apply(2).await?;
    rig.file("step.json", include_str!("../../../../examples/quickstart/step.json"))?;
    rig.file("target-tracking.json", r#"{"metric": "utilization", "target": 0.6}"#)?;

    // The first swap to each compiles it; the daemon keeps the module of the policy in charge and the one before.
    let first = swap(&rig, "step").await?;
    swap(&rig, "target-tracking").await?;
    let mut swaps = Vec::new();
    for number in 0..COUNTED {
        swaps.push(swap(&rig, if number % 2 == 0 { "step" } else { "target-tracking" }).await?);
    }
    let held_us: Vec<u64> = swaps.iter().map(|swap| swap.switch_us).collect();
    let prepare_ms: Vec<u64> = swaps.iter().map(|swap| swap.prepare_ms).collect();
    let median = percentile(&held_us, 0.5).map_or(f64::NAN, |us| us as f64 / 1e3);
    let detail = json!({
        "swaps": COUNTED,
        "held_us": { "median": percentile(&held_us, 0.5), "p90": percentile(&held_us, 0.9), "worst": percentile(&held_us, 1.0) },
        "prepare_off_the_loop_ms": { "median": percentile(&prepare_ms, 0.5), "worst": percentile(&prepare_ms, 1.0) },
        "first_with_compiling": { "prepare_ms": first.prepare_ms, "held_us": first.switch_us },
        "in_process": swap_in_process(&place.policies)?,
    });
    Ok(PROMISE.measured(median, true, detail))
}

struct Swap {
    prepare_ms: u64,
    switch_us: u64,
}

async fn swap(rig: &Rig, to: &str) -> Result<Swap> {
    let params = format!("@{to}.json");
    let answer = rig.daemon.cli(&["policy", "swap", SET, to, "--params", &params, "-o", "json"]).await?;
    let answer: Value = serde_json::from_str(&answer).context("the answer of the swap is no JSON")?;
    let field = |name: &str| answer[name].as_u64().with_context(|| format!("no {name} in {answer}"));
    Ok(Swap { prepare_ms: field("prepare_ms")?, switch_us: field("switch_us")? })
}
