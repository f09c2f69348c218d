//! Scenarios: a set in a small world, told line by line. A scenario is a text that reads like documentation and holds its own
//! outputs: lines that begin with `> ` are steps, lines that begin with `#` are remarks, everything else is what came of the
//! step above it and is written anew by [`play`].
//!
//! ```text
//! # Two instances, and a third when the policy wants it.
//! > apply
//!     capacity: { min: 2, max: 10 }
//! > wait 2s
//! 0:01  created web-1, web-2 (scale-out)
//! 0:02  in-service: web-1 is in service
//! 0:02  in-service: web-2 is in service
//! > policy wants 3
//! ```
//!
//! The set machine with planner and guards is the daemon's own; nodes, guests and the store are models that do as they are
//! told. Instances are in service a tick after they were created, and gone a tick after they were removed.

mod bench;
mod step;

use std::fmt::Write as _;

use self::bench::Bench;
pub use self::step::STEPS;
use self::step::Step;

/// Steps of one scenario.
const STEPS_MAX: usize = 1_000;

/// A line of a scenario that is no step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScenarioError {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it, and what it may be.
    pub message: String,
}

impl std::fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

impl std::error::Error for ScenarioError {}

/// Plays a scenario and returns it with what came of its steps. Outputs that it already holds are dropped.
///
/// # Errors
/// The first line that is no step, with its number. What a set refuses is an output, not an error.
pub fn play(text: &str) -> Result<String, ScenarioError> {
    let (mut out, mut bench, mut steps) = (String::new(), Bench::new(), 0);
    let mut lines = text.lines().enumerate().peekable();
    while let Some((index, line)) = lines.next() {
        let Some(command) = line.strip_prefix('>') else {
            if line.starts_with('#') || line.is_empty() {
                let _ = writeln!(out, "{line}");
            }
            continue;
        };
        let wrong = |message: String| ScenarioError { line: index + 1, message };
        steps += 1;
        if steps > STEPS_MAX {
            return Err(wrong(format!("a scenario has at most {STEPS_MAX} steps")));
        }
        let _ = writeln!(out, "{line}");
        let mut body = String::new();
        if Step::has_body(command.trim()) {
            while let Some((_, line)) = lines.next_if(|(_, line)| line.starts_with("    ")) {
                let _ = writeln!(out, "{line}");
                let _ = writeln!(body, "{}", &line[4..]);
            }
        }
        let step = Step::read(command.trim(), body).map_err(&wrong)?;
        bench.take(step).map_err(&wrong)?;
        out.push_str(&bench.said());
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_holds_its_outputs_and_playing_it_again_changes_nothing() {
        let text = "# Two, then three.\n> apply\n    capacity: { min: 2, max: 10 }\n> wait 2s\nold output\n\n> policy wants 3\n> wait 1s\n> show\n";
        let played = play(text).expect("it plays");
        assert!(!played.contains("old output"), "{played}");
        assert!(played.contains("created web-1, web-2 (scale-out)"), "{played}");
        assert!(played.contains("scale-out: 2 → 3"), "{played}");
        assert_eq!(play(&played), Ok(played.clone()));
    }

    #[test]
    fn what_is_no_step_is_named_with_its_line() {
        let error = play("# x\n> aply\n").expect_err("no step");
        assert_eq!(error.line, 2);
        assert!(error.message.contains("`aply` is not a step"), "{error}");
        assert!(error.message.contains("apply"), "{error}");
        assert_eq!(play("> wait long\n").expect_err("no time").line, 1);
        assert!(play("> wait 1s\n").expect_err("no set").message.contains("apply"));
    }
}
