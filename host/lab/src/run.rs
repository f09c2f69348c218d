//! Running seeds.

use crate::invariants::Violation;
use crate::story::Story;
use crate::world::World;

/// How a seed is run.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Steps of the wild part.
    pub wild_steps: u64,
    /// Lines of its story that are kept; 0 tells none and is fast.
    pub story_lines: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { wild_steps: 300, story_lines: 0 }
    }
}

/// Lines of the story of a seed that failed.
pub const STORY_LINES: usize = 40;

/// What came of a seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Steps, wild and calm.
    pub steps: u64,
    /// Virtual time, milliseconds.
    pub virtual_ms: u64,
    /// Stands for everything that happened: the same seed has the same.
    pub fingerprint: u64,
    /// The promise that was broken, if one was.
    pub violation: Option<Violation>,
    /// The last lines of its story, if asked for.
    pub story: Vec<String>,
}

/// Runs one seed.
#[must_use]
pub fn run(seed: u64, settings: Settings) -> Outcome {
    let mut world = World::new(seed, Story::new(settings.story_lines));
    let violation = world.run(settings.wild_steps).err();
    let fingerprint = world.dice.within(0..=u64::MAX);
    let (steps, virtual_ms) = (world.steps, world.clock.real_ms);
    Outcome { steps, virtual_ms, fingerprint, violation, story: world.into_story() }
}

/// What a person needs of a seed that failed: how to run it again, what broke, and how it came to that.
#[must_use]
pub fn report(seed: u64, settings: Settings) -> String {
    let story_lines = settings.story_lines.max(STORY_LINES);
    let outcome = run(seed, Settings { story_lines, ..settings });
    let what = match &outcome.violation {
        Some(violation) => format!("{}: {}", violation.invariant, violation.text),
        None => "nothing is broken".to_owned(),
    };
    format!(
        "{}\n{what}\nreproduce: cargo xtask dst --seed {seed} --steps {} --verbose",
        outcome.story.join("\n"),
        settings.wild_steps
    )
}
