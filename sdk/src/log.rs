//! Lines for the record of the tick. The host keeps a limited number per call.

pub use crate::bindings::regatta::policy::log::Level;

/// Logs one line.
pub fn log(level: Level, message: &str) {
    #[cfg(target_arch = "wasm32")]
    crate::bindings::regatta::policy::log::log(level, message);
    #[cfg(not(target_arch = "wasm32"))]
    crate::testing::capture(level, message);
}

/// Logs for the author of the policy.
pub fn debug(message: &str) {
    log(Level::Debug, message);
}

/// Logs for the operator.
pub fn info(message: &str) {
    log(Level::Info, message);
}

/// Something is odd.
pub fn warn(message: &str) {
    log(Level::Warn, message);
}

/// Something is wrong.
pub fn error(message: &str) {
    log(Level::Error, message);
}
