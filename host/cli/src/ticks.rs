//! Recorded ticks, wherever they are kept: by a set, in an imported recording, in a file.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use regatta_api::recording_types::{ContentQuery, RECORDING_BYTES_MAX, RecordingInfo};
use regatta_api::types::{ErrorCode, RecordsQuery};
use regatta_api::{Client, ClientError};
use regatta_core::digest::Digest;
use regatta_core::record::TickRecord;
use regatta_policy_tools::{RecordingError, RecordingReader, check_recording};
use regatta_util::chain;

use super::exit::{self, Outcome, Stop};
use super::record_args::Span;

/// Records of one call; a record of a large set has tens of kilobytes of JSON.
const PAGE: u32 = 200;

/// Where to begin.
#[derive(Debug, Clone, Copy)]
pub(super) enum Start {
    /// After this tick.
    After(u64),
    /// With the last N ticks.
    Last(u64),
    /// This long before the last tick.
    Since(Duration),
}

impl From<&Span> for Start {
    fn from(span: &Span) -> Self {
        match (span.last, span.since) {
            (Some(last), _) => Self::Last(last),
            (None, Some(since)) => Self::Since(since),
            (None, None) => Self::After(0),
        }
    }
}

/// Recorded ticks in their order.
pub(super) struct Ticks<'a> {
    name: String,
    source: Source<'a>,
}

enum Source<'a> {
    Set {
        client: &'a Client,
        after: u64,
        page: std::vec::IntoIter<TickRecord>,
        ended: bool,
        limit: u64,
    },
    Recording {
        reader: Box<RecordingReader<Box<dyn Read>>>,
        /// Where it is, for errors.
        place: String,
        after: u64,
        from_ms: u64,
        limit: u64,
    },
}

impl<'a> Ticks<'a> {
    /// At most `limit` ticks of a set or an imported recording, or of a file: its name has a dot or a slash.
    pub(super) async fn open(client: &'a Client, what: &str, start: Start, limit: u64) -> Outcome<Self> {
        if what.contains(['.', '/']) {
            return Self::of_file(Path::new(what), start, limit);
        }
        match Self::of_set(client, what, start, limit).await {
            Ok(ticks) => Ok(ticks),
            Err(error) => match find_recording(client, what, &error).await? {
                Some(info) => Self::of_recording(client, &info, start, limit).await,
                None => Err(error.into()),
            },
        }
    }

    async fn of_set(client: &'a Client, set: &str, start: Start, limit: u64) -> Result<Self, ClientError> {
        let after = match start {
            Start::After(after) => after,
            Start::Last(last) => client.set(set).await?.summary.last_tick.saturating_sub(last),
            Start::Since(since) => {
                let summary = client.set(set).await?.summary;
                // No two ticks are closer than the shortest one.
                let ticks = millis(since).div_ceil(summary.tick_ms.max(1));
                summary.last_tick.saturating_sub(ticks)
            }
        };
        let source = Source::Set { client, after, page: Vec::new().into_iter(), ended: false, limit };
        let mut ticks = Self { name: set.to_owned(), source };
        ticks.turn_page().await?;
        Ok(ticks)
    }

    /// Ticks of an imported recording.
    pub(super) async fn of_recording(
        client: &Client,
        info: &RecordingInfo,
        start: Start,
        limit: u64,
    ) -> Outcome<Self> {
        let mut file = Vec::new();
        loop {
            let offset = file.len() as u64;
            let content = client.recording_content(&info.name, &ContentQuery { offset }).await?;
            let bytes = decoded(&content.base64)?;
            if bytes.is_empty() || offset > RECORDING_BYTES_MAX {
                break;
            }
            file.extend(bytes);
        }
        let last = (info.last_tick, info.recorded_ms);
        let place = format!("recording {}", info.name);
        let ticks = Self::of_reader(Box::new(Cursor::new(file)), place, start, limit, || Ok(last))?;
        Ok(Self { name: info.name.clone(), ..ticks })
    }

    fn of_file(path: &Path, start: Start, limit: u64) -> Outcome<Self> {
        let open = || {
            let failed = |error| exit::failed(format!("cannot open {}", path.display()), error);
            File::open(path).map_err(failed)
        };
        let (file, again) = (open()?, open()?);
        let last = || check_recording(again).map(|contents| (contents.span.1, contents.last_ms));
        Self::of_reader(Box::new(file), path.display().to_string(), start, limit, last)
    }

    /// `last` returns the last tick of the recording, and when that was.
    fn of_reader(
        file: Box<dyn Read>,
        place: String,
        start: Start,
        limit: u64,
        last: impl FnOnce() -> Result<(u64, u64), RecordingError>,
    ) -> Outcome<Self> {
        let last = || last().map_err(|error| broken(&place, &error));
        let (after, from_ms) = match start {
            Start::After(after) => (after, 0),
            Start::Last(ticks) => (last()?.0.saturating_sub(ticks), 0),
            Start::Since(since) => (0, last()?.1.saturating_sub(millis(since))),
        };
        let reader = RecordingReader::new(file).map_err(|error| broken(&place, &error))?;
        let name = reader.set().to_owned();
        Ok(Self {
            name,
            source: Source::Recording { reader: Box::new(reader), place, after, from_ms, limit },
        })
    }

    /// Name of the set or of the recording; of a file, that of the recorded set.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Name of the recorded set.
    pub(super) fn set(&self) -> &str {
        match &self.source {
            Source::Set { .. } => &self.name,
            Source::Recording { reader, .. } => reader.set(),
        }
    }

    /// The next one; none at the end.
    pub(super) async fn next(&mut self) -> Outcome<Option<TickRecord>> {
        self.turn_page().await?;
        match &mut self.source {
            Source::Set { page, .. } => Ok(page.next()),
            Source::Recording { limit: 0, .. } => Ok(None),
            Source::Recording { reader, place, after, from_ms, limit } => loop {
                let record = reader.next_record().map_err(|error| broken(place, &error))?;
                let before =
                    |record: &TickRecord| record.observation.tick <= *after || record.at_ms() < *from_ms;
                if !record.as_ref().is_some_and(before) {
                    *limit -= 1;
                    return Ok(record);
                }
            },
        }
    }

    /// Asks for the next records of a set when those at hand are used up.
    async fn turn_page(&mut self) -> Result<(), ClientError> {
        let Source::Set { client, after, page, ended, limit } = &mut self.source else { return Ok(()) };
        if *ended || *limit == 0 || page.len() > 0 {
            return Ok(());
        }
        let most = u32::try_from(*limit).unwrap_or(PAGE).min(PAGE);
        let query = RecordsQuery { after: *after, limit: Some(most) };
        let records = client.records(&self.name, &query).await?;
        let newest = records.last().map_or(0, |last| last.observation.tick);
        *limit = limit.saturating_sub(records.len() as u64);
        // A daemon that repeats itself must not make this endless.
        *ended = newest <= *after || *limit == 0 || records.len() < most as usize;
        if newest > *after {
            (*after, *page) = (newest, records.into_iter());
        }
        Ok(())
    }

    /// A manifest or a module that the last record refers to.
    pub(super) async fn blob(&self, digest: &Digest) -> Outcome<Vec<u8>> {
        match &self.source {
            Source::Set { client, .. } => decoded(&client.blob(digest).await?.base64),
            // A reader hands out no record without what it refers to.
            Source::Recording { reader, .. } => Ok(reader.blob(digest).unwrap_or_default().to_vec()),
        }
    }
}

/// The recording that is meant when no set has a name.
pub(super) async fn find_recording(
    client: &Client,
    name: &str,
    error: &ClientError,
) -> Outcome<Option<RecordingInfo>> {
    match error {
        ClientError::Api(error) if error.code == ErrorCode::NotFound => {}
        _ => return Ok(None),
    }
    Ok(client.recordings().await?.into_iter().find(|recording| recording.name == name))
}

fn broken(what: &str, error: &RecordingError) -> Stop {
    exit::invalid(format!("{what}: {}", chain(error)))
}

fn decoded(base64: &str) -> Outcome<Vec<u8>> {
    BASE64.decode(base64).map_err(|error| exit::failed("the daemon sent no valid base64", error))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
