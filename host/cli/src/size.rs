//! `regatta scale`, `hold` and `resume`: the size by hand.

use regatta_api::Client;
use regatta_api::size_types::{HoldRequest, TermInfo};
use regatta_api::types::{ScaleRequest, SetSummary};

use super::args::Output;
use super::exit::Outcome;
use super::render::json;
use super::sets::policies;
use super::size_args::{HoldArgs, ScaleArgs};
use super::time::{age, span, utc_seconds};
use super::{Io, wait};

pub(super) async fn scale(client: &Client, args: &ScaleArgs, output: Output, io: &mut Io<'_>) -> Outcome {
    let set = client.scale(&args.set, &ScaleRequest { capacity: args.capacity }).await?;
    if output == Output::Json {
        json(&set, io)?;
    } else {
        writeln!(
            io.out,
            "{}: desired capacity is {} (min {}, max {})",
            set.name, set.desired, set.min, set.max
        )?;
        let next = next(&set, (io.clock_ms)());
        writeln!(io.out, "{next}")?;
    }
    if args.wait.wait {
        io.out.flush()?;
        let until = wait::Until {
            after_tick: Some(set.last_tick),
            capacity: Some(args.capacity),
            ..wait::Until::default()
        };
        wait::until_settled(client, &args.set, until, args.wait.timeout, io).await?;
    }
    Ok(())
}

/// What becomes of a capacity that an operator has set.
fn next(set: &SetSummary, now_ms: u64) -> String {
    match &set.size.hold {
        Some(hold) => format!("The size is held {}: it stays.", until(hold, "resume", &set.name, now_ms)),
        None => format!(
            "{} decides again at the next tick, within {}; to keep this size: regatta hold {}",
            policies(set),
            span(set.tick_ms),
            set.name
        ),
    }
}

pub(super) async fn hold(client: &Client, args: &HoldArgs, output: Output, io: &mut Io<'_>) -> Outcome {
    let HoldArgs { set, capacity, term } = args;
    let request = HoldRequest { capacity: *capacity, for_ms: term.for_ms(), reason: term.reason.clone() };
    let set = client.hold(set, &request).await?;
    if output == Output::Json {
        return json(&set, io);
    }
    let until = set.size.hold.as_ref().map(|hold| until(hold, "resume", &set.name, (io.clock_ms)()));
    writeln!(io.out, "{}: capacity {} is held {}", set.name, set.desired, until.unwrap_or_default())?;
    Ok(())
}

pub(super) async fn resume(client: &Client, set: &str, output: Output, io: &mut Io<'_>) -> Outcome {
    let set = client.resume(set).await?;
    if output == Output::Json {
        return json(&set, io);
    }
    writeln!(io.out, "{}: {} decides again, from capacity {}", set.name, policies(&set), set.desired)?;
    Ok(())
}

/// How long an operator's word counts; `command` ends it.
pub(super) fn until(term: &TermInfo, command: &str, set: &str, now_ms: u64) -> String {
    match term.until_ms {
        Some(until_ms) => format!("until {} (in {})", utc_seconds(until_ms), age(now_ms, until_ms)),
        None => format!("until `regatta {command} {set}`"),
    }
}

/// The same with whose word it is, and why.
pub(super) fn told(term: &TermInfo, command: &str, set: &str, now_ms: u64) -> String {
    let reason = if term.reason.is_empty() { String::new() } else { format!(": {}", term.reason) };
    format!("{}, by {}{reason}", until(term, command, set, now_ms), term.actor)
}
