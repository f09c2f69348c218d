//! From the bytes that someone gave to code that can be instantiated.
//!
//! Two steps with a seam between them: [`prepare`] is pure and cheap, reads the headers, checks the module against
//! the contract and makes a component of it where that is its way in; [`compile`](crate::compile) is where Cranelift
//! takes its time.

use serde::{Deserialize, Serialize};
use wasmtime::Module;
use wasmtime::component::Component;

use crate::contract;
use crate::error::LoadError;

/// How a module talks with the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Abi {
    /// A component of the contract's world.
    Component,
    /// A core module whose exports have the canonical names: made a component at load.
    CoreCanonical,
    /// A core module that exchanges JSON text through its memory.
    CoreJson,
}

impl Abi {
    /// The name that users read.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Component => "component",
            Self::CoreCanonical => "core-canonical",
            Self::CoreJson => "core-json",
        }
    }
}

/// A module that fits the contract, not yet compiled.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// How the module that was given talks.
    pub(crate) abi: Abi,
    /// A core module for [`Abi::CoreJson`], a component for the others.
    pub(crate) bytes: Vec<u8>,
    /// What the module imports as it was given, each as `interface` or `module name`, in its order.
    pub(crate) imports: Vec<String>,
}

/// Compiled code of one of two kinds.
pub(crate) enum Code {
    Component(Component),
    Module(Module),
}

/// Checks a module against the contract.
///
/// # Errors
/// When it is not a policy, with the reason.
pub(crate) fn prepare(bytes: &[u8]) -> Result<Prepared, LoadError> {
    contract::prepare(bytes)
}
