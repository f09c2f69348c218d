//! What compiling gives, as bytes: they come through a pipe from a child, and lie in the cache.

use std::error::Error;

use regatta_util::chain;
use serde::{Deserialize, Serialize};

use super::CompileLimit;
use crate::error::{Cause, LoadError};
use crate::load::{Abi, Prepared};
use crate::sys::Native;
use crate::text::capped;

/// Bytes of a cause that comes from the compiler.
const CAUSE_BYTES: usize = 2 << 10;
/// Imports or exports that are told of a refused module.
const NAMES: usize = 10_000;
const NAME_BYTES: usize = 200;

/// What is known of a module beside its code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    pub(crate) abi: Abi,
    pub(crate) imports: Vec<String>,
}

impl Meta {
    pub(crate) fn of(prepared: &Prepared) -> Self {
        Self { abi: prepared.abi, imports: prepared.imports.clone() }
    }
}

/// A compiled module.
pub(crate) struct Artifact {
    pub(crate) meta: Meta,
    pub(crate) code: Native,
}

impl Artifact {
    /// Length of the description, the description as JSON, the code.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let meta = serde_json::to_vec(&self.meta).unwrap_or_default();
        let length = u32::try_from(meta.len()).unwrap_or(0).to_le_bytes();
        [&length[..], &meta, self.code.bytes()].concat()
    }

    /// Reads what [`Artifact::to_bytes`] wrote; none when it is something else. Only for bytes that may be trusted:
    /// see [`Native`].
    pub(crate) fn from_trusted(bytes: &[u8]) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk()?;
        let (meta, code) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        Some(Self { meta: serde_json::from_slice(meta).ok()?, code: Native::trusted(code.to_vec()) })
    }
}

/// Why there is no artifact, in a form that crosses between processes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Refusal {
    Malformed(String),
    ContractVersion(String),
    Imports(Vec<String>),
    Exports(Vec<String>),
    NoComponentType,
    Componentize(String),
    Compile(String),
    Limit(CompileLimit),
    Contract(String),
}

impl From<LoadError> for Refusal {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Malformed(cause) => Self::Malformed(told(&*cause)),
            LoadError::ContractVersion { found, .. } => Self::ContractVersion(found),
            LoadError::Imports { imports } => Self::Imports(some_of(imports)),
            LoadError::Exports { missing } => Self::Exports(some_of(missing)),
            LoadError::NoComponentType => Self::NoComponentType,
            LoadError::Componentize(cause) => Self::Componentize(told(&*cause)),
            LoadError::Limit(limit) => Self::Limit(limit),
            LoadError::Compile(cause) => Self::Compile(told(&*cause)),
            LoadError::Contract { source, .. } => Self::Contract(told(&*source)),
            // What is not found out by preparing and compiling.
            error @ (LoadError::TooLarge { .. }
            | LoadError::Compiler { .. }
            | LoadError::Worker { .. }
            | LoadError::Describe(_)
            | LoadError::BadManifest(_)) => Self::Compile(told(&error)),
        }
    }
}

impl From<Refusal> for LoadError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Malformed(cause) => Self::Malformed(cause.into()),
            Refusal::ContractVersion(found) => {
                Self::ContractVersion { found, supported: crate::contract::CONTRACT_VERSION }
            }
            Refusal::Imports(imports) => Self::Imports { imports },
            Refusal::Exports(missing) => Self::Exports { missing },
            Refusal::NoComponentType => Self::NoComponentType,
            Refusal::Componentize(cause) => Self::Componentize(cause.into()),
            Refusal::Compile(cause) => Self::Compile(cause.into()),
            Refusal::Limit(limit) => Self::Limit(limit),
            Refusal::Contract(cause) => {
                Self::Contract { contract: crate::contract::CONTRACT_VERSION, source: cause.into() }
            }
        }
    }
}

/// The whole chain of an error, as far as a person reads.
fn told(error: &dyn Error) -> String {
    capped(chain(error), CAUSE_BYTES)
}

/// An error of the compiler as a cause of ours.
pub(super) fn cause(error: wasmtime::Error) -> Cause {
    capped(format!("{error:#}"), CAUSE_BYTES).into()
}

fn some_of(names: Vec<String>) -> Vec<String> {
    names.into_iter().take(NAMES).map(|name| capped(name, NAME_BYTES)).collect()
}
