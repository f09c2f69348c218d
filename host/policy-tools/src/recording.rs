//! Records of a set in a file, with everything that they refer to: what `regatta record export` writes.
//!
//! One JSON value a line, all of it compressed with zstd: first the header, then records in the order of their ticks, each after
//! the manifests and modules that it is the first to refer to.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use regatta_core::digest::Digest;
use regatta_core::manifest::name_problem;
use regatta_core::record::{RECORD_VERSION, TickRecord};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::module::digest;
use crate::replay::references;

/// Version of the file's shape.
const VERSION: u32 = 1;
/// Longest line: a module of 32 MiB in base64, or a record of 10,000 instances.
const LINE_BYTES_MAX: u64 = 48 << 20;
/// Largest unpacked recording; a week of 100 instances at a tick of 5 s has about 12 GB.
const UNPACKED_BYTES_MAX: u64 = 32 << 30;
/// Manifests and modules of one recording: they are held in memory while it is read.
const BLOB_BYTES_MAX: usize = 512 << 20;
/// zstd's default.
const LEVEL: i32 = 3;

/// A line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line {
    /// The first line.
    RegattaRecording { version: u32, set: String },
    /// A manifest or a module.
    Blob { sha256: Digest, base64: String },
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
    /// It, or a record in it, is of a later version.
    #[error("written by a later version of Regatta: its format is {version}, this one reads up to {known}")]
    Newer {
        /// Version of the format.
        version: u32,
        /// The last version that is known.
        known: u32,
    },
    /// Its end is missing.
    #[error("the recording is cut off")]
    CutOff,
    /// It holds no ticks.
    #[error("the recording holds no ticks")]
    Empty,
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
    known: std::collections::BTreeSet<Digest>,
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
    pub fn missing(&self, record: &TickRecord) -> Vec<Digest> {
        let mut digests = references(record);
        digests.retain(|digest| !self.known.contains(digest));
        digests
    }

    /// Writes a manifest or a module.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn blob(&mut self, sha256: &Digest, bytes: &[u8]) -> Result<(), RecordingError> {
        self.known.insert(sha256.clone());
        self.line(&Line::Blob { sha256: sha256.clone(), base64: BASE64.encode(bytes) })
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
    lines: io::Take<BufReader<zstd::Decoder<'static, BufReader<R>>>>,
    line: usize,
    set: String,
    last_tick: Option<u64>,
    blobs: BTreeMap<Digest, Vec<u8>>,
    blob_bytes: usize,
}

impl<R: Read> RecordingReader<R> {
    /// Opens a recording.
    ///
    /// # Errors
    /// It is none, or of a later version.
    pub fn new(file: R) -> Result<Self, RecordingError> {
        let lines = BufReader::new(zstd::Decoder::new(file)?).take(UNPACKED_BYTES_MAX);
        let mut reader = Self {
            lines,
            line: 0,
            set: String::new(),
            last_tick: None,
            blobs: BTreeMap::new(),
            blob_bytes: 0,
        };
        match reader.line() {
            Ok(Some(Line::RegattaRecording { version: VERSION, set })) if name_problem(&set).is_none() => {
                reader.set = set;
            }
            Ok(Some(Line::RegattaRecording { version, .. })) if version > VERSION => {
                return Err(RecordingError::Newer { version, known: VERSION });
            }
            Err(RecordingError::CutOff) => return Err(RecordingError::CutOff),
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
    pub fn blob(&self, sha256: &Digest) -> Option<&[u8]> {
        self.blobs.get(sha256).map(Vec::as_slice)
    }

    /// The next record; none at the end.
    ///
    /// # Errors
    /// The file is damaged: cut off, out of order, without something that its records refer to.
    pub fn next_record(&mut self) -> Result<Option<TickRecord>, RecordingError> {
        loop {
            match self.line()? {
                None => return Ok(None),
                Some(Line::Record(record)) => {
                    self.check(&record)?;
                    return Ok(Some(*record));
                }
                Some(Line::Blob { sha256, base64 }) => {
                    let bytes = BASE64.decode(base64).map_err(|why| self.damaged(&why))?;
                    let actual = digest(&bytes);
                    if actual != sha256 {
                        return Err(self.damaged(&format_args!("blob {sha256:.64} has digest {actual}")));
                    }
                    if !self.blobs.contains_key(&sha256) {
                        self.blob_bytes += bytes.len();
                    }
                    if self.blob_bytes > BLOB_BYTES_MAX {
                        let most = BLOB_BYTES_MAX >> 20;
                        return Err(self.damaged(&format_args!("more than {most} MiB of policy modules")));
                    }
                    self.blobs.insert(sha256, bytes);
                }
                Some(Line::RegattaRecording { .. }) => return Err(self.damaged(&"a second header")),
            }
        }
    }

    fn check(&mut self, record: &TickRecord) -> Result<(), RecordingError> {
        let (set, tick) = (&record.observation.set, record.observation.tick);
        if record.v > RECORD_VERSION {
            return Err(RecordingError::Newer { version: record.v, known: RECORD_VERSION });
        }
        if *set != self.set {
            return Err(self.damaged(&format_args!("tick {tick} is not of set {}", self.set)));
        }
        if let Some(last) = self.last_tick.filter(|last| *last >= tick) {
            return Err(self.damaged(&format_args!("tick {tick} follows tick {last}")));
        }
        if let Some(absent) = references(record).iter().find(|sha256| !self.blobs.contains_key(*sha256)) {
            return Err(self.damaged(&format_args!("tick {tick} refers to {absent:.64}, which is missing")));
        }
        self.last_tick = Some(tick);
        Ok(())
    }

    fn line(&mut self) -> Result<Option<Line>, RecordingError> {
        let mut text = Vec::new();
        self.line += 1;
        let read = (&mut self.lines).take(LINE_BYTES_MAX).read_until(b'\n', &mut text);
        match read {
            Ok(0) if self.lines.limit() > 0 => return Ok(None),
            Ok(_) if text.last() == Some(&b'\n') => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(RecordingError::CutOff),
            Err(error) => return Err(error.into()),
            Ok(_) => return Err(self.damaged(&"it is cut off, or too long")),
        }
        serde_json::from_slice(&text).map(Some).map_err(|why| self.damaged(&why))
    }

    fn damaged(&self, what: &dyn std::fmt::Display) -> RecordingError {
        const CHARS_MAX: usize = 300;
        RecordingError::Damaged { line: self.line, what: what.to_string().chars().take(CHARS_MAX).collect() }
    }
}

/// What a recording holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Name of the set.
    pub set: String,
    /// Number of ticks.
    pub ticks: u64,
    /// The first and the last tick.
    pub span: (u64, u64),
    /// Wall clock of the last tick, Unix milliseconds.
    pub last_ms: u64,
}

/// Reads a recording to its end.
///
/// # Errors
/// Any part of it is damaged, or it holds no ticks.
pub fn check_recording(file: impl Read) -> Result<Contents, RecordingError> {
    let mut recording = RecordingReader::new(file)?;
    let mut contents: Option<Contents> = None;
    while let Some(record) = recording.next_record()? {
        let tick = record.observation.tick;
        let (ticks, first) = contents.map_or((0, tick), |before| (before.ticks, before.span.0));
        let set = record.observation.set.clone();
        contents = Some(Contents { set, ticks: ticks + 1, span: (first, tick), last_ms: record.at_ms() });
    }
    contents.ok_or(RecordingError::Empty)
}

#[cfg(test)]
mod tests {
    use regatta_core::combine::Combined;
    use regatta_core::guard::GuardTrail;
    use regatta_core::observation::{InstanceTable, Observation};
    use regatta_core::plan::Plan;
    use regatta_core::record::PlanFacts;

    use super::*;

    const MANIFEST: &[u8] = b"{}";

    fn record(tick: u64) -> TickRecord {
        TickRecord {
            v: RECORD_VERSION,
            wall_ms: tick * 1_000,
            manifest: digest(MANIFEST),
            wanted_metrics: vec![],
            observation: Observation {
                set: "web".into(),
                tick,
                now_ms: tick * 1_000,
                generation: 1,
                min: 1,
                max: 4,
                desired: 2,
                instances: InstanceTable::default(),
                metrics: vec![],
                last: None,
                schedule: vec![],
            },
            changes: vec![],
            facts: PlanFacts::default(),
            runs: vec![],
            canaries: vec![],
            shadows: vec![],
            combined: Combined::default(),
            guards: GuardTrail::default(),
            plan: Plan::default(),
            operator: vec![],
        }
    }

    fn writer() -> RecordingWriter<Vec<u8>> {
        let mut writer = RecordingWriter::new(Vec::new(), "web").unwrap();
        writer.blob(&digest(MANIFEST), MANIFEST).unwrap();
        writer
    }

    /// A recording of these records.
    fn file(records: impl IntoIterator<Item = TickRecord>) -> Vec<u8> {
        let mut writer = writer();
        records.into_iter().for_each(|record| writer.record(record).unwrap());
        writer.finish().unwrap()
    }

    /// What is wrong with a recording.
    fn problem(file: &[u8]) -> String {
        check_recording(file).expect_err("it is not sound").to_string()
    }

    #[test]
    fn a_sound_recording_is_summed_up() {
        let file = file([record(3), record(4), record(9)]);
        let contents = Contents { set: "web".into(), ticks: 3, span: (3, 9), last_ms: 9_000 };
        assert_eq!(check_recording(file.as_slice()).unwrap(), contents);
    }

    #[test]
    fn a_recording_that_is_cut_off_anywhere_is_refused() {
        let file = file([record(3), record(4)]);
        for end in (0..file.len()).step_by(7) {
            assert!(check_recording(&file[..end]).is_err(), "cut off at {end}");
        }
        assert_eq!(problem(&file[..file.len() - 1]), "the recording is cut off");
    }

    #[test]
    fn ticks_that_do_not_rise_are_refused() {
        assert!(problem(&file([record(3), record(3)])).ends_with("tick 3 follows tick 3"));
        assert!(problem(&file([record(3), record(2)])).ends_with("tick 2 follows tick 3"));
    }

    #[test]
    fn ticks_of_another_set_and_of_a_later_version_are_refused() {
        let mut other = record(3);
        other.observation.set = "x".repeat(1_000);
        assert!(problem(&file([other])).ends_with("tick 3 is not of set web"));
        let later = TickRecord { v: RECORD_VERSION + 1, ..record(3) };
        assert!(problem(&file([later])).starts_with("written by a later version"));
    }

    #[test]
    fn what_ticks_refer_to_must_be_there_and_be_what_it_is_called() {
        let mut writer = RecordingWriter::new(Vec::new(), "web").unwrap();
        writer.record(record(3)).unwrap();
        let refers = format!("tick 3 refers to {}, which is missing", digest(MANIFEST));
        assert!(problem(&writer.finish().unwrap()).ends_with(&refers));
        let mut writer = super::tests::writer();
        writer.blob(&digest(b"a module"), b"another one").unwrap();
        let problem = problem(&writer.finish().unwrap());
        assert!(problem.contains("has digest") && problem.starts_with("line 3"), "{problem}");
    }

    #[test]
    fn what_is_not_a_recording_or_has_no_ticks_is_refused() {
        assert_eq!(problem(&file([])), "the recording holds no ticks");
        let named_by_a_path = RecordingWriter::new(Vec::new(), "../web").unwrap().finish().unwrap();
        assert_eq!(problem(b""), "the recording is cut off");
        for file in [b"no recording".as_slice(), &named_by_a_path] {
            assert_eq!(problem(file), "not a Regatta recording");
        }
    }
}
