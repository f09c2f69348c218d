//! Where a guest with `outbound` may open connections: arithmetic on ranges of addresses. Pure.

use std::net::Ipv4Addr;

use crate::instance::Outbound;

/// Ranges that lead to no machine of the internet or of a private network (RFC 6890), but to the clouds' own services: their metadata holds
/// the host's credentials. Private networks (RFC 1918) are not among them, since that is where the services are that guests need.
const SPECIAL: [(Ipv4Addr, u8); 13] = [
    // This network.
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    // Shared by carriers; Alibaba's metadata is at 100.100.100.200.
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::LOCALHOST, 8),
    // Azure's host agent, beside its metadata: not in the registry, but as special.
    (Ipv4Addr::new(168, 63, 129, 16), 32),
    // Link-local: the metadata of nearly every cloud is at 169.254.169.254.
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    // Protocol assignments; Oracle's metadata was at 192.0.0.192.
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    // Documentation, three of them; relays of 6to4; benchmarks.
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    // Multicast; reserved, with the broadcast address.
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// First and last address.
type Range = (u32, u32);

/// Disjoint ranges of addresses, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reach(Vec<Range>);

impl Reach {
    /// What a guest may reach: what is allowed (everything, when nothing is named) without special ranges, which only an entry within them
    /// opens, and without what is denied.
    pub(crate) fn of(outbound: &Outbound) -> Self {
        let allowed: Vec<Range> = match outbound.allow.as_slice() {
            [] => vec![(0, u32::MAX)],
            nets => nets.iter().copied().map(range).collect(),
        };
        let opened = allowed.iter().copied().filter(|range| is_special(*range));
        let plain = without(united(allowed.clone()), &special());
        let reached = united(plain.into_iter().chain(opened).collect());
        let denied: Vec<Range> = outbound.deny.iter().copied().map(range).collect();
        Self(without(reached, &denied))
    }

    /// As the elements of a set of nftables; none when nothing is reached.
    pub(crate) fn elements(&self) -> Option<String> {
        let text = |(first, last): &Range| match (Ipv4Addr::from(*first), Ipv4Addr::from(*last)) {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        };
        let texts: Vec<String> = self.0.iter().map(text).collect();
        (!texts.is_empty()).then(|| texts.join(", "))
    }

    /// Whether some of it is in a special range.
    pub(crate) fn is_special(&self) -> bool {
        let meets = |one: Range, other: Range| one.0 <= other.1 && other.0 <= one.1;
        self.0.iter().any(|range| special().iter().any(|special| meets(*range, *special)))
    }
}

/// Special ranges, as the elements of a set of nftables.
pub(crate) fn special_elements() -> String {
    let texts: Vec<String> = SPECIAL
        .iter()
        .map(|&(base, prefix)| format!("{}/{prefix}", Ipv4Addr::from(range((base, prefix)).0)))
        .collect();
    texts.join(", ")
}

fn special() -> Vec<Range> {
    SPECIAL.iter().copied().map(range).collect()
}

/// Whether a range lies within a special one.
fn is_special(range: Range) -> bool {
    special().iter().any(|special| special.0 <= range.0 && range.1 <= special.1)
}

fn range((base, prefix): (Ipv4Addr, u8)) -> Range {
    let host = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
    (base.to_bits() & !host, base.to_bits() | host)
}

/// Sorted, with those that touch as one.
fn united(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable();
    let mut united: Vec<Range> = Vec::new();
    for range in ranges {
        match united.last_mut() {
            Some(last) if range.0 <= last.1.saturating_add(1) => last.1 = last.1.max(range.1),
            _ => united.push(range),
        }
    }
    united
}

/// What is left of disjoint ranges.
fn without(ranges: Vec<Range>, taken: &[Range]) -> Vec<Range> {
    let mut left = ranges;
    for &(first, last) in taken {
        let cut = |range: Range| {
            let before = (range.0 < first).then(|| (range.0, range.1.min(first.wrapping_sub(1))));
            let after = (range.1 > last).then(|| (range.0.max(last.wrapping_add(1)), range.1));
            before.into_iter().chain(after)
        };
        left = left.into_iter().flat_map(cut).collect();
    }
    left
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> (Ipv4Addr, u8) {
        let (address, prefix) = text.split_once('/').expect("a prefix");
        (address.parse().expect("an address"), prefix.parse().expect("a length"))
    }

    fn reach(allow: &[&str], deny: &[&str]) -> Reach {
        let nets = |texts: &[&str]| texts.iter().map(|text| net(text)).collect();
        Reach::of(&Outbound { allow: nets(allow), deny: nets(deny) })
    }

    fn has(reach: &Reach, address: &str) -> bool {
        let bits = address.parse::<Ipv4Addr>().expect("an address").to_bits();
        reach.0.iter().any(|range| (range.0..=range.1).contains(&bits))
    }

    #[test]
    fn everywhere_is_everywhere_but_special_ranges() {
        let all = reach(&[], &[]);
        for open in ["1.1.1.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.253.255.255", "223.255.255.255"]
        {
            assert!(has(&all, open), "{open}");
        }
        for closed in [
            "0.0.0.0",
            "127.0.0.1",
            "100.100.100.200",
            "168.63.129.16",
            "169.254.169.254",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "198.19.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.251",
            "255.255.255.255",
        ] {
            assert!(!has(&all, closed), "{closed}");
        }
        assert!(!all.is_special());
        assert_eq!(reach(&["0.0.0.0/0"], &[]), all, "which does not open what is special");
    }

    #[test]
    fn an_entry_within_a_special_range_opens_it_and_what_is_denied_stays_closed() {
        let metadata = reach(&["0.0.0.0/0", "169.254.169.254/32"], &["10.0.0.0/8"]);
        assert!(metadata.is_special());
        assert!(has(&metadata, "169.254.169.254") && !has(&metadata, "169.254.169.253"));
        assert!(!has(&metadata, "10.1.2.3") && has(&metadata, "11.0.0.0") && has(&metadata, "9.255.255.255"));
        let some = reach(&["10.1.0.0/16", "169.254.0.0/16"], &["10.1.2.0/24", "169.254.0.0/17"]);
        assert_eq!(
            some.elements().expect("some"),
            "10.1.0.0-10.1.1.255, 10.1.3.0-10.1.255.255, 169.254.128.0-169.254.255.255"
        );
        assert_eq!(reach(&["10.0.0.1/32"], &["10.0.0.0/8"]).elements(), None);
        assert_eq!(reach(&["10.0.0.1/32"], &[]).elements().as_deref(), Some("10.0.0.1"));
    }

    proptest! {
        #[test]
        fn an_address_is_reached_when_the_words_say_so(
            allow in proptest::collection::vec((any::<u32>(), 0..=32u8), 0..5),
            deny in proptest::collection::vec((any::<u32>(), 0..=32u8), 0..5),
            address in any::<u32>(),
            near in any::<(bool, proptest::sample::Index)>(),
        ) {
            let nets = |list: &[(u32, u8)]| -> Vec<(Ipv4Addr, u8)> {
                list.iter().map(|&(base, prefix)| (Ipv4Addr::from(base), prefix)).collect()
            };
            let outbound = Outbound { allow: nets(&allow), deny: nets(&deny) };
            // At an edge of a range half of the time, where mistakes are.
            let edges: Vec<u32> = outbound.allow.iter().chain(&outbound.deny).chain(&SPECIAL)
                .flat_map(|net| { let (first, last) = range(*net); [first, last, first.wrapping_sub(1), last.wrapping_add(1)] })
                .collect();
            let address = if near.0 { *near.1.get(&edges) } else { address };
            let within = |net: &(Ipv4Addr, u8)| { let (first, last) = range(*net); (first..=last).contains(&address) };
            let special = SPECIAL.iter().any(within);
            let allowed = outbound.allow.is_empty() && !special
                || outbound.allow.iter().any(|net| within(net) && (!special || is_special(range(*net))));
            let expected = allowed && !outbound.deny.iter().any(within);
            let reach = Reach::of(&outbound);
            prop_assert_eq!(reach.0.iter().any(|range| (range.0..=range.1).contains(&address)), expected);
            prop_assert!(reach.0.windows(2).all(|pair| pair[0].1 < pair[1].0), "{:?}", reach);
        }
    }
}
