//! Records and events.

use std::time::Duration;

use regatta_core::record::{Direction, TickRecord};
use regatta_store::{Order, RecordQuery};

use super::{Fleet, error};
use crate::api::control::Answer;
use crate::api::types::{ApiError, ErrorCode, EventEntry, EventsQuery, RecordsQuery, WhyLast, WhyQuery};
use crate::chain::chain;

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1_000;
const WAIT_MAX: Duration = Duration::from_secs(30);

impl Fleet {
    pub(super) async fn find_record(&self, set: &str, query: &WhyQuery) -> Answer<TickRecord> {
        let view = self.find(set)?.view();
        let store = &self.shared.store;
        let found = match (query.tick, query.last) {
            (Some(_), Some(_)) => {
                return Err(error(ErrorCode::Invalid, "name a tick, or what the last one did, not both"));
            }
            (Some(tick), None) => store.record(set, tick),
            (None, None) => return self.newest(&view),
            (None, Some(WhyLast::ScaleOut)) => store.last_record(set, Some(Direction::ScaleOut)),
            (None, Some(WhyLast::ScaleIn)) => store.last_record(set, Some(Direction::ScaleIn)),
            (None, Some(WhyLast::Change)) => {
                let out =
                    store.last_record(set, Some(Direction::ScaleOut)).map_err(|why| unreadable(&why))?;
                let inward =
                    store.last_record(set, Some(Direction::ScaleIn)).map_err(|why| unreadable(&why))?;
                Ok(out.into_iter().chain(inward).max_by_key(|record| record.observation.tick))
            }
        };
        found.map_err(|why| unreadable(&why))?.ok_or_else(|| {
            let what = match (query.tick, query.last) {
                (Some(tick), _) => format!("there is no record of tick {tick} of {set}"),
                (None, Some(WhyLast::ScaleOut)) => format!("{set} has not scaled out yet"),
                (None, Some(WhyLast::ScaleIn)) => format!("{set} has not scaled in yet"),
                (None, _) => format!("{set} has not changed its capacity yet"),
            };
            let last = view.state.last_tick;
            error(ErrorCode::NotFound, format!("{what} (its last tick is {last}; old records are removed)"))
        })
    }

    fn newest(&self, view: &crate::set::SetView) -> Answer<TickRecord> {
        let none = || error(ErrorCode::NotFound, format!("{} has had no tick yet", view.state.set.name));
        view.last.as_deref().cloned().ok_or_else(none)
    }

    pub(super) async fn list_records(&self, set: &str, query: &RecordsQuery) -> Answer<Vec<TickRecord>> {
        self.find(set)?;
        let query = RecordQuery {
            ticks: query.after.saturating_add(1)..=u64::MAX,
            limit: limit(query.limit),
            order: Order::OldestFirst,
        };
        self.shared.store.records(set, &query).map_err(|why| unreadable(&why))
    }

    pub(super) async fn list_events(&self, query: &EventsQuery) -> Answer<Vec<EventEntry>> {
        if let Some(set) = &query.set
            && query.after.is_none()
        {
            // A name that never was is a mistake of the caller's; a set that is gone keeps its events.
            let events = self.events_now(query)?;
            if events.is_empty() {
                self.find(set)?;
            }
            return Ok(events);
        }
        let deadline = tokio::time::Instant::now() + Duration::from_millis(query.wait_ms).min(WAIT_MAX);
        loop {
            let rung = self.shared.events.notified();
            tokio::pin!(rung);
            // Registered before the look, so that nothing falls in between.
            rung.as_mut().enable();
            let events = self.events_now(query)?;
            if !events.is_empty() {
                return Ok(events);
            }
            tokio::select! {
                () = rung => {}
                () = tokio::time::sleep_until(deadline) => return Ok(events),
                () = self.shutdown.cancelled() => return Ok(events),
            }
        }
    }

    fn events_now(&self, query: &EventsQuery) -> Answer<Vec<EventEntry>> {
        let (set, limit) = (query.set.as_deref(), limit(query.limit));
        let events = match query.after {
            Some(after) => self.shared.store.events(set, after, limit),
            None => self.shared.store.latest_events(set, limit),
        };
        let entry = |(seq, event): (u64, regatta_core::state::Event)| EventEntry {
            seq,
            at_ms: event.at_ms,
            set: event.set,
            kind: event.kind,
            instance: event.instance,
            text: event.text,
            actor: event.actor,
        };
        Ok(events.map_err(|why| unreadable(&why))?.into_iter().map(entry).collect())
    }
}

fn limit(asked: Option<u32>) -> usize {
    asked.and_then(|asked| usize::try_from(asked).ok()).unwrap_or(LIMIT_DEFAULT).min(LIMIT_MAX)
}

fn unreadable(why: &dyn std::error::Error) -> ApiError {
    error(ErrorCode::Internal, format!("the store cannot be read: {}", chain(why)))
}
