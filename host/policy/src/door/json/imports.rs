//! What a module of the JSON door may call.

use regatta_core::decision::LogLevel;
use serde::Serialize;
use wasmtime::{Caller, Extern, Linker, Memory, Result, Trap};

use super::columns;
use super::text::{slice, slice_mut};
use crate::fuel::charge;
use crate::guest::{Guest, LOG_LINE_BYTES};

/// The module that the functions are imported from.
pub(crate) const MODULE: &str = "regatta";

/// Their names.
pub(crate) const IMPORTS: [&str; 5] = ["log", "instances", "metric", "window", "read"];

type Host<'a> = Caller<'a, Guest>;

/// Defines them.
pub(crate) fn link(linker: &mut Linker<Guest>) -> Result<()> {
    linker.func_wrap(MODULE, "log", |mut host: Host<'_>, level: i32, pointer: i32, length: i32| {
        let (memory, guest) = memory(&mut host)?.data_and_store_mut(&mut host);
        let bytes = slice(memory, pointer, length).ok_or(Trap::MemoryOutOfBounds)?;
        let level = match level {
            ..=0 => LogLevel::Trace,
            1 => LogLevel::Debug,
            2 => LogLevel::Info,
            3 => LogLevel::Warn,
            4.. => LogLevel::Error,
        };
        // A line is cut anyway; one byte more shows that it was.
        let kept = &bytes[..bytes.len().min(LOG_LINE_BYTES + 1)];
        let length = kept.len();
        guest.log(level, String::from_utf8_lossy(kept).into_owned());
        charge(&mut host, length)
    })?;
    linker.func_wrap(MODULE, "instances", |mut host: Host<'_>| {
        let table = host.data().instances();
        ready(&mut host, &columns::Instances::from(&table))
    })?;
    linker.func_wrap(MODULE, "metric", |mut host: Host<'_>, pointer: i32, length: i32| {
        let column = name(&mut host, pointer, length, |guest, name| guest.metric(name))?;
        ready(&mut host, &columns::Metric::from(&column))
    })?;
    linker.func_wrap(MODULE, "window", |mut host: Host<'_>, pointer: i32, length: i32| {
        let window = name(&mut host, pointer, length, |guest, name| guest.window(name))?;
        ready(&mut host, &columns::Window::from(&window))
    })?;
    linker.func_wrap(MODULE, "read", |mut host: Host<'_>, pointer: i32| {
        let (memory, guest) = memory(&mut host)?.data_and_store_mut(&mut host);
        let length = i32::try_from(guest.answer.len())?;
        let room = slice_mut(memory, pointer, length).ok_or(Trap::MemoryOutOfBounds)?;
        room.copy_from_slice(&guest.answer);
        let length = guest.answer.len();
        charge(&mut host, length)
    })?;
    Ok(())
}

/// The caller's memory.
pub(crate) fn memory(host: &mut Host<'_>) -> Result<Memory> {
    let memory = host.get_export("memory").and_then(Extern::into_memory);
    memory.ok_or_else(|| wasmtime::format_err!("the module has no memory"))
}

/// Looks up what the guest names.
fn name<T>(host: &mut Host<'_>, pointer: i32, length: i32, find: impl Fn(&Guest, &str) -> T) -> Result<T> {
    let memory = memory(host)?;
    let (memory, guest) = memory.data_and_store_mut(&mut *host);
    let bytes = slice(memory, pointer, length).ok_or(Trap::MemoryOutOfBounds)?;
    let (found, length) = (find(guest, std::str::from_utf8(bytes)?), bytes.len());
    charge(host, length)?;
    Ok(found)
}

/// Makes an answer ready and returns its length.
fn ready(host: &mut Host<'_>, answer: &impl Serialize) -> Result<i32> {
    let answer = serde_json::to_vec(answer)?;
    charge(&mut *host, answer.len())?;
    let length = i32::try_from(answer.len())?;
    host.data_mut().answer = answer;
    Ok(length)
}
