//! The worker's side: gives up what it can, then runs what it is sent.

use std::collections::HashMap;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Barrier, PoisonError, RwLock};
use std::thread;

use rustix::io::IoSliceMut;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::Resource;

use super::wire::{self, Hello, Loaded, PolicyId, Question, Ready, Request};
use super::{LANES, MAX_REQUEST_BYTES};
use crate::ask::{self, Ran};
use crate::compile::Refusal;
use crate::door::Door;
use crate::engine::{self, Engine, EngineOptions};
use crate::failure::failed;
use crate::gate::Lane;
use crate::jail::{self, Threads};
use crate::load::Abi;
use crate::sys::Native;
use regatta_core::decision::FailureKind;

/// Open descriptors: the lanes, and the image of each module's memory.
const DESCRIPTORS: u64 = 16 << 10;
/// Of an anonymous file, the only ones that there are: the first content of a memory.
const FILE_BYTES: u64 = 1 << 30;

/// What is ready to run.
type Doors = RwLock<HashMap<PolicyId, Arc<Door>>>;

/// Serves who holds the other end of standard input, until that is closed.
///
/// # Errors
/// When it cannot begin.
pub(crate) fn serve(user: Option<u32>, pooling: bool) -> io::Result<()> {
    // Before files are out of reach: the pool asks the kernel which pages were touched.
    let runtime = engine::runtime(pooling).map_err(|error| io::Error::other(regatta_util::chain(&error)))?;
    let limits = [(Resource::Core, 0), (Resource::Nofile, DESCRIPTORS), (Resource::Fsize, FILE_BYTES)];
    // While there is one thread: the kernel keeps rights by thread.
    let mut walls = jail::confine(user, &limits)?;
    let control = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let lanes = lanes(control.as_fd())?;
    let options = EngineOptions { pooling, ..EngineOptions::default() };
    let engine = Engine::with_runtime(runtime, options).map_err(io::Error::other)?;
    let pooling = engine.pooling();
    let doors = Arc::new(Doors::default());
    let confined = Arc::new(Barrier::new(lanes.len() + 1));
    for lane in lanes {
        let (engine, doors, confined) = (engine.clone(), Arc::clone(&doors), Arc::clone(&confined));
        thread::Builder::new().name("policy-lane".to_owned()).spawn(move || {
            confined.wait();
            match serve_lane(&engine, &doors, &lane) {
                Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                    eprintln!("a request cannot be served: {error}");
                    std::process::exit(1);
                }
                // Its end is the end of who asks.
                Ok(()) | Err(_) => {}
            }
        })?;
    }
    walls.push(jail::restrict_system_calls(Threads::AsTheyAre));
    wire::send(&control, &Hello { pooling, walls }, &mut Vec::new())?;
    confined.wait();
    // It is never written to.
    let _ = (&control).read(&mut [0]);
    Ok(())
}

/// The sockets that come with the first byte on `control`.
fn lanes(control: BorrowedFd<'_>) -> io::Result<Vec<UnixStream>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(LANES))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(control, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let fds = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    let lanes: Vec<UnixStream> = fds.flatten().map(|fd: OwnedFd| fd.into()).collect();
    if lanes.is_empty() {
        return Err(io::Error::other("there are no lanes"));
    }
    Ok(lanes)
}

fn serve_lane(engine: &Engine, doors: &Doors, lane: &UnixStream) -> io::Result<()> {
    let (mut request, mut reply) = (Vec::new(), Vec::new());
    loop {
        match wire::receive(lane, MAX_REQUEST_BYTES, None, &mut request)? {
            Request::Load { id, abi, code } => {
                let door = load(engine, abi, code);
                let loaded: Loaded = door
                    .as_ref()
                    .map(|door| Ready { migrates: door.migrates(), bytes: door.bytes() })
                    .map_err(Clone::clone);
                if let Ok(door) = door {
                    doors.write().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::new(door));
                }
                wire::send(lane, &loaded, &mut reply)?;
            }
            Request::Run { id, limits, ask } => {
                let door = doors.read().unwrap_or_else(PoisonError::into_inner).get(&id).map(Arc::clone);
                let Some(door) = door else {
                    let lost = "the worker does not have this policy".to_owned();
                    wire::send(lane, &Ran::failed(failed(FailureKind::Host, lost)), &mut reply)?;
                    continue;
                };
                // Whose turn it is was decided by who asks.
                let (ran, spent) = ask::run(engine, &door, Lane::Light, Question::unpack(ask), &limits);
                wire::send(lane, &ran, &mut reply)?;
                // Torn down while the caller goes on.
                drop((ran, spent));
            }
            Request::Drop { ids } => {
                let mut doors = doors.write().unwrap_or_else(PoisonError::into_inner);
                doors.retain(|id, _| !ids.contains(id));
                drop(doors);
                wire::send(lane, &(), &mut reply)?;
            }
        }
    }
}

fn load(engine: &Engine, abi: Abi, code: &[u8]) -> Result<Door, Refusal> {
    // From who started this process, which is ours.
    let code = Native::trusted(code.to_vec());
    engine.link(abi, &code).map_err(Refusal::from)
}
