//! `regatta get`, `describe`, `instances`, `protect` and `delete`.

use std::collections::BTreeSet;
use std::io::{BufRead, Read};

use regatta_api::Client;
use regatta_api::types::{
    EventsQuery, InstanceActionRequest, InstanceInfo, MetricNow, PolicyEntry, PolicyRole, ProcessName,
    ProcessesRequest, ProtectRequest, ProtectionLevel, SetDetail, SetSummary, WhyQuery,
};
use regatta_core::metrics::{CONNECTIONS, MEMORY};
use regatta_core::set_process::SetProcess;

use super::Io;
use super::args::{DeleteArgs, Output};
use super::exit::{Exit, Outcome, Stop, usage};
use super::instance_args::{InstanceArg, InstanceCommand};
use super::policy::named;
use super::process_args::{Process, ProcessCommand};
use super::render::{BOLD, Columns, counts, json, leaves, or_dash, paint, pair, plain_line, right, text};
use super::time::{age, number, size as bytes, span};
use super::{events, size, wait};

/// Events that a description ends with.
const EVENTS_SHOWN: u32 = 10;

/// Instances of a description.
const INSTANCES_SHOWN: usize = 20;

pub(super) async fn get(client: &Client, set: Option<&str>, output: Output, io: &mut Io<'_>) -> Outcome {
    let sets = match set {
        Some(set) => {
            let detail = client.set(set).await?;
            if output == Output::Json {
                return json(&detail, io);
            }
            vec![detail.summary]
        }
        None => client.sets().await?,
    };
    if output == Output::Json {
        return json(&sets, io);
    }
    if sets.is_empty() {
        writeln!(io.err, "there are no scale sets; `regatta apply -f FILE` makes one")?;
        return Ok(());
    }
    let headings = ["NAME", "STATUS", "IN-SERVICE", "LIMITS", "OTHERS", "POLICY", "ADDRESS"];
    let mut table = Columns::narrow(&headings, io);
    for set in &sets {
        let others = counts(&set.instances, "in-service");
        table.row(vec![
            text(&set.name),
            table.state(condition(set)),
            right(format!("{}/{}", set.instances.get("in-service").unwrap_or(&0), set.desired)),
            right(format!("{}-{}", set.min, set.max)),
            text(if others.is_empty() { "-" } else { &others }),
            text(policies(set)),
            text(or_dash(set.load_balancer.as_ref())),
        ]);
    }
    table.print(0, io)
}

/// The active policies by name.
pub(super) fn policies(set: &SetSummary) -> String {
    let each: Vec<&str> = set.policies.iter().map(|it| it.name.as_str()).collect();
    each.join(", ")
}

/// A set in one word.
fn condition(set: &SetSummary) -> &'static str {
    let frozen = set.size.freeze.is_some() || set.size.frozen_by.is_some();
    let in_service = set.instances.get("in-service").copied().unwrap_or(0);
    if set.stuck.is_some() {
        "stuck"
    } else if set.deleting {
        "deleting"
    } else if set.problems.len() > usize::from(set.size.hold.is_some()) + usize::from(frozen) {
        "problem"
    } else if set.upgrade.as_ref().is_some_and(|upgrade| !upgrade.has_ended()) {
        "upgrading"
    } else if set.size.hold.is_some() {
        "held"
    } else if frozen {
        "frozen"
    } else if in_service < set.desired || set.instances.values().sum::<u32>() > in_service {
        "changing"
    } else {
        "ok"
    }
}

pub(super) async fn describe(client: &Client, set: &str, output: Output, io: &mut Io<'_>) -> Outcome {
    let detail = client.set(set).await?;
    if output == Output::Json {
        return json(&detail, io);
    }
    let mut instances = client.instances(set).await?;
    let query =
        EventsQuery { set: Some(set.to_owned()), limit: Some(EVENTS_SHOWN), ..EventsQuery::default() };
    let newest = client.events(&query).await?;
    overview(&detail, io)?;
    if !detail.metrics.is_empty() {
        heading("Metrics of the last tick, over the instances in service", io)?;
        metrics_table(&detail.metrics, io).print(2, io)?;
    }
    heading("Instances", io)?;
    let more = instances.len().saturating_sub(INSTANCES_SHOWN);
    // Of many, those that are not as they should be are worth a look.
    instances.sort_by_key(|instance| instance.state == "in-service");
    instances.truncate(INSTANCES_SHOWN);
    instances.sort_by_key(|instance| instance.id);
    instance_table(&instances, io).print(2, io)?;
    if more > 0 {
        writeln!(io.out, "  … and {more} more: regatta instances {set}")?;
    }
    heading("Manifest, with defaults", io)?;
    let mut table = Columns::new(&["FIELD", "VALUE"], io);
    for (path, value) in leaves(&detail.manifest) {
        table.row(vec![text(path), text(value)]);
    }
    table.print(2, io)?;
    // An answer to a question that nobody asked: without it, all the rest is still true.
    let last = client.why(set, &WhyQuery::default()).await.ok();
    for run in last.iter().flat_map(|record| &record.runs) {
        let log = run.log_tail();
        if !log.is_empty() {
            heading(&format!("Log of {}, which failed in the last tick", plain_line(&run.name)), io)?;
            for line in log {
                writeln!(io.out, "  {line}")?;
            }
        }
    }
    if !newest.is_empty() {
        heading("Newest events", io)?;
        for event in &newest {
            events::print_line(event, 2, io)?;
        }
    }
    Ok(())
}

fn heading(text: &str, io: &mut Io<'_>) -> Outcome {
    let text = paint(io.out_colour(), BOLD, text);
    writeln!(io.out, "\n{text}")?;
    Ok(())
}

fn overview(detail: &SetDetail, io: &mut Io<'_>) -> Outcome {
    let set = &detail.summary;
    let now_ms = (io.clock_ms)();
    pair("Name", &set.name, io)?;
    pair("Status", condition(set), io)?;
    for problem in set.stuck.iter().chain(&set.problems) {
        pair("Problem", problem, io)?;
    }
    pair("Generation", &set.generation.to_string(), io)?;
    let limits = match &set.size.limits {
        None if set.size.schedules.is_empty() && set.size.max_from != "freeze" => {
            format!("min {}, max {}", set.min, set.max)
        }
        _ => size::limits_told(set),
    };
    pair("Capacity", &format!("{} desired ({limits})", set.desired), io)?;
    if let Some(term) = &set.size.limits {
        pair("Override", &size::told(term, "limits", &format!("{} --clear", set.name), now_ms), io)?;
    }
    if !set.size.schedules.is_empty() {
        pair("Schedules", &set.size.schedules.join(", "), io)?;
    }
    if let Some(freeze) = &set.size.freeze {
        pair("Frozen", &size::told(freeze, "freeze", &format!("{} --end", set.name), now_ms), io)?;
    }
    if let Some(hold) = &set.size.hold {
        pair("Held", &size::told(hold, "resume", &set.name, now_ms), io)?;
    }
    if let Some(upgrade) = set.upgrade.as_ref().filter(|upgrade| !upgrade.has_ended()) {
        pair("Upgrade", &upgrade.line(), io)?;
    } else if set.outdated > 0 {
        let text = format!(
            "instances that differ from the manifest: {} (regatta upgrade status {})",
            set.outdated, set.name
        );
        pair("Upgrade", &text, io)?;
    }
    let instances = counts(&set.instances, "");
    pair("Instances", if instances.is_empty() { "none" } else { &instances }, io)?;
    pair("Tick", &format!("{}, one every {}", set.last_tick, span(set.tick_ms)), io)?;
    let several = set.policies.len() > 1;
    for PolicyEntry { role, policy, within, failure } in &detail.policies {
        let slot =
            if several && policy.slot != policy.name { format!("{}: ", policy.slot) } else { String::new() };
        let who = format!("{slot}{}", named(policy));
        let text = format!("{who}, for {}, from {}", age(policy.since_ms, now_ms), policy.source);
        match role {
            PolicyRole::Active => {
                pair("Policy", &text, io)?;
                pair("Parameters", &policy.params.to_string(), io)?;
            }
            PolicyRole::Previous => pair("Previous", &format!("{who}, from {}", policy.source), io)?,
            PolicyRole::Canary => {
                let within = within.unwrap_or_default();
                pair("Canary", &format!("#{} {text}, within {within}", policy.activation), io)?;
            }
            PolicyRole::Shadow => pair("Shadow", &format!("#{} {text}", policy.activation), io)?,
        }
        if let Some(failure) = failure {
            pair("Failure", failure, io)?;
        }
    }
    match (&detail.traffic, &set.load_balancer) {
        (Some(traffic), _) => {
            let text = format!(
                "{} to {} endpoints: {} open, {} accepted, {} unserved, {} retries",
                traffic.listen,
                traffic.endpoints,
                traffic.open,
                traffic.accepted,
                traffic.unserved,
                traffic.retries
            );
            pair("Load balancer", &text, io)?;
        }
        (None, Some(address)) => pair("Load balancer", address, io)?,
        (None, None) => {}
    }
    for note in &detail.notes {
        pair("Note", note, io)?;
    }
    Ok(())
}

fn metrics_table(metrics: &[MetricNow], io: &Io<'_>) -> Columns {
    let mut table = Columns::new(&["NAME", "MEAN", "MIN", "MAX", "FRESH", "STALE", "MISSING"], io);
    for metric in metrics {
        let value = |value: Option<f64>| right(or_dash(value.map(|value| measured(&metric.name, value))));
        table.row(vec![
            text(&metric.name),
            value(metric.mean),
            value(metric.min),
            value(metric.max),
            right(metric.fresh),
            right(metric.stale),
            right(metric.missing),
        ]);
    }
    table
}

/// A value as people read it.
fn measured(metric: &str, value: f64) -> String {
    match metric {
        // A metric of a count of bytes, below 2^53.
        MEMORY => bytes(value.max(0.0) as u64),
        _ => number(value),
    }
}

pub(super) async fn instances(client: &Client, set: &str, output: Output, io: &mut Io<'_>) -> Outcome {
    let instances = client.instances(set).await?;
    if output == Output::Json {
        return json(&instances, io);
    }
    if instances.is_empty() {
        writeln!(io.err, "{set} has no instances")?;
        return Ok(());
    }
    instance_table(&instances, io).print(0, io)
}

fn instance_table(instances: &[InstanceInfo], io: &Io<'_>) -> Columns {
    let now_ms = (io.clock_ms)();
    let metrics: BTreeSet<&str> =
        instances.iter().flat_map(|i| i.metrics.keys().map(String::as_str)).collect();
    // It has a column of its own.
    let metrics: BTreeSet<&str> = metrics.into_iter().filter(|name| *name != CONNECTIONS).collect();
    let protected = instances.iter().any(|i| i.protected);
    let detail_of = |i: &InstanceInfo| match (&i.detail, &i.requested) {
        (Some(detail), _) => Some(detail.clone()),
        (None, requested) => requested.as_ref().map(|requested| format!("{requested} requested")),
    };
    let detail = instances.iter().any(|i| detail_of(i).is_some());
    let start = instances.iter().any(|i| i.start.as_ref().is_some_and(|start| start != "cold"));
    let metric_headings: Vec<String> = metrics.iter().map(|name| name.to_uppercase()).collect();
    let generations: BTreeSet<u64> = instances.iter().map(|i| i.generation).collect();
    let generation = generations.len() > 1;
    let mut headings = vec!["NAME", "STATE", "FOR", "ADDRESS", "CONNS"];
    headings.extend(metric_headings.iter().map(String::as_str));
    // Columns that would be empty for most sets come only when they say something.
    headings.extend(generation.then_some("GEN"));
    headings.extend(protected.then_some("PROTECTED"));
    headings.extend(start.then_some("START"));
    headings.extend(detail.then_some("DETAIL"));
    let mut table = Columns::narrow(&headings, io);
    for instance in instances {
        let mut row = vec![
            text(&instance.name),
            table.state(&instance.state),
            right(age(instance.state_since_ms, now_ms)),
            text(&instance.address),
            right(instance.connections),
        ];
        row.extend(
            metrics
                .iter()
                .map(|&name| right(or_dash(instance.metrics.get(name).map(|value| measured(name, *value))))),
        );
        row.extend(generation.then(|| right(instance.generation)));
        row.extend(protected.then(|| {
            text(match instance.protection {
                ProtectionLevel::None => "-",
                ProtectionLevel::ScaleIn => "scale-in",
                ProtectionLevel::All => "all",
            })
        }));
        row.extend(start.then(|| text(or_dash(instance.start.as_ref()))));
        row.extend(detail.then(|| text(or_dash(detail_of(instance)))));
        table.row(row);
    }
    table
}

/// Both are how people know an instance: `3` and `web-3`.
pub(super) fn instance_number(set: &str, instance: &str) -> Outcome<u32> {
    let number = instance.strip_prefix(set).and_then(|rest| rest.strip_prefix('-')).unwrap_or(instance);
    number
        .parse()
        .map_err(|_| usage(format!("{instance} is not an instance of {set}: give its number or name")))
}

pub(super) async fn protect(
    client: &Client,
    set: &str,
    instance: &str,
    protection: ProtectionLevel,
    output: Output,
    io: &mut Io<'_>,
) -> Outcome {
    let id = instance_number(set, instance)?;
    let instance = client.protect(set, id, &ProtectRequest { protection }).await?;
    if output == Output::Json {
        return json(&instance, io);
    }
    let how = match instance.protection {
        ProtectionLevel::None => "is no longer protected",
        ProtectionLevel::ScaleIn => "is protected from scale-in",
        ProtectionLevel::All => "is protected from all actions of the set",
    };
    writeln!(io.out, "{} {how}", instance.name)?;
    Ok(())
}

pub(super) async fn instance_action(
    client: &Client,
    command: &InstanceCommand,
    output: Output,
    io: &mut Io<'_>,
) -> Outcome {
    let (InstanceArg { set, instance }, request, what) = match command {
        InstanceCommand::Replace(of) => (of, InstanceActionRequest::Replace, "is to be replaced"),
        InstanceCommand::Restart(of) => (of, InstanceActionRequest::Restart, "is to be restarted"),
        InstanceCommand::Delete { instance, shrink } => {
            (instance, InstanceActionRequest::Delete { shrink: *shrink }, "is to be deleted")
        }
    };
    let id = instance_number(set, instance)?;
    let instance = client.instance_action(set, id, &request).await?;
    if output == Output::Json {
        return json(&instance, io);
    }
    writeln!(io.out, "{} {what}", instance.name)?;
    Ok(())
}

pub(super) async fn processes(
    client: &Client,
    command: &ProcessCommand,
    output: Output,
    io: &mut Io<'_>,
) -> Outcome {
    let (ProcessCommand::Suspend(of) | ProcessCommand::Resume(of)) = command;
    let name = |process: &Process| match process {
        Process::Launch => ProcessName::Launch,
        Process::Terminate => ProcessName::Terminate,
        Process::Health => ProcessName::Health,
        Process::Repair => ProcessName::Repair,
        Process::Policy => ProcessName::Policy,
    };
    let names = of.processes.iter().map(name).collect();
    let request = match command {
        ProcessCommand::Suspend(_) => ProcessesRequest { suspend: names, resume: Vec::new() },
        ProcessCommand::Resume(_) => ProcessesRequest { suspend: Vec::new(), resume: names },
    };
    let info = client.processes(&of.set, &request).await?;
    if output == Output::Json {
        return json(&info, io);
    }
    let names: Vec<&str> = info.suspended.iter().map(|name| SetProcess::from(*name).as_str()).collect();
    match names.is_empty() {
        true => writeln!(io.out, "{}: no process is suspended", of.set)?,
        false => writeln!(io.out, "{}: suspended: {}", of.set, names.join(", "))?,
    }
    Ok(())
}

pub(super) async fn delete(client: &Client, args: &DeleteArgs, output: Output, io: &mut Io<'_>) -> Outcome {
    if !args.yes {
        confirm(client, &args.set, io).await?;
    }
    let set = client.delete(&args.set).await?;
    if output == Output::Json {
        json(&set, io)?;
    }
    if args.wait.wait {
        io.out.flush()?;
        wait::until_gone(client, &args.set, args.wait.timeout, io).await?;
    }
    if output == Output::Table {
        let how_far = if args.wait.wait { "deleted" } else { "is being deleted" };
        writeln!(io.out, "{} {how_far}", set.name)?;
    }
    Ok(())
}

/// Asks on the terminal; without one, `--yes` has to say it.
async fn confirm(client: &Client, set: &str, io: &mut Io<'_>) -> Outcome {
    if !io.in_terminal {
        return Err(usage(format!("deleting {set} needs --yes when standard input is not a terminal")));
    }
    let count: u32 = client.set(set).await?.summary.instances.values().sum();
    write!(io.err, "delete the scale set {set} and its {count} instances? [y/N] ")?;
    io.err.flush()?;
    let mut answer = String::new();
    // More than a word is not an answer; the limit keeps a pasted file out of memory.
    io.input.take(64).read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    writeln!(io.err, "nothing was deleted")?;
    Err(Stop::Quiet(Exit::Failed))
}
