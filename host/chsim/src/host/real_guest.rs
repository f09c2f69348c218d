//! What only a real guest, run by QEMU, needs of [`HostPlatform`].

use super::platform::{HostPlatform, Running};
use crate::config::VmConfig;
use crate::guest::{Misdeed, qemu};
use crate::vmm::{GuestEvent, VmError, messages};

type Result<T> = std::result::Result<T, VmError>;

impl<M: Send + 'static> HostPlatform<M> {
    /// A real guest does nothing on demand: what can be seen of the misdeed from outside is brought about.
    pub(super) fn misdeed_of(&self, guest: &qemu::Guest, misdeed: Misdeed) {
        let event = match misdeed {
            Misdeed::PowerOff => GuestEvent::PowerOff,
            Misdeed::Reset => GuestEvent::Reset,
            Misdeed::Panic => GuestEvent::Panic,
            Misdeed::Hang => return guest.freeze(),
            Misdeed::Crash => GuestEvent::Gone,
        };
        if misdeed == Misdeed::Panic {
            guest.freeze();
        }
        // The VMM's thread only ends with the process.
        let _ = self.inbox.send((self.listen)(self.generation, event));
    }

    /// Switches the machine on, with the disks, taps and consoles that are open.
    pub(super) fn start_qemu(&mut self, settings: &qemu::Settings, config: &VmConfig) -> Result<()> {
        let failed = |messages: &[String]| {
            VmError::chain(
                std::iter::once("Error from CPU manager".to_owned()).chain(messages.iter().cloned()),
            )
        };
        let news = self.news();
        let missing = || failed(&["a device is not open".to_owned()]);
        let consoles = self.consoles.as_ref().map(|consoles| (&consoles.serial, &consoles.console));
        let sink = |sink: Option<&super::Sink>| {
            let sink = sink.map_or(Ok(super::Sink::Nowhere), super::Sink::try_clone);
            sink.map_err(|error| failed(&[error.to_string()]))
        };
        let spec = qemu::Spec {
            config,
            disks: config
                .disks
                .iter()
                .flatten()
                .filter(|disk| !disk.vhost_user)
                .map(|disk| disk.id.as_ref().and_then(|id| self.disks.get(id)).ok_or_else(missing))
                .map(|disk| disk.map(|disk| (disk.file(), disk.backing())))
                .collect::<Result<_>>()?,
            taps: config
                .net
                .iter()
                .flatten()
                .filter(|net| !net.vhost_user)
                .map(|net| net.id.as_ref().and_then(|id| self.taps.get(id)).ok_or_else(missing))
                .collect::<Result<_>>()?,
            serial: sink(consoles.map(|(serial, _)| serial))?,
            console: sink(consoles.map(|(_, console)| console))?,
        };
        let guest = qemu::Guest::start(settings, spec, news).map_err(|error| failed(&messages(&error)))?;
        self.guest = Some(Running::Qemu(Box::new(guest)));
        Ok(())
    }
}
