//! A power failure at any moment, simulated: of what was written since the last
//! sync, some arrives, some does not, and some arrives in part.

use std::sync::{Arc, Mutex, MutexGuard};

use proptest::prelude::*;
use redb::{BackendError, Database, ReadableDatabase, StorageBackend};
use regatta_core::batch::{Batch, History};
use regatta_core::digest::Digest;
use regatta_core::event::{Actor, Event, EventKind};

use crate::batch::Retention;

use super::read;
use super::write::{Tails, apply, create_tables};

const SECTOR_BYTES: usize = 512;

#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, data: Vec<u8> },
    SetLen(usize),
}

#[derive(Debug, Default)]
struct Disk {
    /// What a power failure cannot take.
    durable: Vec<u8>,
    /// What the system has accepted since.
    pending: Vec<Change>,
    /// Both together.
    seen: Vec<u8>,
    /// Writes until the power fails.
    writes_left: u64,
}

fn perform(image: &mut Vec<u8>, change: &Change) {
    match change {
        Change::SetLen(len) => image.resize(*len, 0),
        Change::Write { offset, data } => {
            let end = offset + data.len();
            if image.len() < end {
                image.resize(end, 0);
            }
            image[*offset..end].copy_from_slice(data);
        }
    }
}

impl Disk {
    fn change(&mut self, change: Change) -> Result<(), BackendError> {
        self.writes_left = self.writes_left.checked_sub(1).ok_or_else(power_failed)?;
        perform(&mut self.seen, &change);
        self.pending.push(change);
        Ok(())
    }

    /// What is found when the power is back. `fate` decides what became of each
    /// change that was not synced.
    fn after_power_failure(&self, mut fate: impl FnMut() -> u8) -> Vec<u8> {
        let mut image = self.durable.clone();
        for change in &self.pending {
            match (fate() % 3, change) {
                (0, _) => {}
                (1, Change::Write { offset, data }) => {
                    let sectors = data.len() / SECTOR_BYTES;
                    let arrived = usize::from(fate()) % (sectors + 1) * SECTOR_BYTES;
                    let data = data[..arrived].to_vec();
                    perform(&mut image, &Change::Write { offset: *offset, data });
                }
                _ => perform(&mut image, change),
            }
        }
        image
    }
}

fn power_failed() -> BackendError {
    BackendError::Other("the power failed".into())
}

#[derive(Debug, Clone, Default)]
struct Backend(Arc<Mutex<Disk>>);

impl Backend {
    fn new(content: Vec<u8>, writes_left: u64) -> Self {
        let (durable, seen) = (content.clone(), content);
        Self(Arc::new(Mutex::new(Disk { durable, pending: Vec::new(), seen, writes_left })))
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap()
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> Result<u64, std::io::Error> {
        Ok(self.disk().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        let disk = self.disk();
        let from = offset as usize;
        let found = disk.seen.get(from..from + out.len()).ok_or(std::io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
        Ok(self.disk().change(Change::SetLen(len as usize))?)
    }

    fn sync_data(&self) -> Result<(), std::io::Error> {
        let mut disk = self.disk();
        if disk.writes_left == 0 {
            return Err(power_failed().into());
        }
        disk.pending.clear();
        disk.durable = disk.seen.clone();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        Ok(self.disk().change(Change::Write { offset: offset as usize, data: data.to_vec() })?)
    }
}

/// Batch `number`: some events, each with the number, and some noise that makes
/// pages come and go.
fn batch(number: u64) -> Batch {
    let events = (0..number % 5 + 1).map(|part| Event {
        at_ms: number,
        set: part.to_string(),
        kind: EventKind::Protection,
        instance: None,
        text: Digest::of(&number.to_le_bytes()).repeat((number % 7 * 20) as usize).into(),
        policy: None,
        actor: Actor::User(number.to_string()),
    });
    Batch { history: History { events: events.collect(), records: Vec::new() }, ..Batch::default() }
}

const RETENTION: Retention =
    Retention { records_max_age_ms: 0, records_max_bytes_per_set: 0, events_max: 12 };

fn open(backend: Backend) -> Result<Database, redb::DatabaseError> {
    redb::Builder::new().set_cache_size(1 << 20).create_with_backend(backend)
}

/// An empty store. It is made under another name, so no failure meets it half-made.
fn empty() -> Vec<u8> {
    let backend = Backend::new(Vec::new(), u64::MAX);
    let database = open(backend.clone()).unwrap();
    let transaction = database.begin_write().unwrap();
    create_tables(&transaction).unwrap();
    transaction.commit().unwrap();
    database.close().unwrap();
    let disk = backend.disk();
    disk.seen.clone()
}

/// Commits from `number` on until the power fails; the last that was acknowledged.
fn commit_until_it_fails(backend: &Backend, mut number: u64) -> u64 {
    let Ok(database) = open(backend.clone()) else { return number };
    let mut tails = Tails::default();
    loop {
        let Ok(transaction) = database.begin_write() else { return number };
        let applied = apply(&transaction, &batch(number + 1), &RETENTION, &mut tails);
        if applied.is_err() || transaction.commit().is_err() {
            return number;
        }
        number += 1;
    }
}

/// The number of the last batch that is there; each event is as it was written.
fn stored(backend: Backend) -> u64 {
    let database = open(backend).unwrap();
    let transaction = database.begin_read().unwrap();
    let events = read::events(&transaction, None, 0, 1_000).unwrap();
    let Some((_, last)) = events.last() else { return 0 };
    let number: u64 = last.actor.as_str().parse().unwrap();
    let mut wanted: Vec<Event> = (1..=number).flat_map(|number| batch(number).history.events).collect();
    wanted.drain(..wanted.len().saturating_sub(RETENTION.events_max as usize));
    let found: Vec<Event> = events.into_iter().map(|(_, event)| event).collect();
    assert_eq!(found, wanted, "after batch {number}");
    number
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Several failures in a row on one disk; also while it is being repaired.
    #[test]
    fn what_was_acknowledged_is_there(
        failures in proptest::collection::vec((0u64..400, any::<u64>()), 1..6),
    ) {
        let (mut content, mut number) = (empty(), 0);
        for (writes, fate) in failures {
            let backend = Backend::new(content, writes);
            let acknowledged = commit_until_it_fails(&backend, number);
            let mut fates = fate;
            content = backend.disk().after_power_failure(|| {
                // A linear congruential generator; its high bits are good enough.
                fates = fates.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (fates >> 56) as u8
            });
            let found = stored(Backend::new(content.clone(), u64::MAX));
            prop_assert!(
                found == acknowledged || found == acknowledged + 1,
                "{found} stored, {acknowledged} acknowledged"
            );
            number = found;
        }
    }
}
