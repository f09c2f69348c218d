//! WASI preview 1 for core modules of the JSON door.

use wasmtime::{Caller, Linker, Memory, Result, Trap};

use super::{STEP_NS, Stream};
use crate::door::json::{memory, slice, slice_mut, unsigned};
use crate::failure::Fault;
use crate::fuel::charge;
use crate::guest::Guest;

/// The module that its functions are imported from.
pub(crate) const MODULE: &str = "wasi_snapshot_preview1";

const OK: i32 = 0;
const BADF: i32 = 8;
const INVAL: i32 = 28;
const NOSYS: i32 = 52;

/// Sizes of the records of `poll_oneoff`.
const SUBSCRIPTION: usize = 48;
const EVENT: usize = 32;

/// The functions, with the parameters that one of them has: `i` for i32, `I` for i64.
const FUNCTIONS: [(&str, &str); 46] = [
    ("args_get", "ii"),
    ("args_sizes_get", "ii"),
    ("clock_res_get", "ii"),
    ("clock_time_get", "iIi"),
    ("environ_get", "ii"),
    ("environ_sizes_get", "ii"),
    ("fd_advise", "iIIi"),
    ("fd_allocate", "iII"),
    ("fd_close", "i"),
    ("fd_datasync", "i"),
    ("fd_fdstat_get", "ii"),
    ("fd_fdstat_set_flags", "ii"),
    ("fd_fdstat_set_rights", "iII"),
    ("fd_filestat_get", "ii"),
    ("fd_filestat_set_size", "iI"),
    ("fd_filestat_set_times", "iIIi"),
    ("fd_pread", "iiiIi"),
    ("fd_prestat_dir_name", "iii"),
    ("fd_prestat_get", "ii"),
    ("fd_pwrite", "iiiIi"),
    ("fd_read", "iiii"),
    ("fd_readdir", "iiiIi"),
    ("fd_renumber", "ii"),
    ("fd_seek", "iIii"),
    ("fd_sync", "i"),
    ("fd_tell", "ii"),
    ("fd_write", "iiii"),
    ("path_create_directory", "iii"),
    ("path_filestat_get", "iiiii"),
    ("path_filestat_set_times", "iiiiIIi"),
    ("path_link", "iiiiiii"),
    ("path_open", "iiiiiIIii"),
    ("path_readlink", "iiiiii"),
    ("path_remove_directory", "iii"),
    ("path_rename", "iiiiii"),
    ("path_symlink", "iiiii"),
    ("path_unlink_file", "iii"),
    ("poll_oneoff", "iiii"),
    ("proc_exit", "i"),
    ("proc_raise", "i"),
    ("random_get", "ii"),
    ("sched_yield", ""),
    ("sock_accept", "iii"),
    ("sock_recv", "iiiiii"),
    ("sock_send", "iiiii"),
    ("sock_shutdown", "ii"),
];

/// Whether there is such a function.
pub(crate) fn is(module: &str, name: &str) -> bool {
    module == MODULE && FUNCTIONS.iter().any(|&(function, _)| function == name)
}

type Host<'a> = Caller<'a, Guest>;

/// Defines them all; those that need a file system or a network say that there is none.
pub(crate) fn link(linker: &mut Linker<Guest>) -> Result<()> {
    stubs(linker)?;
    linker.allow_shadowing(true);
    for name in ["args_sizes_get", "environ_sizes_get"] {
        linker.func_wrap(MODULE, name, |mut host: Host<'_>, count: i32, bytes: i32| {
            put(&mut host, count, &[0; 4])?;
            put(&mut host, bytes, &[0; 4]).map(|()| OK)
        })?;
    }
    linker.func_wrap(MODULE, "clock_res_get", |mut host: Host<'_>, clock: i32, out: i32| {
        let resolution = if clock == 0 { 1_000_000 } else { STEP_NS };
        put(&mut host, out, &resolution.to_le_bytes()).map(|()| OK)
    })?;
    linker.func_wrap(
        MODULE,
        "clock_time_get",
        |mut host: Host<'_>, clock: i32, _precision: i64, out: i32| {
            let wasi = &mut host.data_mut().wasi;
            let now = if clock == 0 { wasi.wall_ms().saturating_mul(1_000_000) } else { wasi.monotonic() };
            put(&mut host, out, &now.to_le_bytes()).map(|()| OK)
        },
    )?;
    linker.func_wrap(MODULE, "random_get", |mut host: Host<'_>, out: i32, length: i32| {
        charge(&mut host, unsigned(length))?;
        let (memory, guest) = memory(&mut host)?.data_and_store_mut(&mut host);
        guest.wasi.fill(slice_mut(memory, out, length).ok_or(Trap::MemoryOutOfBounds)?);
        Ok(OK)
    })?;
    linker.func_wrap(MODULE, "fd_fdstat_get", |mut host: Host<'_>, fd: i32, out: i32| {
        let mut status = [0; 24];
        status[0] = 2; // A character device, so that output is written line by line.
        if !(0..=2).contains(&fd) {
            return Ok(BADF);
        }
        put(&mut host, out, &status).map(|()| OK)
    })?;
    linker.func_wrap(
        MODULE,
        "fd_read",
        |mut host: Host<'_>, fd: i32, _vectors: i32, _count: i32, out: i32| {
            if fd != 0 {
                return Ok(BADF);
            }
            put(&mut host, out, &[0; 4]).map(|()| OK)
        },
    )?;
    linker.func_wrap(MODULE, "fd_write", write)?;
    linker.func_wrap(MODULE, "poll_oneoff", poll)?;
    linker.func_wrap(MODULE, "proc_exit", |code: i32| -> Result<()> {
        Err(Fault::Exit(code.cast_unsigned()).into())
    })?;
    linker.allow_shadowing(false);
    Ok(())
}

fn stubs(linker: &mut Linker<Guest>) -> Result<()> {
    use wasmtime::{FuncType, Val, ValType};
    for (name, params) in FUNCTIONS {
        let code = match name {
            "args_get" | "environ_get" | "sched_yield" | "fd_fdstat_set_flags" => OK,
            name if name.starts_with("fd_") => BADF,
            _ => NOSYS,
        };
        let param = |letter: char| if letter == 'I' { ValType::I64 } else { ValType::I32 };
        let results = (name != "proc_exit").then_some(ValType::I32);
        let ty = FuncType::new(linker.engine(), params.chars().map(param), results);
        linker.func_new(MODULE, name, ty, move |mut host, _, results| {
            charge(&mut host, 0)?;
            results.iter_mut().for_each(|result| *result = Val::I32(code));
            Ok(())
        })?;
    }
    Ok(())
}

/// Writes to the guest's memory.
fn put(host: &mut Host<'_>, pointer: i32, bytes: &[u8]) -> Result<()> {
    charge(&mut *host, bytes.len())?;
    let memory = memory(host)?.data_mut(&mut *host);
    let length = i32::try_from(bytes.len())?;
    slice_mut(memory, pointer, length).ok_or(Trap::MemoryOutOfBounds)?.copy_from_slice(bytes);
    Ok(())
}

/// The little-endian number at an address.
fn number<const N: usize>(memory: &[u8], at: usize) -> Result<[u8; N]> {
    let bytes = memory.get(at..at.saturating_add(N)).and_then(|bytes| bytes.first_chunk());
    Ok(*bytes.ok_or(Trap::MemoryOutOfBounds)?)
}

fn write(mut host: Host<'_>, fd: i32, vectors: i32, count: i32, out: i32) -> Result<i32> {
    let stream = match fd {
        1 => Stream::Out,
        2 => Stream::Err,
        _ => return Ok(BADF),
    };
    let memory: Memory = memory(&mut host)?;
    let mut written = 0_u32;
    for index in 0..unsigned(count) {
        let at = unsigned(vectors).saturating_add(index.saturating_mul(8));
        let data = memory.data(&host);
        let (pointer, length) =
            (i32::from_le_bytes(number(data, at)?), i32::from_le_bytes(number(data, at.saturating_add(4))?));
        charge(&mut host, unsigned(length))?;
        let (data, guest) = memory.data_and_store_mut(&mut host);
        guest.write(stream, slice(data, pointer, length).ok_or(Trap::MemoryOutOfBounds)?);
        written = written.saturating_add(length.cast_unsigned());
    }
    put(&mut host, out, &written.to_le_bytes()).map(|()| OK)
}

/// Streams are ready always. When only clocks are waited for, time moves on to the first of them.
fn poll(mut host: Host<'_>, subscriptions: i32, events: i32, count: i32, out: i32) -> Result<i32> {
    let count = unsigned(count);
    if count == 0 {
        return Ok(INVAL);
    }
    charge(&mut host, count.saturating_mul(SUBSCRIPTION))?;
    let memory: Memory = memory(&mut host)?;
    let (data, guest) = memory.data_and_store_mut(&mut host);
    let now = guest.wasi.elapsed();
    // User data, kind and moment of each.
    let mut waits = Vec::new();
    for index in 0..count {
        let at = unsigned(subscriptions).saturating_add(index.saturating_mul(SUBSCRIPTION));
        let [kind] = number(data, at.saturating_add(8))?;
        let due = if kind == 0 {
            let clock = u32::from_le_bytes(number(data, at.saturating_add(16))?);
            let timeout = u64::from_le_bytes(number(data, at.saturating_add(24))?);
            let absolute = u16::from_le_bytes(number(data, at.saturating_add(40))?) & 1 == 1;
            let wall_ns = guest.wasi.wall_ms().saturating_mul(1_000_000);
            match (absolute, clock) {
                (false, _) => now.saturating_add(timeout),
                (true, 0) => now.saturating_add(timeout.saturating_sub(wall_ns)),
                (true, _) => timeout,
            }
        } else {
            0
        };
        waits.push((number::<8>(data, at)?, kind, due));
    }
    let first = waits.iter().map(|&(_, _, due)| due).min().unwrap_or_default();
    guest.wasi.sleep_until(first);
    let now = guest.wasi.elapsed();
    let (mut ready, mut at) = (0_u32, unsigned(events));
    for (user_data, kind, _) in waits.iter().filter(|&&(_, _, due)| due <= now) {
        let mut event = [0; EVENT];
        event[..8].copy_from_slice(user_data);
        event[10] = *kind;
        let room = data.get_mut(at..at.saturating_add(EVENT)).ok_or(Trap::MemoryOutOfBounds)?;
        room.copy_from_slice(&event);
        (ready, at) = (ready + 1, at.saturating_add(EVENT));
    }
    put(&mut host, out, &ready.to_le_bytes()).map(|()| OK)
}
