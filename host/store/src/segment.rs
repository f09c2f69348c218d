//! Records in groups: one *segment* holds consecutive records of one set.
//!
//! Two ticks in a row differ little, so a record is packed with the JSON of its
//! predecessor as the dictionary; only the first of a segment stands alone. The
//! segment is one value of the database and fills whole pages of it, so little
//! is lost to half-empty pages; it is read, and removed, as a whole. To read the
//! n-th record, the n before it are unpacked: a millisecond at most.
//!
//! ```text
//! version: u8 = 1 | count: u16 | count × (tick: u64, now_ms: u64, packed: u32, json: u32) | frames
//! ```
//! All numbers little-endian. `packed` and `json` are the lengths of a frame and
//! of what it unpacks to; the frames are zstd with checksums, end to end.
//!
//! Measured on 100 instances (18.5 KB of JSON): each record alone 4.5 KB, against
//! the first of 16 1.7 KB, against its predecessor 1.1 KB; with the first
//! record's share and the index, about 1.2 KB.

use crate::batch::RECORD_JSON_BYTES_MAX;
use crate::codec::{RECORD_LEVEL, pack, unpack};

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 3;
const ENTRY_BYTES: usize = 24;

/// Records of one segment at most, so that reading one stays cheap.
const RECORDS_MAX: usize = 64;

/// A segment holds about this many times what its first record takes, so that
/// the first, which stands alone, weighs little on the others…
const FIRST_RECORD_SHARES: usize = 6;
/// …within these limits. Powers of two, as the pages of the database are.
const CAPACITY_BYTES_MIN: usize = 32 << 10;
const CAPACITY_BYTES_MAX: usize = 1 << 20;

/// What the database needs beside the value in a page (its key and offsets).
const PAGE_OVERHEAD_BYTES: usize = 160;

/// Where a record lies in its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) tick: u64,
    pub(crate) now_ms: u64,
    packed_bytes: usize,
    json_bytes: usize,
}

/// Consecutive records of one set. Never empty once stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Segment {
    entries: Vec<Entry>,
    frames: Vec<u8>,
}

impl Segment {
    /// Reads a stored segment. Only the index is checked here.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let cut = || "a segment is cut short".to_owned();
        let (&[version, low, high], rest) = bytes.split_first_chunk().ok_or_else(cut)?;
        if version != VERSION {
            return Err(format!("a segment has version {version}, this Regatta reads {VERSION}"));
        }
        let count = usize::from(u16::from_le_bytes([low, high]));
        let (index, frames) = rest.split_at_checked(count * ENTRY_BYTES).ok_or_else(cut)?;
        let mut entries = Vec::with_capacity(count);
        for entry in index.as_chunks::<ENTRY_BYTES>().0 {
            let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| entry[at + i]));
            let half = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| entry[at + i])) as usize;
            entries.push(Entry {
                tick: word(0),
                now_ms: word(8),
                packed_bytes: half(16),
                json_bytes: half(20),
            });
        }
        let total: usize = entries.iter().map(|entry| entry.packed_bytes).sum();
        if entries.is_empty() || total != frames.len() {
            return Err(cut());
        }
        if !entries.is_sorted_by(|a, b| a.tick < b.tick) {
            return Err("a segment's ticks do not rise".to_owned());
        }
        Ok(Self { entries, frames: frames.to_vec() })
    }

    /// The segment as it is stored.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.stored_bytes());
        bytes.push(VERSION);
        // At most RECORDS_MAX entries, each frame far below 4 GiB.
        bytes.extend((self.entries.len() as u16).to_le_bytes());
        for entry in &self.entries {
            bytes.extend(entry.tick.to_le_bytes());
            bytes.extend(entry.now_ms.to_le_bytes());
            bytes.extend((entry.packed_bytes as u32).to_le_bytes());
            bytes.extend((entry.json_bytes as u32).to_le_bytes());
        }
        bytes.extend(&self.frames);
        bytes
    }

    /// Length of [`Segment::to_bytes`].
    pub(crate) fn stored_bytes(&self) -> usize {
        HEADER_BYTES + self.entries.len() * ENTRY_BYTES + self.frames.len()
    }

    /// The index, by rising tick.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Appends a record, unless the segment is full: then `false`, and it goes
    /// into a new one. `last_json` is the JSON of the segment's last record.
    pub(crate) fn push(
        &mut self,
        tick: u64,
        now_ms: u64,
        json: &[u8],
        last_json: &[u8],
    ) -> std::io::Result<bool> {
        if self.entries.len() >= RECORDS_MAX || (self.is_full() && !self.entries.is_empty()) {
            return Ok(false);
        }
        let predecessor = if self.entries.is_empty() { &[][..] } else { last_json };
        let packed = pack(json, predecessor, RECORD_LEVEL)?;
        if !self.entries.is_empty()
            && self.stored_bytes() + ENTRY_BYTES + packed.len() > self.capacity_bytes()
        {
            return Ok(false);
        }
        self.entries.push(Entry { tick, now_ms, packed_bytes: packed.len(), json_bytes: json.len() });
        self.frames.extend(packed);
        Ok(true)
    }

    fn capacity_bytes(&self) -> usize {
        let first = self.entries.first().map_or(0, |entry| entry.packed_bytes);
        let pages = (first * FIRST_RECORD_SHARES).next_power_of_two();
        pages.clamp(CAPACITY_BYTES_MIN, CAPACITY_BYTES_MAX) - PAGE_OVERHEAD_BYTES
    }

    fn is_full(&self) -> bool {
        self.stored_bytes() >= self.capacity_bytes()
    }

    /// Unpacks the records in order and hands them over until `visit` returns
    /// `false`. A record is only borrowed: most are unpacked for the next one.
    pub(crate) fn visit(&self, mut visit: impl FnMut(&Entry, &[u8]) -> bool) -> Result<(), String> {
        let mut predecessor = Vec::new();
        let mut frames = self.frames.as_slice();
        for entry in &self.entries {
            if entry.json_bytes > RECORD_JSON_BYTES_MAX {
                return Err(format!("a record claims {} bytes", entry.json_bytes));
            }
            let (packed, rest) =
                frames.split_at_checked(entry.packed_bytes).ok_or("a segment is cut short")?;
            frames = rest;
            predecessor = unpack(packed, &predecessor, entry.json_bytes)?;
            if !visit(entry, &predecessor) {
                break;
            }
        }
        Ok(())
    }

    /// The JSON of the record of `tick`, if it is here.
    pub(crate) fn json(&self, tick: u64) -> Result<Option<Vec<u8>>, String> {
        let mut found = None;
        if self.entries.binary_search_by_key(&tick, |entry| entry.tick).is_ok() {
            self.visit(|entry, json| {
                if entry.tick == tick {
                    found = Some(json.to_vec());
                }
                found.is_none()
            })?;
        }
        Ok(found)
    }

    /// The JSON of the last record.
    pub(crate) fn last_json(&self) -> Result<Vec<u8>, String> {
        let tick = self.entries.last().map_or(0, |entry| entry.tick);
        Ok(self.json(tick)?.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_from_bytes_and_finds_every_record() {
        let mut segment = Segment::default();
        let mut last = Vec::new();
        for tick in 1..=20u64 {
            let json = format!(r#"{{"tick":{tick},"text":"{}"}}"#, "the same again ".repeat(40)).into_bytes();
            assert!(segment.push(tick * 3, tick * 1_000, &json, &last).unwrap());
            last = json;
        }
        let bytes = segment.to_bytes();
        assert_eq!(bytes.len(), segment.stored_bytes());
        let back = Segment::parse(&bytes).unwrap();
        assert_eq!(back, segment);
        assert!(back.json(30).unwrap().unwrap().starts_with(br#"{"tick":10,"#));
        assert_eq!(back.json(31).unwrap(), None);
        assert_eq!(back.last_json().unwrap(), last);
    }

    #[test]
    fn is_full_at_its_page_and_at_its_count() {
        let noise: Vec<u8> =
            (0..20_000u64).flat_map(|i| crate::batch::sha256_hex(&i.to_le_bytes()).into_bytes()).collect();
        let mut segment = Segment::default();
        assert!(segment.push(1, 1, &noise[..8_000], &[]).unwrap());
        let mut tick = 2;
        while segment.push(tick, 1, &noise[8_000 * tick as usize..][..8_000], &noise[..10]).unwrap() {
            tick += 1;
        }
        assert!(segment.stored_bytes() <= 32 << 10, "{}", segment.stored_bytes());
        assert!(segment.stored_bytes() > 24 << 10, "{}", segment.stored_bytes());

        let mut segment = Segment::default();
        let taken = (1..=100).filter(|&tick| segment.push(tick, 1, b"{}", b"{}").unwrap()).count();
        assert_eq!(taken, RECORDS_MAX);
    }

    #[test]
    fn an_oversize_record_has_a_segment_of_its_own() {
        let noise: Vec<u8> =
            (0..80_000u64).flat_map(|i| crate::batch::sha256_hex(&i.to_le_bytes()).into_bytes()).collect();
        let mut segment = Segment::default();
        assert!(segment.push(1, 1, &noise, &[]).unwrap());
        assert!(segment.stored_bytes() > CAPACITY_BYTES_MAX);
        assert!(!segment.push(2, 1, &noise, &noise).unwrap());
        assert_eq!(Segment::parse(&segment.to_bytes()).unwrap().json(1).unwrap().unwrap(), noise);
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let mut segment = Segment::default();
        assert!(segment.push(1, 1, b"{\"a\":1}", &[]).unwrap());
        assert!(segment.push(2, 1, b"{\"a\":2}", b"{\"a\":1}").unwrap());
        let good = segment.to_bytes();
        for at in 0..good.len() {
            for flip in [1u8, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[at] ^= flip;
                let read = Segment::parse(&bad).and_then(|segment| {
                    let first = segment.json(1)?;
                    Ok((first, segment.json(2)?))
                });
                if let Ok((Some(first), Some(second))) = read {
                    assert_eq!(
                        (&first[..], &second[..]),
                        (&b"{\"a\":1}"[..], &b"{\"a\":2}"[..]),
                        "byte {at}"
                    );
                }
            }
            assert!(Segment::parse(&good[..at]).is_err(), "cut at {at}");
        }
    }
}
