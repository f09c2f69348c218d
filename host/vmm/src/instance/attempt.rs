//! What a launch has made so far, undone when it is not carried through.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use super::dir::InstanceDir;
use crate::net::Attachment;
use crate::process::VmmProcess;

/// How long a killed process may take to go before its directory is removed under it.
pub(crate) const KILL_WAIT: Duration = Duration::from_secs(5);

/// What a launch has made so far; undone when dropped, unless disarmed.
pub(crate) struct Attempt {
    pub(crate) dir: Option<DirGuard>,
    pub(crate) network: Option<Attachment>,
    pub(crate) process: Option<VmmProcess>,
    pub(crate) reached: &'static str,
}

impl Attempt {
    pub(crate) fn disarm(&mut self) {
        if let Some(dir) = self.dir.take() {
            dir.disarm();
        }
        if let Some(network) = self.network.take() {
            network.keep();
        }
        self.process = None;
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let (process, network) = (self.process.take(), self.network.take());
        if let Some(process) = &process {
            process.signal(Signal::KILL);
        }
        if process.is_none() && network.is_none() {
            return;
        }
        // A dying VMM may still write into its directory, so that goes after it, and after the network, of which it tells; if the runtime
        // ends before, all goes at once.
        let dir = self.dir.take();
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                runtime.spawn(async move {
                    if let Some(process) = process {
                        let _ = tokio::time::timeout(KILL_WAIT, process.exited()).await;
                    }
                    let _ = tokio::task::spawn_blocking(move || drop((network, dir))).await;
                });
            }
            Err(_) => drop((network, dir)),
        }
    }
}

/// Removes an instance's directory when dropped, unless disarmed. Moved through blocking tasks, so that one whose launch was
/// dropped still cleans up after itself.
pub(crate) struct DirGuard(pub(crate) Option<InstanceDir>);

impl DirGuard {
    pub(crate) fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for DirGuard {
    fn drop(&mut self) {
        if let Some(dir) = &self.0
            && let Err(error) = dir.remove_dead()
        {
            tracing::warn!(instance = dir.id(), %error, "directory of a failed instance stays");
        }
    }
}

/// Tells a blocking copy to stop when the launch that wants it is dropped.
#[derive(Default)]
pub(crate) struct CancelOnDrop(pub(crate) Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
