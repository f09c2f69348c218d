//! How long the steps of launches and stops take, out of the spans of `regatta-vmm`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use regatta_util::percentile;
use serde_json::{Value, json};
use tracing::span::{Attributes, Id};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::figure::ms;

/// Whose spans these are.
const TARGET: &str = "regatta_vmm";

/// Paths below this one are looked for to tell a tracer of system calls what comes next. There is nothing of this name.
pub(crate) const MARK: &str = "/regatta-bench-mark/";

/// The steps that have ended, by name.
#[derive(Clone, Default)]
pub(crate) struct Spans {
    ended: Arc<Mutex<BTreeMap<&'static str, Vec<Duration>>>>,
    marked: bool,
}

/// When a step began.
struct Begun(Instant);

impl Spans {
    /// Listens from now on, in the whole process. With `marked` each begin and end is told to a tracer.
    pub(crate) fn install(marked: bool) -> Self {
        let spans = Self { marked, ..Self::default() };
        // Only a second call in one process would fail.
        let _ = tracing_subscriber::registry().with(spans.clone()).try_init();
        spans
    }

    /// Times of the steps since the last call, as JSON.
    pub(crate) fn take(&self) -> Value {
        let ended = std::mem::take(&mut *self.ended.lock().unwrap_or_else(PoisonError::into_inner));
        let steps = ended.into_iter().map(|(step, took)| {
            let share = |share| percentile(&took, share).map(ms);
            (step.to_owned(), json!({ "p50": share(0.5), "p90": share(0.9), "steps": took.len() }))
        });
        Value::Object(steps.collect())
    }
}

/// Tells a tracer what comes next.
pub(crate) fn mark(what: &str) {
    let _ = std::fs::symlink_metadata(format!("{MARK}{}", what.replace(' ', "-")));
}

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let metadata = attributes.metadata();
        let Some(span) = context.span(id).filter(|_| metadata.target().starts_with(TARGET)) else {
            return;
        };
        if self.marked {
            mark(&format!("begin-{}", metadata.name()));
        }
        span.extensions_mut().insert(Begun(Instant::now()));
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        let took = match span.extensions().get::<Begun>() {
            Some(Begun(start)) => start.elapsed(),
            None => return,
        };
        if self.marked {
            mark(&format!("end-{}", span.name()));
        }
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.entry(span.name()).or_default().push(took);
    }
}
