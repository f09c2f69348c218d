//! What the host's work for a guest costs the guest.

use wasmtime::{AsContextMut, Result, Trap};

/// Fuel of a call to the host, whatever it does.
const CALL: u64 = 50;

/// Takes fuel for one call to the host that moves `bytes`, one unit each: it is the same on every run, and a guest
/// that calls the host in a loop comes to an end.
pub(crate) fn charge(mut store: impl AsContextMut, bytes: usize) -> Result<()> {
    let left = store.as_context_mut().get_fuel()?;
    let cost = CALL.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    let paid = left.checked_sub(cost);
    store.as_context_mut().set_fuel(paid.unwrap_or(0))?;
    match paid {
        Some(_) => Ok(()),
        None => Err(Trap::OutOfFuel.into()),
    }
}
