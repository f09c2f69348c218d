//! WASI without a world behind it: everything that a guest sees follows from the set and the tick.
//!
//! The clock shows the time of the tick, random numbers are seeded by the set and the number of the tick, output
//! becomes lines of the log, and there are no arguments, variables, files or sockets. Nothing waits: a sleep moves
//! the monotonic clock on to its end.

pub(crate) mod adapter;
pub(crate) mod preview1;
pub(crate) mod preview2;

use regatta_core::decision::LogLevel;
use regatta_core::observation::Observation;
use sha2::{Digest, Sha256};

/// What the monotonic clock moves on with each reading, ns: a guest that waits in a loop gets somewhere.
const STEP_NS: u64 = 1_000;
/// Bytes kept of a line of output that has not ended.
const LINE_BYTES: usize = 1024;

/// What one call has of WASI.
pub(crate) struct Wasi {
    wall_ms: u64,
    monotonic_ns: u64,
    random: u64,
    out: Line,
    err: Line,
}

#[derive(Default)]
struct Line {
    kept: Vec<u8>,
    /// Whether something has come since the last end of a line.
    begun: bool,
}

/// Where output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Out,
    Err,
}

impl Stream {
    fn level(self) -> LogLevel {
        match self {
            Self::Out => LogLevel::Info,
            Self::Err => LogLevel::Warn,
        }
    }
}

impl Wasi {
    /// Without an observation it is 1970, and the seed is that of a tick 0 of no set.
    pub(crate) fn new(observation: Option<&Observation>) -> Self {
        let (set, tick, wall_ms) = observation.map_or(("", 0, 0), |o| (o.set.as_str(), o.tick, o.now_ms));
        let digest =
            Sha256::new().chain_update(set).chain_update([0]).chain_update(tick.to_le_bytes()).finalize();
        let random = digest.iter().take(8).fold(0, |seed, &byte| (seed << 8) | u64::from(byte));
        Self { wall_ms, monotonic_ns: 0, random, out: Line::default(), err: Line::default() }
    }

    /// Unix time, ms.
    pub(crate) fn wall_ms(&self) -> u64 {
        self.wall_ms
    }

    /// Reads the monotonic clock, ns; it moves on with each reading.
    pub(crate) fn monotonic(&mut self) -> u64 {
        let now = self.monotonic_ns;
        self.monotonic_ns = now.saturating_add(STEP_NS);
        now
    }

    /// Looks at the monotonic clock, ns.
    pub(crate) fn elapsed(&self) -> u64 {
        self.monotonic_ns
    }

    /// Sleeps until then.
    pub(crate) fn sleep_until(&mut self, ns: u64) {
        self.monotonic_ns = self.monotonic_ns.max(ns);
    }

    /// The next random number (SplitMix64).
    pub(crate) fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Fills `bytes` with random ones.
    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.random().to_le_bytes()[..chunk.len()]);
        }
    }

    /// Takes output; `line` gets each line that ends in it.
    pub(crate) fn write(&mut self, stream: Stream, bytes: &[u8], mut line: impl FnMut(LogLevel, String)) {
        let current = match stream {
            Stream::Out => &mut self.out,
            Stream::Err => &mut self.err,
        };
        for part in bytes.split_inclusive(|&byte| byte == b'\n') {
            let text = part.strip_suffix(b"\n").unwrap_or(part);
            // One byte more shows that it was cut.
            let room = (LINE_BYTES + 1).saturating_sub(current.kept.len());
            current.kept.extend_from_slice(&text[..text.len().min(room)]);
            current.begun = true;
            if text.len() < part.len() {
                line(stream.level(), current.end());
            }
        }
    }

    /// Ends the lines that the guest has not ended.
    pub(crate) fn flush(&mut self, mut line: impl FnMut(LogLevel, String)) {
        for (stream, current) in [(Stream::Out, &mut self.out), (Stream::Err, &mut self.err)] {
            if current.begun {
                line(stream.level(), current.end());
            }
        }
    }
}

impl Line {
    fn end(&mut self) -> String {
        self.begun = false;
        let kept = std::mem::take(&mut self.kept);
        String::from_utf8_lossy(kept.strip_suffix(b"\r").unwrap_or(&kept)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_becomes_lines_however_it_comes() {
        let mut wasi = Wasi::new(None);
        let mut lines = Vec::new();
        for part in ["a", "b\r\nc", "\n\nd\n", "end"] {
            wasi.write(Stream::Out, part.as_bytes(), |_, line| lines.push(line));
        }
        wasi.write(Stream::Err, &[b'x'; 5000], |_, line| lines.push(line));
        wasi.flush(|_, line| lines.push(line));
        assert_eq!(lines[..5], ["ab", "c", "", "d", "end"]);
        assert_eq!(lines[5].len(), LINE_BYTES + 1);
        assert_eq!(lines.len(), 6);
    }

    #[test]
    fn the_clock_moves_on_and_random_repeats() {
        let mut wasi = Wasi::new(None);
        assert_eq!((wasi.monotonic(), wasi.monotonic()), (0, STEP_NS));
        wasi.sleep_until(9_000_000);
        wasi.sleep_until(1);
        assert_eq!(wasi.monotonic(), 9_000_000);
        let (mut bytes, mut again) = ([0; 13], [0; 13]);
        wasi.fill(&mut bytes);
        Wasi::new(None).fill(&mut again);
        assert_eq!(bytes, again);
        assert_ne!(bytes, [0; 13]);
    }
}
