//! Who this guest is, put together from all places that may say it.

use serde::{Deserialize, Serialize};

use crate::cmdline::Cmdline;
use crate::dmi::Serial;
use crate::seed::MetaData;

/// Where the first program leaves the identity for the second.
pub(crate) const PATH: &str = "/run/regatta-identity.json";

/// Who this guest is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) hostname: String,
    pub(crate) instance_id: String,
    /// Its address, if it has one.
    pub(crate) address: Option<String>,
    /// How often the root disk was booted; 0 without one.
    pub(crate) boot_count: u64,
    /// The marker on the root disk; empty without one.
    pub(crate) build_id: String,
    pub(crate) user_data: Option<String>,
    /// TCP port of the service.
    pub(crate) port: u16,
    /// How many requests are worked on at once; 0: one per processor.
    pub(crate) workers: usize,
}

/// The seed's word counts most, then the SMBIOS serial number, then the command line: cloud-init's order.
pub(crate) fn merge(seed: MetaData, serial: Option<Serial>, cmdline: &Cmdline) -> Identity {
    let serial = serial.unwrap_or_default();
    let hostname = seed.hostname.or(serial.hostname).or_else(|| cmdline.hostname.clone());
    Identity {
        hostname: hostname.unwrap_or_else(|| "localhost".to_owned()),
        instance_id: seed.instance_id.or(serial.instance_id).unwrap_or_else(|| "nocloud".to_owned()),
        port: cmdline.port.unwrap_or(8080),
        workers: cmdline.workers.unwrap_or(0),
        ..Identity::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_wins_then_the_serial_then_the_command_line() {
        let cmdline = Cmdline { hostname: Some("c".to_owned()), ..Cmdline::default() };
        let serial = Serial { instance_id: Some("i-dmi".to_owned()), hostname: Some("d".to_owned()) };
        let seed = MetaData { instance_id: None, hostname: Some("s".to_owned()) };
        let both = merge(seed, Some(serial.clone()), &cmdline);
        assert_eq!((both.hostname.as_str(), both.instance_id.as_str()), ("s", "i-dmi"));
        assert_eq!(merge(MetaData::default(), Some(serial), &cmdline).hostname, "d");
        let bare = merge(MetaData::default(), None, &cmdline);
        assert_eq!((bare.hostname.as_str(), bare.instance_id.as_str(), bare.port), ("c", "nocloud", 8080));
    }
}
