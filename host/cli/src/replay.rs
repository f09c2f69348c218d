//! `regatta replay`.

use regatta_api::Client;
use regatta_core::replay::{Outcome as Replayed, Replay};
use regatta_policy_tools::Replayer;
use regatta_util::thousands;

use super::Io;
use super::args::Output;
use super::exit::{Exit, Failure, Outcome, Stop};
use super::policy_tools::cache_dir;
use super::record_args::ReplayArgs;
use super::render::{json, plain};
use super::ticks::Ticks;

/// Decides recorded ticks again.
pub(super) async fn replay(
    client: &Client,
    args: &ReplayArgs,
    output: Output,
    io: &mut Io<'_>,
) -> Outcome<Exit> {
    let mut replay = Replay::new(Replayer::new(&(io.engine)(cache_dir()))?);
    let mut ticks = Ticks::open(client, &args.what, (&args.span).into(), u64::MAX).await?;
    while let Some(record) = ticks.next().await? {
        for sha256 in replay.source_mut().missing(&record) {
            let bytes = ticks.blob(&sha256).await?;
            replay.source_mut().provide(&sha256, bytes);
        }
        if !replay.next(&record) {
            break;
        }
    }
    told(ticks.name(), &replay.finish(), output, io)
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
