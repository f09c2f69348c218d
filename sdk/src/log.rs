//! Lines for the record of the tick. The host keeps a limited number per call (100 unless the
//! set says otherwise) and tells how many were dropped.
//!
//! The macros [`trace!`](crate::trace!), [`debug!`](crate::debug!), [`info!`](crate::info!),
//! [`warn!`](crate::warn!) and [`error!`](crate::error!) take a format string; the functions here
//! take finished text, which keeps the formatting machinery out of a module that needs none.

/// How important a line is.
///
/// ```
/// use regatta_sdk::log::{Level, log};
/// use regatta_sdk::testing::take_log;
///
/// log(Level::Warn, "the load is negative");
/// assert_eq!(take_log(), [(Level::Warn, "the load is negative".to_owned())]);
/// ```
pub use crate::bindings::regatta::policy::log::Level;

/// Logs one line.
///
/// ```
/// use regatta_sdk::log::{Level, log};
/// log(Level::Info, "a new day");
/// ```
pub fn log(level: Level, message: &str) {
    #[cfg(target_arch = "wasm32")]
    crate::bindings::regatta::policy::log::log(level, message);
    #[cfg(not(target_arch = "wasm32"))]
    crate::testing::capture(level, message);
}

/// Logs the finest detail.
///
/// ```
/// regatta_sdk::log::trace("looked at every instance");
/// ```
pub fn trace(message: &str) {
    log(Level::Trace, message);
}

/// Logs for the author of the policy.
///
/// ```
/// regatta_sdk::log::debug("the trend is flat");
/// ```
pub fn debug(message: &str) {
    log(Level::Debug, message);
}

/// Logs for the operator.
///
/// ```
/// regatta_sdk::log::info("the night schedule begins");
/// ```
pub fn info(message: &str) {
    log(Level::Info, message);
}

/// Something is odd.
///
/// ```
/// regatta_sdk::log::warn("half of the instances report nothing");
/// ```
pub fn warn(message: &str) {
    log(Level::Warn, message);
}

/// Something is wrong.
///
/// ```
/// regatta_sdk::log::error("the table and the counts disagree");
/// ```
pub fn error(message: &str) {
    log(Level::Error, message);
}
