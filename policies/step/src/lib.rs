//! Built-in policy: thresholds with steps.
