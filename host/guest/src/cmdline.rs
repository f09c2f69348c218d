//! What the kernel command line says to the guest.

use std::net::Ipv4Addr;

/// An address on an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// Hardware address of the interface, in lower case; without one, the first interface is meant.
    pub(crate) mac: Option<String>,
    /// The address.
    pub(crate) address: Ipv4Addr,
    /// Length of its network's prefix, bits.
    pub(crate) prefix: u8,
    /// Where everything else is reached.
    pub(crate) gateway: Option<Ipv4Addr>,
}

/// The words of the command line that concern the guest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cmdline {
    /// From `ip=`.
    pub(crate) address: Option<Address>,
    /// From `ip=` or `hostname=`.
    pub(crate) hostname: Option<String>,
    /// From `regatta.port=`.
    pub(crate) port: Option<u16>,
    /// From `regatta.workers=`.
    pub(crate) workers: Option<usize>,
}

/// Reads a command line. Words that cannot be read are as good as absent, as they are to the kernel.
pub(crate) fn parse(line: &str) -> Cmdline {
    let mut found = Cmdline::default();
    for word in line.split_whitespace() {
        match word.split_once('=') {
            Some(("ip", value)) => {
                let (address, hostname) = ip(value);
                found.address = address.or(found.address);
                found.hostname = hostname.or(found.hostname);
            }
            Some(("hostname", name)) if !name.is_empty() => found.hostname = Some(name.to_owned()),
            Some(("regatta.port", port)) => found.port = port.parse().ok().filter(|port| *port != 0),
            Some(("regatta.workers", workers)) => {
                found.workers = workers.parse().ok().filter(|workers| (1..=256).contains(workers));
            }
            _ => {}
        }
    }
    found
}

/// `ip=<client>:<server>:<gateway>:<mask>:<hostname>:<device>:<autoconf>`, fields may be empty or missing. Debian's
/// cloud kernel leaves it to user space.
fn ip(value: &str) -> (Option<Address>, Option<String>) {
    let fields: Vec<&str> = value.split(':').collect();
    let field = |at: usize| fields.get(at).copied().unwrap_or_default();
    let hostname = Some(field(4)).filter(|name| !name.is_empty()).map(str::to_owned);
    let address = field(0).parse().ok().map(|address| Address {
        mac: None,
        address,
        prefix: field(3).parse().ok().and_then(prefix).unwrap_or(24),
        gateway: field(2).parse().ok(),
    });
    (address, hostname)
}

/// The length of a network mask; `None` when it has holes.
fn prefix(mask: Ipv4Addr) -> Option<u8> {
    let bits = mask.to_bits();
    let length = bits.leading_ones();
    (bits.count_ones() == length).then_some(length as u8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_full_line() {
        let found = parse(
            "console=ttyS0 quiet ip=10.0.0.2::10.0.0.1:255.255.0.0:web-1:eth0:off regatta.port=9000 regatta.workers=2",
        );
        let address = Address {
            mac: None,
            address: Ipv4Addr::new(10, 0, 0, 2),
            prefix: 16,
            gateway: Some(Ipv4Addr::new(10, 0, 0, 1)),
        };
        assert_eq!(
            found,
            Cmdline {
                address: Some(address),
                hostname: Some("web-1".to_owned()),
                port: Some(9000),
                workers: Some(2)
            }
        );
    }

    #[test]
    fn what_cannot_be_read_is_absent() {
        assert_eq!(parse("ip=dhcp regatta.port=0 regatta.workers=none hostname="), Cmdline::default());
        let short = parse("ip=10.1.2.3").address.unwrap();
        assert_eq!((short.prefix, short.gateway), (24, None));
        assert_eq!(prefix(Ipv4Addr::new(255, 0, 255, 0)), None);
    }

    proptest! {
        #[test]
        fn any_line_is_read(line in ".{0,200}") {
            parse(&line);
        }
    }
}
