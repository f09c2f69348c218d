//! Deciding recorded ticks again.
//!
//! A record and what it refers to by digest (the manifest, the modules) hold all that a tick rested on. Replaying it runs its
//! policies again on the recorded observation and concludes again; the result is the record itself, or a difference.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::decision::{FailureKind, PolicyRun};
use crate::digest::Digest;
use crate::manifest::{PolicyLimits, ScaleSet};
use crate::observation::Observation;
use crate::record::TickRecord;
use crate::tick::conclude;

/// What a replay needs beside the records.
pub trait Source {
    /// The manifest with this SHA-256.
    ///
    /// # Errors
    /// Why it cannot be had.
    fn manifest(&mut self, digest: &Digest) -> Result<Arc<ScaleSet>, String>;

    /// Runs a policy again: the module, parameters and state of `recorded`, on `observation`.
    ///
    /// # Errors
    /// Why it cannot be run, for example that its module is not there.
    fn decide(
        &mut self,
        recorded: &PolicyRun,
        observation: &Arc<Observation>,
        limits: PolicyLimits,
    ) -> Result<PolicyRun, String>;
}

/// Where a replay differs from the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Number of the tick.
    pub tick: u64,
    /// What differs, for example `run of slot load: fuel`.
    pub what: String,
    /// As recorded.
    pub recorded: String,
    /// As decided again.
    pub replayed: String,
}

/// What came of a replay.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Ticks that were decided again, each identical to its record.
    pub identical: u64,
    /// First and last of them.
    pub ticks: Option<(u64, u64)>,
    /// Ticks that were recorded by a version whose records cannot be decided again.
    pub too_old: u64,
    /// Policy runs that were taken as recorded: the host, not the policy, ended them (deadline, host failure).
    pub taken_as_recorded: u64,
    /// The first difference; nothing after it was replayed.
    pub difference: Option<Difference>,
    /// Why a tick could not be decided again; nothing after it was replayed.
    pub problem: Option<String>,
}

impl Outcome {
    /// Whether every tick that can be decided again was, and came out as recorded.
    #[must_use]
    pub fn is_identical(&self) -> bool {
        self.difference.is_none() && self.problem.is_none()
    }
}

/// Decides records again, one after the other.
pub struct Replay<S> {
    source: S,
    outcome: Outcome,
    /// Observations that a shadow may still refer to, by tick.
    observations: BTreeMap<u64, Arc<Observation>>,
}

/// Shadows answer within this many ticks; a run that refers further back is taken as recorded.
const OBSERVATIONS_KEPT: usize = 64;

impl<S: Source> Replay<S> {
    /// A replay that has seen nothing yet.
    pub fn new(source: S) -> Self {
        Self { source, outcome: Outcome::default(), observations: BTreeMap::new() }
    }

    /// Where it gets what it needs.
    pub fn source_mut(&mut self) -> &mut S {
        &mut self.source
    }

    /// Decides the next record again. False when that ends the replay: it differs, or it could not be decided.
    pub fn next(&mut self, record: &TickRecord) -> bool {
        let tick = record.observation.tick;
        if record.manifest.is_empty() {
            self.outcome.too_old += 1;
            return true;
        }
        match self.tick(record) {
            Ok(None) => {
                self.outcome.identical += 1;
                let first = self.outcome.ticks.map_or(tick, |(first, _)| first);
                self.outcome.ticks = Some((first, tick));
                true
            }
            Ok(Some((what, recorded, replayed))) => {
                self.outcome.difference = Some(Difference { tick, what, recorded, replayed });
                false
            }
            Err(why) => {
                self.outcome.problem = Some(format!("tick {tick} cannot be decided again: {why}"));
                false
            }
        }
    }

    /// What came of it.
    pub fn finish(self) -> Outcome {
        self.outcome
    }

    fn tick(&mut self, record: &TickRecord) -> Result<Option<(String, String, String)>, String> {
        let manifest = self.source.manifest(&record.manifest)?;
        let observation = Arc::new(record.observation.clone());
        let canaries = record.canaries.iter().map(|canary| &canary.run);
        for run in record.runs.iter().chain(canaries) {
            if let Some(difference) = self.run(&manifest, run, &observation)? {
                return Ok(Some(difference));
            }
        }
        for shadow in &record.shadows {
            match self.observations.get(&shadow.tick).cloned() {
                Some(seen) => {
                    if let Some(difference) = self.run(&manifest, &shadow.run, &seen)? {
                        return Ok(Some(difference));
                    }
                }
                None => self.outcome.taken_as_recorded += 1,
            }
        }
        self.observations.insert(record.observation.tick, observation);
        if self.observations.len() > OBSERVATIONS_KEPT {
            self.observations.pop_first();
        }
        let concluded = conclude(&manifest, record.input());
        Ok((concluded != *record).then(|| first_difference("", &json(record), &json(&concluded))).flatten())
    }

    fn run(
        &mut self,
        manifest: &ScaleSet,
        recorded: &PolicyRun,
        observation: &Arc<Observation>,
    ) -> Result<Option<(String, String, String)>, String> {
        if let Err(failure) = &recorded.result
            && matches!(failure.kind, FailureKind::Deadline | FailureKind::Host)
        {
            self.outcome.taken_as_recorded += 1;
            return Ok(None);
        }
        let spec = manifest.policies.iter().find(|spec| spec.name == recorded.slot);
        let limits = spec.map_or_else(PolicyLimits::default, |spec| spec.limits);
        let again = self.source.decide(recorded, observation, limits)?;
        // How long it took says something about the host, and nothing about the decision.
        let again = PolicyRun { slot: recorded.slot.clone(), duration_us: recorded.duration_us, ..again };
        if again == *recorded {
            return Ok(None);
        }
        let place = format!("run of {} in slot {}", recorded.name, recorded.slot);
        Ok(first_difference(&place, &json(recorded), &json(&again)))
    }
}

fn json<T: Serialize>(value: &T) -> Value {
    // The core's types are structs, enums and strings: none can fail.
    serde_json::to_value(value).unwrap_or_default()
}

/// Where two values differ first, and how.
fn first_difference(place: &str, recorded: &Value, replayed: &Value) -> Option<(String, String, String)> {
    let within = |name: &str| match place {
        "" => name.to_owned(),
        place => format!("{place}: {name}"),
    };
    match (recorded, replayed) {
        (Value::Object(one), Value::Object(other)) => {
            let names: std::collections::BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            names.into_iter().find_map(|name| {
                let of = |map: &serde_json::Map<String, Value>| map.get(name).cloned().unwrap_or_default();
                first_difference(&within(name), &of(one), &of(other))
            })
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            one.iter().zip(other).enumerate().find_map(|(index, (one, other))| {
                first_difference(&within(&format!("#{}", index + 1)), one, other)
            })
        }
        (one, other) if one == other => None,
        (one, other) => Some((place.to_owned(), shown(one), shown(other))),
    }
}

/// A value for people: short.
fn shown(value: &Value) -> String {
    const CHARS_MAX: usize = 200;
    let text = value.to_string();
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
