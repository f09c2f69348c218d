//! `regatta record …`.

use std::fs::File;
use std::io::BufWriter;

use regatta_api::Client;
use regatta_api::recording_types::{ImportRecordingRequest, RecordingInfo};
use regatta_policy_tools::{RecordingError, RecordingWriter};
use regatta_util::{chain, thousands};

use super::Io;
use super::args::Output;
use super::exit::{self, Outcome};
use super::image::absolute;
use super::record_args::{ExportArgs, ImportArgs, RecordCommand};
use super::render::{Columns, json, right, text};
use super::ticks::Ticks;
use super::time::{age, size};

pub(super) async fn run(
    client: &Client,
    command: &RecordCommand,
    output: Output,
    io: &mut Io<'_>,
) -> Outcome {
    match command {
        RecordCommand::Export(args) => export(client, args, output, io).await,
        RecordCommand::Import(args) => import(client, args, output, io).await,
        RecordCommand::List => list(client, output, io).await,
        RecordCommand::Delete { name } => {
            let deleted = client.delete_recording(name).await?;
            if output == Output::Json {
                return json(&deleted, io);
            }
            Ok(writeln!(io.out, "recording {} deleted", deleted.name)?)
        }
    }
}

async fn import(client: &Client, args: &ImportArgs, output: Output, io: &mut Io<'_>) -> Outcome {
    let request = ImportRecordingRequest { path: absolute(&args.file)?, name: args.name.clone() };
    let imported = client.import_recording(&request).await?;
    if output == Output::Json {
        return json(&imported, io);
    }
    let RecordingInfo { name, set, ticks, first_tick, last_tick, .. } = imported;
    let ticks = thousands(ticks);
    Ok(writeln!(io.out, "{name}: {ticks} ticks of {set} imported ({first_tick} to {last_tick})")?)
}

async fn list(client: &Client, output: Output, io: &mut Io<'_>) -> Outcome {
    let recordings = client.recordings().await?;
    if output == Output::Json {
        return json(&recordings, io);
    }
    if recordings.is_empty() {
        writeln!(io.err, "there are no imported recordings; `regatta record import FILE` creates one")?;
        return Ok(());
    }
    let now_ms = (io.clock_ms)();
    let mut table =
        Columns::new(&["NAME", "SET", "TICKS", "FIRST", "LAST", "RECORDED", "IMPORTED", "SIZE"], io)
            .folding(&["IMPORTED", "RECORDED"]);
    for recording in &recordings {
        table.row(vec![
            text(&recording.name),
            text(&recording.set),
            right(thousands(recording.ticks)),
            right(recording.first_tick),
            right(recording.last_tick),
            right(age(recording.recorded_ms, now_ms)),
            right(age(recording.imported_ms, now_ms)),
            right(size(recording.size_bytes)),
        ]);
    }
    table.print(0, io)
}

/// Writes records with all that they refer to into a file.
pub(super) async fn export(client: &Client, args: &ExportArgs, output: Output, io: &mut Io<'_>) -> Outcome {
    let path = &args.output_file;
    let failed =
        |error: RecordingError| exit::failed(format!("cannot write {}", path.display()), chain(&error));
    let mut recorded = Ticks::open(client, &args.set, (&args.span).into(), u64::MAX).await?;
    // Under another name first: what has the final name is whole.
    let unfinished = path.with_added_extension("unfinished");
    let file = File::create_new(&unfinished)
        .map_err(|error| exit::failed(format!("cannot create {}", unfinished.display()), error))?;
    let written = async {
        let mut recording = RecordingWriter::new(BufWriter::new(file), recorded.set()).map_err(failed)?;
        let mut ticks: u64 = 0;
        while let Some(record) = recorded.next().await? {
            for sha256 in recording.missing(&record) {
                recording.blob(&sha256, &recorded.blob(&sha256).await?).map_err(failed)?;
            }
            recording.record(record).map_err(failed)?;
            ticks += 1;
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
