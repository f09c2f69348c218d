//! What an error in a guest means.

use regatta_core::decision::{FailureKind, PolicyFailure};
use thiserror::Error;
use wasmtime::Trap;

use crate::guest::{Guest, Refused};
use crate::text::said;

/// Bytes of a failure's message.
const MESSAGE_BYTES: usize = 1024;

/// What the host ends a call for, besides what wasmtime traps.
#[derive(Debug, Error)]
pub(crate) enum Fault {
    /// The guest called `exit`.
    #[error("it ended itself with exit code {0}")]
    Exit(u32),
    /// A function of WASI that no policy needs.
    #[error("it called {0}, which a policy cannot have")]
    Unsupported(String),
    /// More of something than the host gives.
    #[error("{0}")]
    TooMuch(String),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Start,
    Call,
}

pub(crate) fn failed(kind: FailureKind, message: String) -> PolicyFailure {
    PolicyFailure { kind, message: said(message, MESSAGE_BYTES) }
}

/// An answer that breaks the contract.
pub(crate) fn bad_output(message: impl Into<String>) -> PolicyFailure {
    failed(FailureKind::Output, message.into())
}

/// An answer to another question than was asked.
pub(crate) fn unfitting() -> PolicyFailure {
    failed(FailureKind::Host, "the answer does not fit the question".to_owned())
}

/// What a trap says, without the words that the kind of failure says already.
fn told(trap: Trap) -> String {
    let text = trap.to_string();
    text.strip_prefix("wasm trap: ").map_or_else(|| text.clone(), str::to_owned)
}

/// What an error of wasmtime means.
pub(crate) fn failure(error: &wasmtime::Error, guest: &Guest, phase: Phase) -> PolicyFailure {
    let refused = guest.limiter.refused.map(|refused| match refused {
        Refused::Memory => "it asked for more memory than it may have".to_owned(),
        Refused::Table => "it asked for more table elements than it may have".to_owned(),
    });
    if let Some(fault) = error.downcast_ref::<Fault>() {
        return failed(FailureKind::Trap, fault.to_string());
    }
    let Some(&trap) = error.downcast_ref::<Trap>() else {
        if let Some(refused) = refused {
            return failed(FailureKind::Memory, refused);
        }
        let kind = match phase {
            // The pool is full, or memory cannot be had.
            Phase::Start => FailureKind::Host,
            // What came back cannot be read: text that is not UTF-8, lists without end.
            Phase::Call => FailureKind::Output,
        };
        return failed(kind, error.root_cause().to_string());
    };
    let (kind, what) = match trap {
        Trap::OutOfFuel => (FailureKind::OutOfFuel, "it used up its fuel".to_owned()),
        Trap::Interrupt => (FailureKind::Deadline, "it ran past its deadline".to_owned()),
        Trap::StackOverflow => (FailureKind::StackOverflow, "its stack overflowed".to_owned()),
        Trap::AllocationTooLarge => (FailureKind::Memory, told(trap)),
        Trap::ListOutOfBounds
        | Trap::StringOutOfBounds
        | Trap::InvalidChar
        | Trap::InvalidDiscriminant
        | Trap::UnalignedPointer => (FailureKind::Output, told(trap)),
        _ => match refused {
            // Most languages answer a refused allocation with a trap of their own.
            Some(refused) => (FailureKind::Memory, refused),
            None if trap == Trap::UnreachableCodeReached => {
                (FailureKind::Trap, guest.last_error().map_or_else(|| told(trap), str::to_owned))
            }
            None => (FailureKind::Trap, told(trap)),
        },
    };
    failed(kind, what)
}
