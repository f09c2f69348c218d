//! Built-in policy: keep a metric at its target.
