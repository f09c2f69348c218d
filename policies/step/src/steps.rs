//! What a step makes of a capacity.

use regatta_sdk::{Problems, short};

use crate::{InStep, OutStep, Params};

/// The capacity after a step outwards from `base`.
pub(crate) fn out(step: &OutStep, base: u32) -> u32 {
    if let Some(set) = step.set {
        return set.max(base);
    }
    let percent =
        step.add_percent.map(|percent| truncated((f64::from(base) * percent / 100.0 - 1e-9).ceil()).max(1));
    base.saturating_add(step.add.or(percent).unwrap_or(0))
}

/// The capacity after a step inwards from `base`.
pub(crate) fn inward(step: &InStep, base: u32) -> u32 {
    if let Some(set) = step.set {
        return set.min(base);
    }
    let percent =
        step.remove_percent.map(|percent| truncated(f64::from(base) * percent / 100.0 + 1e-9).max(1));
    base.saturating_sub(step.remove.or(percent).unwrap_or(0))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it saturates, which is what is wanted"
)]
fn truncated(value: f64) -> u32 {
    value as u32
}

pub(crate) fn out_text(step: &OutStep) -> String {
    match (step.add, step.add_percent, step.set) {
        (Some(add), ..) => format!("+{add}"),
        (_, Some(percent), _) => format!("+{} %", short(percent)),
        (_, _, Some(set)) => format!("={set}"),
        _ => String::new(),
    }
}

pub(crate) fn in_text(step: &InStep) -> String {
    match (step.remove, step.remove_percent, step.set) {
        (Some(remove), ..) => format!("-{remove}"),
        (_, Some(percent), _) => format!("-{} %", short(percent)),
        (_, _, Some(set)) => format!("={set}"),
        _ => String::new(),
    }
}

/// A step further out must not ask for less than the one before it (as far as both
/// are given in the same way, so that they can be compared).
pub(crate) fn check_order(params: &Params, problems: &mut Problems) {
    for (at, pair) in params.scale_out.windows(2).enumerate() {
        let less = lower(pair[1].add, pair[0].add)
            || lower(pair[1].add_percent, pair[0].add_percent)
            || lower(pair[1].set, pair[0].set);
        if less {
            problems.add(
                format!("/scale_out/{}", at + 1),
                "asks for less than the step before, at a higher value",
            );
        }
    }
    for (at, pair) in params.scale_in.windows(2).enumerate() {
        let less = lower(pair[1].remove, pair[0].remove)
            || lower(pair[1].remove_percent, pair[0].remove_percent)
            || lower(pair[0].set, pair[1].set);
        if less {
            problems
                .add(format!("/scale_in/{}", at + 1), "removes less than the step before, at a lower value");
        }
    }
}

fn lower<T: PartialOrd>(one: Option<T>, than: Option<T>) -> bool {
    matches!((one, than), (Some(one), Some(than)) if one < than)
}
