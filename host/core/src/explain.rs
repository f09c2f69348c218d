//! A record as an answer to "why": something that one can show one's boss.

use std::fmt::Write as _;

use crate::decision::PolicyRun;
use crate::instance_state::INSTANCE_STATES;
use crate::metric::MetricValue;
use crate::node::Placement;
use crate::plan::Action;
use crate::record::{Direction, TickRecord};
use crate::state::Moment;
use crate::upgrade::Upgrade;

/// Width of the first column.
const LABEL: usize = 10;

/// Explains a tick in plain text; `when` is its time as people write it.
#[must_use]
pub fn explain(record: &TickRecord, when: &str) -> String {
    let observation = &record.observation;
    let (from, to) = (observation.desired, record.guards.granted);
    let what = match record.direction() {
        Direction::ScaleOut => format!("scale out {from} → {to}"),
        Direction::ScaleIn => format!("scale in {from} → {to}"),
        Direction::None => format!("capacity stays {to}"),
    };
    let mut out = format!("{} tick {} at {when}: {what}\n", observation.set, observation.tick);
    seen(record, &mut out);
    for line in &record.operator {
        row(&mut out, "operator", line);
    }
    if !observation.schedule.is_empty() {
        row(&mut out, "schedule", &observation.schedule.join(", "));
    }
    let at = Moment { wall_ms: record.at_ms(), lived_ms: record.facts.lived_ms };
    for line in record.facts.in_force.told(&observation.set, at) {
        row(&mut out, "size", &line);
    }
    policies(record, &mut out);
    guards(record, &mut out);
    planned(record, &mut out);
    changes(record, &mut out);
    out
}

fn row(out: &mut String, label: &str, text: &str) {
    // What others say is [`Said`](regatta_util::Said): it stays within its row. A String takes any write.
    let _ = writeln!(out, "  {label:<LABEL$}{text}");
}

fn seen(record: &TickRecord, out: &mut String) {
    let observation = &record.observation;
    let counts: Vec<String> = INSTANCE_STATES
        .iter()
        .map(|&state| (state, observation.instances.count(state)))
        .filter(|&(_, count)| count > 0)
        .map(|(state, count)| format!("{count} {state}"))
        .collect();
    let counts = if counts.is_empty() { "no instances".to_owned() } else { counts.join(", ") };
    row(out, "seen", &format!("{counts} (min {}, max {})", observation.min, observation.max));
    for metric in &observation.metrics {
        let aggregate = observation.aggregate(metric);
        let mut text = format!("{} mean {}", metric.name, value(aggregate.mean));
        let known = aggregate.fresh + aggregate.stale;
        if known > 1 {
            let _ = write!(text, ", min {}, max {}", value(aggregate.min), value(aggregate.max));
        }
        if aggregate.stale + aggregate.missing > 0 {
            let _ = write!(text, " ({} stale, {} missing)", aggregate.stale, aggregate.missing);
        }
        row(out, "", &text);
    }
}

fn value(value: MetricValue) -> String {
    match value {
        MetricValue::Fresh(value) => number(value),
        MetricValue::Stale { value, age_ms } => format!("{} ({age_ms} ms old)", number(value)),
        MetricValue::Missing => "unknown".to_owned(),
    }
}

/// At most four decimals, no trailing zeros.
fn number(value: f64) -> String {
    let text = format!("{value:.4}");
    match text.split_once('.') {
        Some(_) => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        None => text,
    }
}

fn policies(record: &TickRecord, out: &mut String) {
    for run in &record.runs {
        policy("policy", run, "", out);
        if let Some(canary) = record.canaries.iter().find(|canary| canary.run.slot == run.slot) {
            let bounds = format!(", limited to within {} of the active policy", canary.within);
            policy("canary", &canary.run, &bounds, out);
        }
    }
    let combined = &record.combined;
    if combined.votes.len() > 1 {
        let votes: Vec<String> = combined
            .votes
            .iter()
            .map(|vote| match vote.capacity {
                Some(capacity) => format!("{} {capacity}", vote.slot),
                None => format!("{} abstains", vote.slot),
            })
            .collect();
        let together = combined.capacity.map_or_else(|| "no decision".to_owned(), |it| it.to_string());
        row(out, "votes", &format!("{} → {together}", votes.join(" · ")));
    }
    for shadow in &record.shadows {
        let (run, digest) = (&shadow.run, shadow.run.digest.short());
        let wanted = match &run.result {
            Ok(decision) => format!("wanted {}", decision.capacity),
            Err(failure) => format!("failed ({})", failure.kind.as_str()),
        };
        let who = format!("{} {} ({digest})", run.name, run.version);
        row(out, "shadow", &format!("#{} {who} {wanted} in tick {}", shadow.number, shadow.tick));
    }
}

fn policy(label: &str, run: &PolicyRun, bounds: &str, out: &mut String) {
    let named = run.slot.is_empty() || run.name == run.slot;
    let slot = if named { String::new() } else { format!("{}: ", run.slot) };
    let who = format!("{slot}{} {} ({})", run.name, run.version, run.digest.short());
    match &run.result {
        Ok(decision) => {
            row(out, label, &format!("{who} wants {}{bounds}", decision.capacity));
            for reason in &decision.reasons {
                row(out, "", &format!("{}: {}", reason.code, reason.text));
                if !reason.evidence.is_empty() {
                    let evidence: Vec<String> =
                        reason.evidence.iter().map(|(name, value)| format!("{name} {value}")).collect();
                    row(out, "", &format!("  {}", evidence.join(" · ")));
                }
            }
        }
        Err(failure) => {
            row(out, label, &format!("{who} failed ({})", failure.kind.as_str()));
            row(out, "", &failure.message);
            for line in run.log_tail() {
                row(out, "", &format!("  {line}"));
            }
        }
    }
}

fn guards(record: &TickRecord, out: &mut String) {
    if record.guards.steps.is_empty() && record.guards.limits.is_empty() {
        row(out, "guards", "none changed the decision");
    }
    for step in &record.guards.steps {
        let before = step.before.map_or_else(|| "no decision".to_owned(), |before| before.to_string());
        row(out, "guards", &format!("{}: {before} → {} ({})", step.guard, step.after, step.reason.text));
    }
    for limit in &record.guards.limits {
        row(out, "guards", &format!("{}: {} ({})", limit.guard, limit.budget, limit.reason.text));
    }
}

fn planned(record: &TickRecord, out: &mut String) {
    let set = &record.observation.set;
    let mut lines: Vec<(String, Vec<String>)> = Vec::new();
    for action in &record.plan.actions {
        let what = match action {
            // Where is only worth a word when there is more than one node.
            Action::Create { cause, placement, .. } if *placement != Placement::default() => {
                format!("create ({}, on {})", cause.as_str(), placement.node)
            }
            Action::Create { cause, .. } => format!("create ({})", cause.as_str()),
            Action::Drain { cause, .. } => format!("drain ({})", cause.as_str()),
            Action::Restart { .. } => "restart".to_owned(),
            Action::Terminate { cause, .. } => format!("terminate ({})", cause.as_str()),
        };
        let name = format!("{set}-{}", action.id());
        match lines.last_mut() {
            Some((last, names)) if *last == what => names.push(name),
            _ => lines.push((what, vec![name])),
        }
    }
    if let Some(upgrade) = &record.plan.upgrade {
        let Upgrade { from, to, target, total, .. } = upgrade;
        let status = upgrade.status.as_str();
        row(out, "upgrade", &format!("{from} → {to}: {status}, this batch up to {target} of {total}"));
    }
    if lines.is_empty() {
        row(out, "plan", "nothing to do");
    }
    for (what, names) in lines {
        row(out, "plan", &format!("{what} {}", some_of(&names)));
    }
    for note in &record.plan.notes {
        row(out, "note", &note.to_string());
    }
}

/// All names, or the first and last of very many.
fn some_of(names: &[String]) -> String {
    match names {
        [first, .., last] if names.len() > 8 => format!("{} instances, {first} to {last}", names.len()),
        _ => names.join(", "),
    }
}

fn changes(record: &TickRecord, out: &mut String) {
    let set = &record.observation.set;
    for change in record.changes.iter().take(20) {
        let detail = change.detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default();
        row(out, "since", &format!("{set}-{} {} → {}{detail}", change.id, change.from, change.to));
    }
    if record.changes.len() > 20 {
        row(out, "", &format!("and {} more changes", record.changes.len() - 20));
    }
}
