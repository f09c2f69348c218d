//! Memory and tables of one call.

use regatta_core::manifest::PolicyLimits;
use wasmtime::{ResourceLimiter, Result};

use crate::engine::{MAX_MEMORY_BYTES, MAX_TABLE_ELEMENTS};

/// What a guest asked too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    Memory,
    Table,
}

/// Counts memory and table elements over all linear memories and tables of a call.
pub(crate) struct Limiter {
    /// Bytes that may still be taken.
    bytes: usize,
    /// Bytes of linear memory that were taken. No memory ever shrinks.
    pub(crate) memory: usize,
    /// Table elements that may still be taken.
    elements: usize,
    /// What was refused last.
    pub(crate) refused: Option<Refused>,
}

impl Limiter {
    pub(crate) fn new(limits: &PolicyLimits) -> Self {
        let bytes = limits.memory_bytes.min(MAX_MEMORY_BYTES);
        let elements = limits.table_elements.min(MAX_TABLE_ELEMENTS);
        Self {
            bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
            memory: 0,
            elements: usize::try_from(elements).unwrap_or(usize::MAX),
            refused: None,
        }
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        let within = maximum.is_none_or(|maximum| desired <= maximum);
        let more = desired.saturating_sub(current);
        let left = self.bytes.checked_sub(more);
        let Some(left) = left.filter(|_| within) else {
            self.refused = Some(Refused::Memory);
            return Ok(false);
        };
        self.bytes = left;
        self.memory += more;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        let within = maximum.is_none_or(|maximum| desired <= maximum);
        let left = self.elements.checked_sub(desired.saturating_sub(current));
        let Some(left) = left.filter(|_| within) else {
            self.refused = Some(Refused::Table);
            return Ok(false);
        };
        self.elements = left;
        Ok(true)
    }

    fn instances(&self) -> usize {
        64
    }

    fn tables(&self) -> usize {
        64
    }

    fn memories(&self) -> usize {
        16
    }
}
