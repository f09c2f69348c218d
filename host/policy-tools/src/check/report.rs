//! What came of a check: data for programs, text for people.

use std::fmt;

use regatta_core::digest::Digest;
use regatta_core::manifest::PolicyLimits;
use regatta_util::thousands;
use serde::Serialize;
use serde_json::Value;

use super::LINES;
use super::cost::Cost;

/// Characters of a line: names and messages are the module's.
const LINE_CHARS: usize = 2_000;

/// What came of one thing that was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Nothing is wrong.
    Ok,
    /// It will do, but should be better.
    Warning,
    /// It is not fit to scale a set.
    Failed,
    /// Nobody looked.
    Skipped,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its name: `imports`, `vectors`, `no-oscillation` …
    pub name: &'static str,
    /// What came of it.
    pub status: Status,
    /// What there is to say, without control characters.
    pub lines: Vec<String>,
}

impl Finding {
    pub(super) fn new(name: &'static str, status: Status, lines: Vec<String>) -> Self {
        let more = lines.len().saturating_sub(LINES);
        let plain = |line: String| {
            let mut chars = line.chars().map(|c| if c.is_control() { ' ' } else { c });
            let shown: String = chars.by_ref().take(LINE_CHARS).collect();
            if chars.next().is_some() { shown + "…" } else { shown }
        };
        let mut lines: Vec<String> = lines.into_iter().take(LINES).map(plain).collect();
        if more > 0 {
            lines.push(format!("… and {more} more"));
        }
        Self { name, status, lines }
    }

    /// What the check did not come to.
    pub(super) fn not_tried(name: &'static str) -> Self {
        Self::new(name, Status::Skipped, vec!["not tried: see above".to_owned()])
    }
}

/// Everything that came of a check; `{}` prints it for people.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckReport {
    /// Name of the policy.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of the module, lower-case hex.
    pub digest: Digest,
    /// How it talks with the host.
    pub abi: String,
    /// Size of the module, bytes.
    pub size_bytes: usize,
    /// The parameters that it was checked with; none when there were none to be had.
    pub params: Option<Value>,
    /// Seed of the properties.
    pub seed: u64,
    /// What a metric reads for a full instance, as the properties were tried.
    pub full_at: Option<f64>,
    /// Whether this program was built with optimisations; without, times are not those of a release.
    pub optimised: bool,
    /// The limits that it was held to.
    pub limits: PolicyLimits,
    /// What was looked at.
    pub findings: Vec<Finding>,
    /// Its worst case per size of the set.
    pub costs: Vec<Cost>,
}

impl CheckReport {
    /// Whether nothing failed: the exit status for continuous integration. Warnings do not count.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.findings.iter().all(|finding| finding.status != Status::Failed)
    }

    /// The verdict in one line.
    #[must_use]
    pub fn verdict(&self) -> String {
        let named = |status| {
            let found = self.findings.iter().filter(|finding| finding.status == status);
            found.map(|finding| finding.name).collect::<Vec<_>>()
        };
        let (failed, warnings) = (named(Status::Failed), named(Status::Warning));
        if !failed.is_empty() {
            return format!("FAILED: {}", failed.join(", "));
        }
        match warnings.as_slice() {
            [] => "passed".to_owned(),
            [one] => format!("passed, with a warning: {one}"),
            some => format!("passed, with warnings: {}", some.join(", ")),
        }
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = self.digest.get(..12).unwrap_or(&self.digest);
        writeln!(
            f,
            "{} {}  sha256:{digest}…  {}, {} bytes",
            self.name,
            self.version,
            self.abi,
            thousands(self.size_bytes as u64)
        )?;
        if let Some(params) = &self.params {
            writeln!(f, "parameters {params}")?;
        }
        if let Some(full) = self.full_at {
            writeln!(f, "properties with seed {}; a full instance reads {full}", self.seed)?;
        }
        writeln!(f)?;
        for finding in &self.findings {
            self.finding(f, finding)?;
        }
        if !self.costs.is_empty() {
            self.table(f)?;
        }
        writeln!(f, "\n{}", self.verdict())
    }
}

impl CheckReport {
    fn finding(&self, f: &mut fmt::Formatter<'_>, finding: &Finding) -> fmt::Result {
        let status = match finding.status {
            Status::Ok => "ok",
            Status::Warning => "warning",
            Status::Failed => "FAILED",
            Status::Skipped => "skipped",
        };
        let short = matches!(finding.status, Status::Ok | Status::Skipped) && finding.lines.len() <= 1;
        if short {
            let text = finding.lines.first().map_or("", String::as_str);
            return writeln!(f, "{}", format!("  {status:<8} {:<19} {text}", finding.name).trim_end());
        }
        writeln!(f, "  {status:<8} {}", finding.name)?;
        finding.lines.iter().try_for_each(|line| writeln!(f, "             {line}"))
    }

    fn table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limits = &self.limits;
        writeln!(
            f,
            "\n  worst case   of {} fuel       of {}        of {} ms{}",
            thousands(limits.fuel),
            mebibytes(limits.memory_bytes),
            limits.deadline_ms,
            if self.optimised { "" } else { " (a debug build: times are not those of a release)" }
        )?;
        for cost in &self.costs {
            let percent = |share: f64| format!("{:>5.1} %", share * 100.0);
            writeln!(
                f,
                "  {:>10}   {:>12} {}   {:>9} {}   {:>9} {}",
                thousands(cost.instances.into()),
                thousands(cost.fuel),
                percent(cost.fuel_share),
                mebibytes(cost.memory_bytes),
                percent(cost.memory_share),
                format!("{} µs", thousands(cost.time_us)),
                percent(cost.time_share)
            )?;
        }
        Ok(())
    }
}

fn mebibytes(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a size for people")]
    let size = bytes as f64 / f64::from(1 << 20);
    format!("{size:.1} MiB")
}
