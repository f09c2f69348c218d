//! The one place of this crate with `unsafe`: machine code that was compiled elsewhere is taken over, and a child gives
//! up what it shares with others.

#![expect(
    unsafe_code,
    reason = "wasmtime trusts the machine code that it is given, and two calls have no safe form; each is argued below"
)]

use rustix::thread::UnshareFlags;
use wasmtime::component::Component;
use wasmtime::{Engine, Module, Result};

/// Machine code that wasmtime made, as it was serialized.
///
/// Wasmtime checks of such bytes that version, configuration and CPU fit, and runs the rest as it is: whoever can
/// choose them owns the process. Hence this type, which is made in two places only:
///
/// * [`compile`](crate::compile) takes what the compiler has just given, in this process or through a pipe from a child
///   that is this program's own and has no other writer;
/// * [`cache`](crate::cache) takes what a file of ours holds, once a MAC under a secret that only we can read says that
///   it is what we wrote, byte for byte. What is checked is a copy in memory, and the copy is what is used.
pub(crate) struct Native(Vec<u8>);

impl Native {
    /// Takes over `code`, of which the caller knows that [`Engine::precompile_module`] or
    /// [`Engine::precompile_component`] gave it; see above.
    pub(crate) fn trusted(code: Vec<u8>) -> Self {
        Self(code)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// A component of it.
    ///
    /// # Errors
    /// When it is none, or was made for another engine.
    pub(crate) fn component(&self, engine: &Engine) -> Result<Component> {
        // SAFETY: the bytes are what wasmtime's own serialization gave, by the contract of `Native`.
        unsafe { Component::deserialize(engine, &self.0) }
    }

    /// A module of it.
    ///
    /// # Errors
    /// When it is none, or was made for another engine.
    pub(crate) fn module(&self, engine: &Engine) -> Result<Module> {
        // SAFETY: the bytes are what wasmtime's own serialization gave, by the contract of `Native`.
        unsafe { Module::deserialize(engine, &self.0) }
    }
}

/// Gives the calling thread namespaces of its own.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn unshare(namespaces: UnshareFlags) -> rustix::io::Result<()> {
    let namespaces = namespaces.difference(UnshareFlags::FILES);
    // SAFETY: only a table of descriptors that threads do not share could break what others rely on; it stays shared.
    unsafe { rustix::thread::unshare_unsafe(namespaces) }
}

/// Closes every descriptor but the standard ones.
pub(crate) fn close_all_others() {
    // SAFETY: called first in a process, when nothing in it has opened one yet: those that there are were left open by
    // whoever started it, and nobody here uses them.
    let _ = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32) };
}
