//! What the demo shows while it runs: lines of text made from the state, nothing else.

use std::collections::VecDeque;
use std::time::Duration;

use crate::tally::Tally;

/// The order in which instance states are shown, and the letter that stands for each.
const STATES: [(&str, char); 10] = [
    ("in-service", '●'),
    ("initializing", '◐'),
    ("booting", '◔'),
    ("creating", '○'),
    ("pending", '·'),
    ("standby", '‖'),
    ("unhealthy", '!'),
    ("draining", '◌'),
    ("terminating", '×'),
    ("failed", '✗'),
];

/// The scale set as the daemon reports it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct SetView {
    /// Capacity in force.
    pub(crate) desired: u32,
    /// Least and greatest capacity.
    pub(crate) limits: (u32, u32),
    /// Number of instances by state name.
    pub(crate) states: Vec<(String, u32)>,
    /// Mean utilization of the instances in service, 0 to 1; none without data.
    pub(crate) utilization: Option<f64>,
    /// Name of the active policy.
    pub(crate) policy: String,
    /// The last decision, in one line.
    pub(crate) decision: Option<String>,
}

impl SetView {
    /// Number of instances in this state.
    pub(crate) fn count(&self, state: &str) -> u32 {
        self.states.iter().filter(|(name, _)| name == state).map(|(_, count)| count).sum()
    }
}

/// One moment of the demo.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sample {
    /// Requests per second that are due.
    pub(crate) rate: f64,
    /// Mean utilization, 0 to 1.
    pub(crate) utilization: Option<f64>,
    /// Instances in service.
    pub(crate) in_service: u32,
}

/// The last moments, as many as fit a line.
#[derive(Debug, Default)]
pub(crate) struct History {
    samples: VecDeque<Sample>,
}

impl History {
    /// More than any terminal is wide.
    const MOST: usize = 512;

    /// Adds the newest moment and forgets the oldest if there are too many.
    pub(crate) fn push(&mut self, sample: Sample) {
        if self.samples.len() == Self::MOST {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// A line of bars of one value per sample, the newest at the right, the highest at `top`.
    fn spark(&self, width: usize, top: f64, value: impl Fn(&Sample) -> Option<f64>) -> String {
        let skip = self.samples.len().saturating_sub(width);
        self.samples
            .iter()
            .skip(skip)
            .map(|sample| value(sample).map_or(' ', |value| bar(value, top)))
            .collect()
    }

    /// The greatest value so far.
    fn top(&self, value: impl Fn(&Sample) -> f64) -> f64 {
        self.samples.iter().map(value).fold(0.0, f64::max)
    }
}

/// One of eight bars; the lowest also stands for 0.
fn bar(value: f64, top: f64) -> char {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let share = if top > 0.0 { value / top } else { 0.0 };
    // Seven steps above the lowest; a float to integer cast saturates, also for NaN.
    BARS[((share * 7.0).round() as usize).min(7)]
}

/// All that a picture is made from.
pub(crate) struct Frame<'a> {
    /// Time since the load began.
    pub(crate) elapsed: Duration,
    /// Length of the load.
    pub(crate) length: Duration,
    /// Requests per second that are due.
    pub(crate) rate: f64,
    /// The requests so far.
    pub(crate) tally: &'a Tally,
    /// The set.
    pub(crate) set: &'a SetView,
    /// What was before.
    pub(crate) history: &'a History,
}

impl Frame<'_> {
    /// The block that a terminal redraws, each line at most `width` columns.
    pub(crate) fn block(&self, width: usize) -> Vec<String> {
        let chart = width.saturating_sub(24).max(8);
        let history = self.history;
        let set = self.set;
        let top_rate = history.top(|sample| sample.rate);
        let (min, max) = set.limits;
        let lines = [
            format!(
                "  {:>3}s of {}s   policy {}   desired {} (min {min}, max {max})",
                self.elapsed.as_secs(),
                self.length.as_secs(),
                set.policy,
                set.desired,
            ),
            format!("  instances   {}", self.instances(width.saturating_sub(14))),
            format!(
                "  load        {:>4.0}/s  {}",
                self.rate,
                history.spark(chart, top_rate, |sample| Some(sample.rate))
            ),
            format!(
                "  utilization {:>5}   {}",
                percent(set.utilization),
                history.spark(chart, 1.0, |sample| sample.utilization)
            ),
            format!(
                "  in service  {:>5}   {}",
                set.count("in-service"),
                history.spark(chart, f64::from(max), |sample| Some(f64::from(sample.in_service)))
            ),
            format!("  requests    {}", self.requests()),
            format!("  decision    {}", set.decision.as_deref().unwrap_or("none yet")),
        ];
        lines.iter().map(|line| cut(line, width)).collect()
    }

    /// One line for a log.
    pub(crate) fn line(&self) -> String {
        let tail = self.tally.percentiles([0.99]).map_or_else(String::new, |[tail]| ms(tail));
        format!(
            "  {:>3}s  {:>4.0}/s  utilization {:>4}  served {:>6}  failed {}  p99 {tail:>7}  {}",
            self.elapsed.as_secs(),
            self.rate,
            percent(self.set.utilization),
            self.tally.served(),
            self.tally.failed(),
            self.instances(usize::MAX),
        )
    }

    /// One letter per instance, then the counts.
    fn instances(&self, width: usize) -> String {
        let known = STATES
            .iter()
            .map(|(name, letter)| (*name, *letter, self.set.count(name)))
            .filter(|(_, _, count)| *count > 0);
        let mut letters: String = known
            .clone()
            .flat_map(|(_, letter, count)| std::iter::repeat_n(letter, count as usize))
            .take(width / 2)
            .collect();
        // What follows stays in its column, as far as the set can grow.
        let room = (self.set.limits.1 as usize).min(width / 2);
        letters.extend(std::iter::repeat_n(' ', room.saturating_sub(letters.chars().count())));
        let counts: Vec<String> = known.map(|(name, _, count)| format!("{count} {name}")).collect();
        format!("{letters}  {}", counts.join(", "))
    }

    fn requests(&self) -> String {
        let tally = self.tally;
        let mut text = format!("{} served, {} failed", tally.served(), tally.failed());
        if let Some([median, tail]) = tally.percentiles([0.5, 0.99]) {
            text += &format!(", p50 {} p99 {}", ms(median), ms(tail));
        }
        text
    }
}

/// Milliseconds without a fraction.
pub(crate) fn ms(duration: Duration) -> String {
    format!("{} ms", duration.as_millis())
}

/// A share as a percentage; `-` if it is not known, which is not 0.
fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.0}%", share * 100.0))
}

/// The first `width` characters.
fn cut(line: &str, width: usize) -> String {
    if line.chars().count() <= width {
        return line.to_owned();
    }
    let kept: String = line.chars().take(width.saturating_sub(1)).collect();
    format!("{kept}…")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::Outcome;

    fn set() -> SetView {
        SetView {
            desired: 4,
            limits: (1, 8),
            states: vec![("booting".into(), 1), ("in-service".into(), 3)],
            utilization: Some(0.62),
            policy: "target-tracking".into(),
            decision: Some("tick 12: 3 → 4, utilization 0.81 above target 0.6".into()),
        }
    }

    fn with_frame<T>(check: impl FnOnce(&Frame<'_>) -> T) -> T {
        let mut tally = Tally::default();
        tally.begin();
        tally.end(Outcome::Served, Duration::from_millis(21));
        let mut history = History::default();
        for (rate, in_service) in [(0.0, 0), (50.0, 4), (100.0, 8)] {
            history.push(Sample { rate, utilization: None, in_service });
        }
        check(&Frame {
            elapsed: Duration::from_secs(7),
            length: Duration::from_secs(60),
            rate: 100.0,
            tally: &tally,
            set: &set(),
            history: &history,
        })
    }

    #[test]
    fn the_block_shows_everything_and_fits() {
        let block = with_frame(|frame| frame.block(80)).join("\n");
        for part in [
            "7s of 60s   policy target-tracking   desired 4 (min 1, max 8)",
            "instances   ●●●◔      3 in-service, 1 booting",
            "load         100/s  ▁▅█",
            "utilization   62%",
            "in service      3   ▁▅█",
            "1 served, 0 failed, p50 21 ms p99 21 ms",
            "tick 12: 3 → 4, utilization 0.81 above target 0.6",
        ] {
            assert!(block.contains(part), "no `{part}` in\n{block}");
        }
        for width in [0, 1, 20, 40, 200] {
            let block = with_frame(|frame| frame.block(width));
            assert!(block.iter().all(|line| line.chars().count() <= width.max(1)), "{block:?}");
        }
    }

    #[test]
    fn the_log_line_shows_the_states() {
        let line = with_frame(|frame| frame.line());
        assert!(
            line.ends_with("served      1  failed 0  p99   21 ms  ●●●◔      3 in-service, 1 booting"),
            "{line}"
        );
    }

    #[test]
    fn unknown_is_not_zero() {
        assert_eq!(percent(None), "-");
        assert_eq!(percent(Some(0.0)), "0%");
    }

    #[test]
    fn the_history_is_bounded() {
        let mut history = History::default();
        for _ in 0..2 * History::MOST {
            history.push(Sample { rate: 1.0, utilization: None, in_service: 1 });
        }
        assert_eq!(history.samples.len(), History::MOST);
        assert_eq!(history.spark(3, 1.0, |_| None), "   ");
    }
}
