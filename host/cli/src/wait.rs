//! Waiting until a set is as wanted, with progress.

use std::time::Duration;

use regatta_api::types::{ErrorCode, SetSummary};
use regatta_api::{Client, ClientError};
use tokio::time::Instant;

use super::Io;
use super::exit::{Outcome, Stop, timed_out};
use super::render::{counts, plain_line};
use super::time::span;

/// Pause between two looks.
const POLL: Duration = Duration::from_millis(200);

/// How far a set is: `3/8 in service (2 booting, 3 creating)`.
fn progress(set: &SetSummary) -> String {
    let rest = counts(&set.instances, "in-service");
    let rest = if rest.is_empty() { rest } else { format!(" ({rest})") };
    format!("{}/{} in service{rest}", in_service(set), set.desired)
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

/// A tick after `tick` has decided, all instances wanted are in service, and no
/// instance is on its way to or from somewhere.
fn settled(set: &SetSummary, after_tick: Option<u64>) -> bool {
    let decided = after_tick.is_none_or(|tick| set.last_tick > tick);
    let all: u32 = set.instances.values().sum();
    decided && in_service(set) >= set.desired && all == in_service(set)
}

/// Waits until a set has settled after the tick `after_tick`, if one is given.
pub(super) async fn until_settled(
    client: &Client,
    name: &str,
    after_tick: Option<u64>,
    timeout: Duration,
    io: &mut Io<'_>,
) -> Outcome {
    let deadline = Instant::now() + timeout;
    let mut line = Line::default();
    let mut told = Vec::new();
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
            if settled(set, after_tick) {
                return line.end(io);
            }
        }
        if Instant::now() >= deadline {
            line.end(io)?;
            let how_far = set.map_or_else(|| "the daemon did not answer".to_owned(), |set| progress(&set));
            return Err(timed_out(format!("{name}: not settled after {}: {how_far}", spelled(timeout))));
        }
        tokio::time::sleep_until(deadline.min(Instant::now() + POLL)).await;
    }
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
