//! A subject that is looked over the shoulder.

use crate::testing::{Subject, TestTick};
use crate::{MAX_CAPACITY, Outcome};

/// Passes everything on, and remembers the first tick without an outcome and the first outcome
/// that no host would take.
pub(super) struct Watch<'a, S: ?Sized> {
    subject: &'a mut S,
    pub(super) unanswered: Option<String>,
    pub(super) nonsense: Option<String>,
}

impl<'a, S: Subject + ?Sized> Watch<'a, S> {
    pub(super) fn new(subject: &'a mut S) -> Self {
        Self { subject, unanswered: None, nonsense: None }
    }
}

impl<S: Subject + ?Sized> Subject for Watch<'_, S> {
    fn reset(&mut self) {
        self.subject.reset();
    }

    fn decide(&mut self, tick: &TestTick) -> Result<Outcome, String> {
        let outcome = self.subject.decide(tick);
        match &outcome {
            Err(error) if self.unanswered.is_none() => {
                self.unanswered = Some(format!("{}, it had no outcome: {error}", seen(tick)));
            }
            Ok(outcome) if self.nonsense.is_none() => {
                self.nonsense = nonsense(tick, outcome).map(|what| format!("{}, {what}", seen(tick)));
            }
            _ => {}
        }
        outcome
    }

    fn metrics(&self) -> Vec<String> {
        self.subject.metrics()
    }

    fn has_ended(&self) -> bool {
        self.subject.has_ended()
    }
}

fn nonsense(tick: &TestTick, outcome: &Outcome) -> Option<String> {
    for (what, wanted) in [("a capacity", Some(outcome.capacity)), ("a standby", outcome.standby)] {
        if let Some(wanted) = wanted.filter(|&wanted| wanted > MAX_CAPACITY) {
            return Some(format!("it wanted {what} of {wanted}; the host takes no more than {MAX_CAPACITY}"));
        }
    }
    if outcome.victims.is_empty() {
        return None;
    }
    let table = tick.parts().instances;
    let unknown = outcome.victims.iter().find(|&&id| table.get(id).is_none())?;
    Some(format!("it named instance {unknown} as a victim, and there is no such instance"))
}

/// The tick in words.
pub(super) fn seen(tick: &TestTick) -> String {
    let parts = tick.parts();
    let counts = parts.counts;
    let mut text = format!("at tick {}, with {} in service", parts.number, counts.in_service);
    if counts.warming() > 0 {
        text += &format!(", {} on their way", counts.warming());
    }
    if parts.desired != counts.in_service + counts.warming() {
        text += &format!(", current capacity {}", parts.desired);
    }
    for metric in &parts.metrics {
        let of_service = metric.values.iter().zip(&parts.instances.state);
        let first = match metric.scope {
            crate::testing::Scope::Set => metric.values.first(),
            crate::testing::Scope::Instance => of_service
                .filter(|&(_, &state)| state == crate::InstanceState::InService)
                .map(|(value, _)| value)
                .next(),
        };
        text += &match first {
            Some(crate::MetricValue::Fresh(value)) => {
                format!(", `{}` at {}", metric.name, crate::short(*value))
            }
            Some(crate::MetricValue::Stale(stale)) => {
                format!(", `{}` at {}, {} ms ago", metric.name, crate::short(stale.value), stale.age_ms)
            }
            Some(crate::MetricValue::Missing) | None => format!(", `{}` not known", metric.name),
        };
    }
    text
}
