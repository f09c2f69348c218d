//! What was done with the policies of a set, and how shadows fare beside the active ones.

use regatta_core::batch::{Batch, History};
use regatta_core::compare::{Comparison, LoadBasis, compare};
use regatta_core::event::{Event, EventKind, PolicyRef};
use regatta_core::metrics::unknown_metrics;
use regatta_core::state::SetState;
use regatta_store::RecordQuery;

use super::super::error;
use super::Fleet;
use crate::api::control::Answer;
use crate::api::types::{CompareQuery, ErrorCode, PolicyHistoryEntry};
use crate::clock::now_ms;
use regatta_util::chain;

/// Events that are looked through for the history: all that are kept.
const EVENTS_LOOKED_AT: usize = 10_000;
const TICKS_DEFAULT: u32 = 1_000;
const TICKS_MAX: u32 = 10_000;

impl Fleet {
    /// The events about the policies of a set, the oldest first.
    pub(super) async fn policy_events(&self, set: &str) -> Answer<Vec<Event>> {
        let set = set.to_owned();
        let events = self.read(move |store| store.latest_events(Some(&set), EVENTS_LOOKED_AT)).await?;
        Ok(events
            .into_iter()
            .map(|(_, event)| event)
            .filter(|it| it.kind.as_str().starts_with("policy-"))
            .collect())
    }

    pub(in crate::fleet) async fn history(&self, set: &str) -> Answer<Vec<PolicyHistoryEntry>> {
        self.find(set)?;
        let entry = |event: Event| {
            let policy = event.policy.as_ref();
            let text =
                |of: fn(&PolicyRef) -> &str| policy.map(of).filter(|it| !it.is_empty()).map(str::to_owned);
            PolicyHistoryEntry {
                at_ms: event.at_ms,
                slot: text(|it| &it.slot),
                name: text(|it| &it.name),
                version: text(|it| &it.version),
                digest: policy.map(|it| it.digest.clone()).filter(|it| !it.is_empty()),
                activation: policy.map(|it| it.activation).filter(|number| *number > 0),
                params: text(|it| &it.params).and_then(|params| serde_json::from_str(&params).ok()),
                actor: event.actor.to_string(),
                kind: event.kind.to_string(),
                outcome: event.text.into(),
            }
        };
        Ok(self.policy_events(set).await?.into_iter().map(entry).collect())
    }

    /// Writes down that a policy was refused. The refusal itself matters more than
    /// that it cannot be written down.
    pub(super) async fn note_refusal(&self, set: &str, policy: PolicyRef, why: &str, actor: &str) {
        let event = Event {
            at_ms: now_ms(),
            set: set.to_owned(),
            kind: EventKind::PolicyRefused,
            instance: None,
            text: format!("{} is refused: {why}", policy.source).into(),
            actor: actor.into(),
            policy: Some(policy),
        };
        let batch =
            Batch { history: History { events: vec![event], ..History::default() }, ..Batch::default() };
        match self.shared.commit(batch).await {
            Ok(_) => self.shared.events.notify_waiters(),
            Err(why) => tracing::warn!(set, why = chain(&why), "a refusal is not in the history"),
        }
    }

    pub(in crate::fleet) async fn comparison(&self, set: &str, query: CompareQuery) -> Answer<Comparison> {
        let view = self.find(set)?.view();
        let load = basis(&view.state, &query);
        if load.is_none() && (query.metric.is_some() || query.target.is_some()) {
            let message =
                "the load needs both a metric and a target: the policy has no parameters of these names";
            return Err(error(ErrorCode::Invalid, message));
        }
        let ticks =
            usize::try_from(query.ticks.unwrap_or(TICKS_DEFAULT).min(TICKS_MAX)).unwrap_or(usize::MAX);
        let (name, tick_ms) = (set.to_owned(), view.state.set.tick_ms);
        self.read(move |store| {
            let mut records = store.records(&name, &RecordQuery::newest(ticks))?;
            records.sort_by_key(|record| record.observation.tick);
            Ok(compare(&records, tick_ms, load))
        })
        .await
        .map(|comparison| with_unknown_metrics(comparison, &view.state))
    }
}

/// A policy that waits for a metric in vain keeps the size, which may look like agreement.
fn with_unknown_metrics(mut comparison: Comparison, state: &SetState) -> Comparison {
    for pair in &mut comparison.pairs {
        let shadow = state.shadows.iter().find(|shadow| shadow.activation.number == pair.number);
        let active = state.slot(&pair.slot).map(|slot| &slot.active);
        for (side, activation) in
            [(&mut pair.shadow, shadow.map(|it| &it.activation)), (&mut pair.active, active)]
        {
            let wishes = activation.map(|it| it.wishes.as_slice()).unwrap_or_default();
            side.unknown_metrics =
                unknown_metrics(&state.set, wishes).into_iter().map(|it| it.name).collect();
        }
    }
    comparison
}

/// By what the load is measured: as asked, or by the parameters `metric` and
/// `target` of the first policy that has them, as the built-in policy has.
fn basis(state: &SetState, query: &CompareQuery) -> Option<LoadBasis> {
    let params = state
        .policies
        .iter()
        .filter_map(|slot| serde_json::from_str::<serde_json::Value>(&slot.active.params).ok());
    let of_params = params.into_iter().find_map(|params| {
        let metric = params.get("metric")?.as_str()?.to_owned();
        Some((metric, params.get("target").and_then(serde_json::Value::as_f64)))
    });
    let (metric, target) = of_params.map_or((None, None), |(metric, target)| (Some(metric), target));
    let metric = query.metric.clone().or(metric)?;
    let target = query.target.or(target).filter(|target| target.is_finite() && *target > 0.0)?;
    Some(LoadBasis { metric, target })
}
