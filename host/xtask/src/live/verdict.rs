//! Whether the demo showed what it claims: judged from the counted requests and the daemon's
//! records, not from what was seen in passing.

use crate::records::{SwapOutcome, TickRecord};
use crate::tally::Tally;

/// One claim and how it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Check {
    /// The claim, such as `scaled out`.
    pub(crate) claim: &'static str,
    /// Whether it holds.
    pub(crate) holds: bool,
    /// What it rests on.
    pub(crate) because: String,
}

impl Check {
    fn new(claim: &'static str, result: Result<String, String>) -> Self {
        let holds = result.is_ok();
        let because = result.unwrap_or_else(|problem| problem);
        Self { claim, holds, because }
    }
}

/// Judges all four claims. `records` are those of the whole demo, in the order of their ticks.
pub(crate) fn judge(tally: &Tally, records: &[TickRecord], swap: Option<&SwapOutcome>) -> Vec<Check> {
    vec![
        Check::new("scaled out", scaled(records, Way::Out)),
        Check::new("scaled in", scaled(records, Way::In)),
        Check::new("served every request", served(tally)),
        Check::new("swapped between two ticks", swapped(records, swap)),
    ]
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Out,
    In,
}

/// A decision is not enough: instances must have come into service, or gone, because of it.
fn scaled(records: &[TickRecord], way: Way) -> Result<String, String> {
    let moved = |before: u64, after: u64| match way {
        Way::Out => after > before,
        Way::In => after < before,
    };
    let decisions: Vec<usize> = (0..records.len())
        .filter(|index| {
            let record = &records[*index];
            moved(record.observation.desired.into(), record.guards.granted.into())
        })
        .collect();
    let Some(&first) = decisions.first() else {
        return Err(format!("no decision did in {} ticks", records.len()));
    };
    let before = records[first].in_service();
    let later = records[first..].iter().map(TickRecord::in_service);
    let after = match way {
        Way::Out => later.max(),
        Way::In => later.min(),
    }
    .unwrap_or(before);
    let tick = records[first].observation.tick;
    let said = match decisions.len() {
        1 => format!("one decision, in tick {tick}; in service {before} → {after}"),
        many => format!("{many} decisions, the first in tick {tick}; in service {before} → {after}"),
    };
    if moved(before as u64, after as u64) { Ok(said) } else { Err(said) }
}

fn served(tally: &Tally) -> Result<String, String> {
    let said = format!("{} of {}", tally.served(), tally.due);
    if tally.due == 0 {
        Err("no request was sent".to_owned())
    } else if tally.served() == tally.due {
        Ok(said)
    } else {
        let mut problems = tally.failures();
        if tally.in_flight() > 0 {
            problems.push(format!("unanswered: {}", tally.in_flight()));
        }
        Err(format!("{said} ({})", problems.join(", ")))
    }
}

/// Every tick up to the swap is the old policy's, every later one the new one's, and no tick
/// around it is missing.
fn swapped(records: &[TickRecord], swap: Option<&SwapOutcome>) -> Result<String, String> {
    let swap = swap.ok_or("there was no swap")?;
    if swap.from.digest == swap.to.digest {
        return Err(format!("{} was swapped for itself", swap.from.name));
    }
    let last = swap.after_tick;
    let mut near = [false; 2];
    for record in records {
        let tick = record.observation.tick;
        let wanted = if tick <= last { &swap.from } else { &swap.to };
        let [run] = record.runs.as_slice() else {
            return Err(format!("tick {tick} has {} runs", record.runs.len()));
        };
        if run.digest != wanted.digest {
            return Err(format!("{} decided tick {tick}", run.name));
        }
        near[0] |= tick == last;
        near[1] |= tick == last + 1;
    }
    let next = last + 1;
    if near != [true, true] {
        return Err(format!("no record of tick {last} or {next}"));
    }
    Ok(format!(
        "{} decided tick {last}, {} tick {next}; prepared in {} ms off the loop, switched in {} µs",
        swap.from.name, swap.to.name, swap.prepare_ms, swap.switch_us
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{Decision, GuardTrail, InstanceTable, Observation, PolicyInfo, PolicyRun};
    use crate::tally::Outcome;
    use std::time::Duration;

    fn record(tick: u64, digest: &str, desired: u32, granted: u32, in_service: usize) -> TickRecord {
        TickRecord {
            observation: Observation {
                tick,
                desired,
                instances: InstanceTable { state: vec!["in-service".to_owned(); in_service] },
            },
            runs: vec![PolicyRun {
                name: digest.to_owned(),
                digest: digest.to_owned(),
                result: Ok(Decision { reasons: vec![] }),
            }],
            guards: GuardTrail { granted },
        }
    }

    fn policy(digest: &str) -> PolicyInfo {
        PolicyInfo { name: digest.to_owned(), digest: digest.to_owned() }
    }

    fn swap() -> SwapOutcome {
        SwapOutcome { from: policy("old"), to: policy("new"), after_tick: 2, prepare_ms: 40, switch_us: 90 }
    }

    fn good() -> (Tally, Vec<TickRecord>) {
        let mut tally = Tally::default();
        tally.begin();
        tally.end(Outcome::Served, Duration::from_millis(1));
        let records = vec![
            record(1, "old", 1, 3, 1),
            record(2, "old", 3, 3, 3),
            record(3, "new", 3, 1, 3),
            record(4, "new", 1, 1, 1),
        ];
        (tally, records)
    }

    fn failing(tally: &Tally, records: &[TickRecord], swap: Option<&SwapOutcome>) -> Vec<&'static str> {
        judge(tally, records, swap)
            .into_iter()
            .filter(|check| !check.holds)
            .map(|check| check.claim)
            .collect()
    }

    #[test]
    fn a_good_demo_passes() {
        let (tally, records) = good();
        let checks = judge(&tally, &records, Some(&swap()));
        assert!(checks.iter().all(|check| check.holds), "{checks:?}");
        assert_eq!(checks.len(), 4);
    }

    #[test]
    fn a_decision_without_instances_does_not_count() {
        let (tally, mut records) = good();
        records[1] = record(2, "old", 3, 3, 1);
        records[2] = record(3, "new", 3, 1, 1);
        assert_eq!(failing(&tally, &records, Some(&swap())), ["scaled out", "scaled in"]);
    }

    #[test]
    fn one_lost_request_fails_it() {
        let (mut tally, records) = good();
        tally.begin();
        let failed = failing(&tally, &records, Some(&swap()));
        assert_eq!(failed, ["served every request"], "unanswered");
        tally.end(Outcome::Status(503), Duration::ZERO);
        let failed = failing(&tally, &records, Some(&swap()));
        assert_eq!(failed, ["served every request"], "answered badly");
        let failed = failing(&Tally::default(), &records, Some(&swap()));
        assert_eq!(failed, ["served every request"], "none sent");
    }

    #[test]
    fn the_swap_must_lie_between_two_recorded_ticks() {
        let (tally, records) = good();
        let claim = ["swapped between two ticks"];
        assert_eq!(failing(&tally, &records, None), claim, "no swap");
        let mut late = records.clone();
        late[2].runs[0].digest = "old".into();
        assert_eq!(failing(&tally, &late, Some(&swap())), claim, "old one went on");
        let mut both = records.clone();
        let run = both[2].runs[0].clone();
        both[2].runs.push(run);
        assert_eq!(failing(&tally, &both, Some(&swap())), claim, "both decided");
        let mut gap = records.clone();
        gap.remove(1);
        assert!(failing(&tally, &gap, Some(&swap())).contains(&claim[0]), "tick 2 is missing");
        let mut same = swap();
        same.to = same.from.clone();
        assert_eq!(failing(&tally, &records, Some(&same)), claim, "itself");
    }
}
