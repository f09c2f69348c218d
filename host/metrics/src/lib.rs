//! Metric sources, windows in memory, and exposition.
