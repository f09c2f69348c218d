//! How the input of a call travels. Client, router and OpenAPI document each say what that means for them.

use std::time::Duration;

/// As a JSON body.
pub(crate) struct Json<T>(pub(crate) T);

/// The same for what may be large: manifests with modules, recordings. It may take longer to come, too.
pub(crate) struct Upload<T>(pub(crate) T);

/// In the query of the address.
pub(crate) struct Query<T>(pub(crate) T);

/// Most records or events of one answer.
const LIMIT_MAX: u32 = 1_000;

/// Longest wait of one call for events.
const WAIT_MAX_MS: u64 = 30_000;

/// What the types of a query say about their values.
pub(crate) trait QueryRules {
    /// Refuses values that no call may have.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// How long the daemon may wait before it answers.
    fn wait(&self) -> Duration {
        Duration::ZERO
    }
}

impl QueryRules for crate::types::RollbackQuery {}

impl QueryRules for crate::recording_types::ContentQuery {}

impl QueryRules for crate::log_types::LogQuery {}

impl QueryRules for crate::types::CompareQuery {
    fn check(&self) -> Result<(), String> {
        match self.target {
            Some(target) if !target.is_finite() || target <= 0.0 => {
                Err("target must be a number above 0".to_owned())
            }
            _ => Ok(()),
        }
    }
}

impl QueryRules for crate::types::WhyQuery {
    fn check(&self) -> Result<(), String> {
        match (self.tick, self.last) {
            (Some(_), Some(_)) => Err("tick and last exclude each other".to_owned()),
            _ => Ok(()),
        }
    }
}

impl QueryRules for crate::types::RecordsQuery {
    fn check(&self) -> Result<(), String> {
        check_limit(self.limit)
    }
}

impl QueryRules for crate::types::EventsQuery {
    fn check(&self) -> Result<(), String> {
        check_limit(self.limit)?;
        if self.after.is_some() && self.before.is_some() {
            return Err("after and before exclude each other".to_owned());
        }
        match self.wait_ms {
            0..=WAIT_MAX_MS => Ok(()),
            wait_ms => Err(format!("wait_ms is {wait_ms}, it must be at most {WAIT_MAX_MS}")),
        }
    }

    fn wait(&self) -> Duration {
        Duration::from_millis(self.wait_ms)
    }
}

/// Refuses a `limit` that no answer may reach.
fn check_limit(limit: Option<u32>) -> Result<(), String> {
    match limit {
        Some(limit) if !(1..=LIMIT_MAX).contains(&limit) => {
            Err(format!("limit is {limit}, it must be from 1 to {LIMIT_MAX}"))
        }
        _ => Ok(()),
    }
}
