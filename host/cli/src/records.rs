//! `regatta why` and `regatta records`.

use regatta_api::Client;
use regatta_api::types::{RecordsQuery, WhyQuery};
use regatta_core::explain::explain;

use super::Io;
use super::args::{Output, RecordsArgs, WhyArgs};
use super::exit::Outcome;
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
