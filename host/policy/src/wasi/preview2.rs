//! WASI 0.2 for components.
//!
//! Every interface that a component imports is defined under the very name that it uses, whatever its patch version:
//! first each of its functions as one that ends the call, then those that do something over it.

mod io;

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{
    Component, ComponentType, Lift, Linker, LinkerInstance, Lower, Resource, ResourceType,
};
use wasmtime::{Result, StoreContextMut};

use super::adapter;
use crate::failure::Fault;
use crate::fuel::charge;
use crate::guest::Guest;

/// The packages that are virtual; each is one of the version 0.2.
const PACKAGES: [&str; 6] = ["cli", "clocks", "filesystem", "io", "random", "sockets"];

/// Random bytes of one call.
const MAX_RANDOM_BYTES: u64 = 1 << 20;

/// Whether a component may import an interface of that name.
pub(crate) fn is(name: &str) -> bool {
    parts(name).is_some()
}

/// Splits `wasi:cli/stdout@0.2.3` into package and interface.
fn parts(name: &str) -> Option<(&str, &str)> {
    let (name, version) = name.strip_prefix("wasi:")?.split_once('@')?;
    let version = semver::Version::parse(version).ok()?;
    let (package, interface) = name.split_once('/')?;
    let known =
        PACKAGES.contains(&package) && (version.major, version.minor) == (0, 2) && version.pre.is_empty();
    known.then_some((package, interface))
}

pub(super) type Host<'a> = StoreContextMut<'a, Guest>;

/// Types of resources that the host has; none of the last two is ever made.
pub(super) enum Pollable {}
pub(super) enum InputStream {}
pub(super) enum OutputStream {}
pub(super) enum StreamFault {}
enum TerminalInput {}
enum TerminalOutput {}
enum Descriptor {}

/// Defines what `component` imports beside the contract.
pub(crate) fn link(linker: &mut Linker<Guest>, component: &Component) -> Result<()> {
    linker.allow_shadowing(true);
    let engine = linker.engine().clone();
    for (name, import) in component.component_type().imports(&engine) {
        let ComponentItem::ComponentInstance(interface) = import.ty else { continue };
        if name == adapter::INTERFACE {
            adapter::link(linker.instance(name)?)?;
            continue;
        }
        let Some(known) = parts(name) else { continue };
        let mut instance = linker.instance(name)?;
        for (item_name, item) in interface.exports(&engine) {
            match item.ty {
                ComponentItem::ComponentFunc(_) => {
                    let called = format!("`{item_name}` of `{name}`");
                    instance.func_new(item_name, move |_, _, _, _| {
                        Err(Fault::Unsupported(called.clone()).into())
                    })?;
                }
                ComponentItem::Resource(_) => {
                    instance.resource(item_name, resource(item_name), |_, _| Ok(()))?;
                }
                _ => {}
            }
        }
        define(&mut instance, known)?;
    }
    linker.allow_shadowing(false);
    Ok(())
}

fn resource(name: &str) -> ResourceType {
    match name {
        "pollable" => ResourceType::host::<Pollable>(),
        "input-stream" => ResourceType::host::<InputStream>(),
        "output-stream" => ResourceType::host::<OutputStream>(),
        "error" => ResourceType::host::<StreamFault>(),
        "terminal-input" => ResourceType::host::<TerminalInput>(),
        "terminal-output" => ResourceType::host::<TerminalOutput>(),
        "descriptor" => ResourceType::host::<Descriptor>(),
        // Nobody ever has one of those.
        _ => ResourceType::host::<()>(),
    }
}

fn define(instance: &mut LinkerInstance<'_, Guest>, interface: (&str, &str)) -> Result<()> {
    match interface {
        ("cli", "environment") => {
            nothing::<Vec<(String, String)>>(instance, "get-environment")?;
            nothing::<Vec<String>>(instance, "get-arguments")?;
            nothing::<Option<String>>(instance, "initial-cwd")
        }
        ("cli", "exit") => {
            instance.func_wrap("exit", |_, (status,): (Result<(), ()>,)| -> Result<()> {
                Err(Fault::Exit(u32::from(status.is_err())).into())
            })?;
            instance.func_wrap("exit-with-code", |_, (code,): (u8,)| -> Result<()> {
                Err(Fault::Exit(u32::from(code)).into())
            })
        }
        ("cli", "stdin") => stream::<InputStream>(instance, "get-stdin", 0),
        ("cli", "stdout") => stream::<OutputStream>(instance, "get-stdout", 1),
        ("cli", "stderr") => stream::<OutputStream>(instance, "get-stderr", 2),
        ("cli", "terminal-stdin") => {
            nothing::<Option<Resource<TerminalInput>>>(instance, "get-terminal-stdin")
        }
        ("cli", "terminal-stdout") => {
            nothing::<Option<Resource<TerminalOutput>>>(instance, "get-terminal-stdout")
        }
        ("cli", "terminal-stderr") => {
            nothing::<Option<Resource<TerminalOutput>>>(instance, "get-terminal-stderr")
        }
        ("clocks", "wall-clock") => {
            instance.func_wrap("now", |mut host: Host<'_>, (): ()| {
                charge(&mut host, 0)?;
                Ok((Datetime::of_ms(host.data().wasi.wall_ms()),))
            })?;
            instance.func_wrap("resolution", |_, (): ()| Ok((Datetime::of_ms(1),)))
        }
        ("clocks", "monotonic-clock") => io::clock(instance),
        ("random", "random") => random(instance, ["get-random-bytes", "get-random-u64"]),
        ("random", "insecure") => random(instance, ["get-insecure-random-bytes", "get-insecure-random-u64"]),
        ("random", "insecure-seed") => instance.func_wrap("insecure-seed", |mut host: Host<'_>, (): ()| {
            charge(&mut host, 16)?;
            let wasi = &mut host.data_mut().wasi;
            Ok(((wasi.random(), wasi.random()),))
        }),
        ("io", "poll") => io::poll(instance),
        ("io", "streams") => io::streams(instance),
        ("filesystem", "preopens") => {
            nothing::<Vec<(Resource<Descriptor>, String)>>(instance, "get-directories")
        }
        _ => Ok(()),
    }
}

/// A function without parameters that gives an empty value.
fn nothing<T>(instance: &mut LinkerInstance<'_, Guest>, name: &str) -> Result<()>
where
    T: Default + ComponentType + Lower + Lift + Send + Sync + 'static,
{
    instance.func_wrap(name, |mut host: Host<'_>, (): ()| {
        charge(&mut host, 0)?;
        Ok((T::default(),))
    })
}

/// A function that gives the standard stream of that number.
fn stream<T: Send + Sync + 'static>(
    instance: &mut LinkerInstance<'_, Guest>,
    name: &str,
    number: u32,
) -> Result<()> {
    instance.func_wrap(name, move |mut host: Host<'_>, (): ()| {
        charge(&mut host, 0)?;
        Ok((Resource::<T>::new_own(number),))
    })
}

fn random(instance: &mut LinkerInstance<'_, Guest>, [bytes, number]: [&str; 2]) -> Result<()> {
    instance.func_wrap(bytes, |mut host: Host<'_>, (length,): (u64,)| {
        if length > MAX_RANDOM_BYTES {
            let message = format!("it asked for {length} random bytes at once, more than {MAX_RANDOM_BYTES}");
            return Err(Fault::TooMuch(message).into());
        }
        let length = usize::try_from(length)?;
        charge(&mut host, length)?;
        let mut bytes = vec![0; length];
        host.data_mut().wasi.fill(&mut bytes);
        Ok((bytes,))
    })?;
    instance.func_wrap(number, |mut host: Host<'_>, (): ()| {
        charge(&mut host, 8)?;
        Ok((host.data_mut().wasi.random(),))
    })
}

#[derive(ComponentType, Lift, Lower)]
#[component(record)]
struct Datetime {
    seconds: u64,
    nanoseconds: u32,
}

impl Datetime {
    fn of_ms(ms: u64) -> Self {
        let nanoseconds = u32::try_from(ms % 1000).unwrap_or_default() * 1_000_000;
        Self { seconds: ms / 1000, nanoseconds }
    }
}
