//! How many instances a load needs.

use regatta_sdk::instances_for;

use crate::Params;

/// What the metric says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Sum over the instances in service, finite and at least 0.
    pub(crate) sum: f64,
    /// Instances in service that it says nothing about.
    pub(crate) unmeasured: u32,
}

/// What there is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Capacity {
    /// In force.
    pub(crate) desired: u32,
    pub(crate) in_service: u32,
    pub(crate) warming: u32,
    /// Least capacity of the set.
    pub(crate) min: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    Above,
    /// Above, and less than needed was asked for because of `max_scale_out_factor`.
    AboveCapped,
    Below,
    Within,
    /// Above for those in service, but enough capacity is already asked for.
    Coming,
    /// Below, and instances are warming.
    Warming,
    ScaleInOff,
    AtMin,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer {
    pub(crate) capacity: u32,
    /// Instances' worth of load that the answer rests on.
    pub(crate) demand: f64,
    pub(crate) why: Why,
}

/// An answer, or why the load is none that instances could carry.
pub(crate) fn answer(load: Load, capacity: Capacity, params: &Params) -> Result<Answer, String> {
    let Capacity { desired, in_service, warming, min } = capacity;
    let in_force = f64::from(desired);
    // Towards either side, what is not known is taken so that it asks for less change.
    let measured = load.sum / params.target;
    let not_serving = desired.saturating_sub(in_service);
    let assumed = measured + f64::from(load.unmeasured.saturating_add(not_serving));

    if measured > in_force * (1.0 + params.tolerance) {
        let needed = whole(measured)?.max(desired);
        let limit = params
            .max_scale_out_factor
            .map_or(u32::MAX, |factor| truncated(in_force * factor).max(desired.saturating_add(1)));
        let why = if limit < needed { Why::AboveCapped } else { Why::Above };
        return Ok(Answer { capacity: needed.min(limit), demand: measured, why });
    }
    let keep = |demand, why| Ok(Answer { capacity: desired, demand, why });
    if measured < in_force * (1.0 - params.tolerance) {
        if warming > 0 {
            let busy = measured > f64::from(in_service) * (1.0 + params.tolerance);
            return keep(measured, if busy { Why::Coming } else { Why::Warming });
        }
        if !params.scale_in {
            return keep(measured, Why::ScaleInOff);
        }
        if assumed >= in_force * (1.0 - params.tolerance) {
            return keep(assumed, Why::Within);
        }
        let carried = whole(assumed)?;
        // A set of none measures nothing: only clients that wait at its load balancer bring it back.
        let needed = carried.max(min).max(u32::from(!params.scale_to_zero));
        if needed >= desired {
            return keep(assumed, if carried < needed { Why::AtMin } else { Why::Within });
        }
        return Ok(Answer { capacity: needed, demand: assumed, why: Why::Below });
    }
    let busy = measured > f64::from(in_service) * (1.0 + params.tolerance);
    keep(measured, if busy && warming > 0 { Why::Coming } else { Why::Within })
}

/// Whole instances for a demand.
fn whole(demand: f64) -> Result<u32, String> {
    let told = || format!("the demand is {demand}, which is not a number of instances");
    instances_for(demand).ok_or_else(told)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it saturates, which is what is wanted"
)]
fn truncated(value: f64) -> u32 {
    value as u32
}
