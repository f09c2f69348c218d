//! One batch inside a write transaction.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use redb::{ReadableTable, WriteTransaction};
use regatta_core::record::{Direction, TickRecord};
use regatta_core::state::SetState;

use crate::batch::{Batch, Retention, Stored, problems_of};
use crate::codec::{from_json, module_to_stored, record_to_json, to_json};
use crate::error::StoreError;
use crate::segment::Segment;

use super::tables::{
    EVENTS, Fail, IMAGES, INSTANCES, LOGS, META, META_LAST_COMMIT, META_LAST_EVENT_SEQ, MODULES, MOVE_IN,
    MOVE_OUT, MOVES, SEGMENTS, SETS, SetLog,
};

/// Segments of a set that one commit removes at most, so that a retention that
/// was lowered does not make one commit take long.
const SEGMENTS_PRUNED_PER_COMMIT: usize = 8;

/// Likewise for events, beyond as many as the commit adds.
const EVENTS_PRUNED_PER_COMMIT: u64 = 256;

/// What the writer remembers of the last record of each set, to spare it from
/// unpacking a whole segment each tick.
#[derive(Debug, Default)]
pub(super) struct Tails {
    json: HashMap<String, (u64, Vec<u8>)>,
    bytes: usize,
}

impl Tails {
    const BYTES_MAX: usize = 8 << 20;

    fn take(&mut self, set: &str, tick: u64) -> Option<Vec<u8>> {
        let (last, json) = self.json.remove(set)?;
        self.bytes -= json.len();
        (last == tick).then_some(json)
    }

    fn put(&mut self, set: &str, tick: u64, json: Vec<u8>) {
        if self.bytes + json.len() > Self::BYTES_MAX {
            *self = Self::default();
        }
        self.bytes += json.len();
        if let Some((_, old)) = self.json.insert(set.to_owned(), (tick, json)) {
            self.bytes -= old.len();
        }
    }
}

/// Makes every table, so that reads find them all.
pub(super) fn create_tables(transaction: &WriteTransaction) -> Result<(), Fail> {
    transaction.open_table(META)?;
    transaction.open_table(SETS)?;
    transaction.open_table(INSTANCES)?;
    transaction.open_table(LOGS)?;
    transaction.open_table(SEGMENTS)?;
    transaction.open_table(MOVES)?;
    transaction.open_table(EVENTS)?;
    transaction.open_table(MODULES)?;
    transaction.open_table(IMAGES)?;
    Ok(())
}

/// Counts a commit inside itself: its number tells later whether it is stored.
pub(super) fn count_commit(transaction: &WriteTransaction) -> Result<u64, Fail> {
    let mut meta = transaction.open_table(META)?;
    let number = meta.get(META_LAST_COMMIT)?.map_or(0, |last| last.value()) + 1;
    meta.insert(META_LAST_COMMIT, number)?;
    Ok(number)
}

/// Applies a batch; after an error the transaction must be dropped.
pub(super) fn apply(
    transaction: &WriteTransaction,
    batch: &Batch,
    retention: &Retention,
    tails: &mut Tails,
) -> Result<(), Fail> {
    let records = check(transaction, batch)?;
    // Modules that lost one of their users; perhaps it was the last.
    let mut left = BTreeSet::new();
    for set in &batch.removed_sets {
        remove_set(transaction, set, &mut left)?;
    }
    put_sets(transaction, batch, &mut left)?;
    put_instances(transaction, batch)?;
    for (set, records) in &records {
        append(transaction, set, records, retention, tails, &mut left)?;
    }
    put_events(transaction, batch, retention)?;
    put_images(transaction, batch)?;
    if !batch.modules.is_empty() {
        let mut modules = transaction.open_table(MODULES)?;
        for (digest, bytes) in &batch.modules {
            if modules.get(digest.as_str())?.is_none() {
                let stored = module_to_stored(bytes).map_err(|error| error.to_string())?;
                modules.insert(digest.as_str(), stored.as_slice())?;
            }
        }
    }
    if !left.is_empty() {
        let used = used_modules(transaction)?;
        let mut modules = transaction.open_table(MODULES)?;
        for digest in left.difference(&used) {
            modules.remove(digest.as_str())?;
        }
    }
    Ok(())
}

/// A record and its JSON.
type Encoded<'a> = (&'a TickRecord, Vec<u8>);

/// Refuses a batch that breaks a rule; otherwise its records by set, as JSON.
fn check<'a>(
    transaction: &WriteTransaction,
    batch: &'a Batch,
) -> Result<BTreeMap<&'a str, Vec<Encoded<'a>>>, Fail> {
    struct View<'t>(&'t WriteTransaction);
    impl Stored for View<'_> {
        type Error = Fail;
        fn has_set(&self, set: &str) -> Result<bool, Fail> {
            Ok(self.0.open_table(SETS)?.get(set)?.is_some())
        }
        fn newest_tick(&self, set: &str) -> Result<Option<u64>, Fail> {
            Ok(log(self.0, set)?.map(|log| log.newest_tick))
        }
    }
    let mut problems = problems_of(batch, &View(transaction))?;
    let mut records: BTreeMap<&str, Vec<Encoded<'_>>> = BTreeMap::new();
    for record in &batch.records {
        match record_to_json(record) {
            Ok(json) => records.entry(&record.observation.set).or_default().push((record, json)),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(records) } else { Err(Fail::Store(StoreError::Rejected { problems })) }
}

fn log(transaction: &WriteTransaction, set: &str) -> Result<Option<SetLog>, Fail> {
    let logs = transaction.open_table(LOGS)?;
    let Some(log) = logs.get(set)? else { return Ok(None) };
    Ok(Some(from_json(&format!("the log of set {set}"), log.value())?))
}

fn modules_of(state: &SetState) -> impl Iterator<Item = String> {
    state.activations_kept().map(|policy| policy.digest.clone()).collect::<Vec<_>>().into_iter()
}

fn remove_set(transaction: &WriteTransaction, set: &str, left: &mut BTreeSet<String>) -> Result<(), Fail> {
    if let Some(state) = transaction.open_table(SETS)?.remove(set)? {
        left.extend(modules_of(&from_json(&format!("set {set}"), state.value())?));
    }
    if let Some(log) = transaction.open_table(LOGS)?.remove(set)? {
        let log: SetLog = from_json(&format!("the log of set {set}"), log.value())?;
        left.extend(log.modules.into_iter().map(|(digest, _)| digest));
    }
    transaction.open_table(INSTANCES)?.retain_in((set, 0)..=(set, u32::MAX), |_, _| false)?;
    transaction.open_table(SEGMENTS)?.retain_in((set, 0)..=(set, u64::MAX), |_, _| false)?;
    transaction.open_table(MOVES)?.retain_in((set, 0, 0)..=(set, u8::MAX, u64::MAX), |_, ()| false)?;
    Ok(())
}

fn put_sets(transaction: &WriteTransaction, batch: &Batch, left: &mut BTreeSet<String>) -> Result<(), Fail> {
    if batch.sets.is_empty() {
        return Ok(());
    }
    let mut sets = transaction.open_table(SETS)?;
    // The last of a name counts, as if it stood alone.
    let last: BTreeMap<&str, &SetState> = batch.sets.iter().map(|s| (s.set.name.as_str(), s)).collect();
    for (name, state) in last {
        if let Some(old) = sets.insert(name, to_json(state).as_slice())? {
            let old: SetState = from_json(&format!("set {name}"), old.value())?;
            left.extend(modules_of(&old));
        }
        // The usual case, a set that keeps its policy, costs no search for users.
        for digest in modules_of(state) {
            left.remove(&digest);
        }
    }
    Ok(())
}

fn put_instances(transaction: &WriteTransaction, batch: &Batch) -> Result<(), Fail> {
    if batch.instances.is_empty() && batch.removed_instances.is_empty() {
        return Ok(());
    }
    let mut instances = transaction.open_table(INSTANCES)?;
    for (set, id) in &batch.removed_instances {
        instances.remove((set.as_str(), *id))?;
    }
    for (set, instance) in &batch.instances {
        instances.insert((set.as_str(), instance.id), to_json(instance).as_slice())?;
    }
    Ok(())
}

fn put_images(transaction: &WriteTransaction, batch: &Batch) -> Result<(), Fail> {
    if batch.images.is_empty() && batch.removed_images.is_empty() {
        return Ok(());
    }
    let mut images = transaction.open_table(IMAGES)?;
    for name in &batch.removed_images {
        images.remove(name.as_str())?;
    }
    for image in &batch.images {
        images.insert(image.name.as_str(), to_json(image).as_slice())?;
    }
    Ok(())
}

fn put_events(transaction: &WriteTransaction, batch: &Batch, retention: &Retention) -> Result<(), Fail> {
    if batch.events.is_empty() {
        return Ok(());
    }
    let mut meta = transaction.open_table(META)?;
    let mut seq = meta.get(META_LAST_EVENT_SEQ)?.map_or(0, |seq| seq.value());
    let mut events = transaction.open_table(EVENTS)?;
    for event in &batch.events {
        seq += 1;
        events.insert(seq, to_json(event).as_slice())?;
    }
    meta.insert(META_LAST_EVENT_SEQ, seq)?;
    // Numbers have no gaps, so the first to keep is known.
    let keep_from = (seq + 1).saturating_sub(retention.events_max);
    let oldest = events.first()?.map(|(seq, _)| seq.value());
    if let Some(oldest) = oldest {
        let bound = EVENTS_PRUNED_PER_COMMIT + batch.events.len() as u64;
        events.retain_in(oldest..keep_from.min(oldest + bound).max(oldest), |_, _| false)?;
    }
    Ok(())
}

/// Appends records to a set's log and prunes its oldest segments.
fn append(
    transaction: &WriteTransaction,
    set: &str,
    records: &[Encoded<'_>],
    retention: &Retention,
    tails: &mut Tails,
    left: &mut BTreeSet<String>,
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
    let mut last_json = match (segment.entries().last(), records.is_empty()) {
        (Some(last), false) => match tails.take(set, last.tick) {
            Some(json) => json,
            None => segment.last_json()?,
        },
        _ => Vec::new(),
    };
    log.bytes -= if segment.entries().is_empty() { 0 } else { segment.stored_bytes() as u64 };
    let mut newest_ms = 0;
    for (record, json) in records {
        let observation = &record.observation;
        let (tick, now_ms) = (observation.tick, observation.now_ms);
        let push = |segment: &mut Segment| {
            segment.push(tick, now_ms, json, &last_json).map_err(|error| error.to_string())
        };
        if !push(&mut segment)? {
            segments.insert((set, first_tick), segment.to_bytes().as_slice())?;
            log.bytes += segment.stored_bytes() as u64;
            segment = Segment::default();
            push(&mut segment)?;
        }
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
        for run in record.every_run() {
            match log.modules.iter_mut().find(|(digest, _)| *digest == run.digest) {
                Some((_, last)) => *last = tick,
                None => log.modules.push((run.digest.clone(), tick)),
            }
        }
        last_json.clone_from(json);
    }
    segments.insert((set, first_tick), segment.to_bytes().as_slice())?;
    log.bytes += segment.stored_bytes() as u64;
    tails.put(set, log.newest_tick, last_json);

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
        left.extend(log.modules.extract_if(.., |(_, last)| *last < kept).map(|(digest, _)| digest));
    }
    transaction.open_table(LOGS)?.insert(set, to_json(&log).as_slice())?;
    Ok(())
}

/// Modules that a set or a kept record uses.
fn used_modules(transaction: &WriteTransaction) -> Result<BTreeSet<String>, Fail> {
    let mut used = BTreeSet::new();
    for row in transaction.open_table(SETS)?.iter()? {
        let (name, state) = row?;
        used.extend(modules_of(&from_json(&format!("set {}", name.value()), state.value())?));
    }
    for row in transaction.open_table(LOGS)?.iter()? {
        let (name, log) = row?;
        let log: SetLog = from_json(&format!("the log of set {}", name.value()), log.value())?;
        used.extend(log.modules.into_iter().map(|(digest, _)| digest));
    }
    Ok(used)
}

/// Removes modules that nothing uses. Only while no one is in the middle of a
/// swap: that stores a module before any set refers to it.
pub(super) fn remove_unused_modules(transaction: &WriteTransaction) -> Result<(), Fail> {
    let used = used_modules(transaction)?;
    transaction.open_table(MODULES)?.retain(|digest, _| used.contains(digest))?;
    Ok(())
}
