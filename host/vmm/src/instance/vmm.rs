//! One running VMM with its VM.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::dir::InstanceDir;
use super::notes::STARTED;
use crate::api::response::VmState;
use crate::api::{ApiError, VmmClient};
use crate::containment::Containment;
use crate::image::GoldenImage;
use crate::net::HostNetwork;
use crate::process::{VmmExit, VmmIdentity, VmmProcess};
use crate::snapshot::Started;
use regatta_util::chain;

/// One owned VMM. Dropping it never ends the process: VMMs outlive the daemon. [`Vmm::stop`] ends it.
///
/// Calls to the VMM take turns: it serves one at a time. Every call is bounded in time, and a time-out never means that the VMM is
/// dead; only [`Vmm::exited`] tells that.
#[derive(Debug)]
pub struct Vmm {
    dir: InstanceDir,
    process: VmmProcess,
    client: VmmClient,
    image: Mutex<Option<GoldenImage>>,
    network: HostNetwork,
    containment: Containment,
    started: Option<Started>,
}

impl Vmm {
    pub(crate) fn new(
        dir: InstanceDir,
        process: VmmProcess,
        client: VmmClient,
        image: Option<GoldenImage>,
        network: HostNetwork,
    ) -> Self {
        let containment = match Containment::load(&dir) {
            Ok(Some(found)) => found,
            Ok(None) => Containment::none("nothing is recorded: an earlier version started it"),
            Err(error) => Containment::none(&format!("its record cannot be read: {}", chain(&error))),
        };
        let started = dir.note_as(STARTED).unwrap_or_else(|error| {
            tracing::warn!(instance = dir.id(), error = chain(&error), "how it came to run is not known");
            None
        });
        Self { dir, process, client, image: Mutex::new(image), network, containment, started }
    }

    /// How its guest came to run; none when nothing is recorded: its launch was cut off, or an earlier version started it.
    #[must_use]
    pub fn started(&self) -> Option<&Started> {
        self.started.as_ref()
    }

    pub(crate) fn network(&self) -> &HostNetwork {
        &self.network
    }

    pub(crate) fn client(&self) -> &VmmClient {
        &self.client
    }

    pub(crate) fn process(&self) -> &VmmProcess {
        &self.process
    }

    /// The instance's directory.
    #[must_use]
    pub fn dir(&self) -> &InstanceDir {
        &self.dir
    }

    /// What finds this process again after a restart of the daemon. Store it.
    #[must_use]
    pub fn identity(&self) -> VmmIdentity {
        VmmIdentity {
            pid: self.process.pid(),
            start_time_ticks: self.process.start_time_ticks(),
            socket: self.socket(),
        }
    }

    /// The API socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.client.socket().to_path_buf()
    }

    /// Keeps the golden image locked as long as this VMM is held: for adopted VMMs, whose image the daemon opened again.
    pub fn hold_image(&self, image: GoldenImage) {
        *self.image.lock().unwrap_or_else(PoisonError::into_inner) = Some(image);
    }

    /// How it is contained, as found when it was launched.
    #[must_use]
    pub fn containment(&self) -> Containment {
        self.containment.clone()
    }

    /// The state of the VM, as the VMM tells it.
    ///
    /// # Errors
    /// The call failed.
    pub async fn info(&self) -> Result<VmState, ApiError> {
        let info = self.client.info_if_created().await?;
        Ok(info.map_or(VmState::NotCreated, |info| info.vm_state()))
    }

    /// What the VM was made with, as the VMM tells it: guest memory in bytes, and virtual processors. None without a VM.
    ///
    /// # Errors
    /// The call failed.
    pub async fn size(&self) -> Result<Option<(u64, u64)>, ApiError> {
        let info = self.client.info_if_created().await?;
        Ok(info.and_then(|info| {
            let number = |pointer| info.config.pointer(pointer).and_then(serde_json::Value::as_u64);
            Some((number("/memory/size")?, number("/cpus/boot_vcpus")?))
        }))
    }

    /// Stops the guest's processors.
    ///
    /// # Errors
    /// The call failed; [`crate::ApiErrorKind::WrongState`] when it is paused already.
    pub async fn pause(&self) -> Result<(), ApiError> {
        self.client.pause().await
    }

    /// Resets the VM: its guest is not asked, and boots again in the same process with the same disks.
    ///
    /// # Errors
    /// The call failed.
    pub async fn reboot(&self) -> Result<(), ApiError> {
        self.client.reboot().await
    }

    /// Lets a paused guest go on.
    ///
    /// # Errors
    /// The call failed; [`crate::ApiErrorKind::WrongState`] when it is not paused.
    pub async fn resume(&self) -> Result<(), ApiError> {
        self.client.resume().await
    }

    /// CPU time used by the VMM and its guest so far, in nanoseconds; `None` when the process has ended.
    #[must_use]
    pub fn cpu_time_ns(&self) -> Option<u64> {
        self.process.cpu_time_ns()
    }

    /// Resident memory of the VMM with the guest memory it has touched, in bytes; `None` when the process has ended.
    #[must_use]
    pub fn rss_bytes(&self) -> Option<u64> {
        self.process.rss_bytes()
    }

    /// Waits until the VMM process has ended. Safe to drop and to call again; guest power-off is [`VmmExit::Code`]`(0)`.
    pub async fn exited(&self) -> VmmExit {
        self.process.exited().await
    }

    /// How the process ended, or `None` while it runs.
    #[must_use]
    pub fn exit_status(&self) -> Option<VmmExit> {
        self.process.exit_status()
    }
}
