//! Properties of a set in the course of time.

use std::fmt::Write as _;

use super::Options;
use super::single::odd_ticks;
use super::watch::Watch;
use crate::testing::history::{Row, Run, turns};
use crate::testing::random::Random;
use crate::testing::{Load, Scenario, Subject};
use crate::{MetricValue, short};

/// Greatest size of the sets here; their loads need a small part of it.
const MAX: u32 = 10_000;
/// Ticks of a scenario in which a policy is to come to rest.
const LONG_TICKS: u64 = 160;
/// Rows that a story shows.
const SHOWN: usize = 8;

/// A long scenario costs as much as many decisions.
fn scenarios(options: &Options) -> u32 {
    options.cases.div_ceil(4)
}

fn scenario<S: Subject + ?Sized>(watch: &Watch<'_, S>, options: &Options) -> Scenario {
    let full = options.full.unwrap_or(1.0);
    let scenario = Scenario::new().bounds(1, MAX).tick_ms(options.tick_ms).full_at(full);
    // With signals in the load's own unit, that unit is the metric's.
    let scenario = match options.signal {
        crate::testing::Signal::Utilization => scenario,
        _ => scenario.instance_capacity(full),
    };
    watch.metrics().iter().fold(scenario, |scenario, name| scenario.metric(name, options.signal))
}

/// A load given in full instances.
fn worth(options: &Options, instances: f64) -> f64 {
    match options.signal {
        crate::testing::Signal::Utilization => instances,
        _ => instances * options.full.unwrap_or(1.0),
    }
}

/// A load that jumps about.
fn restless(random: &mut Random, options: &Options, most: f64) -> Load {
    (0..12).fold(Load::new(), |load, _| {
        let (value, ticks) = (worth(options, random.between(0.0, most)), random.whole(1, 8));
        if random.share() < 0.5 { load.hold(value, ticks) } else { load.ramp(value, ticks) }
    })
}

pub(super) fn stays_in_bounds<S: Subject + ?Sized>(
    watch: &mut Watch<'_, S>,
    options: &Options,
) -> Result<u32, String> {
    let mut random = Random::new(options.seed);
    for case in 0..scenarios(options) {
        let load = restless(&mut random, options, f64::from(2 + case));
        let (start, boot) = (random.count(1, 1 + case), random.whole(0, 4));
        let run = scenario(watch, options).load(load).start(start).boot_ticks(boot).run(watch);
        let out = |row: &&Row| row.wanted.is_some_and(|wanted| !(1..=MAX).contains(&wanted));
        if let Some(row) = run.rows().iter().find(out) {
            return Err(format!(
                "{}, it wanted {} of a set that may have 1 to {MAX};\nthe load would have filled {}",
                situation(row),
                row.wanted.unwrap_or_default(),
                short(row.needed),
            ));
        }
    }
    for tick in odd_ticks(&watch.metrics()) {
        watch.reset();
        // The watch looks at what comes out.
        drop(watch.decide(&tick));
    }
    match watch.nonsense.take() {
        Some(story) => Err(story),
        None => Ok(scenarios(options)),
    }
}

pub(super) fn no_oscillation<S: Subject + ?Sized>(
    watch: &mut Watch<'_, S>,
    options: &Options,
) -> Result<u32, String> {
    let mut random = Random::new(options.seed);
    for case in 0..scenarios(options) {
        let load = random.between(0.1, 1.0 + f64::from(case));
        let (start, boot) = (random.count(1, 2 + 2 * case), random.whole(0, 4));
        let run = scenario(watch, options)
            .load(worth(options, load))
            .ticks(LONG_TICKS)
            .start(start)
            .boot_ticks(boot)
            .run(watch);
        // Once too far and back is forgiven at the beginning, not later.
        let early = LONG_TICKS / 4;
        if let Some(turn) = turns(run.rows()).find(|row| row.tick > early) {
            return Err(format!(
                "under a constant load of {} full instances, from a size of {start} with {boot} ticks to boot, \
                 it still turned at tick {} ({} turns in {LONG_TICKS} ticks):\n{}",
                short(load),
                turn.tick,
                run.oscillations(),
                around(&run, turn.tick)
            ));
        }
    }
    Ok(scenarios(options))
}

pub(super) fn recovers<S: Subject + ?Sized>(
    watch: &mut Watch<'_, S>,
    options: &Options,
) -> Result<u32, String> {
    let mut random = Random::new(options.seed);
    for case in 0..scenarios(options) {
        let before = random.between(0.5, 1.0 + f64::from(case));
        let after = before * random.between(1.5, 3.0);
        let (settle, gap) = (LONG_TICKS / 2, random.whole(1, 20));
        let (from, to) = (settle + 1, settle + 1 + gap);
        let load =
            Load::new().hold(worth(options, before), settle).hold(worth(options, after), gap + LONG_TICKS);
        let all = scenario(watch, options).load(load).start(1 + case);
        let (blind, away) = if random.share() < 0.5 {
            (all.clone().gap(from..to), "missing")
        } else {
            (all.clone().stale(from..to), "stale")
        };
        let run = blind.run(watch);
        let story = |what: &str, tick: u64| {
            format!(
                "metrics {away} at ticks {from} to {}, while the load went from {} to {} full instances:\n{what}\n{}",
                to - 1,
                short(before),
                short(after),
                around(&run, tick)
            )
        };
        let in_gap = |row: &&Row| (from..to).contains(&row.tick) && row.granted < row.desired;
        if let Some(row) = run.rows().iter().find(in_gap) {
            let what = format!("at tick {} it scaled in from {} to {}", row.tick, row.desired, row.granted);
            return Err(story(&what, row.tick));
        }
        let seeing = all.run(watch);
        let (got, wanted) = (run.last_size(), seeing.last_size());
        // Hysteresis may end in another place; a tenth is not a matter of a gap.
        if got < wanted.saturating_sub((wanted / 10).max(1)) {
            let what = format!(
                "{LONG_TICKS} ticks later its size was {got}; without the gap it would have been {wanted}"
            );
            return Err(story(&what, to));
        }
    }
    Ok(scenarios(options))
}

pub(super) fn deterministic<S: Subject + ?Sized>(
    watch: &mut Watch<'_, S>,
    options: &Options,
) -> Result<u32, String> {
    let mut random = Random::new(options.seed);
    for case in 0..scenarios(options) {
        let load = restless(&mut random, options, f64::from(2 + case));
        let from = random.whole(1, 20);
        let scenario = scenario(watch, options).load(load).gap(from..from + random.whole(0, 5));
        let scenario = scenario.noise(0.1, random.bits());
        let (one, other) = (scenario.run(watch), scenario.run(watch));
        let differ = |(one, other): &(&Row, &Row)| {
            (one.wanted, &one.reasons, &one.error) != (other.wanted, &other.reasons, &other.error)
        };
        if let Some((one, other)) = one.rows().iter().zip(other.rows()).find(differ) {
            return Err(format!(
                "{}, and everything before it the same, it wanted {} once and {} the next time\n({} / {})",
                situation(one),
                wanted(one),
                wanted(other),
                reason(one),
                reason(other)
            ));
        }
    }
    Ok(scenarios(options))
}

/// What a row's policy saw.
fn situation(row: &Row) -> String {
    let mut text = format!("at tick {}, with {} in service", row.tick, row.in_service);
    if row.warming > 0 {
        text += &format!(", {} on their way", row.warming);
    }
    text + ", " + &seen(row)
}

fn seen(row: &Row) -> String {
    match row.value {
        MetricValue::Fresh(value) => format!("metric at {}", short(value)),
        MetricValue::Stale(stale) => format!("last known at {}", short(stale.value)),
        MetricValue::Missing => "nothing known".to_owned(),
    }
}

fn wanted(row: &Row) -> String {
    row.wanted.map_or_else(|| "nothing".to_owned(), |wanted| wanted.to_string())
}

fn reason(row: &Row) -> String {
    match (&row.error, row.reasons.first()) {
        (Some(error), _) => error.clone(),
        (None, Some(reason)) => format!("{}: {}", reason.code, reason.text),
        (None, None) => "no reason given".to_owned(),
    }
}

/// The changes up to a little after a tick, one per line.
fn around(run: &Run, tick: u64) -> String {
    let changes: Vec<&Row> =
        run.rows().iter().filter(|row| row.granted != row.desired && row.tick <= tick + 20).collect();
    let mut text = String::new();
    for row in &changes[changes.len().saturating_sub(SHOWN)..] {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "  tick {:>4}  {:>2} in service, {:<18} {} → {}  {}",
            row.tick,
            row.in_service,
            seen(row),
            row.desired,
            row.granted,
            reason(row)
        );
    }
    text.truncate(text.trim_end().len());
    text
}
