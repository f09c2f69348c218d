//! A run, drawn for people.

use std::fmt;

use super::history::{Row, Run};
use crate::{MetricValue, short};

/// Columns and rows of the drawing itself.
const WIDTH: usize = 72;
const HEIGHT: u32 = 10;
/// Changes that are told below it.
const STORIES: usize = 12;

/// The ticks of one column.
struct Bucket {
    in_service: u32,
    desired: u32,
    needed: f64,
    blind: bool,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(last) = self.rows.last() else { return f.write_str("no ticks\n") };
        let buckets = buckets(&self.rows);
        draw(f, &buckets)?;
        axis(f, buckets.len(), last.tick)?;
        if buckets.iter().any(|bucket| bucket.blind) {
            let marks: String = buckets.iter().map(|bucket| if bucket.blind { '×' } else { ' ' }).collect();
            writeln!(f, "        {}  × no fresh metric", marks.trim_end())?;
        }
        writeln!(f, "        █ in service   ░ wanted, on its way   • needed if all were full\n")?;
        self.summary(f)?;
        self.stories(f)
    }
}

impl Run {
    fn summary(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settled = match self.settled_at() {
            Some(tick) => format!("settled at tick {tick}"),
            None => "not settled".to_owned(),
        };
        writeln!(
            f,
            "size {} → {} (least {}, most {}); {}, {}; {settled}",
            self.first_size(),
            self.last_size(),
            self.least(),
            self.most(),
            counted(self.changes(), "change"),
            counted(self.oscillations(), "turn"),
        )?;
        let ticks = self.rows.len();
        writeln!(
            f,
            "too few instances in {} of {ticks} ticks of {} ms; {} instance-ticks",
            self.under_provisioned_ticks(),
            self.tick_ms,
            self.instance_ticks()
        )?;
        match self.failures() {
            0 => Ok(()),
            failures => writeln!(f, "no outcome in {}", counted(failures, "tick")),
        }
    }

    fn stories(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = |row: &&Row| row.granted != row.desired || row.error.is_some();
        for row in self.rows.iter().filter(told).take(STORIES) {
            let size = format!("{} → {}", row.desired, row.granted);
            let why = match (&row.error, row.reasons.first()) {
                (Some(error), _) => format!("no outcome: {error}"),
                (None, Some(reason)) => format!("{}: {}", reason.code, reason.text),
                (None, None) => "it gave no reason".to_owned(),
            };
            writeln!(f, "  tick {:>4}  {size:<11} {why}", row.tick)?;
        }
        match self.rows.iter().filter(told).count().saturating_sub(STORIES) {
            0 => Ok(()),
            more => writeln!(f, "  … and {more} more"),
        }
    }
}

/// At most [`WIDTH`] columns. What is bad is not averaged away: the fewest in service, the most
/// needed.
fn buckets(rows: &[Row]) -> Vec<Bucket> {
    let each = rows.len().div_ceil(WIDTH).max(1);
    let bucket = |rows: &[Row]| Bucket {
        in_service: rows.iter().map(|row| row.in_service).min().unwrap_or(0),
        desired: rows.iter().map(|row| row.granted).max().unwrap_or(0),
        needed: rows.iter().map(|row| row.needed).fold(0.0, f64::max),
        blind: rows.iter().any(|row| !matches!(row.value, MetricValue::Fresh(_))),
    };
    rows.chunks(each).map(bucket).collect()
}

fn draw(f: &mut fmt::Formatter<'_>, buckets: &[Bucket]) -> fmt::Result {
    let tops =
        buckets.iter().map(|bucket| f64::from(bucket.in_service.max(bucket.desired)).max(bucket.needed));
    let top = tops.filter(|top| top.is_finite()).fold(1.0, f64::max);
    // Whole instances per line while there are few of them.
    let step = (top / f64::from(HEIGHT)).ceil().max(1.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most HEIGHT")]
    let height = (top / step).ceil() as u32;
    for line in (1..=height).rev() {
        let (low, high) = (f64::from(line - 1) * step, f64::from(line) * step);
        write!(f, "{:>6} │", short(high))?;
        let cells: String = buckets
            .iter()
            .map(|bucket| {
                let filled = |count: u32| f64::from(count) > low + step / 2.0 - 1e-9;
                if bucket.needed > low && bucket.needed <= high {
                    '•'
                } else if filled(bucket.in_service) {
                    '█'
                } else if filled(bucket.desired) {
                    '░'
                } else {
                    ' '
                }
            })
            .collect();
        writeln!(f, "{}", cells.trim_end())?;
    }
    Ok(())
}

fn axis(f: &mut fmt::Formatter<'_>, columns: usize, last: u64) -> fmt::Result {
    writeln!(f, "       └{}", "─".repeat(columns))?;
    let last = last.to_string();
    let gap = columns.saturating_sub(1).max(1);
    writeln!(f, "        1{last:>gap$}  tick")
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
