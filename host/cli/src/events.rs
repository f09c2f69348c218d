//! `regatta events`.

use std::time::Duration;

use regatta_api::types::{EventEntry, EventsQuery};
use regatta_api::{Client, ClientError};
use tokio::time::Instant;

use super::Io;
use super::args::{EventsArgs, Output};
use super::exit::Outcome;
use super::render::{json, json_line, plain_line};
use super::time::utc;

/// How long one call waits for an event.
const WAIT_MS: u64 = 25_000;

/// How long a follower tries to reach a daemon that went away, for example because
/// it is restarted.
const LOST_MAX: Duration = Duration::from_secs(60);

/// Pause between two tries.
const LOST_PAUSE: Duration = Duration::from_millis(500);

pub(super) async fn events(client: &Client, args: EventsArgs, output: Output, io: &mut Io<'_>) -> Outcome {
    let EventsArgs { set, follow, limit } = args;
    let query = EventsQuery { set: set.clone(), after: None, limit: Some(limit), wait_ms: 0 };
    let first = client.events(&query).await?;
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
        let query = EventsQuery { set: set.clone(), after: Some(after), limit: None, wait_ms: WAIT_MS };
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

/// One line each; with JSON one object a line, as a stream has no end to close a
/// list with.
fn print(events: &[EventEntry], output: Output, io: &mut Io<'_>) -> Outcome {
    for event in events {
        match output {
            Output::Json => json_line(event, io)?,
            Output::Table => writeln!(io.out, "{}", line(event))?,
        }
    }
    io.out.flush()?;
    Ok(())
}

pub(super) fn line(event: &EventEntry) -> String {
    let of = match event.instance {
        Some(id) => format!("{}-{id}", event.set),
        None => event.set.clone(),
    };
    let (kind, text, actor) = (&event.kind, &event.text, &event.actor);
    let line = format!("{}  {of:<12}  {kind:<18}  {text} [{actor}]", utc(event.at_ms));
    plain_line(&line).into_owned()
}
