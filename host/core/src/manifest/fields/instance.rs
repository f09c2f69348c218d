//! `instance`: machine, disks, what the guest is told, and what contains its VMM.

use super::super::formats::Format;
use super::super::schema::{Exclusive, Field, Kind, Object};
use super::Presence::{Default, Optional, Required};
use super::{DAY, HOUR, MIB, PATH, SHA256, TIB, duration, field, integer, size};

/// Most data disks, and most shared ones, of an instance: the guest has one PCI bus of 32 slots.
const MAX_DISKS: usize = 8;

pub(super) static INSTANCE: Object = Object {
    exclusive: Exclusive::None,
    fields: &[
        field("vcpus", integer(1, 255), Default("1"), "Virtual CPUs.").for_new_instances(),
        field("memory", size(16 * MIB, 16 * TIB, MIB), Default("512MiB"), "Memory.").for_new_instances(),
        field(
            "boot_timeout",
            duration(100, DAY),
            Default("2m"),
            "From the start of the launch to the first passed health check; an instance that takes \
             longer has failed.",
        ),
        field(
            "shutdown_timeout",
            duration(0, HOUR),
            Default("30s"),
            "From the press of its power button to its end, when an instance that served is removed; one that \
             takes longer is killed. `0s` stops it at once.",
        ),
        field(
            "data_disks",
            Kind::List { of: &DATA_DISK, max: MAX_DISKS },
            Optional,
            "Disks of an instance's own that start empty, after the root disk. They go with the instance. \
             Without it, none.",
        )
        .for_new_instances(),
        field(
            "shared_disks",
            Kind::List { of: &SHARED_DISK, max: MAX_DISKS },
            Optional,
            "Disks that all instances read and none can write, after the data disks. Without it, none.",
        )
        .for_new_instances(),
        field(
            "cloud_init",
            Kind::Object(&CLOUD_INIT),
            Optional,
            "What cloud-init (or anything that reads a NoCloud seed) tells the guest: hostname, instance id, \
             network, keys, user data. Without it, nothing.",
        )
        .for_new_instances(),
        field(
            "require_isolation",
            Kind::Boolean,
            Default("false"),
            "Launches nothing where the host does not allow every measure that contains a VMM: a user of its \
             own, seccomp, cgroup limits and so on (`regatta doctor` tells). Landlock must be there, but is not \
             relied on: the VMM is asked to use it, which cannot be verified. Otherwise instances go without, \
             and say so.",
        )
        .for_new_instances(),
        field(
            "start",
            Kind::Choice(&["cold", "snapshot", "auto"]),
            Default("cold"),
            "How an instance comes to run: `cold`, it boots; `snapshot`, it continues from a snapshot of an instance \
             that was booted for this and had become healthy, and launches wait for that; `auto`, the same, but \
             instances boot until there is a snapshot. Where a snapshot cannot be made or used, they boot, and say \
             so. All but `cold` need `network.mode` `isolated` or `none`, and no `data_disks`.",
        )
        .for_new_instances(),
    ],
};

const DISK_NAME: Field = field(
    "name",
    Kind::Text(Format::DiskName),
    Required,
    "Name of the disk, also its serial number: the guest finds it as `/dev/disk/by-id/virtio-NAME`. At \
     most 20 characters, unique among the instance's disks.",
)
.for_new_instances();

static DATA_DISK: Object = Object {
    exclusive: Exclusive::None,
    fields: &[
        DISK_NAME,
        field("size", size(MIB, 64 * TIB, MIB), Required, "Size; takes up only what is written.")
            .for_new_instances(),
    ],
};

static SHARED_DISK: Object = Object { exclusive: Exclusive::None, fields: &[DISK_NAME, PATH, SHA256] };

static CLOUD_INIT: Object = Object {
    exclusive: Exclusive::None,
    fields: &[
        field(
            "seed",
            Kind::Choice(&["disk", "smbios"]),
            Default("disk"),
            "How it reaches the guest: `disk`, a small disk with the label `CIDATA`; `smbios`, instance id and \
             hostname in the serial number of the machine, the rest from `seed_url`; no network configuration, \
             so the image must read `ip=` of the kernel command line.",
        )
        .for_new_instances(),
        field(
            "user_data",
            Kind::Text(Format::UserData),
            Optional,
            "User data, at most 256 KiB; begins with `#cloud-config` or `#!`. `${regatta.X}` is replaced; X \
             is `name`, `set`, `index`, `generation`, `address` or `guest_address`. Without it, none.",
        )
        .for_new_instances(),
        field(
            "ssh_keys",
            Kind::Texts { of: Format::SshKey, max: 64 },
            Optional,
            "Public keys of the default user, as in `authorized_keys`. Without it, none.",
        )
        .for_new_instances(),
        field(
            "seed_url",
            Kind::Text(Format::Url),
            Optional,
            "With `seed: smbios`: where the guest fetches `meta-data` and `user-data`; ends with `/`. \
             `${regatta.X}` is replaced. Without it, there are none.",
        )
        .for_new_instances(),
    ],
};
