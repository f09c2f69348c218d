//! What the tasks print: one line per step with the time it took, progress in between.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Prints an error with its whole chain, one cause per line, on stderr.
pub(crate) fn error(error: &anyhow::Error) {
    eprintln!("error: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("  because: {cause}");
    }
}

/// A duration as people read it: `0.4s`, `12s`, `1m20s`, `1h02m`.
pub(crate) fn seconds(elapsed: Duration) -> String {
    let whole = elapsed.as_secs();
    match whole {
        0..10 => format!("{:.1}s", elapsed.as_secs_f64()),
        10..60 => format!("{whole}s"),
        60..3600 => format!("{}m{:02}s", whole / 60, whole % 60),
        _ => format!("{}h{:02}m", whole / 3600, whole % 3600 / 60),
    }
}

/// A numbered sequence of steps: `[2/6] compiling the daemon`.
pub(crate) struct Steps {
    done: usize,
    total: usize,
}

impl Steps {
    /// A sequence of `total` steps, none begun.
    pub(crate) fn new(total: usize) -> Self {
        Self { done: 0, total }
    }

    /// How many have begun.
    pub(crate) fn begun(&self) -> usize {
        self.done
    }

    /// Begins the next step and prints its title.
    pub(crate) fn begin(&mut self, title: impl Display) -> Step {
        self.done += 1;
        let prefix = format!("[{}/{}] {title}", self.done, self.total);
        println!("{prefix}");
        Step { prefix, start: Instant::now() }
    }
}

/// One step that has begun.
pub(crate) struct Step {
    prefix: String,
    start: Instant,
}

impl Step {
    /// The numbered title, for progress lines of this step.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Ends the step: prints what came of it and how long it took.
    pub(crate) fn done(self, outcome: impl Display) -> Duration {
        let elapsed = self.start.elapsed();
        println!("      {outcome} ({})", seconds(elapsed));
        elapsed
    }
}

/// A line about work that is under way: redrawn in place on a terminal, otherwise printed
/// only now and then so that a log does not fill up.
pub(crate) struct Ticker {
    terminal: bool,
    start: Instant,
    last: Option<Instant>,
}

impl Ticker {
    /// How often a log gets a line.
    const LOG_EVERY: Duration = Duration::from_secs(10);
    /// How often a terminal is redrawn.
    const DRAW_EVERY: Duration = Duration::from_millis(200);

    /// A ticker on stdout.
    pub(crate) fn new() -> Self {
        Self { terminal: std::io::stdout().is_terminal(), start: Instant::now(), last: None }
    }

    /// Shows `text` if it is time to.
    pub(crate) fn show(&mut self, text: impl Display) {
        let every = if self.terminal { Self::DRAW_EVERY } else { Self::LOG_EVERY };
        // The first line of a log comes after one interval: short work needs none.
        let since = self.last.unwrap_or(self.start).elapsed();
        if since < every {
            return;
        }
        self.last = Some(Instant::now());
        let elapsed = seconds(self.start.elapsed());
        if self.terminal {
            print!("\r\x1b[K{text}, {elapsed}");
            // A closed stdout is found out by the next println.
            let _ = std::io::stdout().flush();
        } else {
            println!("{text}, {elapsed}");
        }
    }

    /// Removes the redrawn line so that other output can follow.
    pub(crate) fn clear(&mut self) {
        if self.terminal && self.last.is_some() {
            print!("\r\x1b[K");
            let _ = std::io::stdout().flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        let shown = |ms| seconds(Duration::from_millis(ms));
        assert_eq!(shown(440), "0.4s");
        assert_eq!(shown(12_900), "12s");
        assert_eq!(shown(80_000), "1m20s");
        assert_eq!(shown(3_720_000), "1h02m");
    }
}
