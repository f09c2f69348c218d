//! `regatta upgrade`.

use std::collections::BTreeMap;

use clap::Subcommand;
use regatta_api::Client;
use regatta_api::upgrade_types::{
    OutdatedInstance, UpgradeInfo, UpgradePreview, UpgradeRequest, UpgradeRun, UpgradeVerb,
};

use super::Io;
use super::args::{Output, SetArg};
use super::exit::Outcome;
use super::render::{json, pair, plain_line};
use super::time::{age, span};

/// Instances that are named before the rest is counted.
const NAMED: usize = 10;

/// What to do about the upgrade of a set's instances.
#[derive(Debug, Subcommand)]
pub enum UpgradeCommand {
    /// Show how far it is, and which instances are outdated
    Status(SetArg),
    /// Replace outdated instances, whatever `upgrade.mode` says
    Start(SetArg),
    /// Replace nothing until it is resumed
    Pause(SetArg),
    /// Go on
    Resume(SetArg),
    /// End it; instances stay as they are, new ones are made from the manifest in force
    Cancel(SetArg),
    /// Go back to what instances were made of before
    Rollback(SetArg),
}

pub(super) async fn run(
    client: &Client,
    command: UpgradeCommand,
    output: Output,
    io: &mut Io<'_>,
) -> Outcome {
    let (set, action) = match command {
        UpgradeCommand::Status(args) => {
            let info = client.upgrade(&args.set).await?;
            return show(&info, output, io);
        }
        UpgradeCommand::Start(args) => (args.set, UpgradeVerb::Start),
        UpgradeCommand::Pause(args) => (args.set, UpgradeVerb::Pause),
        UpgradeCommand::Resume(args) => (args.set, UpgradeVerb::Resume),
        UpgradeCommand::Cancel(args) => (args.set, UpgradeVerb::Cancel),
        UpgradeCommand::Rollback(args) => (args.set, UpgradeVerb::Rollback),
    };
    let info = client.change_upgrade(&set, &UpgradeRequest { action }).await?;
    show(&info, output, io)
}

fn show(info: &UpgradeInfo, output: Output, io: &mut Io<'_>) -> Outcome {
    if output == Output::Json {
        return json(info, io);
    }
    match &info.upgrade {
        Some(upgrade) => run_of(upgrade, io)?,
        None => pair("Status", "no upgrade so far", io)?,
    }
    if let Some(waits_for) = &info.waits_for {
        pair("Waits", waits_for, io)?;
    }
    pair("Mode", &info.mode, io)?;
    let outdated = match info.outdated.is_empty() {
        true => format!("none: all instances are as generation {} says", info.generation),
        false => names(&info.outdated),
    };
    pair("Outdated", &outdated, io)?;
    for (paths, instances) in by_difference(&info.outdated) {
        pair("Differs", &format!("{} in {paths}", count(instances)), io)?;
    }
    Ok(())
}

fn run_of(upgrade: &UpgradeRun, io: &mut Io<'_>) -> Outcome {
    let now_ms = (io.clock_ms)();
    let why = upgrade.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    pair("Status", &format!("{}{why}", upgrade.status), io)?;
    pair("Generation", &format!("{} → {}", upgrade.from, upgrade.to), io)?;
    let UpgradeRun { replaced, total, batch_end, .. } = upgrade;
    match upgrade.ended_ms {
        Some(ended_ms) => {
            let took = span(ended_ms.saturating_sub(upgrade.started_ms));
            pair("Ended", &format!("{} ago, after {took}", age(ended_ms, now_ms)), io)?;
            if *total > 0 {
                pair("Instances", &format!("{total} to replace"), io)?;
            }
        }
        None => {
            pair("Started", &format!("{} ago", age(upgrade.started_ms, now_ms)), io)?;
            pair(
                "Instances",
                &format!("{replaced} of {total} replaced, {batch_end} by the end of this batch"),
                io,
            )?;
        }
    }
    if !upgrade.failed.is_empty() {
        let failed: Vec<String> = upgrade.failed.iter().map(ToString::to_string).collect();
        pair("Failed", &format!("new instances {}", failed.join(", ")), io)?;
    }
    Ok(())
}

/// What an apply does to instances that run, in a line or two.
pub(super) fn preview(preview: &UpgradePreview, set: &str, io: &mut Io<'_>) -> Outcome {
    let UpgradePreview { mode, outdated, batch, surge, unavailable } = preview;
    let many = outdated.len();
    let s = if many == 1 { "" } else { "s" };
    let text = match mode.as_str() {
        "manual" => format!(
            "{many} instance{s} differ{} from this: {}; `regatta upgrade start {set}` replaces them (upgrade.mode is manual)",
            if many == 1 { "s" } else { "" },
            names(outdated)
        ),
        "all-at-once" => format!("replaced all at once: {}", names(outdated)),
        _ => format!(
            "replaced in this order, {batch} at a time, with up to {surge} more and {unavailable} fewer in service: {}",
            names(outdated)
        ),
    };
    writeln!(io.out, "  {}", plain_line(&text))?;
    Ok(())
}

fn names(instances: &[OutdatedInstance]) -> String {
    let named: Vec<&str> = instances.iter().take(NAMED).map(|it| it.name.as_str()).collect();
    let rest = instances.len() - named.len();
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    format!("{}{more}", named.join(", "))
}

/// How many instances differ in the same fields.
fn by_difference(instances: &[OutdatedInstance]) -> BTreeMap<String, usize> {
    let mut by: BTreeMap<String, usize> = BTreeMap::new();
    instances.iter().for_each(|it| *by.entry(it.differs_in.join(", ")).or_default() += 1);
    by
}

fn count(instances: usize) -> String {
    if instances == 1 { "1 instance".to_owned() } else { format!("{instances} instances") }
}
