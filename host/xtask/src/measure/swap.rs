//! Swaps of policies through the daemon, as an operator makes them.

use anyhow::{Context, Result};
use regatta_util::percentile;
use serde_json::{Value, json};

use crate::figure::{Figure, Promise};
use crate::policy::prepare_compiled;
use crate::rig::{Place, Rig, SET};

const PROMISE: Promise = Promise {
    name: "swap",
    target: "a swap of a module that is compiled: the loop is held ≤ 5 ms",
    unit: "ms",
    at_most: 5.0,
    method: "`regatta policy swap` to and fro between step and target-tracking on a set that ticks every second; the \
             time that the daemon says the loop was held, the durable write included; median of 40",
};

const UNDER_LOAD: Promise = Promise {
    name: "swaps-under-load",
    target: "1,000 swaps while ticks run at 20 ms: no tick lost, none late by more than 5 ms at p99",
    unit: "ms",
    at_most: 5.0,
    method: "a set with one instance that ticks every 20 ms; 1,000 × `regatta policy swap` to and fro, one after the \
             other; lateness as the daemon's own histogram has it: the bound of the first bucket that 99 % of the \
             ticks lie within; the same set without swaps beside it, in the same run",
};

/// Swaps under load.
const MANY: usize = 1_000;

/// Ticks without a swap, for comparison.
const QUIET_TICKS: u64 = 500;

/// Swaps that are counted.
const COUNTED: usize = 40;

/// The figure.
pub(crate) async fn measure(place: &Place) -> Result<Figure> {
    let rig = Rig::start(place, "swap").await?;
    rig.apply(2).await?;
    rig.file("step.json", include_str!("../../../../examples/quickstart/step.json"))?;
    rig.file("target-tracking.json", r#"{"metric": "utilization", "target": 0.6}"#)?;

    // The first swap to each compiles it; the daemon keeps the module of the active policy and the one before.
    let first = swap(&rig, "step").await?;
    swap(&rig, "target-tracking").await?;
    let mut swaps = Vec::new();
    let counted = place.effort.choose(COUNTED, 4);
    for number in 0..counted {
        swaps.push(swap(&rig, if number % 2 == 0 { "step" } else { "target-tracking" }).await?);
    }
    let held_us: Vec<u64> = swaps.iter().map(|swap| swap.switch_us).collect();
    let prepare_ms: Vec<u64> = swaps.iter().map(|swap| swap.prepare_ms).collect();
    let median = percentile(&held_us, 0.5).map_or(f64::NAN, |us| us as f64 / 1e3);
    let detail = json!({
        "swaps": counted,
        "held_us": { "median": percentile(&held_us, 0.5), "p90": percentile(&held_us, 0.9), "worst": percentile(&held_us, 1.0) },
        "prepare_off_the_loop_ms": { "median": percentile(&prepare_ms, 0.5), "worst": percentile(&prepare_ms, 1.0) },
        "first_with_compiling": { "prepare_ms": first.prepare_ms, "held_us": first.switch_us },
        "preparing_in_process": prepare_compiled(place)?,
    });
    Ok(PROMISE.measured(median, true, detail))
}

/// The figure of many swaps under short ticks.
pub(crate) async fn under_load(place: &Place) -> Result<Figure> {
    let rig = Rig::start(place, "swaps-under-load").await?;
    rig.apply_with_tick(1, "20ms").await?;
    rig.file("step.json", include_str!("../../../../examples/quickstart/step.json"))?;
    rig.file("target-tracking.json", r#"{"metric": "utilization", "target": 0.6}"#)?;
    for to in ["step", "target-tracking"] {
        swap(&rig, to).await?;
    }
    let begun = Lateness::of(&rig).await?;
    let mut quiet = begun.clone();
    let (quiet_ticks, many) = place.effort.choose((QUIET_TICKS, MANY), (10, 10));
    while quiet.ticks < begun.ticks + quiet_ticks {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        quiet = Lateness::of(&rig).await?;
    }
    let first = last_tick(&rig).await?;
    let start = std::time::Instant::now();
    let before = Lateness::of(&rig).await?;
    let mut held_us = Vec::with_capacity(many);
    for number in 0..many {
        held_us.push(swap(&rig, if number % 2 == 0 { "step" } else { "target-tracking" }).await?.switch_us);
    }
    let after = Lateness::of(&rig).await?;
    let took = start.elapsed();
    let last = last_tick(&rig).await?;
    let (quiet, loaded) = (quiet.since(&begun), after.since(&before));
    // A tick that was skipped has no number: what is missing against the clock was lost.
    let due = u64::try_from(took.as_millis()).unwrap_or(u64::MAX) / 20;
    let lost = due.saturating_sub(last - first + 1);
    let detail = json!({
        "swaps": many,
        "took_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        "ticks": last - first,
        "ticks_lost": lost,
        "within_ms": { "without_swaps": quiet.shares(), "with_swaps": loaded.shares() },
        "p99_without_swaps_ms": quiet.quantile(0.99),
        "held_us": { "median": percentile(&held_us, 0.5), "p99": percentile(&held_us, 0.99), "worst": percentile(&held_us, 1.0) },
    });
    Ok(UNDER_LOAD.measured(loaded.quantile(0.99), lost == 0, detail))
}

async fn last_tick(rig: &Rig) -> Result<u64> {
    let set: Value = rig.daemon.get(&format!("/v1/sets/{SET}")).await?;
    set["summary"]["last_tick"].as_u64().context("no last tick")
}

/// The daemon's histogram of how late ticks began.
#[derive(Debug, Clone, Default, PartialEq)]
struct Lateness {
    ticks: u64,
    /// Upper bound in milliseconds, and ticks up to it.
    up_to: Vec<(f64, u64)>,
}

impl Lateness {
    async fn of(rig: &Rig) -> Result<Self> {
        Self::parse(&rig.daemon.text("/metrics").await?).context("no histogram of lateness in /metrics")
    }

    fn parse(exposition: &str) -> Option<Self> {
        let mut lateness = Self::default();
        for line in exposition.lines() {
            let Some(bucket) = line.strip_prefix("regatta_tick_lateness_seconds_bucket{") else { continue };
            let bound = bucket.split("le=\"").nth(1)?.split('"').next()?;
            let count: u64 = line.rsplit(' ').next()?.parse().ok()?;
            match bound.parse::<f64>() {
                Ok(seconds) if seconds.is_finite() => lateness.up_to.push((seconds * 1e3, count)),
                _ => lateness.ticks = count,
            }
        }
        (lateness.ticks > 0).then_some(lateness)
    }

    fn since(&self, before: &Self) -> Self {
        let up_to = self.up_to.iter().zip(&before.up_to);
        Self {
            ticks: self.ticks - before.ticks,
            up_to: up_to.map(|(&(bound, now), &(_, then))| (bound, now - then)).collect(),
        }
    }

    /// The first bound that so large a share of the ticks lies within, milliseconds.
    fn quantile(&self, share: f64) -> f64 {
        let within = |&&(_, count): &&(f64, u64)| count as f64 >= share * self.ticks as f64;
        self.up_to.iter().find(within).map_or(f64::INFINITY, |&(bound, _)| bound)
    }

    fn shares(&self) -> Value {
        let share = |&(bound, count): &(f64, u64)| {
            (format!("{bound}"), json!((count as f64 / self.ticks.max(1) as f64 * 1e4).round() / 1e4))
        };
        self.up_to.iter().map(share).collect::<serde_json::Map<_, _>>().into()
    }
}

struct Swap {
    prepare_ms: u64,
    switch_us: u64,
}

async fn swap(rig: &Rig, to: &str) -> Result<Swap> {
    let params = format!("@{to}.json");
    let answer = rig.daemon.cli(&["policy", "swap", SET, to, "--params", &params, "-o", "json"]).await?;
    let answer: Value = serde_json::from_str(&answer).context("the answer of the swap is not JSON")?;
    let field = |name: &str| answer[name].as_u64().with_context(|| format!("no {name} in {answer}"));
    Ok(Swap { prepare_ms: field("prepare_ms")?, switch_us: field("switch_us")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_is_read_from_the_exposition() {
        let text = "regatta_tick_lateness_seconds_bucket{le=\"0.001\",set=\"bench\"} 90\n\
                    regatta_tick_lateness_seconds_bucket{le=\"0.005\",set=\"bench\"} 99\n\
                    regatta_tick_lateness_seconds_bucket{le=\"+Inf\",set=\"bench\"} 100\n";
        let lateness = Lateness::parse(text).unwrap();
        assert_eq!((lateness.ticks, lateness.quantile(0.99), lateness.quantile(0.5)), (100, 5.0, 1.0));
        assert!(lateness.quantile(1.0).is_infinite());
        assert_eq!(lateness.since(&lateness).ticks, 0);
        assert_eq!(Lateness::parse("nothing"), None);
    }
}
