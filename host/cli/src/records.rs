//! `regatta why` and `regatta records`.

use regatta_api::Client;
use regatta_api::recording_types::RecordingInfo;
use regatta_api::types::{ApiError, WhyQuery};
use regatta_core::explain::explain;
use regatta_core::record::{Direction, TickRecord};
use regatta_policy_tools::vector_file;

use super::Io;
use super::args::{Last, Output, RecordsArgs, VectorsArgs, WhyArgs};
use super::exit::{Outcome, invalid};
use super::render::{json, json_line, plain};
use super::ticks::{Start, Ticks, find_recording};
use super::time::utc;

pub(super) async fn why(client: &Client, args: &WhyArgs, output: Output, io: &mut Io<'_>) -> Outcome {
    let query = WhyQuery { tick: args.tick, last: args.last.map(Into::into) };
    let record = match client.why(&args.set, &query).await {
        Ok(record) => record,
        Err(error) => match find_recording(client, &args.set, &error).await? {
            Some(recording) => recorded(client, &recording, args).await?,
            None => return Err(error.into()),
        },
    };
    if output == Output::Json {
        return json(&record, io);
    }
    let text = explain(&record, &utc(record.at_ms()));
    write!(io.out, "{}", plain(&text))?;
    Ok(())
}

/// Prints a decision vector of a recorded tick.
pub(super) async fn vectors(client: &Client, args: &VectorsArgs, io: &mut Io<'_>) -> Outcome {
    let record = client.why(&args.set, &WhyQuery { tick: args.tick, last: None }).await?;
    let (set, tick) = (&args.set, record.observation.tick);
    let slots: Vec<&str> = record.runs.iter().map(|run| run.slot.as_str()).collect();
    let run = match (&args.policy, record.runs.as_slice()) {
        (None, [run]) => run,
        (None, []) => return Err(invalid(format!("set {set}: no policy ran in tick {tick}"))),
        (None, _) => {
            let slots = slots.join(", ");
            return Err(invalid(format!(
                "set {set} has several policies ({slots}): choose one with --policy"
            )));
        }
        (Some(slot), runs) => {
            let found = runs.iter().find(|run| run.slot == *slot);
            let slots = slots.join(", ");
            found.ok_or_else(|| {
                invalid(format!("set {set}: no policy {slot} ran in tick {tick}; there were: {slots}"))
            })?
        }
    };
    let file = vector_file(&record, run).map_err(|why| invalid(format!("set {set}: {why}")))?;
    json(&file, io)
}

/// The last tick of a recording that does what is asked for.
async fn recorded(client: &Client, recording: &RecordingInfo, args: &WhyArgs) -> Outcome<TickRecord> {
    let wanted = |record: &TickRecord| match (args.tick, args.last) {
        (Some(tick), _) => record.observation.tick == tick,
        (None, Some(Last::ScaleOut)) => record.direction() == Direction::ScaleOut,
        (None, Some(Last::ScaleIn)) => record.direction() == Direction::ScaleIn,
        (None, Some(Last::Change)) => record.direction() != Direction::None,
        (None, None) => true,
    };
    let mut ticks = Ticks::of_recording(client, recording, Start::After(0), u64::MAX).await?;
    let mut found = None;
    while let Some(record) = ticks.next().await? {
        found = Some(record).filter(wanted).or(found);
    }
    let RecordingInfo { name, first_tick, last_tick, .. } = recording;
    let none = || format!("recording {name} has no such tick; its ticks are {first_tick} to {last_tick}");
    found.ok_or_else(|| ApiError::not_found(none()).into())
}

pub(super) async fn records(client: &Client, args: &RecordsArgs, io: &mut Io<'_>) -> Outcome {
    let start = args.last.map_or(Start::After(args.after), Start::Last);
    let mut ticks = Ticks::open(client, &args.set, start, args.limit.unwrap_or(u64::MAX)).await?;
    while let Some(record) = ticks.next().await? {
        json_line(&record, io)?;
    }
    Ok(())
}
