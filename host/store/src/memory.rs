//! A store that forgets everything when it is dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};

use regatta_core::catalogue::NamedImage;
use regatta_core::record::{Direction, TickRecord};
use regatta_core::state::{Event, InstanceRecord, SetState};

use crate::batch::{Batch, Retention, Stored, problems_of};
use crate::codec::record_to_json;
use crate::error::StoreError;
use crate::store::{Order, RECORDS_PER_READ_MAX, RecordQuery, SetStats, Stats, Store};

/// A store in memory, for tests and simulations.
///
/// It keeps to the same rules as the one on disk. Its retention differs in
/// detail: records go one by one, and their size is that of their JSON.
#[derive(Debug, Default)]
pub struct MemoryStore {
    retention: Retention,
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    sets: BTreeMap<String, StoredSet>,
    events: BTreeMap<u64, Event>,
    last_event_seq: u64,
    modules: BTreeMap<String, Vec<u8>>,
    images: BTreeMap<String, NamedImage>,
}

#[derive(Debug)]
struct StoredSet {
    state: SetState,
    instances: BTreeMap<u32, InstanceRecord>,
    /// With the size as JSON.
    records: BTreeMap<u64, (TickRecord, u64)>,
}

impl Stored for Tables {
    type Error = Infallible;
    fn has_set(&self, set: &str) -> Result<bool, Infallible> {
        Ok(self.sets.contains_key(set))
    }
    fn newest_tick(&self, set: &str) -> Result<Option<u64>, Infallible> {
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

impl Store for MemoryStore {
    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut tables = self.tables();
        let Ok(mut problems) = problems_of(batch, &*tables);
        let mut sizes = Vec::new();
        for record in &batch.records {
            match record_to_json(record) {
                Ok(json) => sizes.push(json.len() as u64),
                Err(problem) => problems.push(problem),
            }
        }
        if !problems.is_empty() {
            return Err(StoreError::Rejected { problems });
        }
        tables.apply(batch, &sizes, &self.retention);
        Ok(())
    }

    fn load(&self) -> Result<Vec<(SetState, Vec<InstanceRecord>)>, StoreError> {
        let tables = self.tables();
        let sets = tables.sets.values();
        Ok(sets.map(|set| (set.state.clone(), set.instances.values().cloned().collect())).collect())
    }

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

    fn latest_events(&self, set: Option<&str>, limit: usize) -> Result<Vec<(u64, Event)>, StoreError> {
        let tables = self.tables();
        let newest = tables.events.iter().rev();
        let wanted = newest.filter(|(_, event)| set.is_none_or(|set| event.set == set));
        let mut events: Vec<_> = wanted.take(limit).map(|(&seq, event)| (seq, event.clone())).collect();
        events.reverse();
        Ok(events)
    }

    fn module(&self, digest: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.tables().modules.get(digest).cloned())
    }

    fn images(&self) -> Result<Vec<NamedImage>, StoreError> {
        Ok(self.tables().images.values().cloned().collect())
    }

    fn image(&self, name: &str) -> Result<Option<NamedImage>, StoreError> {
        Ok(self.tables().images.get(name).cloned())
    }

    fn stats(&self) -> Result<Stats, StoreError> {
        let tables = self.tables();
        let sets = tables.sets.iter().filter_map(|(name, set)| {
            Some(SetStats {
                set: name.clone(),
                records: set.records.len() as u64,
                record_bytes: set.records.values().map(|(_, bytes)| bytes).sum(),
                oldest_tick: *set.records.keys().next()?,
                newest_tick: *set.records.keys().next_back()?,
            })
        });
        Ok(Stats {
            file_bytes: 0,
            disk_bytes: 0,
            sets: sets.collect(),
            events: tables.events.len() as u64,
            modules: tables.modules.len() as u64,
            images: tables.images.len() as u64,
        })
    }
}

impl Tables {
    fn apply(&mut self, batch: &Batch, record_bytes: &[u64], retention: &Retention) {
        let used_before = self.used_modules();
        for name in &batch.removed_sets {
            self.sets.remove(name);
        }
        for state in &batch.sets {
            match self.sets.get_mut(&state.set.name) {
                Some(set) => set.state = state.clone(),
                None => {
                    let (instances, records) = Default::default();
                    let set = StoredSet { state: state.clone(), instances, records };
                    self.sets.insert(state.set.name.clone(), set);
                }
            }
        }
        for (set, id) in &batch.removed_instances {
            if let Some(set) = self.sets.get_mut(set) {
                set.instances.remove(id);
            }
        }
        for (set, instance) in &batch.instances {
            if let Some(set) = self.sets.get_mut(set) {
                set.instances.insert(instance.id, instance.clone());
            }
        }
        for (record, &bytes) in batch.records.iter().zip(record_bytes) {
            if let Some(set) = self.sets.get_mut(&record.observation.set) {
                set.records.insert(record.observation.tick, (record.clone(), bytes));
                set.prune(retention);
            }
        }
        for event in &batch.events {
            self.last_event_seq += 1;
            self.events.insert(self.last_event_seq, event.clone());
        }
        while self.events.len() as u64 > retention.events_max {
            self.events.pop_first();
        }
        self.modules.extend(batch.modules.iter().cloned());
        let used = self.used_modules();
        for digest in used_before.difference(&used) {
            self.modules.remove(digest);
        }
        for name in &batch.removed_images {
            self.images.remove(name);
        }
        self.images.extend(batch.images.iter().map(|image| (image.name.clone(), image.clone())));
    }

    fn used_modules(&self) -> BTreeSet<String> {
        let mut used = BTreeSet::new();
        for set in self.sets.values() {
            used.extend(set.state.activations_kept().map(|policy| policy.digest.clone()));
            let runs = set.records.values().flat_map(|(record, _)| record.every_run());
            used.extend(runs.map(|run| run.digest.clone()));
        }
        used
    }
}

impl StoredSet {
    fn prune(&mut self, retention: &Retention) {
        let Some((newest, _)) = self.records.values().next_back() else { return };
        let oldest_ms = newest.observation.now_ms.saturating_sub(retention.records_max_age_ms);
        let mut bytes: u64 = self.records.values().map(|(_, bytes)| bytes).sum();
        while self.records.len() > 1
            && let Some(first) = self.records.first_entry()
            && (first.get().0.observation.now_ms < oldest_ms || bytes > retention.records_max_bytes_per_set)
        {
            bytes -= first.remove().1;
        }
    }
}
