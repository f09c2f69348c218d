//! WASI preview 1 for core modules that become components.
//!
//! Such a module gets an adapter beside it, which turns preview 1 into an interface of the host's own. It holds no
//! state and takes no memory: all of that is with the host, as for the other doors.

use wasmtime::component::LinkerInstance;
use wasmtime::{Result, StoreContextMut};
use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use super::Stream;
use crate::failure::Fault;
use crate::fuel::charge;
use crate::guest::Guest;

/// What the adapter imports.
pub(crate) const INTERFACE: &str = "regatta:virtual/wasi@0.1.0";

const WIT: &str = "
    package regatta:virtual@0.1.0;
    interface wasi {
        wall: func() -> u64;
        monotonic: func() -> u64;
        /// What the monotonic clock shows, without moving it on.
        elapsed: func() -> u64;
        sleep-until: func(ns: u64);
        random: func() -> u64;
        write: func(error: bool, bytes: list<u8>);
        exit: func(code: u32);
    }
    world adapter { import wasi; }
";

/// The adapter with its component type.
pub(crate) fn module() -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
    let mut module = wat::parse_str(include_str!("adapter.wat"))?;
    let mut resolve = Resolve::default();
    let package = resolve.push_str("virtual.wit", WIT)?;
    let world = resolve.select_world(&[package], Some("adapter"))?;
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    Ok(module)
}

type Host<'a> = StoreContextMut<'a, Guest>;

/// Defines the interface.
pub(super) fn link(mut interface: LinkerInstance<'_, Guest>) -> Result<()> {
    interface.func_wrap("wall", |mut host: Host<'_>, (): ()| {
        charge(&mut host, 0)?;
        Ok((host.data().wasi.wall_ms().saturating_mul(1_000_000),))
    })?;
    interface.func_wrap("monotonic", |mut host: Host<'_>, (): ()| {
        charge(&mut host, 0)?;
        Ok((host.data_mut().wasi.monotonic(),))
    })?;
    interface.func_wrap("elapsed", |mut host: Host<'_>, (): ()| {
        charge(&mut host, 0)?;
        Ok((host.data().wasi.elapsed(),))
    })?;
    interface.func_wrap("sleep-until", |mut host: Host<'_>, (ns,): (u64,)| {
        charge(&mut host, 0)?;
        host.data_mut().wasi.sleep_until(ns);
        Ok(())
    })?;
    interface.func_wrap("random", |mut host: Host<'_>, (): ()| {
        charge(&mut host, size_of::<u64>())?;
        Ok((host.data_mut().wasi.random(),))
    })?;
    interface.func_wrap("write", |mut host: Host<'_>, (error, bytes): (bool, Vec<u8>)| {
        charge(&mut host, bytes.len())?;
        host.data_mut().write(if error { Stream::Err } else { Stream::Out }, &bytes);
        Ok(())
    })?;
    interface.func_wrap("exit", |_, (code,): (u32,)| -> Result<()> { Err(Fault::Exit(code).into()) })
}
