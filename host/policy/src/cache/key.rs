//! What an entry was made of, and by what.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::os::unix::fs::MetadataExt;

use regatta_core::digest::Digest;
use sha2::{Digest as _, Sha256};
use wasmtime::Engine;

/// Names a compiled module: equal only when compiling again would give the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key([u8; 32]);

impl Key {
    /// The key of the module with that SHA-256, compiled by `engine`: its configuration, wasmtime's version and what the
    /// CPU can do are part of it, and this program, which decided that the module is a policy.
    pub(crate) fn new(engine: &Engine, digest: &Digest) -> Self {
        let mut hasher = Hashing(Sha256::new());
        (env!("CARGO_PKG_VERSION"), crate::CONTRACT_VERSION, program(), digest).hash(&mut hasher);
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Self(hasher.0.finalize().into())
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    #[cfg(test)]
    pub(super) fn of(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// What tells this build of the program from the next: another may see through a module that this one let pass.
#[expect(clippy::disallowed_methods, reason = "the kernel's own link to this program")]
fn program() -> (u64, i64, i64) {
    let found = std::fs::metadata("/proc/self/exe");
    found.map_or((0, 0, 0), |file| (file.size(), file.mtime(), file.mtime_nsec()))
}

/// SHA-256 for what only wants to be hashed.
struct Hashing(Sha256);

impl Hasher for Hashing {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let hash: [u8; 32] = self.0.clone().finalize().into();
        u64::from_le_bytes(*hash.first_chunk().unwrap_or(&[0; 8]))
    }
}
