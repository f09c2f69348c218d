//! `regatta events`.

use std::collections::VecDeque;
use std::time::Duration;

use regatta_api::types::{EventEntry, EventsQuery};
use regatta_api::{Client, ClientError};
use tokio::time::Instant;

use super::Io;
use super::args::{EventsArgs, Output};
use super::exit::Outcome;
use super::render::{FOLD, json, json_line, plain_line, wrapped};
use super::time::utc;

/// Events of one call.
const PAGE: u32 = 1_000;

/// Events that are shown when nobody says how many.
const LIMIT_DEFAULT: u32 = 100;

/// How long one call waits for an event.
const WAIT_MS: u64 = 25_000;

/// How long a follower tries to reach a daemon that went away, for example because
/// it is restarted.
const LOST_MAX: Duration = Duration::from_secs(60);

/// Pause between two tries.
const LOST_PAUSE: Duration = Duration::from_millis(500);

pub(super) async fn events(client: &Client, args: EventsArgs, output: Output, io: &mut Io<'_>) -> Outcome {
    let first = newest(client, &args, (io.clock_ms)()).await?;
    let EventsArgs { set, follow, .. } = args;
    if !follow && output == Output::Json {
        return json(&first, io);
    }
    print(&first, output, io)?;
    if !follow {
        return Ok(());
    }
    let mut after = first.last().map_or(0, |event| event.seq);
    let mut lost: Option<Instant> = None;
    loop {
        let query =
            EventsQuery { set: set.clone(), after: Some(after), wait_ms: WAIT_MS, ..EventsQuery::default() };
        match client.events(&query).await {
            Ok(events) => {
                if lost.take().is_some() {
                    writeln!(io.err, "the daemon is back")?;
                }
                after = events.last().map_or(after, |event| event.seq);
                print(&events, output, io)?;
            }
            Err(error @ (ClientError::Unreachable { .. } | ClientError::Broken { .. })) => {
                if lost.is_none() {
                    writeln!(io.err, "the daemon is gone; waiting for it for {} s", LOST_MAX.as_secs())?;
                }
                if lost.get_or_insert_with(Instant::now).elapsed() >= LOST_MAX {
                    return Err(error.into());
                }
                tokio::time::sleep(LOST_PAUSE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The newest events that were asked for, as far back as they are kept, in their order.
async fn newest(client: &Client, args: &EventsArgs, now_ms: u64) -> Outcome<Vec<EventEntry>> {
    let ago = |span: Duration| now_ms.saturating_sub(u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
    let (since_ms, before_ms) = (args.since.map(ago), args.before.map(ago));
    let limit = args.limit.or((args.since.is_none()).then_some(LIMIT_DEFAULT));
    let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let mut found = VecDeque::new();
    let mut before = None;
    loop {
        let page = if before_ms.is_some() { PAGE } else { u32::try_from(limit).unwrap_or(PAGE).min(PAGE) };
        let query =
            EventsQuery { set: args.set.clone(), before, limit: Some(page), ..EventsQuery::default() };
        let events = client.events(&query).await?;
        let Some(oldest) = events.first() else { break };
        before = Some(oldest.seq);
        let is_last =
            events.len() < page as usize || since_ms.is_some_and(|since_ms| oldest.at_ms < since_ms);
        for event in events.into_iter().rev() {
            let is_wanted = since_ms.is_none_or(|since_ms| event.at_ms >= since_ms)
                && before_ms.is_none_or(|before_ms| event.at_ms <= before_ms);
            if is_wanted && found.len() < limit {
                found.push_front(event);
            }
        }
        if is_last || found.len() >= limit {
            break;
        }
    }
    Ok(found.into())
}

/// One line each; with JSON one object a line, as a stream has no end to close a
/// list with.
fn print(events: &[EventEntry], output: Output, io: &mut Io<'_>) -> Outcome {
    for event in events {
        match output {
            Output::Json => json_line(event, io)?,
            Output::Table => print_line(event, 0, io)?,
        }
    }
    io.out.flush()?;
    Ok(())
}

/// On a terminal that is too narrow, what happened stands below when and where.
pub(super) fn print_line(event: &EventEntry, indent: usize, io: &mut Io<'_>) -> Outcome {
    let (head, text) = parts(event);
    let line = format!("{head}  {text}");
    let columns = io.out_width.unwrap_or(usize::MAX);
    if indent + line.chars().count() <= columns {
        writeln!(io.out, "{:indent$}{line}", "")?;
        return Ok(());
    }
    writeln!(io.out, "{:indent$}{}", "", head.trim_end())?;
    let fold = indent + FOLD;
    for line in wrapped(&text, columns.saturating_sub(fold)) {
        writeln!(io.out, "{:fold$}{line}", "")?;
    }
    Ok(())
}

fn parts(event: &EventEntry) -> (String, String) {
    let of = match event.instance {
        Some(id) => format!("{}-{id}", event.set),
        None => event.set.clone(),
    };
    let (kind, text, actor) = (&event.kind, &event.text, &event.actor);
    let head = format!("{}  {of:<12}  {kind:<18}", utc(event.at_ms));
    (plain_line(&head).into_owned(), plain_line(&format!("{text} [{actor}]")).into_owned())
}
