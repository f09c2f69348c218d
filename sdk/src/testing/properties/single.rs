//! Properties of a single decision.

use super::Options;
use super::watch::{Watch, seen};
use crate::testing::random::Random;
use crate::testing::{Signal, Subject, TestTick};
use crate::{InstanceState, MetricValue, StaleValue, short};

/// Ticks before the one that counts, at most.
const HISTORY: u64 = 5;

/// A set that stays as it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Situation {
    pub(super) in_service: u32,
    pub(super) warming: u32,
    pub(super) max: u32,
}

/// A tick of that set under a load, in units of the metric.
pub(super) fn steady(
    metrics: Vec<String>,
    options: &Options,
    situation: Situation,
    load: f64,
    number: u64,
) -> TestTick {
    let Situation { in_service, warming, max } = situation;
    let mut tick = TestTick::new()
        .at(1_000_000_000 + number * options.tick_ms, number)
        .bounds(1, max)
        .instances(InstanceState::InService, in_service)
        .instances(InstanceState::Booting, warming)
        .desired(in_service + warming);
    let each = load / f64::from(in_service.max(1));
    for name in metrics {
        tick = match options.signal {
            Signal::Total => tick.set_metric(&name, MetricValue::Fresh(load)),
            Signal::Utilization | Signal::PerInstance => {
                tick.metric(&name, &vec![each; usize::try_from(in_service).unwrap_or(0)])
            }
        };
    }
    tick
}

/// The same situation, the same past, two loads.
pub(super) fn monotonic<S: Subject + ?Sized>(
    watch: &mut Watch<'_, S>,
    options: &Options,
) -> Result<u32, String> {
    let full = options.full.unwrap_or(1.0);
    let mut random = Random::new(options.seed);
    for case in 0..options.cases {
        let in_service = random.count(1, 2 + case);
        let situation = Situation { in_service, warming: random.count(0, case / 4), max: 10_000 };
        let most = f64::from(in_service) * 2.5 * full;
        let past: Vec<f64> = (0..random.whole(0, HISTORY)).map(|_| random.between(0.0, most)).collect();
        let (one, other) = (random.between(0.0, most), random.between(0.0, most));
        let (low, high) = (one.min(other), one.max(other));
        let now = u64::try_from(past.len()).unwrap_or(0) + 1;
        let mut wanted = |load: f64| {
            watch.reset();
            for (number, &past) in (1..).zip(&past) {
                // No outcome is a matter of another property.
                drop(watch.decide(&steady(watch.metrics(), options, situation, past, number)));
            }
            let tick = steady(watch.metrics(), options, situation, load, now);
            (watch.decide(&tick).map(|outcome| outcome.capacity), seen(&tick))
        };
        let (less, more) = (wanted(low), wanted(high));
        if let (Ok(at_low), Ok(at_high)) = (less.0, more.0)
            && at_low > at_high
        {
            let past = match past.len() {
                0 => "from a fresh state".to_owned(),
                ticks => format!(
                    "after {ticks} ticks at {}",
                    past.iter()
                        .map(|load| short(load / f64::from(in_service)))
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
            };
            return Err(format!(
                "{past}:\n{}, it wanted {at_low};\n{}, it wanted only {at_high}",
                less.1, more.1
            ));
        }
    }
    Ok(options.cases)
}

/// Ticks as they should not be, but are.
pub(super) fn answers<S: Subject + ?Sized>(
    watch: &mut Watch<'_, S>,
    options: &Options,
) -> Result<u32, String> {
    let mut cases = 0;
    for tick in odd_ticks(&watch.metrics()) {
        watch.reset();
        // The watch remembers what went wrong.
        drop(watch.decide(&tick));
        cases += 1;
    }
    watch.reset();
    let mut random = Random::new(options.seed);
    for case in 0..options.cases {
        let in_service = random.count(0, case);
        let situation = Situation { in_service, warming: random.count(0, 3), max: 100 };
        let load = random.between(0.0, f64::from(in_service + 1)) * options.full.unwrap_or(1.0);
        drop(watch.decide(&steady(watch.metrics(), options, situation, load, u64::from(case) + 1)));
        cases += 1;
    }
    match watch.unanswered.take() {
        Some(story) => Err(story),
        None => Ok(cases),
    }
}

pub(super) fn odd_ticks(metrics: &[String]) -> Vec<TestTick> {
    let with = |tick: TestTick, value: MetricValue| {
        let rows = tick.parts().instances.len();
        metrics.iter().fold(tick, |tick, name| tick.metric_rows(name, &vec![value; rows]))
    };
    let serving = |count| TestTick::new().instances(InstanceState::InService, count);
    let stale = |age_ms| MetricValue::Stale(StaleValue { value: 0.5, age_ms });
    let mut ticks = vec![
        TestTick::new(),
        TestTick::new().bounds(0, 0),
        TestTick::new().desired(5).instances(InstanceState::Booting, 5),
        TestTick::new().desired(5).instances(InstanceState::Failed, 5),
        // A metric that the set does not have.
        serving(3),
        with(serving(3), MetricValue::Missing),
        with(serving(3), stale(61_000)),
        with(serving(3), stale(u64::MAX)),
        with(serving(1).bounds(1, 1), MetricValue::Fresh(0.9)),
        with(serving(5).desired(0), MetricValue::Fresh(0.9)),
        with(serving(5).at(0, 1), MetricValue::Fresh(0.9)),
        with(serving(5).at(u64::MAX, u64::MAX), MetricValue::Fresh(0.9)),
        with(serving(1).desired(1_000_000).bounds(1, 1_000_000), MetricValue::Fresh(1e12)),
    ];
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, -0.0, 0.0, 1e15, 1e21, 5e-324] {
        ticks.push(with(serving(3), MetricValue::Fresh(value)));
        let set = serving(3);
        ticks.push(metrics.iter().fold(set, |tick, name| tick.set_metric(name, MetricValue::Fresh(value))));
    }
    ticks
}
