//! Crash-safe state and tick records.
