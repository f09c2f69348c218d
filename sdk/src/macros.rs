//! The logging macros.

/// Logs the finest detail, formatted as by [`format!`].
///
/// ```
/// use regatta_sdk::log::Level;
/// let demand = 3;
/// regatta_sdk::trace!("the demand is {demand}");
/// assert_eq!(regatta_sdk::testing::take_log(), [(Level::Trace, format!("the demand is {demand}"))]);
/// ```
#[macro_export]
macro_rules! trace {
    ($($argument:tt)+) => {
        $crate::log::trace(&::std::format!($($argument)+))
    };
}

/// Logs for the author of the policy, formatted as by [`format!`].
///
/// ```
/// use regatta_sdk::log::Level;
/// let n = 3;
/// regatta_sdk::debug!("{n} instances are idle");
/// assert_eq!(regatta_sdk::testing::take_log(), [(Level::Debug, format!("{n} instances are idle"))]);
/// ```
#[macro_export]
macro_rules! debug {
    ($($argument:tt)+) => {
        $crate::log::debug(&::std::format!($($argument)+))
    };
}

/// Logs for the operator, formatted as by [`format!`].
///
/// ```
/// use regatta_sdk::log::Level;
/// let n = 3;
/// regatta_sdk::info!("{n} instances are left out");
/// assert_eq!(regatta_sdk::testing::take_log(), [(Level::Info, format!("{n} instances are left out"))]);
/// ```
#[macro_export]
macro_rules! info {
    ($($argument:tt)+) => {
        $crate::log::info(&::std::format!($($argument)+))
    };
}

/// Logs that something is odd, formatted as by [`format!`].
///
/// ```
/// use regatta_sdk::log::Level;
/// let n = 3;
/// regatta_sdk::warn!("{n} values are not numbers");
/// assert_eq!(regatta_sdk::testing::take_log(), [(Level::Warn, format!("{n} values are not numbers"))]);
/// ```
#[macro_export]
macro_rules! warn {
    ($($argument:tt)+) => {
        $crate::log::warn(&::std::format!($($argument)+))
    };
}

/// Logs that something is wrong, formatted as by [`format!`].
///
/// ```
/// use regatta_sdk::log::Level;
/// let id = 3;
/// regatta_sdk::error!("instance {id} is unknown");
/// assert_eq!(regatta_sdk::testing::take_log(), [(Level::Error, format!("instance {id} is unknown"))]);
/// ```
#[macro_export]
macro_rules! error {
    ($($argument:tt)+) => {
        $crate::log::error(&::std::format!($($argument)+))
    };
}
