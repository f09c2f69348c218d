//! Waiting until a set is as wanted, with progress.

use std::time::Duration;

use regatta_api::types::{ErrorCode, SetSummary, WhyLast, WhyQuery};
use regatta_api::upgrade_types::UpgradeRun;
use regatta_api::{Client, ClientError};
use regatta_core::settle::{Asked, Seen, Settling, UpgradeSeen, Verdict};
use tokio::time::Instant;

use super::Io;
use super::exit::{Outcome, Stop, conflict, timed_out};
use super::render::{counts, plain_line};
use super::time::span;

/// Pause between two looks.
const POLL: Duration = Duration::from_millis(200);

/// How far a set is: `3/8 in service (2 booting, 3 creating)`.
fn progress(set: &SetSummary) -> String {
    let rest = counts(&set.instances, "in-service");
    let rest = if rest.is_empty() { rest } else { format!(" ({rest})") };
    let upgrade = set.upgrade.as_ref().filter(|upgrade| !upgrade.has_ended());
    let upgrade = upgrade.map(|upgrade| format!("; upgrade {}", upgrade.line())).unwrap_or_default();
    format!("{}/{} in service{rest}{upgrade}", in_service(set), set.desired)
}

/// What is left of a set: `5 left (3 draining, 2 terminating)`.
fn remains(set: &SetSummary) -> String {
    match set.instances.values().sum::<u32>() {
        0 => "no instances left".to_owned(),
        left => format!("{left} left ({})", counts(&set.instances, "")),
    }
}

fn in_service(set: &SetSummary) -> u32 {
    set.instances.get("in-service").copied().unwrap_or(0)
}

/// How it is with the upgrade of that generation, or of a later one.
fn upgrade_seen(set: &SetSummary, generation: Option<u64>) -> UpgradeSeen {
    let of_request = |run: &&UpgradeRun| generation.is_some_and(|generation| run.to >= generation);
    match set.upgrade.as_ref().filter(of_request).map(|run| (run.status.as_str(), run.has_ended())) {
        None | Some(("completed", _)) => UpgradeSeen::Done,
        Some(("paused", _) | (_, true)) => UpgradeSeen::Stopped,
        Some(_) => UpgradeSeen::UnderWay,
    }
}

fn seen(set: &SetSummary, generation: Option<u64>) -> Seen {
    Seen {
        last_tick: set.last_tick,
        desired: set.desired,
        in_service: in_service(set),
        instances: set.instances.values().sum(),
        upgrade: upgrade_seen(set, generation),
    }
}

/// What a wait is for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Until {
    /// Only a tick after this one has seen the request.
    pub(super) after_tick: Option<u64>,
    /// The capacity that was asked for, if the request was about it.
    pub(super) capacity: Option<u32>,
    /// Whether all must stay healthy as long as the set's probes need to find a fault.
    pub(super) steady: bool,
    /// The generation that was applied, if the request was an apply: its upgrade has to come to its end.
    pub(super) generation: Option<u64>,
}

/// Waits until a set is as a request asked for.
pub(super) async fn until_settled(
    client: &Client,
    name: &str,
    until: Until,
    timeout: Duration,
    io: &mut Io<'_>,
) -> Outcome {
    let begun = Instant::now();
    let deadline = begun + timeout;
    let mut line = Line::default();
    let mut told = Vec::new();
    let mut settling = None;
    loop {
        let set = look(client, name, deadline).await;
        let set = line.end_on_error(set, io)?;
        if let Some(set) = &set {
            for problem in &set.problems {
                if !told.contains(problem) {
                    line.aside(&format!("{name}: {problem}"), io)?;
                    told.push(problem.clone());
                }
            }
            line.show(&format!("{name}: {}", progress(set)), io)?;
            let settling = settling.get_or_insert_with(|| {
                let steady_ms = if until.steady { set.steady_ms } else { 0 };
                Settling::new(Asked { after_tick: until.after_tick, capacity: until.capacity, steady_ms })
            });
            let now_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            match settling.look(now_ms, seen(set, until.generation)) {
                Verdict::Settled => return line.end(io),
                Verdict::Undone => {
                    line.end(io)?;
                    return Err(match (until.capacity, &set.upgrade) {
                        (None, Some(upgrade)) => upgrade_stopped(set, upgrade),
                        (capacity, _) => undone(client, set, capacity.unwrap_or_default()).await,
                    });
                }
                Verdict::Waiting => {}
            }
        }
        if Instant::now() >= deadline {
            line.end(io)?;
            let how_far = set.map_or_else(
                || "the daemon did not answer".to_owned(),
                |set| std::iter::once(progress(&set)).chain(set.problems).collect::<Vec<_>>().join("; "),
            );
            return Err(timed_out(format!("{name}: not settled after {}: {how_far}", spelled(timeout))));
        }
        tokio::time::sleep_until(deadline.min(Instant::now() + POLL)).await;
    }
}

/// An upgrade that did not come to what was applied.
fn upgrade_stopped(set: &SetSummary, upgrade: &UpgradeRun) -> Stop {
    let why = upgrade.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    let status = match upgrade.status.as_str() {
        "failed" => "has failed".to_owned(),
        status => format!("was {}", status.replace('-', " ")),
    };
    let name = &set.name;
    conflict(format!("{name}: the upgrade {status}{why}; see `regatta upgrade status {name}`"))
}

/// A capacity that was accepted and then replaced, with the tick that did it.
async fn undone(client: &Client, set: &SetSummary, asked: u32) -> Stop {
    let query = WhyQuery { last: Some(WhyLast::Change), ..WhyQuery::default() };
    let tick = client.why(&set.name, &query).await.ok().filter(|record| record.observation.desired == asked);
    let what = match tick {
        Some(record) => {
            let (tick, granted) = (record.observation.tick, record.guards.granted);
            format!("tick {tick} changed it to {granted} ({})", record.reason())
        }
        None => format!("it is {} now", set.desired),
    };
    conflict(format!(
        "{}: capacity {asked} did not last: {what}; the policies decide at each tick, so change the limits in the manifest \
         or the policy",
        set.name
    ))
}

/// Waits until a set is gone.
pub(super) async fn until_gone(client: &Client, name: &str, timeout: Duration, io: &mut Io<'_>) -> Outcome {
    let deadline = Instant::now() + timeout;
    let mut line = Line::default();
    loop {
        let set = match look(client, name, deadline).await {
            Err(ClientError::Api(error)) if error.code == ErrorCode::NotFound => return line.end(io),
            set => line.end_on_error(set, io)?,
        };
        if let Some(set) = &set {
            line.show(&format!("{name}: {}", remains(set)), io)?;
        }
        if Instant::now() >= deadline {
            line.end(io)?;
            let how_far = set.map_or_else(|| "the daemon did not answer".to_owned(), |set| remains(&set));
            return Err(timed_out(format!("{name}: not gone after {}: {how_far}", spelled(timeout))));
        }
        tokio::time::sleep_until(deadline.min(Instant::now() + POLL)).await;
    }
}

fn spelled(timeout: Duration) -> String {
    span(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX))
}

/// The set now; none when the daemon has not answered by the deadline.
async fn look(client: &Client, name: &str, deadline: Instant) -> Result<Option<SetSummary>, ClientError> {
    // At least one look, also with a time-out of 0.
    let deadline = deadline.max(Instant::now() + POLL);
    match tokio::time::timeout_at(deadline, client.set(name)).await {
        Ok(set) => Ok(Some(set?.summary)),
        Err(_) => Ok(None),
    }
}

/// A line of progress on standard error: redrawn in place on a terminal, printed
/// when it changes otherwise.
#[derive(Default)]
pub(super) struct Line {
    shown: String,
}

impl Line {
    pub(super) fn show(&mut self, text: &str, io: &mut Io<'_>) -> Outcome {
        if self.shown == text {
            return Ok(());
        }
        text.clone_into(&mut self.shown);
        let text = plain_line(text);
        if io.err_terminal {
            write!(io.err, "\r\x1b[2K{text}")?;
        } else {
            writeln!(io.err, "{text}")?;
        }
        io.err.flush()?;
        Ok(())
    }

    /// A line above the progress.
    fn aside(&mut self, text: &str, io: &mut Io<'_>) -> Outcome {
        if io.err_terminal && !self.shown.is_empty() {
            write!(io.err, "\r\x1b[2K")?;
            self.shown.clear();
        }
        writeln!(io.err, "{}", plain_line(text))?;
        Ok(())
    }

    /// Leaves the last state of the line on the terminal.
    pub(super) fn end(&mut self, io: &mut Io<'_>) -> Outcome {
        if io.err_terminal && !self.shown.is_empty() {
            writeln!(io.err)?;
        }
        self.shown.clear();
        Ok(())
    }

    /// Takes the line away.
    pub(super) fn clear(&mut self, io: &mut Io<'_>) -> Outcome {
        if io.err_terminal && !self.shown.is_empty() {
            write!(io.err, "\r\x1b[2K")?;
            io.err.flush()?;
        }
        self.shown.clear();
        Ok(())
    }

    fn end_on_error<T>(&mut self, result: Result<T, ClientError>, io: &mut Io<'_>) -> Outcome<T> {
        match result {
            Ok(value) => Ok(value),
            Err(error) => {
                self.end(io)?;
                Err(Stop::from(error))
            }
        }
    }
}
