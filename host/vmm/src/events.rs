//! What a VMM reports by itself: the records of its event file, read as they are written.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::guarded::{Access, GuardedDir};

/// More than any record is; what does not end by then is skipped.
const RECORD_LIMIT_BYTES: usize = 64 * 1024;
/// Read in one call of [`EventTail::poll`] at most, so that a VMM gone mad cannot keep us busy: hundreds of records.
const POLL_LIMIT_BYTES: usize = 64 * 1024;

/// One event of a VMM.
///
/// An event ending in "-ing" only says that something was asked for: it comes before the VMM checks whether it can be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmmEvent {
    /// When, since the start of the VMM process.
    pub at: Duration,
    /// What happened.
    pub kind: VmmEventKind,
    /// Who reports it: `vmm`, `vm`, `guest`, `virtio-device`, …
    pub source: String,
    /// Its name, such as `booted`.
    pub event: String,
    /// Details, by name.
    pub properties: BTreeMap<String, String>,
}

/// The events that matter to a scale set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VmmEventKind {
    /// The VMM process starts.
    VmmStarting,
    /// The VMM process ends.
    VmmShutdown,
    /// The VM is booted.
    Booted,
    /// The guest rebooted itself.
    Rebooted,
    /// The VM was shut down.
    Shutdown,
    /// The VM was deleted.
    Deleted,
    /// The guest's processors were stopped.
    Paused,
    /// They go on.
    Resumed,
    /// The guest's kernel panicked (seen only with a pvpanic device).
    GuestPanic,
    /// Anything else; see source and event.
    Other,
}

impl VmmEventKind {
    fn of(source: &str, event: &str) -> Self {
        match (source, event) {
            ("vmm", "starting") => Self::VmmStarting,
            ("vmm", "shutdown") => Self::VmmShutdown,
            ("vm", "booted") => Self::Booted,
            ("vm", "rebooted") => Self::Rebooted,
            ("vm", "shutdown") => Self::Shutdown,
            ("vm", "deleted") => Self::Deleted,
            ("vm", "paused") => Self::Paused,
            ("vm", "resumed") => Self::Resumed,
            ("guest", "panic") => Self::GuestPanic,
            _ => Self::Other,
        }
    }
}

#[derive(Deserialize)]
struct Record {
    timestamp: Timestamp,
    source: String,
    event: String,
    #[serde(default)]
    properties: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Timestamp {
    secs: u64,
    nanos: u32,
}

/// Takes the bytes of an event file in pieces of any size and yields whole events. Pure.
///
/// A record is what stands between two empty lines, and is read once: so the time it takes grows with the bytes alone, whatever they are.
/// What cannot be read is skipped and counted.
#[derive(Clone, Debug, Default)]
pub struct EventParser {
    pending: Vec<u8>,
    /// How much of it was searched for an empty line.
    searched: usize,
    /// The record that is being written is too long already.
    too_long: bool,
    skipped: u64,
}

impl EventParser {
    /// Takes more bytes and returns the events that are complete now.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<VmmEvent> {
        self.pending.extend_from_slice(bytes);
        let mut events = Vec::new();
        let mut used = 0;
        while let Some(end) = end_of_record(&self.pending, self.searched) {
            let record = self.pending[used..end].trim_ascii();
            if !record.is_empty() && !self.too_long {
                match serde_json::from_slice(record) {
                    Ok(record) => events.push(event(record)),
                    Err(_) => self.skipped += 1,
                }
            }
            self.too_long = false;
            used = end;
            self.searched = end;
        }
        self.pending.drain(..used);
        // The first half of the next empty line may be there.
        self.searched = self.pending.len().saturating_sub(1);
        if self.pending.len() > RECORD_LIMIT_BYTES {
            self.skipped += u64::from(!self.too_long);
            self.too_long = true;
            self.pending.drain(..self.searched);
            self.searched = 0;
        }
        events
    }

    /// How many unreadable pieces were skipped so far.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped
    }
}

fn event(record: Record) -> VmmEvent {
    // Not Duration::new: it panics when the carry overflows, and the file is not ours.
    let at = Duration::from_secs(record.timestamp.secs)
        .saturating_add(Duration::from_nanos(u64::from(record.timestamp.nanos)));
    VmmEvent {
        at,
        kind: VmmEventKind::of(&record.source, &record.event),
        source: record.source,
        event: record.event,
        properties: record.properties.unwrap_or_default(),
    }
}

/// Where the first record ends that ends after `from`: records are followed by an empty line, and strings hold no raw line breaks.
fn end_of_record(bytes: &[u8], from: usize) -> Option<usize> {
    bytes[from..].windows(2).position(|window| window == b"\n\n").map(|at| from + at + 2)
}

/// Follows the event file of one VMM.
#[derive(Debug)]
pub struct EventTail {
    path: PathBuf,
    open: Option<File>,
    offset: u64,
    parser: EventParser,
}

impl EventTail {
    /// Follows `path` from its beginning; it need not exist yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self::from(path, 0)
    }

    /// Follows `path` from where an earlier tail had come to (see [`EventTail::read_bytes`]).
    #[must_use]
    pub fn from(path: &Path, read_bytes: u64) -> Self {
        Self { path: path.to_path_buf(), open: None, offset: read_bytes, parser: EventParser::default() }
    }

    /// How many bytes of the file have become events.
    #[must_use]
    pub fn read_bytes(&self) -> u64 {
        self.offset.saturating_sub(self.parser.pending.len() as u64)
    }

    /// The events that were written since the last call, of at most about 64 KiB. Never waits.
    ///
    /// A file that was replaced or became shorter is read from its beginning.
    ///
    /// # Errors
    /// The file is there but cannot be read, or is not a plain file of ours.
    pub fn poll(&mut self) -> io::Result<Vec<VmmEvent>> {
        let usable = |file: &File| file.metadata().is_ok_and(|it| it.nlink() > 0 && it.len() >= self.offset);
        if self.open.as_ref().is_some_and(|file| !usable(file)) {
            self.open = None;
            self.offset = 0;
            self.parser = EventParser { skipped: self.parser.skipped, ..EventParser::default() };
        }
        let file = match self.open.take().map_or_else(|| open(&self.path), Ok) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => self.open.insert(other?),
        };
        if file.metadata()?.len() < self.offset {
            self.offset = 0;
        }
        let mut buffer = vec![0; POLL_LIMIT_BYTES];
        let read = match file.read_at(&mut buffer, self.offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            other => other?,
        };
        self.offset += read as u64;
        Ok(self.parser.push(&buffer[..read]))
    }

    /// How many unreadable pieces were skipped so far.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.parser.skipped()
    }
}

fn open(path: &Path) -> io::Result<File> {
    let missing = || io::Error::from(io::ErrorKind::NotFound);
    let (dir, name) = path.parent().zip(path.file_name().and_then(OsStr::to_str)).ok_or_else(missing)?;
    GuardedDir::open(dir)?.file(name, Access::Read)
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
