//! One batch inside a write transaction.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use redb::{ReadableTable, WriteTransaction};
use regatta_core::batch::{Batch, Revision, StateChange};
use regatta_core::digest::Digest;
use regatta_core::event::Event;
use regatta_core::record::{Direction, TickRecord};
use regatta_core::state::SetState;

use crate::batch::{Retention, Stored, blobs_of_record, blobs_of_set, check};
use crate::codec::{Plain, blob_to_stored, from_json, to_json};
use crate::segment::{Segment, Unpacked};

use super::tables::{
    BLOBS, EVENTS, Fail, IMAGES, INSTANCES, LOGS, META, META_LAST_COMMIT, META_LAST_EVENT_SEQ, MOVE_IN,
    MOVE_OUT, MOVES, REVISIONS, SEGMENTS, SETS, SetLog,
};

/// Maximum number of segments of a set that one commit removes, so that a retention that
/// was lowered does not make one commit take long.
const SEGMENTS_PRUNED_PER_COMMIT: usize = 8;

/// Likewise for events, beyond as many as the commit adds.
const EVENTS_PRUNED_PER_COMMIT: u64 = 256;

/// What the writer remembers of the last record of each set, to spare it from
/// unpacking a whole segment each tick.
#[derive(Debug, Default)]
pub(super) struct Tails {
    last: HashMap<String, (u64, Unpacked)>,
    bytes: usize,
}

impl Tails {
    const BYTES_MAX: usize = 8 << 20;

    fn take(&mut self, set: &str, tick: u64) -> Option<Unpacked> {
        let (last_tick, last) = self.last.remove(set)?;
        self.bytes -= last.memory_bytes();
        (last_tick == tick).then_some(last)
    }

    fn put(&mut self, set: &str, tick: u64, last: Unpacked) {
        if self.bytes + last.memory_bytes() > Self::BYTES_MAX {
            *self = Self::default();
        }
        self.bytes += last.memory_bytes();
        if let Some((_, old)) = self.last.insert(set.to_owned(), (tick, last)) {
            self.bytes -= old.memory_bytes();
        }
    }
}

/// Makes every table, so that reads find them all.
pub(super) fn create_tables(transaction: &WriteTransaction) -> Result<(), Fail> {
    transaction.open_table(META)?;
    transaction.open_table(SETS)?;
    transaction.open_table(REVISIONS)?;
    transaction.open_table(INSTANCES)?;
    transaction.open_table(LOGS)?;
    transaction.open_table(SEGMENTS)?;
    transaction.open_table(MOVES)?;
    transaction.open_table(EVENTS)?;
    transaction.open_table(BLOBS)?;
    transaction.open_table(IMAGES)?;
    Ok(())
}

/// Counts a batch inside its transaction: its number tells later whether it is stored.
pub(super) fn count_commit(transaction: &WriteTransaction) -> Result<Revision, Fail> {
    let mut meta = transaction.open_table(META)?;
    let number = meta.get(META_LAST_COMMIT)?.map_or(0, |last| last.value()) + 1;
    meta.insert(META_LAST_COMMIT, number)?;
    Ok(Revision(number))
}

/// Applies a batch; its number. After [`StoreError::Conflict`](crate::StoreError::Conflict) and
/// [`StoreError::Rejected`](crate::StoreError::Rejected) the transaction is as it was, after another error it must be dropped.
pub(super) fn apply(
    transaction: &WriteTransaction,
    batch: &Batch,
    retention: &Retention,
    tails: &mut Tails,
) -> Result<Revision, Fail> {
    let Batch { expect: _, state, history, blobs } = batch;
    let plain = check(batch, &View(transaction))?;
    let mut records: BTreeMap<&str, Vec<(&TickRecord, Plain)>> = BTreeMap::new();
    for (record, plain) in history.records.iter().zip(plain) {
        records.entry(&record.observation.set).or_default().push((record, plain));
    }
    let revision = count_commit(transaction)?;
    // Blobs that lost one of their users; perhaps it was the last.
    let mut left = BTreeSet::new();
    for set in &state.removed_sets {
        remove_set(transaction, set, &mut left)?;
    }
    let mut changed = put_sets(transaction, &state.sets, &mut left)?;
    put_instances(transaction, state, &mut changed)?;
    if !changed.is_empty() {
        let mut revisions = transaction.open_table(REVISIONS)?;
        for set in changed {
            revisions.insert(set, revision.0)?;
        }
    }
    for (set, records) in &records {
        append(transaction, set, records, retention, tails, &mut left)?;
    }
    put_events(transaction, &history.events, retention)?;
    put_images(transaction, state)?;
    put_blobs(transaction, blobs)?;
    if !left.is_empty() {
        let used = used_blobs(transaction)?;
        let mut blobs = transaction.open_table(BLOBS)?;
        for digest in left.difference(&used) {
            blobs.remove(digest.as_str())?;
        }
    }
    Ok(revision)
}

struct View<'t>(&'t WriteTransaction);

impl Stored for View<'_> {
    type Error = Fail;
    fn revision(&self, set: &str) -> Result<Option<Revision>, Fail> {
        Ok(self.0.open_table(REVISIONS)?.get(set)?.map(|revision| Revision(revision.value())))
    }
    fn newest_tick(&self, set: &str) -> Result<Option<u64>, Fail> {
        Ok(log(self.0, set)?.map(|log| log.newest_tick))
    }
}

fn log(transaction: &WriteTransaction, set: &str) -> Result<Option<SetLog>, Fail> {
    let logs = transaction.open_table(LOGS)?;
    let Some(log) = logs.get(set)? else { return Ok(None) };
    Ok(Some(from_json(&format!("the log of set {set}"), log.value())?))
}

fn remove_set(transaction: &WriteTransaction, set: &str, left: &mut BTreeSet<Digest>) -> Result<(), Fail> {
    if let Some(state) = transaction.open_table(SETS)?.remove(set)? {
        let state: SetState = from_json(&format!("set {set}"), state.value())?;
        left.extend(blobs_of_set(&state).cloned());
    }
    if let Some(log) = transaction.open_table(LOGS)?.remove(set)? {
        let log: SetLog = from_json(&format!("the log of set {set}"), log.value())?;
        left.extend(log.blobs.into_iter().map(|(digest, _)| digest));
    }
    transaction.open_table(REVISIONS)?.remove(set)?;
    transaction.open_table(INSTANCES)?.retain_in((set, 0)..=(set, u32::MAX), |_, _| false)?;
    transaction.open_table(SEGMENTS)?.retain_in((set, 0)..=(set, u64::MAX), |_, _| false)?;
    transaction.open_table(MOVES)?.retain_in((set, 0, 0)..=(set, u8::MAX, u64::MAX), |_, ()| false)?;
    Ok(())
}

/// The names of the sets.
fn put_sets<'a>(
    transaction: &WriteTransaction,
    put: &'a [SetState],
    left: &mut BTreeSet<Digest>,
) -> Result<BTreeSet<&'a str>, Fail> {
    // The last of a name counts, as if it stood alone.
    let last: BTreeMap<&str, &SetState> = put.iter().map(|s| (s.set.name.as_str(), s)).collect();
    if last.is_empty() {
        return Ok(BTreeSet::new());
    }
    let mut sets = transaction.open_table(SETS)?;
    for (name, state) in &last {
        if let Some(old) = sets.insert(name, to_json(state).as_slice())? {
            let old: SetState = from_json(&format!("set {name}"), old.value())?;
            left.extend(blobs_of_set(&old).cloned());
        }
        // The usual case, a set that keeps its policy, costs no search for users.
        for digest in blobs_of_set(state) {
            left.remove(digest);
        }
    }
    Ok(last.into_keys().collect())
}

/// Adds to the sets that are `changed`.
fn put_instances<'a>(
    transaction: &WriteTransaction,
    state: &'a StateChange,
    changed: &mut BTreeSet<&'a str>,
) -> Result<(), Fail> {
    if state.instances.is_empty() && state.removed_instances.is_empty() {
        return Ok(());
    }
    let mut instances = transaction.open_table(INSTANCES)?;
    for (set, id) in &state.removed_instances {
        if instances.remove((set.as_str(), *id))?.is_some() {
            changed.insert(set);
        }
    }
    for (set, instance) in &state.instances {
        instances.insert((set.as_str(), instance.id), to_json(instance).as_slice())?;
        changed.insert(set);
    }
    Ok(())
}

pub(super) fn put_blobs(transaction: &WriteTransaction, put: &[(Digest, Vec<u8>)]) -> Result<(), Fail> {
    if put.is_empty() {
        return Ok(());
    }
    let mut blobs = transaction.open_table(BLOBS)?;
    for (digest, bytes) in put {
        if blobs.get(digest.as_str())?.is_none() {
            let stored = blob_to_stored(bytes).map_err(|error| error.to_string())?;
            blobs.insert(digest.as_str(), stored.as_slice())?;
        }
    }
    Ok(())
}

fn put_images(transaction: &WriteTransaction, state: &StateChange) -> Result<(), Fail> {
    if state.images.is_empty() && state.removed_images.is_empty() {
        return Ok(());
    }
    let mut images = transaction.open_table(IMAGES)?;
    for name in &state.removed_images {
        images.remove(name.as_str())?;
    }
    for image in &state.images {
        images.insert(image.name.as_str(), to_json(image).as_slice())?;
    }
    Ok(())
}

fn put_events(transaction: &WriteTransaction, put: &[Event], retention: &Retention) -> Result<(), Fail> {
    if put.is_empty() {
        return Ok(());
    }
    let mut meta = transaction.open_table(META)?;
    let mut seq = meta.get(META_LAST_EVENT_SEQ)?.map_or(0, |seq| seq.value());
    let mut events = transaction.open_table(EVENTS)?;
    for event in put {
        seq += 1;
        events.insert(seq, to_json(event).as_slice())?;
    }
    meta.insert(META_LAST_EVENT_SEQ, seq)?;
    // Numbers have no gaps, so the first to keep is known.
    let keep_from = (seq + 1).saturating_sub(retention.events_max);
    let oldest = events.first()?.map(|(seq, _)| seq.value());
    if let Some(oldest) = oldest {
        let bound = EVENTS_PRUNED_PER_COMMIT + put.len() as u64;
        events.retain_in(oldest..keep_from.min(oldest + bound).max(oldest), |_, _| false)?;
    }
    Ok(())
}

/// Appends records to a set's log and prunes its oldest segments.
fn append(
    transaction: &WriteTransaction,
    set: &str,
    records: &[(&TickRecord, Plain)],
    retention: &Retention,
    tails: &mut Tails,
    left: &mut BTreeSet<Digest>,
) -> Result<(), Fail> {
    let mut log = log(transaction, set)?.unwrap_or_default();
    let mut segments = transaction.open_table(SEGMENTS)?;
    let mut moves = transaction.open_table(MOVES)?;

    let (mut first_tick, mut segment) = match segments.range((set, 0)..=(set, u64::MAX))?.next_back() {
        Some(row) => {
            let (key, segment) = row?;
            (key.value().1, Segment::parse(segment.value())?)
        }
        None => (0, Segment::default()),
    };
    let mut last = match segment.entries().last() {
        Some(last) => match tails.take(set, last.tick) {
            Some(last) => last,
            None => segment.last()?,
        },
        None => Unpacked::default(),
    };
    log.bytes -= if segment.entries().is_empty() { 0 } else { segment.stored_bytes() as u64 };
    let mut newest_ms = 0;
    for (record, plain) in records {
        let observation = &record.observation;
        let (tick, now_ms) = (observation.tick, observation.now_ms);
        let push = |segment: &mut Segment| {
            segment.push(tick, now_ms, plain, &last).map_err(|error| error.to_string())
        };
        let pushed = match push(&mut segment)? {
            Some(pushed) => pushed,
            None => {
                segments.insert((set, first_tick), segment.to_bytes().as_slice())?;
                log.bytes += segment.stored_bytes() as u64;
                segment = Segment::default();
                push(&mut segment)?.ok_or_else(|| "an empty segment takes no record".to_owned())?
            }
        };
        if segment.entries().len() == 1 {
            first_tick = tick;
        }
        if log.records == 0 {
            log.oldest_tick = tick;
        }
        log.records += 1;
        log.newest_tick = tick;
        newest_ms = now_ms;
        match record.direction() {
            Direction::ScaleOut => _ = moves.insert((set, MOVE_OUT, tick), ())?,
            Direction::ScaleIn => _ = moves.insert((set, MOVE_IN, tick), ())?,
            Direction::None => {}
        }
        for digest in blobs_of_record(record) {
            match log.blobs.iter_mut().find(|(known, _)| known == digest) {
                Some((_, last)) => *last = tick,
                None => log.blobs.push((digest.clone(), tick)),
            }
        }
        last = pushed;
    }
    segments.insert((set, first_tick), segment.to_bytes().as_slice())?;
    log.bytes += segment.stored_bytes() as u64;
    tails.put(set, log.newest_tick, last);

    let oldest_ms = newest_ms.saturating_sub(retention.records_max_age_ms);
    for _ in 0..SEGMENTS_PRUNED_PER_COMMIT {
        let oldest = {
            let Some(row) = segments.range((set, 0)..=(set, u64::MAX))?.next() else { break };
            let (key, value) = row?;
            let oldest = Segment::parse(value.value())?;
            let outdated = oldest.entries().last().is_some_and(|last| last.now_ms < oldest_ms);
            // The last segment is still growing.
            let surplus = outdated || log.bytes > retention.records_max_bytes_per_set;
            if key.value().1 == first_tick || !surplus {
                break;
            }
            oldest
        };
        let key = oldest.entries().first().map_or(0, |first| first.tick);
        segments.remove((set, key))?;
        log.records -= oldest.entries().len() as u64;
        log.bytes -= oldest.stored_bytes() as u64;
        log.oldest_tick = match segments.range((set, key)..=(set, u64::MAX))?.next() {
            Some(row) => row?.0.value().1,
            None => first_tick,
        };
        for moved in [MOVE_OUT, MOVE_IN] {
            moves.retain_in((set, moved, 0)..(set, moved, log.oldest_tick), |_, ()| false)?;
        }
        let kept = log.oldest_tick;
        left.extend(log.blobs.extract_if(.., |(_, last)| *last < kept).map(|(digest, _)| digest));
    }
    transaction.open_table(LOGS)?.insert(set, to_json(&log).as_slice())?;
    Ok(())
}

/// Blobs that a set or a kept record refers to.
fn used_blobs(transaction: &WriteTransaction) -> Result<BTreeSet<Digest>, Fail> {
    let mut used = BTreeSet::new();
    for row in transaction.open_table(SETS)?.iter()? {
        let (name, state) = row?;
        let state: SetState = from_json(&format!("set {}", name.value()), state.value())?;
        used.extend(blobs_of_set(&state).cloned());
    }
    for row in transaction.open_table(LOGS)?.iter()? {
        let (name, log) = row?;
        let log: SetLog = from_json(&format!("the log of set {}", name.value()), log.value())?;
        used.extend(log.blobs.into_iter().map(|(digest, _)| digest));
    }
    Ok(used)
}

/// Removes blobs that nothing refers to. Only while no one is in the middle of a
/// swap: that stores a module before any set refers to it.
pub(super) fn remove_unused_blobs(transaction: &WriteTransaction) -> Result<(), Fail> {
    let used = used_blobs(transaction)?;
    transaction.open_table(BLOBS)?.retain(|digest, _| used.contains(digest))?;
    Ok(())
}
