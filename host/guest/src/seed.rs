//! The files of a NoCloud seed: `meta-data` and `network-config` version 2.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::cmdline::Address;

/// What `meta-data` says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct MetaData {
    #[serde(rename = "instance-id")]
    pub(crate) instance_id: Option<String>,
    #[serde(rename = "local-hostname", alias = "hostname")]
    pub(crate) hostname: Option<String>,
}

impl MetaData {
    /// Reads YAML, of which JSON is a part.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_saphyr::from_str(text).context("meta-data cannot be read")
    }
}

#[derive(Debug, Deserialize)]
struct Document {
    /// Some write the whole below this key.
    network: Option<Network>,
    version: Option<u32>,
    #[serde(default)]
    ethernets: BTreeMap<String, Ethernet>,
}

#[derive(Debug, Deserialize)]
struct Network {
    version: Option<u32>,
    #[serde(default)]
    ethernets: BTreeMap<String, Ethernet>,
}

#[derive(Debug, Deserialize)]
struct Ethernet {
    #[serde(rename = "match")]
    by: Option<Match>,
    #[serde(default)]
    addresses: Vec<String>,
    gateway4: Option<String>,
    #[serde(default)]
    routes: Vec<Route>,
}

#[derive(Debug, Deserialize)]
struct Match {
    macaddress: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Route {
    to: String,
    via: String,
}

/// The static IPv4 addresses of a `network-config`; interfaces without one are left out.
pub(crate) fn network_config(text: &str) -> Result<Vec<Address>> {
    let document: Document = serde_saphyr::from_str(text).context("network-config cannot be read")?;
    let network =
        document.network.unwrap_or(Network { version: document.version, ethernets: document.ethernets });
    ensure!(network.version == Some(2), "network-config is not of version 2");
    network.ethernets.iter().filter_map(|(name, ethernet)| ethernet.address(name).transpose()).collect()
}

impl Ethernet {
    fn address(&self, name: &str) -> Result<Option<Address>> {
        // IPv6 is configured by nobody here.
        let Some(text) = self.addresses.iter().find(|address| !address.contains("::")) else {
            return Ok(None);
        };
        let (address, prefix) = text.split_once('/').unwrap_or((text, "24"));
        let parsed = |text: &str| -> Result<Ipv4Addr> {
            text.parse().with_context(|| format!("network-config: {name}: {text:?} is not an IPv4 address"))
        };
        let default = self.routes.iter().find(|route| matches!(route.to.as_str(), "default" | "0.0.0.0/0"));
        let gateway = self.gateway4.as_deref().or(default.map(|route| route.via.as_str()));
        let prefix = prefix.parse().ok().filter(|prefix| *prefix <= 32);
        Ok(Some(Address {
            mac: self.by.as_ref().and_then(|by| by.macaddress.as_ref()).map(|mac| mac.to_ascii_lowercase()),
            address: parsed(address)?,
            prefix: prefix.with_context(|| format!("network-config: {name}: {text:?} has no prefix"))?,
            gateway: gateway.map(parsed).transpose()?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn expected() -> Address {
        Address {
            mac: Some("52:54:00:12:34:56".to_owned()),
            address: Ipv4Addr::new(10, 0, 0, 2),
            prefix: 30,
            gateway: Some(Ipv4Addr::new(10, 0, 0, 1)),
        }
    }

    #[test]
    fn the_ways_to_write_a_network_are_one() {
        for text in [
            "version: 2\nethernets:\n  nic0:\n    match: {macaddress: \"52:54:00:12:34:56\"}\n    \
             addresses: [10.0.0.2/30]\n    gateway4: 10.0.0.1\n",
            "network:\n  version: 2\n  ethernets:\n    eth0:\n      match:\n        macaddress: '52:54:00:12:34:56'\n      \
             set-name: eth0\n      addresses:\n        - fd00::2/64\n        - 10.0.0.2/30\n      routes:\n        - to: default\n          via: 10.0.0.1\n",
            r#"{"ethernets":{"a":{"addresses":["10.0.0.2/30"],"match":{"macaddress":"52:54:00:12:34:56"},"routes":[{"to":"0.0.0.0/0","via":"10.0.0.1"}]}},"version":2}"#,
        ] {
            assert_eq!(network_config(text).unwrap(), [expected()], "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, word) in [
            ("version: 1\nconfig: []\n", "version 2"),
            ("version: 2\nethernets: {a: {addresses: [ten/8]}}\n", "IPv4"),
            ("version: 2\nethernets: {a: {addresses: [10.0.0.1/40]}}\n", "prefix"),
            ("]", "cannot be read"),
        ] {
            let error = format!("{:#}", network_config(text).unwrap_err());
            assert!(error.contains(word), "{text}: {error}");
        }
        assert_eq!(network_config("version: 2\nethernets: {a: {dhcp4: true}}\n").unwrap(), []);
    }

    #[test]
    fn meta_data_needs_nothing() {
        let full = MetaData::parse("instance-id: i-1\nlocal-hostname: web-1\npublic-keys: [a]\n").unwrap();
        assert_eq!((full.instance_id.as_deref(), full.hostname.as_deref()), (Some("i-1"), Some("web-1")));
        assert_eq!(MetaData::parse("\n").unwrap(), MetaData::default());
        assert_eq!(MetaData::parse(r#"{"instance-id":"x"}"#).unwrap().instance_id.as_deref(), Some("x"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[ -~\n]{0,200}") {
            let _ = network_config(&text);
            let _ = MetaData::parse(&text);
        }
    }
}
