//! Reads, each within one transaction that sees one committed state.

use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata};
use regatta_core::batch::Revision;
use regatta_core::catalogue::NamedImage;
use regatta_core::digest::Digest;
use regatta_core::event::Event;
use regatta_core::manifest::name_problem;
use regatta_core::record::{Direction, TickRecord};
use regatta_core::state::SetState;

use crate::codec::{blob_from_stored, from_json};
use crate::segment::Segment;
use crate::store::{Order, RECORDS_PER_READ_MAX, RecordQuery, SetStats, Stats, StoredSet};

use super::tables::{
    BLOBS, EVENTS, Fail, IMAGES, INSTANCES, LOGS, META, META_LAST_COMMIT, MOVE_IN, MOVE_OUT, MOVES,
    REVISIONS, SEGMENTS, SETS, SetLog,
};

pub(super) fn load(transaction: &ReadTransaction) -> Result<Vec<StoredSet>, Fail> {
    let all_instances = transaction.open_table(INSTANCES)?;
    let revisions = transaction.open_table(REVISIONS)?;
    let mut sets = Vec::new();
    for row in transaction.open_table(SETS)?.iter()? {
        let (name, state) = row?;
        let name = name.value();
        let state: SetState = from_json(&format!("set {name}"), state.value())?;
        refuse_names(name, &state)?;
        let mut instances = Vec::new();
        for row in all_instances.range((name, 0)..=(name, u32::MAX))? {
            let (key, instance) = row?;
            let what = format!("instance {} of set {name}", key.value().1);
            instances.push(from_json(&what, instance.value())?);
        }
        let revision = revisions.get(name)?.ok_or_else(|| format!("set {name} has no revision"))?;
        sets.push(StoredSet { state, instances, revision: Revision(revision.value()) });
    }
    Ok(sets)
}

/// Names become names of directories: what no manifest could have said is not the work of a daemon.
fn refuse_names(key: &str, state: &SetState) -> Result<(), String> {
    if state.set.name != key {
        return Err(format!("set {key:?} is stored with another name, {:?}", state.set.name));
    }
    let images = state.set.image.name.iter();
    let names = std::iter::once(&state.set.name).chain(images);
    refuse_name(names)
}

fn refuse_name<'a>(names: impl IntoIterator<Item = &'a String>) -> Result<(), String> {
    for name in names {
        if let Some(problem) = name_problem(name) {
            return Err(format!("the stored name {name:?} {problem}"));
        }
    }
    Ok(())
}

/// Number of the last commit that is stored.
pub(super) fn last_commit(transaction: &ReadTransaction) -> Result<u64, Fail> {
    Ok(transaction.open_table(META)?.get(META_LAST_COMMIT)?.map_or(0, |last| last.value()))
}

/// The segment that holds `tick`, if any does.
fn segment_of(transaction: &ReadTransaction, set: &str, tick: u64) -> Result<Option<Segment>, Fail> {
    let segments = transaction.open_table(SEGMENTS)?;
    let Some(row) = segments.range((set, 0)..=(set, tick))?.next_back() else { return Ok(None) };
    let (_, segment) = row?;
    Ok(Some(Segment::parse(segment.value())?))
}

pub(super) fn record(
    transaction: &ReadTransaction,
    set: &str,
    tick: u64,
) -> Result<Option<TickRecord>, Fail> {
    let Some(segment) = segment_of(transaction, set, tick)? else { return Ok(None) };
    Ok(segment.record(tick)?)
}

pub(super) fn records(
    transaction: &ReadTransaction,
    set: &str,
    query: &RecordQuery,
) -> Result<Vec<TickRecord>, Fail> {
    let mut found = Vec::new();
    let limit = query.limit.min(RECORDS_PER_READ_MAX);
    if query.ticks.is_empty() || limit == 0 {
        return Ok(found);
    }
    let segments = transaction.open_table(SEGMENTS)?;
    let (first, last) = (*query.ticks.start(), *query.ticks.end());
    // The first tick may lie within a segment that begins before it.
    let from = match segments.range((set, 0)..=(set, first))?.next_back() {
        Some(row) => row?.0.value().1,
        None => first,
    };
    let mut range = segments.range((set, from)..=(set, last))?;
    while found.len() < limit {
        let row = match query.order {
            Order::OldestFirst => range.next(),
            Order::NewestFirst => range.next_back(),
        };
        let Some(row) = row else { break };
        let (_, segment) = row?;
        let segment = Segment::parse(segment.value())?;
        let room = limit - found.len();
        match query.order {
            Order::OldestFirst => found.extend(records_of(&segment, (first, last), 0, room)?),
            Order::NewestFirst => {
                let inside = segment.entries().iter().filter(|e| query.ticks.contains(&e.tick)).count();
                let mut newest = records_of(&segment, (first, last), inside.saturating_sub(room), room)?;
                newest.reverse();
                found.extend(newest);
            }
        }
    }
    Ok(found)
}

/// Up to `limit` records of a segment within `(first, last)`, without the first
/// `skip` of them, by rising tick.
fn records_of(
    segment: &Segment,
    (first, last): (u64, u64),
    skip: usize,
    limit: usize,
) -> Result<Vec<TickRecord>, Fail> {
    let mut found = Vec::new();
    let mut skipped = 0;
    segment.visit(|entry, unpacked| {
        if entry.tick < first {
            return true;
        }
        if entry.tick > last || found.len() == limit {
            return false;
        }
        if skipped < skip {
            skipped += 1;
        } else {
            found.push(unpacked.record());
        }
        true
    })?;
    Ok(found.into_iter().collect::<Result<_, String>>()?)
}

pub(super) fn last_record(
    transaction: &ReadTransaction,
    set: &str,
    direction: Option<Direction>,
) -> Result<Option<TickRecord>, Fail> {
    let moved = match direction {
        None => {
            let Some(log) = log(transaction, set)? else { return Ok(None) };
            return record(transaction, set, log.newest_tick);
        }
        Some(Direction::ScaleOut) => MOVE_OUT,
        Some(Direction::ScaleIn) => MOVE_IN,
        Some(Direction::None) => return last_without_move(transaction, set),
    };
    let moves = transaction.open_table(MOVES)?;
    let Some(row) = moves.range((set, moved, 0)..=(set, moved, u64::MAX))?.next_back() else {
        return Ok(None);
    };
    let tick = row?.0.value().2;
    record(transaction, set, tick)
}

/// Most ticks move nothing, so there is no index: the newest segment has one,
/// nearly always.
fn last_without_move(transaction: &ReadTransaction, set: &str) -> Result<Option<TickRecord>, Fail> {
    let moves = transaction.open_table(MOVES)?;
    for row in transaction.open_table(SEGMENTS)?.range((set, 0)..=(set, u64::MAX))?.rev() {
        let (_, segment) = row?;
        let segment = Segment::parse(segment.value())?;
        for entry in segment.entries().iter().rev() {
            let moved = moves.get((set, MOVE_OUT, entry.tick))?.is_some()
                || moves.get((set, MOVE_IN, entry.tick))?.is_some();
            if !moved {
                return record(transaction, set, entry.tick);
            }
        }
    }
    Ok(None)
}

fn log(transaction: &ReadTransaction, set: &str) -> Result<Option<SetLog>, Fail> {
    let logs = transaction.open_table(LOGS)?;
    let Some(log) = logs.get(set)? else { return Ok(None) };
    Ok(Some(from_json(&format!("the log of set {set}"), log.value())?))
}

fn event((seq, event): (u64, &[u8])) -> Result<(u64, Event), Fail> {
    Ok((seq, from_json(&format!("event {seq}"), event)?))
}

pub(super) fn events(
    transaction: &ReadTransaction,
    set: Option<&str>,
    after_seq: u64,
    limit: usize,
) -> Result<Vec<(u64, Event)>, Fail> {
    let mut found = Vec::new();
    let events = transaction.open_table(EVENTS)?;
    for row in events.range(after_seq.saturating_add(1)..)? {
        if found.len() == limit {
            break;
        }
        let row = row?;
        let event = event((row.0.value(), row.1.value()))?;
        if set.is_none_or(|set| event.1.set == set) {
            found.push(event);
        }
    }
    Ok(found)
}

pub(super) fn events_before(
    transaction: &ReadTransaction,
    set: Option<&str>,
    before_seq: u64,
    limit: usize,
) -> Result<Vec<(u64, Event)>, Fail> {
    let mut found = Vec::new();
    let events = transaction.open_table(EVENTS)?;
    for row in events.range(..before_seq)?.rev() {
        if found.len() == limit {
            break;
        }
        let row = row?;
        let event = event((row.0.value(), row.1.value()))?;
        if set.is_none_or(|set| event.1.set == set) {
            found.push(event);
        }
    }
    found.reverse();
    Ok(found)
}

pub(super) fn blob(transaction: &ReadTransaction, digest: &Digest) -> Result<Option<Vec<u8>>, Fail> {
    let blobs = transaction.open_table(BLOBS)?;
    let Some(stored) = blobs.get(digest.as_str())? else { return Ok(None) };
    let bytes = blob_from_stored(stored.value())?;
    if Digest::of(&bytes) != *digest {
        return Err(Fail::Value(format!("blob {digest} has changed")));
    }
    Ok(Some(bytes))
}

pub(super) fn images(transaction: &ReadTransaction) -> Result<Vec<NamedImage>, Fail> {
    let mut found = Vec::new();
    for row in transaction.open_table(IMAGES)?.iter()? {
        let (name, image) = row?;
        let image: NamedImage = from_json(&format!("image {}", name.value()), image.value())?;
        refuse_name([&image.name])?;
        found.push(image);
    }
    Ok(found)
}

pub(super) fn image(transaction: &ReadTransaction, name: &str) -> Result<Option<NamedImage>, Fail> {
    let images = transaction.open_table(IMAGES)?;
    let Some(image) = images.get(name)? else { return Ok(None) };
    Ok(Some(from_json(&format!("image {name}"), image.value())?))
}

pub(super) fn stats(transaction: &ReadTransaction) -> Result<Stats, Fail> {
    let mut sets = Vec::new();
    for row in transaction.open_table(LOGS)?.iter()? {
        let (name, log) = row?;
        let log: SetLog = from_json(&format!("the log of set {}", name.value()), log.value())?;
        sets.push(SetStats {
            set: name.value().to_owned(),
            records: log.records,
            record_bytes: log.bytes,
            oldest_tick: log.oldest_tick,
            newest_tick: log.newest_tick,
        });
    }
    Ok(Stats {
        file_bytes: 0,
        disk_bytes: 0,
        sets,
        events: transaction.open_table(EVENTS)?.len()?,
        blobs: transaction.open_table(BLOBS)?.len()?,
        images: transaction.open_table(IMAGES)?.len()?,
    })
}
