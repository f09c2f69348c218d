//! Records of a set in a file, with everything that they refer to: what `regatta record export` writes.
//!
//! One JSON value a line, all of it compressed with zstd: first the header, then records in the order of their ticks, each after
//! the manifests and modules that it is the first to refer to.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use regatta_core::record::TickRecord;
use serde::{Deserialize, Serialize};

use thiserror::Error;

use crate::module::digest;
use crate::replay::references;

/// Version of the file's shape.
const VERSION: u32 = 1;
/// Longest line: a module of 32 MiB in base64, or a record of 10,000 instances.
const LINE_BYTES_MAX: u64 = 48 << 20;
/// zstd's default.
const LEVEL: i32 = 3;

/// A line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line {
    /// The first line.
    RegattaRecording { version: u32, set: String },
    /// A manifest or a module.
    Blob { sha256: String, base64: String },
    /// A tick.
    Record(Box<TickRecord>),
}

/// A recording that cannot be read.
#[derive(Debug, Error)]
pub enum RecordingError {
    /// The file cannot be read or written.
    #[error("the recording cannot be read or written")]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("not a Regatta recording")]
    NotARecording,
    /// It is of a later version.
    #[error("the recording has version {0}; this regatta reads up to version {VERSION}")]
    Newer(u32),
    /// A line of it is damaged.
    #[error("line {line} of the recording is damaged: {what}")]
    Damaged {
        /// Number of the line, from 1.
        line: usize,
        /// In which way.
        what: String,
    },
}

/// Writes a recording.
pub struct RecordingWriter<W: Write> {
    out: zstd::Encoder<'static, W>,
    known: std::collections::BTreeSet<String>,
}

impl<W: Write> RecordingWriter<W> {
    /// Begins a recording of a set.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn new(out: W, set: &str) -> Result<Self, RecordingError> {
        let mut writer = Self { out: zstd::Encoder::new(out, LEVEL)?, known: Default::default() };
        writer.line(&Line::RegattaRecording { version: VERSION, set: set.to_owned() })?;
        Ok(writer)
    }

    /// Digests of what `record` refers to and is not in the recording yet: write them first.
    #[must_use]
    pub fn missing(&self, record: &TickRecord) -> Vec<String> {
        let mut digests = references(record);
        digests.retain(|digest| !self.known.contains(digest));
        digests
    }

    /// Writes a manifest or a module.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn blob(&mut self, sha256: &str, bytes: &[u8]) -> Result<(), RecordingError> {
        self.known.insert(sha256.to_owned());
        self.line(&Line::Blob { sha256: sha256.to_owned(), base64: BASE64.encode(bytes) })
    }

    /// Writes a tick.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn record(&mut self, record: TickRecord) -> Result<(), RecordingError> {
        self.line(&Line::Record(Box::new(record)))
    }

    /// Ends the recording.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(self) -> Result<W, RecordingError> {
        Ok(self.out.finish()?)
    }

    fn line(&mut self, line: &Line) -> Result<(), RecordingError> {
        serde_json::to_writer(&mut self.out, line).map_err(io::Error::from)?;
        Ok(self.out.write_all(b"\n")?)
    }
}

/// Reads a recording, record by record; the blobs read so far are at hand.
pub struct RecordingReader<R: Read> {
    lines: BufReader<zstd::Decoder<'static, BufReader<R>>>,
    line: usize,
    set: String,
    blobs: BTreeMap<String, Vec<u8>>,
}

impl<R: Read> RecordingReader<R> {
    /// Opens a recording.
    ///
    /// # Errors
    /// It is none, or of a later version.
    pub fn new(file: R) -> Result<Self, RecordingError> {
        let decoder = zstd::Decoder::new(file)?;
        let mut reader =
            Self { lines: BufReader::new(decoder), line: 0, set: String::new(), blobs: BTreeMap::new() };
        match reader.line() {
            Ok(Some(Line::RegattaRecording { version: VERSION, set })) => reader.set = set,
            Ok(Some(Line::RegattaRecording { version, .. })) => return Err(RecordingError::Newer(version)),
            _ => return Err(RecordingError::NotARecording),
        }
        Ok(reader)
    }

    /// Name of the set.
    #[must_use]
    pub fn set(&self) -> &str {
        &self.set
    }

    /// A manifest or module that stood before the last record.
    #[must_use]
    pub fn blob(&self, sha256: &str) -> Option<&[u8]> {
        self.blobs.get(sha256).map(Vec::as_slice)
    }

    /// The next record; none at the end.
    ///
    /// # Errors
    /// The file is damaged.
    pub fn next_record(&mut self) -> Result<Option<TickRecord>, RecordingError> {
        loop {
            match self.line()? {
                None => return Ok(None),
                Some(Line::Record(record)) => return Ok(Some(*record)),
                Some(Line::Blob { sha256, base64 }) => {
                    let bytes = BASE64.decode(base64).map_err(|why| self.damaged(&why))?;
                    let actual = digest(&bytes);
                    if actual != sha256 {
                        return Err(self.damaged(&format_args!("blob {sha256} has digest {actual}")));
                    }
                    self.blobs.insert(sha256, bytes);
                }
                Some(Line::RegattaRecording { .. }) => return Err(self.damaged(&"a second header")),
            }
        }
    }

    fn line(&mut self) -> Result<Option<Line>, RecordingError> {
        let mut text = Vec::new();
        self.line += 1;
        let read = (&mut self.lines).take(LINE_BYTES_MAX).read_until(b'\n', &mut text)?;
        if read == 0 {
            return Ok(None);
        }
        if text.last() != Some(&b'\n') {
            return Err(self.damaged(&"it is cut off, or too long"));
        }
        serde_json::from_slice(&text).map(Some).map_err(|why| self.damaged(&why))
    }

    fn damaged(&self, what: &dyn std::fmt::Display) -> RecordingError {
        RecordingError::Damaged { line: self.line, what: what.to_string() }
    }
}
