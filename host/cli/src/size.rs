//! `regatta scale`, `hold`, `resume`, `limits` and `freeze`: the size by hand.

use regatta_api::Client;
use regatta_api::size_types::{FreezeRequest, HoldRequest, LimitsRequest, TermInfo};
use regatta_api::types::{ScaleRequest, SetSummary};

use super::args::Output;
use super::exit::Outcome;
use super::render::json;
use super::sets::policies;
use super::size_args::{FreezeArgs, HoldArgs, LimitsArgs, ScaleArgs};
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

pub(super) async fn limits(client: &Client, args: &LimitsArgs, output: Output, io: &mut Io<'_>) -> Outcome {
    let LimitsArgs { set, min, max, clear, term } = args;
    let set = match (clear, min, max) {
        (true, ..) => client.clear_limits(set).await?,
        (false, None, None) if term.for_time.is_none() => client.set(set).await?.summary,
        (false, min, max) => {
            let request =
                LimitsRequest { min: *min, max: *max, for_ms: term.for_ms(), reason: term.reason.clone() };
            client.override_limits(set, &request).await?
        }
    };
    if output == Output::Json {
        return json(&set, io);
    }
    writeln!(io.out, "{}: {}", set.name, limits_told(&set))?;
    if let Some(term) = &set.size.limits {
        writeln!(
            io.out,
            "Overridden {}",
            told(term, "limits", &format!("{} --clear", set.name), (io.clock_ms)())
        )?;
    }
    Ok(())
}

/// The limits in force, and where each comes from.
pub(super) fn limits_told(set: &SetSummary) -> String {
    format!("min {} ({}), max {} ({})", set.min, set.size.min_from, set.max, set.size.max_from)
}

pub(super) async fn freeze(client: &Client, args: &FreezeArgs, output: Output, io: &mut Io<'_>) -> Outcome {
    let FreezeArgs { set, end, term } = args;
    let set = match end {
        true => client.thaw(set).await?,
        false => {
            let request = FreezeRequest { for_ms: term.for_ms(), reason: term.reason.clone() };
            client.freeze(set, &request).await?
        }
    };
    if output == Output::Json {
        return json(&set, io);
    }
    match &set.size.freeze {
        Some(freeze) => {
            let until = until(freeze, "freeze", &format!("{} --end", set.name), (io.clock_ms)());
            writeln!(io.out, "{}: nothing that serves is removed {until}", set.name)?;
        }
        None => writeln!(io.out, "{}: instances may be removed again", set.name)?,
    }
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
