//! `regatta why` and `regatta records`.

use regatta_api::Client;
use regatta_api::types::{RecordsQuery, WhyQuery};
use regatta_core::explain::explain;
use regatta_policy_tools::vector_file;

use super::Io;
use super::args::{Output, RecordsArgs, VectorsArgs, WhyArgs};
use super::exit::{Outcome, invalid};
use super::render::{json, json_line, plain};
use super::time::utc;

/// Records of one call; a record of a large set has tens of kilobytes of JSON.
const PAGE: u32 = 200;

pub(super) async fn why(client: &Client, args: &WhyArgs, output: Output, io: &mut Io<'_>) -> Outcome {
    let query = WhyQuery { tick: args.tick, last: args.last.map(Into::into) };
    let record = client.why(&args.set, &query).await?;
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

pub(super) async fn records(client: &Client, args: &RecordsArgs, io: &mut Io<'_>) -> Outcome {
    let mut after = match args.last {
        Some(last) => client.set(&args.set).await?.summary.last_tick.saturating_sub(last),
        None => args.after,
    };
    let mut left = args.limit.unwrap_or(u64::MAX);
    while left > 0 {
        let limit = u32::try_from(left).unwrap_or(PAGE).min(PAGE);
        let page = client.records(&args.set, &RecordsQuery { after, limit: Some(limit) }).await?;
        let Some(last) = page.last() else { break };
        // A daemon that repeats itself must not make this endless.
        if last.observation.tick <= after {
            break;
        }
        after = last.observation.tick;
        left = left.saturating_sub(page.len() as u64);
        for record in &page {
            json_line(record, io)?;
        }
        if page.len() < limit as usize {
            break;
        }
    }
    Ok(())
}
