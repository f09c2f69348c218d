//! What a launch has made so far, undone when it is not carried through.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use super::dir::InstanceDir;
use crate::process::VmmProcess;

/// How long a killed process may take to go before its directory is removed under it.
pub(crate) const KILL_WAIT: Duration = Duration::from_secs(5);

/// What a launch has made so far; undone when dropped, unless disarmed.
pub(crate) struct Attempt {
    pub(crate) dir: Option<DirGuard>,
    pub(crate) process: Option<VmmProcess>,
    pub(crate) reached: &'static str,
}

impl Attempt {
    pub(crate) fn disarm(&mut self) {
        if let Some(dir) = self.dir.take() {
            dir.disarm();
        }
        self.process = None;
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let Some(process) = self.process.take() else {
            return;
        };
        process.signal(Signal::KILL);
        // A dying VMM may still write into its directory, so that goes after it; if the runtime ends before, it goes at once.
        if let (Some(dir), Ok(runtime)) = (self.dir.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move {
                let _ = tokio::time::timeout(KILL_WAIT, process.exited()).await;
                drop(dir);
            });
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
