//! What comes right after a scale-out: instances that serve and have no sample yet.

use super::Options;
use super::single::{Situation, steady};
use super::watch::Watch;
use crate::testing::random::Random;
use crate::testing::{Signal, Subject, TestTick};
use crate::{Instance, InstanceState, LastDecision, MetricValue, short};

/// Greatest size of the sets here.
const MAX: u32 = 10_000;
/// Ticks that a policy may hesitate before it scales out.
const TICKS: u64 = 40;

/// One set that was scaled out, and how many of its instances are measured.
struct Grown {
    before: u32,
    after: u32,
    /// The load, in units of the metric.
    load: f64,
    /// Number of the tick that scaled out.
    at: u64,
}

impl Grown {
    /// The tick after: the load is on all instances, or measured on the old ones alone and as it was.
    fn tick(&self, metrics: Vec<String>, options: &Options, measured: u32) -> TestTick {
        let now_ms = now_ms(options, self.at + 1);
        let last = LastDecision {
            tick: self.at,
            wanted: Some(self.after),
            granted: self.after,
            reasons: Vec::new(),
            narrowed_by: Vec::new(),
        };
        let mut tick = TestTick::new().at(now_ms, self.at + 1).bounds(1, MAX).desired(self.after).last(last);
        for id in 1..=self.after {
            let since_ms = if id <= self.before { now_ms - options.tick_ms } else { now_ms };
            tick = tick.instance(Instance {
                id,
                state: InstanceState::InService,
                state_since_ms: since_ms,
                created_ms: since_ms,
                generation: 1,
                protected: false,
            });
        }
        let each = MetricValue::Fresh(self.load / f64::from(measured));
        let values: Vec<MetricValue> =
            (1..=self.after).map(|id| if id <= measured { each } else { MetricValue::Missing }).collect();
        metrics.iter().fold(tick, |tick, name| tick.metric_rows(name, &values))
    }
}

fn now_ms(options: &Options, number: u64) -> u64 {
    1_000_000_000 + number * options.tick_ms
}

/// The same past and the same load, once with and once without samples of the new instances. A policy that grows
/// anyway (by the clock, or step by step towards a load that needs more) grows in both and is not to blame.
pub(super) fn waits_for_samples<S: Subject + ?Sized>(
    watch: &mut Watch<'_, S>,
    options: &Options,
) -> Result<u32, String> {
    // A metric of the whole set has no samples of instances.
    if options.signal == Signal::Total {
        return Ok(0);
    }
    let full = options.full.unwrap_or(1.0);
    let mut random = Random::new(options.seed);
    let mut cases = 0;
    for case in 0..options.cases {
        let before = random.count(1, 2 + case);
        let load = f64::from(before) * full * random.between(0.3, 2.5);
        let situation = Situation { in_service: before, warming: 0, max: MAX };
        // From a fresh state, up to and with the tick that scales out.
        let grow = |watch: &mut Watch<'_, S>| {
            watch.reset();
            (1..=TICKS).find_map(|number| {
                let tick = steady(watch.metrics(), options, situation, load, number);
                // No outcome is a matter of another property.
                let wanted = watch.decide(&tick).ok()?.capacity;
                (wanted > before).then_some((number, wanted))
            })
        };
        let Some((at, wanted)) = grow(watch) else { continue };
        let grown = Grown { before, after: wanted.min(8 * before + 8), load, at };
        let without =
            watch.decide(&grown.tick(watch.metrics(), options, before)).map(|outcome| outcome.capacity);
        grow(watch);
        let with =
            watch.decide(&grown.tick(watch.metrics(), options, grown.after)).map(|outcome| outcome.capacity);
        if let (Ok(without), Ok(with)) = (without, with)
            && without > with.max(grown.after)
        {
            let Grown { after, .. } = grown;
            return Err(format!(
                "scaled out from {before} to {after} at tick {at}; at the next, all {after} were in service:\n\
                 metric at {} on the first {before}, no sample from the other {} yet: it wanted {without};\n\
                 metric at {} on all {after}, the same load: it wanted {with}\n\
                 (the sum over the instances with a sample does not count a load twice; their mean does)",
                short(load / f64::from(before)),
                after - before,
                short(load / f64::from(after)),
            ));
        }
        cases += 1;
    }
    Ok(cases)
}
