//! Where guests may open connections beyond the host.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::formats;
use super::network::same_network;

/// Where guests may open connections beyond the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Outbound {
    /// Nowhere, or everywhere but special ranges (cloud metadata).
    Switch(bool),
    /// Limited to some destinations.
    Limited {
        /// Only these; empty for everywhere. An entry within a special range opens it.
        allow: Vec<Ipv4Net>,
        /// Not these, whatever is allowed.
        deny: Vec<Ipv4Net>,
    },
}

/// A network, written as `10.0.0.0/8`. The address is its first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ipv4Net {
    /// Its first address.
    pub base: Ipv4Addr,
    /// Length of its prefix, 0 to 32.
    pub prefix: u8,
}

impl Ipv4Net {
    /// Whether all addresses of `other` are in it.
    pub(crate) fn contains(self, other: Self) -> bool {
        self.prefix <= other.prefix && same_network(self.base, other.base, self.prefix)
    }
}

impl fmt::Display for Ipv4Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl FromStr for Ipv4Net {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        formats::destination(text).map_err(|complaint| complaint.message)
    }
}

impl TryFrom<String> for Ipv4Net {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Ipv4Net> for String {
    fn from(net: Ipv4Net) -> Self {
        net.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sets that are stored say `true` or `false`, and are to read as ever.
    #[test]
    fn a_stored_switch_stays_a_switch_and_lists_read_back() {
        for value in [true, false] {
            let text = value.to_string();
            assert_eq!(serde_json::from_str::<Outbound>(&text).expect("a switch"), Outbound::Switch(value));
            assert_eq!(serde_json::to_string(&Outbound::Switch(value)).expect("JSON"), text);
        }
        let net = |text: &str| text.parse::<Ipv4Net>().expect("a network");
        let limited =
            Outbound::Limited { allow: vec![net("10.0.0.0/8"), net("0.0.0.0/0")], deny: Vec::new() };
        let text = serde_json::to_string(&limited).expect("JSON");
        assert_eq!(text, r#"{"allow":["10.0.0.0/8","0.0.0.0/0"],"deny":[]}"#);
        assert_eq!(serde_json::from_str::<Outbound>(&text).expect("lists"), limited);
        assert!("10.0.0.1/8".parse::<Ipv4Net>().is_err());
    }

    #[test]
    fn a_network_contains_what_lies_within_it() {
        let net = |text: &str| text.parse::<Ipv4Net>().expect("a network");
        assert!(net("0.0.0.0/0").contains(net("10.0.0.0/8")));
        assert!(net("10.0.0.0/8").contains(net("10.0.0.0/8")));
        assert!(!net("10.0.0.0/16").contains(net("10.0.0.0/8")));
        assert!(!net("10.0.0.0/8").contains(net("11.0.0.0/16")));
        assert!(net("10.1.2.3/32").contains(net("10.1.2.3/32")));
    }
}
