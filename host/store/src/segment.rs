//! Records in groups: one *segment* holds consecutive records of one set.
//!
//! Two ticks in a row differ little. Of the windows of its metrics a record holds
//! only how they follow from those of its predecessor (`edits.rs`), and the text of
//! its predecessor is the dictionary that the rest is packed with; only the first of
//! a segment stands alone. The segment is one value of the database and fills whole
//! pages of it, so little is lost to half-empty pages; it is read, and removed, as a
//! whole. To read the n-th record, the n before it are unpacked: milliseconds.
//!
//! ```text
//! version: u8 = 2 | count: u16 | count × (tick: u64, now_ms: u64, packed: u32, text: u32) | frames
//! ```
//! All numbers little-endian. `packed` and `text` are the lengths of a frame and of
//! what it unpacks to; the frames are zstd with checksums, end to end. A text is two
//! lines of JSON: the record with empty windows, and the edits of each window. In
//! version 1 it was the record with its windows, and nothing else.
//!
//! Measured on 100 instances with three metrics (`examples/measure_records.rs`), the first record's share and the index
//! included: with windows of 1,000 samples 1.3 KB a record when their values have four digits, as the daemon's have, 1.7 KB
//! when they have all that a mean has. As JSON those records have 130 and 167 KB.

use regatta_core::observation::WindowSample;
use regatta_core::record::TickRecord;

use crate::batch::RECORD_JSON_BYTES_MAX;
use crate::codec::{Plain, RECORD_LEVEL, Windows, from_json, pack, record_from_json, to_json, unpack};
use crate::edits::Edits;

const VERSION: u8 = 2;
/// Read, and no longer added to.
const VERSION_WHOLE_WINDOWS: u8 = 1;
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

/// A text has the windows in another form than the record's JSON, at worst a longer one.
const TEXT_BYTES_MAX: usize = 2 * RECORD_JSON_BYTES_MAX;

/// What the database needs beside the value in a page (its key and offsets).
const PAGE_OVERHEAD_BYTES: usize = 160;

/// Where a record lies in its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) tick: u64,
    pub(crate) now_ms: u64,
    packed_bytes: usize,
    text_bytes: usize,
}

/// Consecutive records of one set. Never empty once stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    version: u8,
    entries: Vec<Entry>,
    frames: Vec<u8>,
}

impl Default for Segment {
    fn default() -> Self {
        Self { version: VERSION, entries: Vec::new(), frames: Vec::new() }
    }
}

/// A record as its successor needs it, and as it is read.
#[derive(Debug, Default)]
pub(crate) struct Unpacked {
    text: Vec<u8>,
    /// Where the second line begins; none in version 1.
    edits_at: Option<usize>,
    windows: Windows,
}

impl Unpacked {
    fn from_text(text: Vec<u8>, version: u8, predecessor: &Self) -> Result<Self, String> {
        if version == VERSION_WHOLE_WINDOWS {
            return Ok(Self { text, edits_at: None, windows: Windows::new() });
        }
        let line = text.iter().position(|&byte| byte == b'\n').ok_or("a record lacks its windows")?;
        let edits: Vec<Edits> = from_json("the windows of a record", &text[line..])?;
        let windows = edits.iter().enumerate().map(|(index, edits)| edits.apply(predecessor.window(index)));
        Ok(Self { windows: windows.collect::<Result<_, _>>()?, text, edits_at: Some(line) })
    }

    /// By position: metrics come and go only with another manifest, and windows that have nothing in common can be told apart too.
    fn window(&self, index: usize) -> &[WindowSample] {
        self.windows.get(index).map_or(&[], Vec::as_slice)
    }

    /// The record.
    pub(crate) fn record(&self) -> Result<TickRecord, String> {
        let json = &self.text[..self.edits_at.unwrap_or(self.text.len())];
        record_from_json(json, self.edits_at.map(|_| &self.windows))
    }

    /// How much memory it takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.text.len()
            + self.windows.iter().map(|window| std::mem::size_of_val(window.as_slice())).sum::<usize>()
    }
}

impl Segment {
    /// Reads a stored segment. Only the index is checked here.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let cut = || "a segment is cut short".to_owned();
        let (&[version, low, high], rest) = bytes.split_first_chunk().ok_or_else(cut)?;
        if !(VERSION_WHOLE_WINDOWS..=VERSION).contains(&version) {
            return Err(format!(
                "a segment has version {version}, this Regatta reads versions up to {VERSION}"
            ));
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
                text_bytes: half(20),
            });
        }
        let total: usize = entries.iter().map(|entry| entry.packed_bytes).sum();
        if entries.is_empty() || total != frames.len() {
            return Err(cut());
        }
        if !entries.is_sorted_by(|a, b| a.tick < b.tick) {
            return Err("a segment's ticks do not rise".to_owned());
        }
        Ok(Self { version, entries, frames: frames.to_vec() })
    }

    /// The segment as it is stored.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.stored_bytes());
        bytes.push(self.version);
        // At most RECORDS_MAX entries, each frame far below 4 GiB.
        bytes.extend((self.entries.len() as u16).to_le_bytes());
        for entry in &self.entries {
            bytes.extend(entry.tick.to_le_bytes());
            bytes.extend(entry.now_ms.to_le_bytes());
            bytes.extend((entry.packed_bytes as u32).to_le_bytes());
            bytes.extend((entry.text_bytes as u32).to_le_bytes());
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

    /// Appends a record, unless the segment is full: then none, and it goes into a
    /// new one. `last` is the segment's last record; the answer is the next one's.
    pub(crate) fn push(
        &mut self,
        tick: u64,
        now_ms: u64,
        record: &Plain,
        last: &Unpacked,
    ) -> std::io::Result<Option<Unpacked>> {
        let (nothing, first) = (Unpacked::default(), self.entries.is_empty());
        if !first && (self.version != VERSION || self.entries.len() >= RECORDS_MAX || self.is_full()) {
            return Ok(None);
        }
        let predecessor = if first { &nothing } else { last };
        let windows = record.windows.iter().enumerate();
        let edits: Vec<Edits> =
            windows.map(|(index, window)| Edits::between(predecessor.window(index), window)).collect();
        let mut text = Vec::with_capacity(record.json.len() + 1_000);
        text.extend(&record.json);
        text.push(b'\n');
        text.extend(to_json(&edits));
        let packed = pack(&text, &predecessor.text, RECORD_LEVEL)?;
        if !first && self.stored_bytes() + ENTRY_BYTES + packed.len() > self.capacity_bytes() {
            return Ok(None);
        }
        self.entries.push(Entry { tick, now_ms, packed_bytes: packed.len(), text_bytes: text.len() });
        self.frames.extend(packed);
        Ok(Some(Unpacked { text, edits_at: Some(record.json.len()), windows: record.windows.clone() }))
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
    /// `false`. The answer is the one that came last.
    pub(crate) fn visit(&self, mut visit: impl FnMut(&Entry, &Unpacked) -> bool) -> Result<Unpacked, String> {
        let mut last = Unpacked::default();
        let mut frames = self.frames.as_slice();
        for entry in &self.entries {
            if entry.text_bytes > TEXT_BYTES_MAX {
                return Err(format!("a record claims {} bytes", entry.text_bytes));
            }
            let (packed, rest) =
                frames.split_at_checked(entry.packed_bytes).ok_or("a segment is cut short")?;
            frames = rest;
            let text = unpack(packed, &last.text, entry.text_bytes)?;
            last = Unpacked::from_text(text, self.version, &last)?;
            if !visit(entry, &last) {
                break;
            }
        }
        Ok(last)
    }

    /// The record of `tick`, if it is here.
    pub(crate) fn record(&self, tick: u64) -> Result<Option<TickRecord>, String> {
        if self.entries.binary_search_by_key(&tick, |entry| entry.tick).is_err() {
            return Ok(None);
        }
        self.visit(|entry, _| entry.tick != tick)?.record().map(Some)
    }

    /// The last record, for the next one to follow.
    pub(crate) fn last(&self) -> Result<Unpacked, String> {
        self.visit(|_, _| true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(json: &[u8]) -> Plain {
        Plain { json: json.to_vec(), windows: Windows::new() }
    }

    fn noise(bytes: u64) -> Vec<u8> {
        (0..bytes / 64)
            .flat_map(|i| regatta_core::digest::Digest::of(&i.to_le_bytes()).as_bytes().to_vec())
            .collect()
    }

    /// The first lines of all texts.
    fn lines(segment: &Segment) -> Result<Vec<Vec<u8>>, String> {
        let mut lines = Vec::new();
        segment.visit(|_, unpacked| {
            lines.push(unpacked.text[..unpacked.edits_at.unwrap_or(unpacked.text.len())].to_vec());
            true
        })?;
        Ok(lines)
    }

    #[test]
    fn comes_back_from_bytes_with_every_record_and_window() {
        let mut segment = Segment::default();
        let (mut last, mut all) = (Unpacked::default(), Vec::new());
        for tick in 1..=20u64 {
            let json = format!(r#"{{"tick":{tick},"text":"{}"}}"#, "the same again ".repeat(40)).into_bytes();
            // The second metric comes later, the first is gone for a tick.
            let window = |from: u64| {
                (from..tick).map(|at| WindowSample { at_ms: at * 5_000, value: at as f64 }).collect()
            };
            let windows = if tick == 9 { vec![] } else { vec![window(tick / 2), window(tick.min(7))] };
            let windows = windows.into_iter().take(if tick < 5 { 1 } else { 2 }).collect();
            let plain = Plain { json, windows };
            last = segment.push(tick * 3, tick * 1_000, &plain, &last).unwrap().unwrap();
            all.push(plain);
        }
        let bytes = segment.to_bytes();
        assert_eq!(bytes.len(), segment.stored_bytes());
        let back = Segment::parse(&bytes).unwrap();
        assert_eq!(back, segment);
        assert!(lines(&back).unwrap().iter().eq(all.iter().map(|plain| &plain.json)));
        let mut windows = Vec::new();
        let read = back.visit(|_, unpacked| {
            windows.push(unpacked.windows.clone());
            true
        });
        assert_eq!(read.unwrap().text, last.text);
        assert!(windows.iter().eq(all.iter().map(|plain| &plain.windows)));
        assert_eq!(back.record(31).unwrap(), None);
    }

    #[test]
    fn is_full_at_its_page_and_at_its_count() {
        let noise = noise(1_000_000);
        let mut segment = Segment::default();
        let last = segment.push(1, 1, &record(&noise[..8_000]), &Unpacked::default()).unwrap().unwrap();
        let mut tick = 2;
        while segment
            .push(tick, 1, &record(&noise[8_000 * tick as usize..][..8_000]), &last)
            .unwrap()
            .is_some()
        {
            tick += 1;
        }
        assert!(segment.stored_bytes() <= 32 << 10, "{}", segment.stored_bytes());
        assert!(segment.stored_bytes() > 24 << 10, "{}", segment.stored_bytes());

        let mut segment = Segment::default();
        let push =
            |tick: &u64| segment.push(*tick, 1, &record(b"{}"), &Unpacked::default()).unwrap().is_some();
        assert_eq!((1..=200).filter(push).count(), RECORDS_MAX);
    }

    #[test]
    fn an_oversize_record_has_a_segment_of_its_own() {
        let noise = noise(5_000_000);
        let mut segment = Segment::default();
        let last = segment.push(1, 1, &record(&noise), &Unpacked::default()).unwrap().unwrap();
        assert!(segment.stored_bytes() > CAPACITY_BYTES_MAX);
        assert!(segment.push(2, 1, &record(&noise), &last).unwrap().is_none());
        assert_eq!(lines(&Segment::parse(&segment.to_bytes()).unwrap()).unwrap(), [noise]);
    }

    #[test]
    fn version_1_is_read_and_not_added_to() {
        let text = br#"{"v":1}"#;
        let packed = pack(text, &[], RECORD_LEVEL).unwrap();
        let entry = Entry { tick: 1, now_ms: 1, packed_bytes: packed.len(), text_bytes: text.len() };
        let old = Segment { version: VERSION_WHOLE_WINDOWS, entries: vec![entry], frames: packed };
        let mut back = Segment::parse(&old.to_bytes()).unwrap();
        assert_eq!(lines(&back).unwrap(), [text]);
        let last = back.last().unwrap();
        assert!(back.push(2, 1, &record(text), &last).unwrap().is_none());
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let mut segment = Segment::default();
        let windows =
            |value| vec![vec![WindowSample { at_ms: 1, value }, WindowSample { at_ms: 2, value: 2.0 }]];
        let first = Plain { json: b"{\"a\":1}".to_vec(), windows: windows(1.0) };
        let second = Plain { json: b"{\"a\":2}".to_vec(), windows: windows(0.5) };
        let last = segment.push(1, 1, &first, &Unpacked::default()).unwrap().unwrap();
        assert!(segment.push(2, 1, &second, &last).unwrap().is_some());
        let good = segment.to_bytes();
        for at in 0..good.len() {
            for flip in [1u8, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[at] ^= flip;
                // A version that is another one takes the texts for something else; nothing that reads as a record.
                if at > 0
                    && let Ok(lines) = Segment::parse(&bad).and_then(|segment| lines(&segment))
                {
                    assert_eq!(lines, [&first.json[..], &second.json[..]], "byte {at}");
                }
            }
            assert!(Segment::parse(&good[..at]).is_err(), "cut at {at}");
        }
    }
}
