//! The event monitor. Source: `event_monitor/src/lib.rs` of v53.0.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use crate::faults::Faults;

/// Writes one pretty-printed JSON object per event. A full pipe loses events: upstream's does.
#[derive(Debug)]
pub(crate) struct EventMonitor {
    file: Option<File>,
    start: Instant,
    faults: Arc<Faults>,
}

#[derive(Serialize)]
struct Timestamp {
    secs: u64,
    nanos: u32,
}

#[derive(Serialize)]
struct Event<'a> {
    timestamp: Timestamp,
    source: &'a str,
    event: &'a str,
    properties: Option<BTreeMap<&'a str, &'a str>>,
}

impl EventMonitor {
    /// A monitor that writes to `file`, or nowhere. Timestamps count from now.
    pub(crate) fn new(file: Option<File>, faults: Arc<Faults>) -> Self {
        Self { file, start: Instant::now(), faults }
    }

    /// Writes one event.
    pub(crate) fn emit(&mut self, source: &str, event: &str, properties: &[(&str, &str)]) {
        crate::log::info!("Event: source = {source} event = {event} {properties:?}");
        let Some(file) = &mut self.file else { return };
        if self.faults.lose_event() {
            return;
        }
        let elapsed = self.start.elapsed();
        let record = Event {
            timestamp: Timestamp { secs: elapsed.as_secs(), nanos: elapsed.subsec_nanos() },
            source,
            event,
            properties: (!properties.is_empty()).then(|| properties.iter().copied().collect()),
        };
        if let Ok(mut text) = serde_json::to_string_pretty(&record) {
            text.push_str("\n\n");
            let _ = file.write_all(text.as_bytes());
        }
    }
}
