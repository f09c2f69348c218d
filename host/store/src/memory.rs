//! A store that forgets everything when it is dropped.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use regatta_core::batch::{Batch, Revision};
use regatta_core::catalogue::NamedImage;
use regatta_core::digest::Digest;
use regatta_core::event::Event;
use regatta_core::record::{Direction, TickRecord};
use regatta_core::state::{InstanceRecord, SetState};

use crate::batch::{Retention, Stored, blobs_of_record, blobs_of_set, check};
use crate::error::StoreError;
use crate::store::{
    Blobs, History, Order, RECORDS_PER_READ_MAX, RecordQuery, SetStats, StateStore, Stats, Store, StoredSet,
};

/// A store in memory, for tests and simulations.
///
/// It keeps to the same rules as the one on disk. Its retention differs in
/// detail: records are removed one by one, and their size is that of their JSON.
#[derive(Debug, Default)]
pub struct MemoryStore {
    retention: Retention,
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    last_commit: Revision,
    sets: BTreeMap<String, SetTables>,
    events: BTreeMap<u64, Event>,
    last_event_seq: u64,
    blobs: BTreeMap<Digest, Vec<u8>>,
    users: Users,
    images: BTreeMap<String, NamedImage>,
}

#[derive(Debug)]
struct SetTables {
    state: SetState,
    revision: Revision,
    instances: BTreeMap<u32, InstanceRecord>,
    /// With the size as JSON.
    records: BTreeMap<u64, (TickRecord, u64)>,
    record_bytes: u64,
}

/// How many references of sets and records there are to each blob.
#[derive(Debug, Default)]
struct Users(BTreeMap<Digest, u64>);

impl Users {
    fn join<'a>(&mut self, digests: impl Iterator<Item = &'a Digest>) {
        for digest in digests {
            match self.0.get_mut(digest) {
                Some(count) => *count += 1,
                None => _ = self.0.insert(digest.clone(), 1),
            }
        }
    }

    /// A blob without a reference stays at 0 until the batch is applied.
    fn leave<'a>(&mut self, digests: impl Iterator<Item = &'a Digest>) {
        for digest in digests {
            if let Some(count) = self.0.get_mut(digest) {
                *count -= 1;
            }
        }
    }
}

impl Stored for Tables {
    type Error = StoreError;
    fn revision(&self, set: &str) -> Result<Option<Revision>, StoreError> {
        Ok(self.sets.get(set).map(|set| set.revision))
    }
    fn newest_tick(&self, set: &str) -> Result<Option<u64>, StoreError> {
        Ok(self.sets.get(set).and_then(|set| set.records.keys().next_back().copied()))
    }
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new(retention: Retention) -> Self {
        Self { retention, tables: Mutex::default() }
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        // A commit checks everything before it changes anything, so a panic in
        // between leaves nothing half-done.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateStore for MemoryStore {
    fn commit(&self, batch: &Batch) -> Result<Revision, StoreError> {
        let mut tables = self.tables();
        let records = check(batch, &*tables)?;
        let sizes: Vec<u64> = records.iter().map(|record| record.json_bytes() as u64).collect();
        tables.apply(batch, &sizes, &self.retention);
        Ok(tables.last_commit)
    }

    fn load(&self) -> Result<Vec<StoredSet>, StoreError> {
        let tables = self.tables();
        let sets = tables.sets.values().map(|set| StoredSet {
            state: set.state.clone(),
            instances: set.instances.values().cloned().collect(),
            revision: set.revision,
        });
        Ok(sets.collect())
    }

    fn images(&self) -> Result<Vec<NamedImage>, StoreError> {
        Ok(self.tables().images.values().cloned().collect())
    }

    fn image(&self, name: &str) -> Result<Option<NamedImage>, StoreError> {
        Ok(self.tables().images.get(name).cloned())
    }
}

impl History for MemoryStore {
    fn record(&self, set: &str, tick: u64) -> Result<Option<TickRecord>, StoreError> {
        let tables = self.tables();
        let found = tables.sets.get(set).and_then(|set| set.records.get(&tick));
        Ok(found.map(|(record, _)| record.clone()))
    }

    fn records(&self, set: &str, query: &RecordQuery) -> Result<Vec<TickRecord>, StoreError> {
        let tables = self.tables();
        let Some(set) = tables.sets.get(set) else { return Ok(Vec::new()) };
        if query.ticks.is_empty() {
            return Ok(Vec::new());
        }
        let range = set.records.range(query.ticks.clone()).map(|(_, (record, _))| record);
        let limit = query.limit.min(RECORDS_PER_READ_MAX);
        Ok(match query.order {
            Order::OldestFirst => range.take(limit).cloned().collect(),
            Order::NewestFirst => range.rev().take(limit).cloned().collect(),
        })
    }

    fn last_record(&self, set: &str, direction: Option<Direction>) -> Result<Option<TickRecord>, StoreError> {
        let tables = self.tables();
        let Some(set) = tables.sets.get(set) else { return Ok(None) };
        let mut newest = set.records.values().rev().map(|(record, _)| record);
        Ok(newest.find(|record| direction.is_none_or(|wanted| record.direction() == wanted)).cloned())
    }

    fn events(
        &self,
        set: Option<&str>,
        after_seq: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Event)>, StoreError> {
        let tables = self.tables();
        let later = tables.events.range(after_seq.saturating_add(1)..);
        let wanted = later.filter(|(_, event)| set.is_none_or(|set| event.set == set));
        Ok(wanted.take(limit).map(|(&seq, event)| (seq, event.clone())).collect())
    }

    fn events_before(
        &self,
        set: Option<&str>,
        before_seq: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Event)>, StoreError> {
        let tables = self.tables();
        let newest = tables.events.range(..before_seq).rev();
        let wanted = newest.filter(|(_, event)| set.is_none_or(|set| event.set == set));
        let mut events: Vec<_> = wanted.take(limit).map(|(&seq, event)| (seq, event.clone())).collect();
        events.reverse();
        Ok(events)
    }
}

impl Blobs for MemoryStore {
    fn blob(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.tables().blobs.get(digest).cloned())
    }
}

impl Store for MemoryStore {
    fn stats(&self) -> Result<Stats, StoreError> {
        let tables = self.tables();
        let sets = tables.sets.iter().filter_map(|(name, set)| {
            Some(SetStats {
                set: name.clone(),
                records: set.records.len() as u64,
                record_bytes: set.record_bytes,
                oldest_tick: *set.records.keys().next()?,
                newest_tick: *set.records.keys().next_back()?,
            })
        });
        Ok(Stats {
            file_bytes: 0,
            disk_bytes: 0,
            sets: sets.collect(),
            events: tables.events.len() as u64,
            blobs: tables.blobs.len() as u64,
            images: tables.images.len() as u64,
        })
    }
}

impl Tables {
    fn apply(&mut self, batch: &Batch, record_bytes: &[u64], retention: &Retention) {
        let Batch { expect: _, state, history, blobs } = batch;
        self.last_commit.0 += 1;
        let revision = self.last_commit;
        for name in &state.removed_sets {
            if let Some(set) = self.sets.remove(name) {
                self.users.leave(blobs_of_set(&set.state));
                set.records.values().for_each(|(record, _)| self.users.leave(blobs_of_record(record)));
            }
        }
        // The last of a name counts, as if it stood alone.
        let last: BTreeMap<&str, &SetState> = state.sets.iter().map(|s| (s.set.name.as_str(), s)).collect();
        for state in last.into_values() {
            self.users.join(blobs_of_set(state));
            match self.sets.get_mut(&state.set.name) {
                Some(set) => {
                    self.users.leave(blobs_of_set(&set.state));
                    (set.state, set.revision) = (state.clone(), revision);
                }
                None => {
                    let (instances, records) = Default::default();
                    let set =
                        SetTables { state: state.clone(), revision, instances, records, record_bytes: 0 };
                    self.sets.insert(state.set.name.clone(), set);
                }
            }
        }
        for (set, id) in &state.removed_instances {
            if let Some(set) = self.sets.get_mut(set)
                && set.instances.remove(id).is_some()
            {
                set.revision = revision;
            }
        }
        for (set, instance) in &state.instances {
            if let Some(set) = self.sets.get_mut(set) {
                set.instances.insert(instance.id, instance.clone());
                set.revision = revision;
            }
        }
        for (record, &bytes) in history.records.iter().zip(record_bytes) {
            if let Some(set) = self.sets.get_mut(&record.observation.set) {
                self.users.join(blobs_of_record(record));
                set.records.insert(record.observation.tick, (TickRecord::clone(record), bytes));
                set.record_bytes += bytes;
                set.prune(retention, &mut self.users);
            }
        }
        for event in &history.events {
            self.last_event_seq += 1;
            self.events.insert(self.last_event_seq, event.clone());
        }
        while self.events.len() as u64 > retention.events_max {
            self.events.pop_first();
        }
        self.blobs.extend(blobs.iter().cloned());
        for (digest, _) in self.users.0.extract_if(.., |_, count| *count == 0) {
            self.blobs.remove(&digest);
        }
        for name in &state.removed_images {
            self.images.remove(name);
        }
        self.images.extend(state.images.iter().map(|image| (image.name.clone(), image.clone())));
    }
}

impl SetTables {
    fn prune(&mut self, retention: &Retention, users: &mut Users) {
        let Some((newest, _)) = self.records.values().next_back() else { return };
        let oldest_ms = newest.observation.now_ms.saturating_sub(retention.records_max_age_ms);
        while self.records.len() > 1
            && let Some(first) = self.records.first_entry()
            && (first.get().0.observation.now_ms < oldest_ms
                || self.record_bytes > retention.records_max_bytes_per_set)
        {
            let (record, bytes) = first.remove();
            users.leave(blobs_of_record(&record));
            self.record_bytes -= bytes;
        }
    }
}
