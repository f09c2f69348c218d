//! The host side of network devices.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;

use super::platform::HostPlatform;
use super::tap::{self, Taps};
use crate::config::{MacAddr, NetConfig, PciDevice, VmConfig};
use crate::guest::{EngineChoice, NetCard};
use crate::vmm::{GuestState, VmError, messages};

impl<M: Send + 'static> HostPlatform<M> {
    /// Opens the tap behind a network device, where the guest needs one, and says the MAC address of its host side.
    pub(super) fn open_tap(&mut self, id: &str, net: &NetConfig) -> Result<MacAddr, VmError> {
        let opened = match (&self.engine, &net.tap, self.treat_taps) {
            (EngineChoice::Qemu(_), name, _) => tap::open(name.as_deref().unwrap_or(tap::NEW), net).map(Some),
            (EngineChoice::Model, None, _) => Ok(None),
            (EngineChoice::Model, Some(name), Taps::Open) => tap::open(name, net).map(Some),
            (EngineChoice::Model, Some(name), Taps::Record) => tap::check_name(name).map(|()| None),
        };
        let opened = opened.map_err(|error| {
            let outer = ["Cannot create virtio-net device", "Failed to open taps"].map(str::to_owned);
            VmError::device(outer.into_iter().chain(messages(&error)))
        })?;
        let host_mac = opened.as_ref().map_or_else(MacAddr::local_random, |tap| tap.host_mac);
        if let Some(tap) = opened {
            self.taps.insert(id.to_owned(), tap);
        }
        Ok(host_mac)
    }

    /// The modelled guest's first network card, if a tap of ours is behind it.
    pub(super) fn card(&self, config: &VmConfig, state: &GuestState) -> io::Result<Option<NetCard>> {
        let Some(net) = config.net.iter().flatten().next() else {
            return Ok(None);
        };
        let Some((id, tap)) = net.id().and_then(|id| self.taps.get_key_value(id)) else {
            return Ok(None);
        };
        let queues = tap.queues.iter().map(File::try_clone).collect::<io::Result<_>>()?;
        let mac = state.macs.get(id).copied().unwrap_or(net.mac);
        Ok(Some(NetCard { id: id.clone(), queues, mac: mac.0, mtu: tap.mtu }))
    }
}

/// MAC addresses of the network devices, by id.
pub(super) fn macs(config: &VmConfig) -> BTreeMap<String, MacAddr> {
    let named = |net: &NetConfig| Some((net.id()?.to_owned(), net.mac));
    config.net.iter().flatten().filter_map(named).collect()
}
