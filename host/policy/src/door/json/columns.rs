//! Bulk data as JSON, in columns as the contract has it.

use serde::Serialize;

use crate::bindings::regatta::policy::observe::{Freshness, InstanceTable, MetricColumn, MetricWindow};
use crate::bindings::regatta::policy::types::InstanceState;

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Instances<'a> {
    id: &'a [u32],
    state: Vec<&'static str>,
    state_since_ms: &'a [u64],
    created_ms: &'a [u64],
    generation: &'a [u64],
    protected: &'a [bool],
}

impl<'a> From<&'a InstanceTable> for Instances<'a> {
    fn from(table: &'a InstanceTable) -> Self {
        Self {
            id: &table.id,
            state: table.state.iter().map(|&state| state_name(state)).collect(),
            state_since_ms: &table.state_since_ms,
            created_ms: &table.created_ms,
            generation: &table.generation,
            protected: &table.protected,
        }
    }
}

fn state_name(state: InstanceState) -> &'static str {
    match state {
        InstanceState::Pending => "pending",
        InstanceState::Creating => "creating",
        InstanceState::Booting => "booting",
        InstanceState::Initializing => "initializing",
        InstanceState::InService => "in-service",
        InstanceState::Standby => "standby",
        InstanceState::Unhealthy => "unhealthy",
        InstanceState::Draining => "draining",
        InstanceState::Terminating => "terminating",
        InstanceState::Failed => "failed",
    }
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Metric {
    /// JSON has no NaN and no infinity: null.
    value: Vec<Option<f64>>,
    status: Vec<&'static str>,
}

impl From<&MetricColumn> for Metric {
    fn from(column: &MetricColumn) -> Self {
        let status = |(status, value): (&Freshness, &f64)| match status {
            _ if !value.is_finite() => "missing",
            Freshness::Fresh => "fresh",
            Freshness::Stale => "stale",
            Freshness::Missing => "missing",
        };
        Self {
            value: column.value.iter().map(|&value| finite(value)).collect(),
            status: column.status.iter().zip(&column.value).map(status).collect(),
        }
    }
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Window<'a> {
    at_ms: &'a [u64],
    value: Vec<Option<f64>>,
}

impl<'a> From<&'a MetricWindow> for Window<'a> {
    fn from(window: &'a MetricWindow) -> Self {
        Self { at_ms: &window.at_ms, value: window.value.iter().map(|&value| finite(value)).collect() }
    }
}

fn finite(value: f64) -> Option<f64> {
    Some(value).filter(|value| value.is_finite())
}
