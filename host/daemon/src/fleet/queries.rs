//! Records and events.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use regatta_core::digest::Digest;
use regatta_core::event::Event;
use regatta_core::record::{Direction, TickRecord};
use regatta_store::{Order, RecordQuery, Store, StoreError};

use super::{Fleet, error};
use crate::api::control::Answer;
use crate::api::types::{
    ApiError, BlobContent, ErrorCode, EventEntry, EventsQuery, RecordsQuery, WhyLast, WhyQuery,
};
use regatta_util::chain;

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1_000;
const WAIT_MAX: Duration = Duration::from_secs(30);

impl Fleet {
    /// Reads the store. Reads unpack and parse what they find: off the threads that serve.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer<T> {
        let store = Arc::clone(&self.shared.store);
        match tokio::task::spawn_blocking(move || read(store.as_ref())).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(why)) => Err(unreadable(&why)),
            Err(why) => Err(unreadable(&why)),
        }
    }

    pub(super) async fn find_record(&self, set: &str, query: &WhyQuery) -> Answer<TickRecord> {
        let view = self.find(set)?.view();
        let name = set.to_owned();
        let found = match (query.tick, query.last) {
            (Some(_), Some(_)) => {
                return Err(error(ErrorCode::Invalid, "name a tick, or what the last one did, not both"));
            }
            (None, None) => return self.newest(&view),
            (Some(tick), None) => self.read(move |store| store.record(&name, tick)).await?,
            (None, Some(last)) => self.read(move |store| last_of(store, &name, last)).await?,
        };
        found.ok_or_else(|| {
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
        let set = set.to_owned();
        self.read(move |store| store.records(&set, &query)).await
    }

    pub(super) async fn find_blob(&self, sha256: &str) -> Answer<BlobContent> {
        let wanted = Digest::from(sha256);
        match self.read(move |store| store.blob(&wanted)).await? {
            Some(bytes) => Ok(BlobContent { sha256: sha256.into(), base64: BASE64.encode(bytes) }),
            None => Err(error(ErrorCode::NotFound, format!("no manifest or module {sha256} is stored"))),
        }
    }

    pub(super) async fn list_events(&self, query: &EventsQuery) -> Answer<Vec<EventEntry>> {
        if query.before.is_some() {
            return self.events_now(query).await;
        }
        if let Some(set) = &query.set
            && query.after.is_none()
        {
            // A name that never was is a mistake of the caller's; a set that is gone keeps its events.
            let events = self.events_now(query).await?;
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
            let events = self.events_now(query).await?;
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

    async fn events_now(&self, query: &EventsQuery) -> Answer<Vec<EventEntry>> {
        let (set, after, before) = (query.set.clone(), query.after, query.before);
        let limit = limit(query.limit);
        let events = self
            .read(move |store| match (after, before) {
                (Some(after), _) => store.events(set.as_deref(), after, limit),
                (None, Some(before)) => store.events_before(set.as_deref(), before, limit),
                (None, None) => store.latest_events(set.as_deref(), limit),
            })
            .await?;
        let entry = |(seq, event): (u64, Event)| EventEntry {
            seq,
            at_ms: event.at_ms,
            set: event.set,
            kind: event.kind.to_string(),
            instance: event.instance,
            text: event.text.into(),
            actor: event.actor.to_string(),
        };
        Ok(events.into_iter().map(entry).collect())
    }
}

fn last_of(store: &dyn Store, set: &str, last: WhyLast) -> Result<Option<TickRecord>, StoreError> {
    match last {
        WhyLast::ScaleOut => store.last_record(set, Some(Direction::ScaleOut)),
        WhyLast::ScaleIn => store.last_record(set, Some(Direction::ScaleIn)),
        WhyLast::Change => {
            let out = store.last_record(set, Some(Direction::ScaleOut))?;
            let inward = store.last_record(set, Some(Direction::ScaleIn))?;
            Ok(out.into_iter().chain(inward).max_by_key(|record| record.observation.tick))
        }
    }
}

fn limit(asked: Option<u32>) -> usize {
    asked.and_then(|asked| usize::try_from(asked).ok()).unwrap_or(LIMIT_DEFAULT).min(LIMIT_MAX)
}

fn unreadable(why: &dyn std::error::Error) -> ApiError {
    error(ErrorCode::Internal, format!("the store cannot be read: {}", chain(why)))
}
