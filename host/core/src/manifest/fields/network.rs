//! `network`: its mode, and the fields of each.

use super::super::formats::Format;
use super::super::schema::{Exclusive, Kind, Object};
use super::Presence::{Default, Optional, Required};
use super::{PORT, field};

pub(super) static NETWORK: Object = Object {
    exclusive: Exclusive::None,
    fields: &[
        field(
            "mode",
            Kind::Choice(&["isolated", "bridge", "loopback", "none"]),
            Default("isolated"),
            "`isolated`: each instance has a network of its own, with the same address inside; the host reaches \
             it at an address out of `pool`. `bridge`: each instance is a port of a bridge of the host. \
             `loopback`: each instance answers on a loopback address of the host; for VMMs whose guests share \
             it (the simulator). `none`: no network.",
        )
        .for_new_instances(),
        field(
            "pool",
            Kind::Text(Format::Ipv4Network),
            Optional,
            "Addresses of the instances, with room for `capacity.max` (the first and the last are not used). \
             Double the room lets replacements start before the old instances are gone. `isolated`: any \
             network that the host does not use, `10.213.0.0/16` without it. `bridge`: required. `loopback`: \
             required, within 127.0.0.0/8, prefix 9 to 30, without 127.0.0.1.",
        )
        .for_new_instances(),
        field("port", PORT, Default("8080"), "Port of the guests' service.").for_new_instances(),
        field(
            "guest_address",
            Kind::Text(Format::HostAddress),
            Optional,
            "`isolated`: the guest's own address with the prefix length of its network, in every instance the \
             same; `10.88.0.2/24` without it. Its gateway is the first other address.",
        )
        .for_new_instances(),
        field(
            "outbound",
            Kind::Either(&[Kind::Boolean, Kind::Object(&OUTBOUND)]),
            Optional,
            "`isolated`: guests may open connections to the host and beyond; the host must forward \
             (`net.ipv4.ip_forward=1`). `true`: everywhere but special ranges, such as 169.254.0.0/16 with the \
             cloud's metadata; a mapping: to some destinations only. `false` without it.",
        )
        .for_new_instances(),
        field(
            "published",
            Kind::Boolean,
            Optional,
            "`isolated`: others than the host may open connections to the instances' addresses, if their routes \
             lead here. `false` without it.",
        )
        .for_new_instances(),
        field(
            "bridge",
            Kind::Either(&[Kind::Text(Format::Interface), Kind::Object(&BRIDGE)]),
            Optional,
            "`bridge`, required: the name of a bridge that is there, or a mapping for one that Regatta makes and \
             removes.",
        )
        .for_new_instances(),
        field(
            "subnet",
            Kind::Text(Format::Ipv4Network),
            Optional,
            "`bridge`: the network that `pool` is a part of. Without it, the managed bridge's network, else `pool`.",
        )
        .for_new_instances(),
        field(
            "gateway",
            Kind::Text(Format::Address),
            Optional,
            "`bridge`: the guests' gateway. Without it, the managed bridge's address, else none.",
        )
        .for_new_instances(),
        field(
            "peers",
            Kind::Boolean,
            Optional,
            "`bridge`: guests may talk to each other, and to those of other sets with `peers: true` on the same \
             bridge. `false` without it: they reach the host and what else is on the bridge only.",
        )
        .for_new_instances(),
        field(
            "dns",
            Kind::Texts { of: Format::Address, max: 3 },
            Optional,
            "`isolated` and `bridge`: name servers that cloud-init tells the guests. Without it, none.",
        )
        .for_new_instances(),
    ],
};

static OUTBOUND: Object = Object {
    exclusive: Exclusive::None,
    fields: &[
        field(
            "allow",
            Kind::Texts { of: Format::Destination, max: 64 },
            Optional,
            "Only these networks. One that lies within a special range opens it: `169.254.169.254/32` does, \
             `0.0.0.0/0` does not. Without it, everywhere but special ranges.",
        )
        .for_new_instances(),
        field(
            "deny",
            Kind::Texts { of: Format::Destination, max: 64 },
            Optional,
            "Not these networks, whatever is allowed. At least one of `allow` and `deny`.",
        )
        .for_new_instances(),
    ],
};

static BRIDGE: Object = Object {
    exclusive: Exclusive::None,
    fields: &[
        field("name", Kind::Text(Format::Interface), Required, "Name of the bridge, at most 15 characters.")
            .for_new_instances(),
        field(
            "address",
            Kind::Text(Format::HostAddress),
            Required,
            "Its address with the prefix length of its network, for example `10.9.0.1/24`; the guests' gateway.",
        )
        .for_new_instances(),
    ],
};
