//! `regatta replay` and `regatta record export`.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use regatta_api::Client;
use regatta_api::types::RecordsQuery;
use regatta_core::record::TickRecord;
use regatta_core::replay::{Outcome as Replayed, Replay};
use regatta_policy_tools::{RecordingError, RecordingReader, RecordingWriter, Replayer};
use regatta_util::{chain, thousands};

use super::Io;
use super::args::{ExportArgs, Output, ReplayArgs, Span};
use super::exit::{self, Exit, Failure, Outcome, Stop};
use super::policy_tools::cache_dir;
use super::render::{json, plain};

/// Records of one call; a record of a large set has tens of kilobytes of JSON.
const PAGE: u32 = 200;

/// Decides the recorded ticks of a set again.
pub(super) async fn set(
    client: &Client,
    set: &str,
    args: &ReplayArgs,
    output: Output,
    io: &mut Io<'_>,
) -> Outcome<Exit> {
    let mut replay = Replay::new(Replayer::new(cache_dir().as_deref())?);
    let mut after = first(client, set, &args.span).await?;
    'pages: while let Some(page) = page(client, set, &mut after).await? {
        for record in page {
            for sha256 in replay.source_mut().missing(&record) {
                let bytes = blob(client, &sha256).await?;
                replay.source_mut().provide(&sha256, bytes);
            }
            if !replay.next(&record) {
                break 'pages;
            }
        }
    }
    told(set, &replay.finish(), output, io)
}

/// Decides the ticks of a recording again. Needs no daemon.
pub(super) fn file(path: &Path, output: Output, io: &mut Io<'_>) -> Outcome<Exit> {
    let mut replay = Replay::new(Replayer::new(cache_dir().as_deref())?);
    let mut recording = open(path)?;
    while let Some(record) = recording.next_record().map_err(|error| broken(path, &error))? {
        for sha256 in replay.source_mut().missing(&record) {
            if let Some(bytes) = recording.blob(&sha256) {
                replay.source_mut().provide(&sha256, bytes.to_vec());
            }
        }
        if !replay.next(&record) {
            break;
        }
    }
    told(recording.set(), &replay.finish(), output, io)
}

fn open(path: &Path) -> Outcome<RecordingReader<File>> {
    let file =
        File::open(path).map_err(|error| exit::failed(format!("cannot open {}", path.display()), error))?;
    RecordingReader::new(file).map_err(|error| broken(path, &error))
}

fn broken(path: &Path, error: &RecordingError) -> Stop {
    exit::invalid(format!("{}: {}", path.display(), chain(error)))
}

fn told(set: &str, outcome: &Replayed, output: Output, io: &mut Io<'_>) -> Outcome<Exit> {
    let exit = match (&outcome.difference, &outcome.problem) {
        (Some(_), _) => Exit::Differs,
        (None, Some(_)) => Exit::Failed,
        (None, None) => Exit::Ok,
    };
    if output == Output::Json {
        json(outcome, io)?;
        return Ok(exit);
    }
    if let Some(problem) = &outcome.problem {
        return Err(Stop::Failure(Failure::new(Exit::Failed, "failed", format!("set {set}: {problem}"))));
    }
    let ticks = match outcome.ticks {
        Some((first, last)) => format!("{} ticks ({first} to {last})", thousands(outcome.identical)),
        None => "no ticks".to_owned(),
    };
    match &outcome.difference {
        None => writeln!(io.out, "{set}: {ticks}, all identical")?,
        Some(difference) => {
            writeln!(io.out, "{set}: {ticks} identical, then tick {} differs", difference.tick)?;
            writeln!(io.out, "  where     {}", plain(&difference.what))?;
            writeln!(io.out, "  recorded  {}", plain(&difference.recorded))?;
            writeln!(io.out, "  replayed  {}", plain(&difference.replayed))?;
        }
    }
    if outcome.too_old > 0 {
        let ticks = thousands(outcome.too_old);
        writeln!(
            io.out,
            "  {ticks} older ticks were recorded by a version whose records cannot be replayed"
        )?;
    }
    if outcome.taken_as_recorded > 0 {
        let runs = thousands(outcome.taken_as_recorded);
        writeln!(io.out, "  {runs} policy runs taken as recorded (ended by a deadline or the host)")?;
    }
    Ok(exit)
}

/// Writes records with all that they refer to into a file.
pub(super) async fn export(client: &Client, args: &ExportArgs, output: Output, io: &mut Io<'_>) -> Outcome {
    let path = &args.output_file;
    let failed =
        |error: RecordingError| exit::failed(format!("cannot write {}", path.display()), chain(&error));
    let mut after = first(client, &args.set, &args.span).await?;
    // Under another name first: what has the final name is whole.
    let unfinished = path.with_added_extension("unfinished");
    let file = File::create_new(&unfinished)
        .map_err(|error| exit::failed(format!("cannot create {}", unfinished.display()), error))?;
    let written = async {
        let mut recording = RecordingWriter::new(BufWriter::new(file), &args.set).map_err(failed)?;
        let mut ticks: u64 = 0;
        while let Some(page) = page(client, &args.set, &mut after).await? {
            for record in page {
                for sha256 in recording.missing(&record) {
                    recording.blob(&sha256, &blob(client, &sha256).await?).map_err(failed)?;
                }
                recording.record(record).map_err(failed)?;
                ticks += 1;
            }
        }
        let file = recording.finish().map_err(failed)?;
        let file = file.into_inner().map_err(|error| failed(error.into_error().into()))?;
        file.sync_all()
            .and_then(|()| std::fs::rename(&unfinished, path))
            .map_err(|error| failed(error.into()))?;
        Ok(ticks)
    };
    let ticks: Outcome<u64> = written.await;
    let ticks = ticks.inspect_err(|_| drop(std::fs::remove_file(&unfinished)))?;
    if output == Output::Json {
        return json(&serde_json::json!({ "set": args.set, "ticks": ticks, "file": path }), io);
    }
    writeln!(io.out, "{}: {} ticks written to {}", args.set, thousands(ticks), path.display())?;
    Ok(())
}

/// The tick after which a span begins.
async fn first(client: &Client, set: &str, span: &Span) -> Outcome<u64> {
    if let (None, None) = (span.last, span.since) {
        return Ok(0);
    }
    let summary = client.set(set).await?.summary;
    // No two ticks are closer than the shortest one.
    let since = span
        .since
        .map(|since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX).div_ceil(summary.tick_ms.max(1)));
    Ok(summary.last_tick.saturating_sub(span.last.or(since).unwrap_or(u64::MAX)))
}

/// The records after a tick, as many as one call gives; none at the end.
async fn page(client: &Client, set: &str, after: &mut u64) -> Outcome<Option<Vec<TickRecord>>> {
    let page = client.records(set, &RecordsQuery { after: *after, limit: Some(PAGE) }).await?;
    // A daemon that repeats itself must not make this endless.
    match page.last().map(|last| last.observation.tick) {
        Some(last) if last > *after => {
            *after = last;
            Ok(Some(page))
        }
        _ => Ok(None),
    }
}

async fn blob(client: &Client, sha256: &str) -> Outcome<Vec<u8>> {
    let content = client.blob(sha256).await?;
    BASE64.decode(content.base64).map_err(|error| exit::failed("the daemon sent no valid base64", error))
}
