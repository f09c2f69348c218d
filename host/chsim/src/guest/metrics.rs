//! The guest's `/metrics`, in Prometheus' text format.

use std::fmt::Write;

/// What is told about the guest. Times are seconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Metrics {
    pub(crate) requests: u64,
    pub(crate) rejected: u64,
    pub(crate) in_flight: usize,
    pub(crate) utilization: f64,
    pub(crate) queue_depth: usize,
    pub(crate) boot_seconds: f64,
    pub(crate) duration_seconds_sum: f64,
    pub(crate) duration_count: u64,
}

impl Metrics {
    /// The exposition.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, help: &str, value: &dyn std::fmt::Display| {
            // Writing to a string cannot fail.
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
        };
        family(
            "guest_requests_total",
            "counter",
            "Work requests answered, refused ones included.",
            &self.requests,
        );
        family(
            "guest_requests_rejected_total",
            "counter",
            "Work requests refused because the queue was full.",
            &self.rejected,
        );
        family(
            "guest_requests_in_flight",
            "gauge",
            "Work requests being worked on or waiting.",
            &self.in_flight,
        );
        family(
            "guest_utilization",
            "gauge",
            "Busy share of the workers over the last second, 0 to 1.",
            &self.utilization,
        );
        family("guest_queue_depth", "gauge", "Work requests waiting for a worker.", &self.queue_depth);
        family("guest_boot_time_seconds", "gauge", "Time from power-on to service.", &self.boot_seconds);
        let _ = write!(
            text,
            "# HELP guest_request_duration_seconds Time from arrival to answer of work requests that were not refused.\n\
             # TYPE guest_request_duration_seconds summary\n\
             guest_request_duration_seconds_sum {}\nguest_request_duration_seconds_count {}\n",
            self.duration_seconds_sum, self.duration_count
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_has_a_type() {
        let text = Metrics { requests: 3, utilization: 0.25, ..Metrics::default() }.to_text();
        assert!(text.contains("\nguest_requests_total 3\n"), "{text}");
        assert!(text.contains("\nguest_utilization 0.25\n"), "{text}");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(' ').next().unwrap_or_default();
            let family = name.trim_end_matches("_sum").trim_end_matches("_count");
            assert!(text.contains(&format!("# TYPE {family} ")), "{name}");
        }
    }
}
