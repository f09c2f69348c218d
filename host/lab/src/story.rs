//! What happened, for people. Told only when somebody listens: a seed that fails is run again for its story.

use std::collections::VecDeque;

/// The last lines of a world's story.
#[derive(Debug, Default)]
pub(crate) struct Story {
    /// Lines that are kept; 0 tells nothing.
    keep: usize,
    /// True time and step, as each line begins.
    at: (u64, u64),
    lines: VecDeque<String>,
}

impl Story {
    pub(crate) fn new(keep: usize) -> Self {
        Self { keep, at: (0, 0), lines: VecDeque::new() }
    }

    /// From here on it is that time and step.
    pub(crate) fn at(&mut self, real_ms: u64, step: u64) {
        self.at = (real_ms, step);
    }

    pub(crate) fn tell(&mut self, line: impl FnOnce() -> String) {
        if self.keep == 0 {
            return;
        }
        if self.lines.len() == self.keep {
            self.lines.pop_front();
        }
        let (real_ms, step) = self.at;
        let (seconds, ms) = (real_ms / 1_000, real_ms % 1_000);
        self.lines.push_back(format!("{step:>6} {seconds:>6}.{ms:03} s  {}", line()));
    }

    pub(crate) fn into_lines(self) -> Vec<String> {
        self.lines.into()
    }
}
