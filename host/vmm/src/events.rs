//! What a VMM reports by itself: the records of its event file, read as they are written.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

/// More than any record is; what does not end by then is skipped.
const RECORD_LIMIT_BYTES: usize = 64 * 1024;
const READ_BYTES: usize = 64 * 1024;
/// Read in one call of [`EventTail::poll`] at most, so that a VMM gone mad cannot keep us busy.
const POLL_LIMIT_BYTES: usize = 1 << 20;

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
/// What cannot be read is skipped up to the next record and counted.
#[derive(Clone, Debug, Default)]
pub struct EventParser {
    pending: Vec<u8>,
    skipped: u64,
}

impl EventParser {
    /// Takes more bytes and returns the events that are complete now.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<VmmEvent> {
        self.pending.extend_from_slice(bytes);
        let mut events = Vec::new();
        let mut used = 0;
        loop {
            let rest = &self.pending[used..];
            let blank = rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            used += blank;
            let rest = &rest[blank..];
            if rest.is_empty() {
                break;
            }
            let mut stream = serde_json::Deserializer::from_slice(rest).into_iter::<Record>();
            match stream.next() {
                Some(Ok(record)) => {
                    used += stream.byte_offset();
                    events.push(event(record));
                }
                Some(Err(error)) if error.is_eof() && rest.len() <= RECORD_LIMIT_BYTES => break,
                Some(Err(_)) => match next_record(rest) {
                    Some(next) => {
                        self.skipped += 1;
                        used += next;
                    }
                    None if rest.len() <= RECORD_LIMIT_BYTES => break,
                    None => {
                        self.skipped += 1;
                        used += rest.len();
                    }
                },
                None => break,
            }
        }
        self.pending.drain(..used);
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

/// Where the next record may begin: records are separated by an empty line, and strings hold no raw line breaks.
fn next_record(bytes: &[u8]) -> Option<usize> {
    bytes.windows(3).position(|window| window == b"\n\n{").map(|at| at + 2)
}

/// Follows the event file of one VMM.
#[derive(Debug)]
pub struct EventTail {
    path: PathBuf,
    open: Option<(File, u64)>,
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

    /// The events that were written since the last call, at most about 1 MiB of them. Never waits.
    ///
    /// A file that was replaced or became shorter is read from its beginning.
    ///
    /// # Errors
    /// The file is there but cannot be read.
    pub fn poll(&mut self) -> io::Result<Vec<VmmEvent>> {
        let metadata = match std::fs::metadata(&self.path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let replaced = self.open.as_ref().is_some_and(|(_, inode)| *inode != metadata.ino());
        if replaced || metadata.len() < self.offset {
            self.open = None;
            self.offset = 0;
            self.parser.pending.clear();
        }
        if self.open.is_none() {
            self.open = Some((File::open(&self.path)?, metadata.ino()));
        }
        let Some((file, _)) = &self.open else {
            return Ok(Vec::new());
        };
        let mut events = Vec::new();
        let mut buffer = vec![0; READ_BYTES];
        let mut total = 0;
        while total < POLL_LIMIT_BYTES {
            let read = match file.read_at(&mut buffer, self.offset) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.offset += read as u64;
            total += read;
            events.extend(self.parser.push(&buffer[..read]));
        }
        Ok(events)
    }

    /// How many unreadable pieces were skipped so far.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.parser.skipped()
    }
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
