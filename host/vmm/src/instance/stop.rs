//! Stopping: politely, then firmly, then by force, each step bounded.

use std::time::Duration;

use rustix::process::Signal;
use tracing::Instrument;

use super::dir::DirError;
use super::vmm::Vmm;
use crate::api::ApiErrorKind;
use crate::api::response::VmState;
use crate::net::NetworkError;
use crate::process::VmmExit;

/// The power button is pressed again after this time, then after twice as long, …
const FIRST_PRESS_AGAIN: Duration = Duration::from_millis(500);
/// … but at least this often.
const PRESS_AGAIN_LIMIT: Duration = Duration::from_secs(10);
/// How long the VMM may take over a hard stop of its VM.
const SHUTDOWN_WITHIN: Duration = Duration::from_secs(3);
/// How long it may take to end after SIGTERM.
const TERM_WITHIN: Duration = Duration::from_secs(3);
/// How long the kernel may take to end it after SIGKILL.
const KILL_WITHIN: Duration = Duration::from_secs(10);

/// How an instance was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// What ended it.
    pub how: StopHow,
    /// How the process ended.
    pub exit: VmmExit,
}

/// What ended a VMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopHow {
    /// It had ended before.
    AlreadyGone,
    /// The guest shut down after its power button was pressed.
    PowerButton,
    /// The VMM ended after SIGTERM: the guest did not react in time, or there was none.
    Terminated,
    /// SIGKILL.
    Killed,
}

/// An instance could not be stopped completely; call again.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// The process outlived SIGKILL: it hangs in the kernel.
    #[error("VMM process {pid} of instance {id} is still there {} ms after SIGKILL", after.as_millis())]
    Unkillable {
        /// The instance.
        id: String,
        /// The process.
        pid: i32,
        /// How long it was waited for.
        after: Duration,
    },
    /// The process ended; its network stays, and with it its directory.
    #[error("instance {id} ended, but its network stays")]
    Network {
        /// The instance.
        id: String,
        /// Why.
        #[source]
        source: NetworkError,
    },
    /// The process ended; its directory stays.
    #[error("instance {id} ended, but its directory stays")]
    Cleanup {
        /// The instance.
        id: String,
        /// Why.
        #[source]
        source: DirError,
    },
}

impl Vmm {
    /// Stops the instance and removes its network and its directory: power button and up to `grace` for the guest to shut down, then a hard stop of the VM,
    /// SIGTERM, SIGKILL. With a `grace` of zero the guest is not asked.
    ///
    /// Safe to drop at any point and to call again.
    ///
    /// # Errors
    /// The process cannot be killed, or the network or the directory cannot be removed.
    pub async fn stop(&self, grace: Duration) -> Result<Stopped, StopError> {
        let stopped = self.end(grace).await?;
        let dir = self.dir().clone();
        let span = tracing::debug_span!("remove files", instance = dir.id());
        let remove = move || span.in_scope(|| dir.remove_dead());
        let removed = tokio::task::spawn_blocking(remove).await.unwrap_or(Ok(()));
        removed.map_err(|source| StopError::Cleanup { id: self.dir().id().to_owned(), source })?;
        Ok(stopped)
    }

    /// Ends the process, removes its network and leaves the directory, as for a look at its logs.
    ///
    /// # Errors
    /// The process cannot be killed, or the network cannot be removed.
    pub async fn end(&self, grace: Duration) -> Result<Stopped, StopError> {
        let span = tracing::debug_span!("end", instance = self.dir().id());
        let stopped = self.end_process(grace).instrument(span).await?;
        let (network, dir) = (self.network().clone(), self.dir().clone());
        let span = tracing::debug_span!("remove network", instance = dir.id());
        let remove = move || span.in_scope(|| network.tear_down(&dir));
        let removed = tokio::task::spawn_blocking(remove).await.unwrap_or(Ok(()));
        removed.map_err(|source| StopError::Network { id: self.dir().id().to_owned(), source })?;
        Ok(stopped)
    }

    async fn end_process(&self, grace: Duration) -> Result<Stopped, StopError> {
        if let Some(exit) = self.exit_status() {
            return Ok(Stopped { how: StopHow::AlreadyGone, exit });
        }
        if !grace.is_zero()
            && let Some(stopped) = self.ask_guest(grace).await
        {
            return Ok(stopped);
        }
        // Lets the VMM flush and close the disks; how it answers does not matter.
        let shutdown = self.client().shutdown(SHUTDOWN_WITHIN);
        if let Some(exit) = self.exit_while(shutdown).await {
            return Ok(Stopped { how: StopHow::Terminated, exit });
        }
        self.process().signal(Signal::TERM);
        if let Ok(exit) = tokio::time::timeout(TERM_WITHIN, self.exited()).await {
            return Ok(Stopped { how: StopHow::Terminated, exit });
        }
        self.process().signal(Signal::KILL);
        match tokio::time::timeout(KILL_WITHIN, self.exited()).await {
            Ok(exit) => Ok(Stopped { how: StopHow::Killed, exit }),
            Err(_) => Err(StopError::Unkillable {
                id: self.dir().id().to_owned(),
                pid: self.process().pid(),
                after: KILL_WITHIN,
            }),
        }
    }

    /// Presses the power button until the guest has shut down; `None` when the process is still there after `grace`, or at once when
    /// there is no guest that could react.
    async fn ask_guest(&self, grace: Duration) -> Option<Stopped> {
        let press = async {
            // A paused guest cannot react to its power button.
            if matches!(self.info().await, Ok(VmState::Paused)) {
                let _ = self.resume().await;
            }
            let mut pause = FIRST_PRESS_AGAIN;
            loop {
                match self.client().power_button().await {
                    Ok(()) => {}
                    // These leave open whether the guest was told, so it gets its time all the same.
                    Err(error)
                        if matches!(error.kind, ApiErrorKind::Timeout | ApiErrorKind::ConnectionLost) => {}
                    Err(_) => return,
                }
                // A guest that is still booting does not hear its button.
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PRESS_AGAIN_LIMIT);
            }
        };
        let exit = tokio::time::timeout(grace, self.exit_while(press)).await.ok().flatten()?;
        Some(Stopped { how: StopHow::PowerButton, exit })
    }

    /// Runs a call unless the process ends first; how it ended, or `None` when the call came back.
    async fn exit_while<T>(&self, call: impl Future<Output = T>) -> Option<VmmExit> {
        tokio::select! {
            biased;
            exit = self.exited() => Some(exit),
            _ = call => self.exit_status(),
        }
    }
}
