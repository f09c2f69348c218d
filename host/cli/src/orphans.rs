//! `regatta orphans` and `regatta recover`.

use std::io::{BufRead, Read};

use regatta_api::Client;
use regatta_api::recovery_types::{DeleteOrphansRequest, OrphanInfo, RecoverRequest, RecoveredSet};

use super::Io;
use super::args::Output;
use super::exit::{Exit, Outcome, Stop, usage};
use super::orphan_args::OrphansCommand;
use super::render::{Columns, json, or_dash, plain_line, right, text};
use super::time::age;

pub(super) async fn run(
    client: &Client,
    command: Option<OrphansCommand>,
    output: Output,
    io: &mut Io<'_>,
) -> Outcome {
    match command {
        None | Some(OrphansCommand::List) => list(client, output, io).await,
        Some(OrphansCommand::Delete { names, yes }) => delete(client, names, yes, output, io).await,
    }
}

pub(super) async fn recover(
    client: &Client,
    sets: Vec<String>,
    dry_run: bool,
    output: Output,
    io: &mut Io<'_>,
) -> Outcome {
    let outcome = client.recover(&RecoverRequest { sets, dry_run }).await?;
    if output == Output::Json {
        json(&outcome, io)?;
    } else {
        let what = if dry_run { "would be recovered" } else { "recovered" };
        for set in &outcome.recovered {
            let RecoveredSet { set, generation, capacity, adopted, notes } = set;
            let count = adopted.len();
            writeln!(io.out, "{set} {what}: generation {generation}, {count} adopted, capacity {capacity}")?;
            for note in notes {
                writeln!(io.out, "  {}", plain_line(note))?;
            }
        }
        io.out.flush()?;
        for failed in &outcome.failed {
            writeln!(io.err, "{} not recovered: {}", plain_line(&failed.set), plain_line(&failed.why))?;
        }
    }
    if outcome.failed.is_empty() { Ok(()) } else { Err(Stop::Quiet(Exit::Failed)) }
}

async fn list(client: &Client, output: Output, io: &mut Io<'_>) -> Outcome {
    let orphans = client.orphans().await?;
    if output == Output::Json {
        return json(&orphans, io);
    }
    if orphans.is_empty() {
        writeln!(io.err, "no orphans: the store knows every VM and instance directory")?;
        return Ok(());
    }
    let now_ms = (io.clock_ms)();
    let mut table = Columns::new(&["NAME", "SINCE", "GEN", "ADDRESS", "PID", "UNIQUE ID", "WHY"], io)
        .folding(&["WHY", "UNIQUE ID"]);
    for orphan in &orphans {
        let OrphanInfo { name, uid, generation, since_ms, address, pid, why } = orphan;
        table.row(vec![
            text(name),
            right(age(*since_ms, now_ms)),
            right(or_dash(*generation)),
            text(or_dash(address.as_ref())),
            right(or_dash(*pid)),
            text(or_dash(uid.as_ref())),
            text(why),
        ]);
    }
    table.print(0, io)
}

async fn delete(client: &Client, names: Vec<String>, yes: bool, output: Output, io: &mut Io<'_>) -> Outcome {
    if !yes {
        confirm(client, &names, io).await?;
    }
    let outcome = client.delete_orphans(&DeleteOrphansRequest { names }).await?;
    if output == Output::Json {
        json(&outcome, io)?;
    } else {
        for removed in &outcome.removed {
            writeln!(io.out, "{} removed: {}", plain_line(&removed.name), plain_line(&removed.how))?;
        }
        io.out.flush()?;
        for failed in &outcome.failed {
            writeln!(io.err, "{} stays: {}", plain_line(&failed.name), plain_line(&failed.why))?;
        }
    }
    if outcome.failed.is_empty() { Ok(()) } else { Err(Stop::Quiet(Exit::Failed)) }
}

/// Asks on the terminal; without one, `--yes` has to say it.
async fn confirm(client: &Client, names: &[String], io: &mut Io<'_>) -> Outcome {
    if !io.in_terminal {
        return Err(usage("deleting orphans needs --yes when stdin is not a terminal"));
    }
    let orphans = client.orphans().await?;
    let meant: Vec<&OrphanInfo> = orphans
        .iter()
        .filter(|it| names.iter().any(|name| it.name == *name || it.name.split('/').next() == Some(name)))
        .collect();
    let running = meant.iter().filter(|orphan| orphan.pid.is_some()).count();
    write!(io.err, "stop and remove {} orphans, {running} of them running? [y/N] ", meant.len())?;
    io.err.flush()?;
    let mut answer = String::new();
    // More than a word is not an answer; the limit keeps a pasted file out of memory.
    io.input.take(64).read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    writeln!(io.err, "nothing was removed")?;
    Err(Stop::Quiet(Exit::Failed))
}
