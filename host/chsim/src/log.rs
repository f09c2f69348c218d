//! The log: upstream's line format, to standard error or `--log-file`.

use std::fmt;
use std::io::Write;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Error,
    Warn,
    Info,
}

struct Logger {
    start: Instant,
    level: Level,
    out: Mutex<Box<dyn Write + Send>>,
}

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Starts the log; lines before that are dropped, and a second start does nothing.
pub(crate) fn start(level: Level, out: Box<dyn Write + Send>) {
    let logger = Logger { start: Instant::now(), level, out: Mutex::new(out) };
    // There is one log per process; a test that starts several VMMs in one keeps the first.
    let _ = LOGGER.set(logger);
}

/// Writes a line; use the macros.
pub(crate) fn write(level: Level, file: &str, line: u32, text: fmt::Arguments<'_>) {
    let Some(logger) = LOGGER.get().filter(|logger| level <= logger.level) else {
        return;
    };
    let seconds = logger.start.elapsed().as_secs_f32();
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("anonymous");
    let level = match level {
        Level::Error => "ERROR",
        Level::Warn => "WARN",
        Level::Info => "INFO",
    };
    let mut out = logger.out.lock().unwrap_or_else(PoisonError::into_inner);
    // A log that cannot be written is no reason to stop a VM.
    let _ = writeln!(out, "cloud-hypervisor: {seconds:10.6}s: <{name}> {level}:{file}:{line} -- {text}");
}

macro_rules! error {
    ($($text:tt)*) => { $crate::log::write($crate::log::Level::Error, file!(), line!(), format_args!($($text)*)) };
}
macro_rules! warning {
    ($($text:tt)*) => { $crate::log::write($crate::log::Level::Warn, file!(), line!(), format_args!($($text)*)) };
}
macro_rules! info {
    ($($text:tt)*) => { $crate::log::write($crate::log::Level::Info, file!(), line!(), format_args!($($text)*)) };
}
pub(crate) use {error, info, warning as warn};
