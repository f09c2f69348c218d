//! Streams and waiting: output goes to the log, input is at its end, and nothing waits.

use wasmtime::Result;
use wasmtime::component::{ComponentType, Lift, LinkerInstance, Lower, Resource, ResourceType};

use super::{Host, InputStream, OutputStream, Pollable, StreamFault};
use crate::failure::Fault;
use crate::fuel::charge;
use crate::guest::Guest;
use crate::wasi::{STEP_NS, Stream};

/// Bytes of one write.
const MAX_WRITE: u64 = 1 << 20;
/// Moments that a guest can wait for in one call.
const MAX_POLLABLES: usize = 10_000;

#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
enum StreamError {
    #[component(name = "last-operation-failed")]
    LastOperationFailed(Resource<StreamFault>),
    #[component(name = "closed")]
    Closed,
}

type Written = std::result::Result<(), StreamError>;

/// `wasi:clocks/monotonic-clock`.
pub(super) fn clock(instance: &mut LinkerInstance<'_, Guest>) -> Result<()> {
    instance.func_wrap("now", |mut host: Host<'_>, (): ()| {
        charge(&mut host, 0)?;
        Ok((host.data_mut().wasi.monotonic(),))
    })?;
    instance.func_wrap("resolution", |_, (): ()| Ok((STEP_NS,)))?;
    instance.func_wrap("subscribe-instant", |mut host: Host<'_>, (due,): (u64,)| pollable(&mut host, due))?;
    instance.func_wrap("subscribe-duration", |mut host: Host<'_>, (wait,): (u64,)| {
        let due = host.data().wasi.elapsed().saturating_add(wait);
        pollable(&mut host, due)
    })
}

/// A pollable that is ready at `due`; its number is its place among the deadlines.
fn pollable(host: &mut Host<'_>, due: u64) -> Result<(Resource<Pollable>,)> {
    charge(&mut *host, size_of::<u64>())?;
    let pollables = &mut host.data_mut().pollables;
    if pollables.len() >= MAX_POLLABLES {
        return Err(Fault::TooMuch(format!("it made more than {MAX_POLLABLES} pollables")).into());
    }
    let place = u32::try_from(pollables.len())?;
    pollables.push(due);
    Ok((Resource::new_own(place),))
}

fn due(host: &Host<'_>, pollable: &Resource<Pollable>) -> u64 {
    let place = usize::try_from(pollable.rep()).unwrap_or(usize::MAX);
    host.data().pollables.get(place).copied().unwrap_or_default()
}

/// `wasi:io/poll`. When nothing is ready, time moves on to the first deadline.
pub(super) fn poll(instance: &mut LinkerInstance<'_, Guest>) -> Result<()> {
    instance.resource("pollable", ResourceType::host::<Pollable>(), |_, _| Ok(()))?;
    instance.func_wrap("[method]pollable.ready", |mut host: Host<'_>, (one,): (Resource<Pollable>,)| {
        charge(&mut host, 0)?;
        Ok((due(&host, &one) <= host.data().wasi.elapsed(),))
    })?;
    instance.func_wrap("[method]pollable.block", |mut host: Host<'_>, (one,): (Resource<Pollable>,)| {
        charge(&mut host, 0)?;
        let due = due(&host, &one);
        host.data_mut().wasi.sleep_until(due);
        Ok(())
    })?;
    instance.func_wrap("poll", |mut host: Host<'_>, (all,): (Vec<Resource<Pollable>>,)| {
        charge(&mut host, all.len() * size_of::<u64>())?;
        let dues: Vec<u64> = all.iter().map(|one| due(&host, one)).collect();
        let Some(&first) = dues.iter().min() else {
            return Err(Fault::TooMuch("it waits for nothing at all".to_owned()).into());
        };
        let wasi = &mut host.data_mut().wasi;
        wasi.sleep_until(first);
        let now = wasi.elapsed();
        let ready: Vec<u32> =
            (0_u32..).zip(&dues).filter(|&(_, &due)| due <= now).map(|(at, _)| at).collect();
        Ok((ready,))
    })
}

/// `wasi:io/streams`.
pub(super) fn streams(instance: &mut LinkerInstance<'_, Guest>) -> Result<()> {
    for name in ["read", "blocking-read"] {
        let name = format!("[method]input-stream.{name}");
        instance.func_wrap(&name, |mut host: Host<'_>, (_, _): (Resource<InputStream>, u64)| {
            charge(&mut host, 0)?;
            Ok((Err::<Vec<u8>, _>(StreamError::Closed),))
        })?;
    }
    for name in ["skip", "blocking-skip"] {
        let name = format!("[method]input-stream.{name}");
        instance.func_wrap(&name, |mut host: Host<'_>, (_, _): (Resource<InputStream>, u64)| {
            charge(&mut host, 0)?;
            Ok((Err::<u64, _>(StreamError::Closed),))
        })?;
    }
    instance.func_wrap(
        "[method]input-stream.subscribe",
        |mut host: Host<'_>, (_,): (Resource<InputStream>,)| pollable(&mut host, 0),
    )?;
    instance.func_wrap(
        "[method]output-stream.subscribe",
        |mut host: Host<'_>, (_,): (Resource<OutputStream>,)| pollable(&mut host, 0),
    )?;
    instance.func_wrap(
        "[method]output-stream.check-write",
        |mut host: Host<'_>, (_,): (Resource<OutputStream>,)| {
            charge(&mut host, 0)?;
            Ok((Ok::<u64, StreamError>(MAX_WRITE),))
        },
    )?;
    for name in ["write", "blocking-write-and-flush"] {
        let name = format!("[method]output-stream.{name}");
        instance.func_wrap(&name, |mut host: Host<'_>, (to, bytes): (Resource<OutputStream>, Vec<u8>)| {
            write(&mut host, &to, &bytes)
        })?;
    }
    for name in ["write-zeroes", "blocking-write-zeroes-and-flush"] {
        let name = format!("[method]output-stream.{name}");
        instance.func_wrap(&name, |mut host: Host<'_>, (to, length): (Resource<OutputStream>, u64)| {
            if length > MAX_WRITE {
                let message = format!("it wrote {length} bytes at once, more than {MAX_WRITE}");
                return Err(Fault::TooMuch(message).into());
            }
            write(&mut host, &to, &vec![0; usize::try_from(length)?])
        })?;
    }
    for name in ["flush", "blocking-flush"] {
        let name = format!("[method]output-stream.{name}");
        instance.func_wrap(&name, |mut host: Host<'_>, (_,): (Resource<OutputStream>,)| {
            charge(&mut host, 0)?;
            Ok((Written::Ok(()),))
        })?;
    }
    Ok(())
}

fn write(host: &mut Host<'_>, to: &Resource<OutputStream>, bytes: &[u8]) -> Result<(Written,)> {
    charge(&mut *host, bytes.len())?;
    host.data_mut().write(if to.rep() == 2 { Stream::Err } else { Stream::Out }, bytes);
    Ok((Ok(()),))
}
