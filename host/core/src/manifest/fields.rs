//! The table of the manifest's fields: kind, default and meaning of each.

use super::formats::Format;
use super::schema::{Exclusive, Field, Kind, Object, Presence};

const fn field(name: &'static str, kind: Kind, presence: Presence, doc: &'static str) -> Field {
    Field { name, kind, presence, doc, new_instances: false }
}

impl Field {
    const fn for_new_instances(mut self) -> Self {
        self.new_instances = true;
        self
    }
}

const fn integer(min: u64, max: u64) -> Kind {
    Kind::Integer { min, max }
}

const fn duration(min_ms: u64, max_ms: u64) -> Kind {
    Kind::Duration { min_ms, max_ms }
}

const fn size(min_bytes: u64, max_bytes: u64, multiple_bytes: u64) -> Kind {
    Kind::Size { min_bytes, max_bytes, multiple_bytes }
}

use Presence::{Default, Empty, Optional, Required};

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// Most instances of one set.
pub(crate) const MAX_CAPACITY: u64 = 10_000;

/// Most data disks, and most shared ones, of an instance: the guest has one PCI bus of 32 slots.
const MAX_DISKS: usize = 8;

/// The word that every manifest begins with.
pub(crate) const VERSION: &str = "regatta/v1";

/// The whole manifest.
pub(crate) static MANIFEST: Object = Object {
    exclusive: Exclusive::None,
    fields: &[
        field("version", Kind::Choice(&[VERSION]), Required, "Version of the manifest's format."),
        field(
            "name",
            Kind::Text(Format::Name),
            Required,
            "Name of the scale set: lower-case letters, digits and `-`, at most 32 characters, \
             starting with a letter and not ending with `-`.",
        ),
        field("tick", duration(100, HOUR), Default("5s"), "Time between two decisions."),
        field("capacity", Kind::Object(&CAPACITY), Required, "How many instances."),
        field("image", Kind::Object(&IMAGE), Required, "What every instance starts from."),
        field("instance", Kind::Object(&INSTANCE), Empty, "What every instance is made of."),
        field("network", Kind::Object(&NETWORK), Empty, "How instances are reached."),
        field("health", Kind::Object(&HEALTH), Empty, "When an instance is healthy."),
        field(
            "load_balancer",
            Kind::Object(&LOAD_BALANCER),
            Optional,
            "Where the set's traffic comes in. Without it the set has no load balancer.",
        ),
        field(
            "metrics",
            Kind::List { of: &METRIC, max: 64 },
            Optional,
            "Metrics taken from the guests, beside the built-in ones. Without it there are only those.",
        ),
        field("policy", Kind::Object(&POLICY), Required, "Who decides the capacity."),
        field("guards", Kind::Object(&GUARDS), Empty, "What the host does not leave to the policy."),
        field("repair", Kind::Object(&REPAIR), Empty, "What happens to broken instances."),
    ],
};

static CAPACITY: Object = Object {
    exclusive: Exclusive::None,
    fields: &[
        field("min", integer(0, MAX_CAPACITY), Required, "Never fewer instances than this."),
        field("max", integer(1, MAX_CAPACITY), Required, "Never more instances than this."),
        field(
            "initial",
            integer(0, MAX_CAPACITY),
            Optional,
            "Instances at the first apply, from `min` to `max`. Without it, `min`.",
        ),
    ],
};

static IMAGE: Object = Object {
    exclusive: Exclusive::ExactlyOne(&["name", "kernel", "firmware"]),
    fields: &[
        field(
            "name",
            Kind::Text(Format::Name),
            Optional,
            "Name of an image that `regatta image import` has put into the host's catalogue, instead of \
             files: nothing but `overlay` and `size` may stand beside it. What the name means is settled at the apply; \
             an image imported under the same name later counts from the next apply on.",
        )
        .for_new_instances(),
        field(
            "disk",
            Kind::Either(&[Kind::Text(Format::Path), Kind::Object(&DISK)]),
            Optional,
            "The golden disk: its path, or a mapping. Without it the instances have no disk; \
             then a kernel with everything inside must do.",
        )
        .for_new_instances(),
        field(
            "kernel",
            FILE_KIND,
            Optional,
            "Kernel (PVH ELF or bzImage). Exactly one of `name`, `kernel` and `firmware`.",
        )
        .for_new_instances(),
        field("initramfs", FILE_KIND, Optional, "Initial RAM disk of the kernel. Without it, none.")
            .for_new_instances(),
        field(
            "cmdline",
            Kind::Text(Format::Cmdline),
            Optional,
            "Kernel command line, one line, at most 1,800 bytes. The host appends the address (`ip=…`). \
             Without it, empty.",
        )
        .for_new_instances(),
        field("firmware", FILE_KIND, Optional, "Firmware. Exactly one of `name`, `kernel` and `firmware`.")
            .for_new_instances(),
        field(
            "overlay",
            Kind::Choice(OVERLAYS),
            Optional,
            "How an instance's own disk is made from that of the image with this `name`, as \
             `disk.overlay`. Without it, `qcow2`.",
        )
        .for_new_instances(),
        field(
            "size",
            size(MIB, 64 * TIB, MIB),
            Optional,
            "Size of an instance's own disk on the image with this `name`, as `disk.size`. Without it, the \
             image's.",
        )
        .for_new_instances(),
    ],
};

const OVERLAYS: &[&str] = &["qcow2", "raw"];

const FILE_KIND: Kind = Kind::Either(&[Kind::Text(Format::Path), Kind::Object(&FILE)]);

const PATH: Field = field(
    "path",
    Kind::Text(Format::Path),
    Required,
    "Path of the file; a relative one counts from the manifest's directory.",
)
.for_new_instances();

const SHA256: Field = field(
    "sha256",
    Kind::Text(Format::Sha256),
    Optional,
    "SHA-256 of the file, 64 hex digits. When given, a file with another digest is refused.",
)
.for_new_instances();

static FILE: Object = Object { exclusive: Exclusive::None, fields: &[PATH, SHA256] };

static DISK: Object = Object {
    exclusive: Exclusive::None,
    fields: &[
        PATH,
        SHA256,
        field(
            "overlay",
            Kind::Choice(OVERLAYS),
            Default("qcow2"),
            "How an instance's own disk is made: `qcow2` holds the differences, `raw` is a copy \
             (reflinked where the file system can).",
        )
        .for_new_instances(),
        field(
            "size",
            size(MIB, 64 * TIB, MIB),
            Optional,
            "Size of an instance's own disk, not less than the image's. Without it, the image's. The guest \
             grows its file system itself (cloud-init does).",
        )
        .for_new_instances(),
    ],
};

static INSTANCE: Object = Object {
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
             takes longer is stopped hard. `0s` stops it at once.",
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
             own, seccomp, Landlock, cgroup limits (`regatta doctor` tells). Otherwise instances go without, \
             and say so.",
        )
        .for_new_instances(),
        field(
            "start",
            Kind::Choice(&["cold", "snapshot", "auto"]),
            Default("cold"),
            "How an instance comes to run: `cold`, it boots; `snapshot`, it goes on from a snapshot of an instance \
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

static NETWORK: Object = Object {
    exclusive: Exclusive::None,
    fields: &[
        field(
            "mode",
            Kind::Choice(&["isolated", "bridge", "loopback", "none"]),
            Default("isolated"),
            "`isolated`: each instance has a network of its own, with the same address inside; the host reaches \
             it at an address out of `pool`. `bridge`: each instance is a port of a bridge of the host. \
             `loopback`: each instance answers on a loopback address of the host; for VMMs whose guests share \
             it (the stand-in). `none`: no network.",
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
            Kind::Boolean,
            Optional,
            "`isolated`: guests may open connections beyond the host; the host must forward \
             (`net.ipv4.ip_forward=1`). `false` without it.",
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
            "dns",
            Kind::Texts { of: Format::Address, max: 3 },
            Optional,
            "`isolated` and `bridge`: name servers that cloud-init tells the guests. Without it, none.",
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

const PORT: Kind = integer(1, 65_535);

static HEALTH: Object = Object {
    exclusive: Exclusive::AtMostOne(&["http", "tcp"]),
    fields: &[
        field(
            "http",
            Kind::Either(&[Kind::Text(Format::HttpPath), Kind::Object(&HTTP_PROBE)]),
            Optional,
            "Probe by GET: a path, or a mapping; any 2xx passes. At most one of `http` and `tcp`; without \
             both an instance is in service once it has booted.",
        ),
        field(
            "tcp",
            Kind::Either(&[Kind::Boolean, Kind::Object(&TCP_PROBE)]),
            Optional,
            "Probe by TCP: `true`, or a mapping; an accepted connection passes.",
        ),
        field("interval", duration(100, HOUR), Default("5s"), "Time between two probes of an instance."),
        field(
            "timeout",
            duration(10, 5 * MINUTE),
            Default("2s"),
            "A probe without an answer by then has failed.",
        ),
        field(
            "healthy_threshold",
            integer(1, 100),
            Default("2"),
            "Passes in a row that make an instance healthy.",
        ),
        field(
            "unhealthy_threshold",
            integer(1, 100),
            Default("3"),
            "Failures in a row that make it unhealthy.",
        ),
    ],
};

static HTTP_PROBE: Object = Object {
    exclusive: Exclusive::None,
    fields: &[
        field("path", Kind::Text(Format::HttpPath), Required, "Path of the request; starts with `/`."),
        field("port", PORT, Optional, "Port. Without it, `network.port`."),
    ],
};

static TCP_PROBE: Object = Object {
    exclusive: Exclusive::None,
    fields: &[field("port", PORT, Optional, "Port. Without it, `network.port`.")],
};

static LOAD_BALANCER: Object = Object {
    exclusive: Exclusive::None,
    fields: &[
        field(
            "listen",
            Kind::Text(Format::Listen),
            Required,
            "Address and port of the TCP listener, for example `0.0.0.0:80` or `[::]:80`.",
        ),
        field(
            "drain_timeout",
            duration(0, HOUR),
            Default("30s"),
            "How long the connections of an instance that is being removed may go on; then they are cut.",
        ),
        field(
            "max_connections",
            integer(1, 1_000_000),
            Default("10000"),
            "Connections at once, over all instances; more are refused.",
        ),
    ],
};

static METRIC: Object = Object {
    exclusive: Exclusive::None,
    fields: &[
        field(
            "name",
            Kind::Text(Format::MetricName),
            Required,
            "Name under which policies see it: lower-case letters, digits and `_`, at most 64 \
             characters, starting with a letter; not the name of a built-in metric.",
        ),
        field(
            "series",
            Kind::Text(Format::SeriesName),
            Required,
            "Name of the series in the guest's Prometheus text, for example `guest_utilization`.",
        ),
        field(
            "path",
            Kind::Text(Format::HttpPath),
            Default("/metrics"),
            "Path of the guest's Prometheus text.",
        ),
        field("rate", Kind::Boolean, Default("false"), "Turns a counter into its rate per second."),
    ],
};

static POLICY: Object = Object {
    exclusive: Exclusive::None,
    fields: &[
        field(
            "module",
            Kind::Text(Format::Module),
            Required,
            "The policy: a name that is looked up in the policy directories, or the path of a `.wasm` \
             file; a relative one counts from the manifest's directory.",
        ),
        field(
            "params",
            Kind::Json,
            Optional,
            "Parameters of the policy, at most 64 KiB as JSON; the policy itself checks them. Without it, \
             `{}`.",
        ),
        field("limits", Kind::Object(&LIMITS), Empty, "What one decision may cost."),
    ],
};

static LIMITS: Object = Object {
    exclusive: Exclusive::None,
    fields: &[
        field(
            "fuel",
            integer(10_000, 1_000_000_000_000),
            Default("50000000"),
            "Fuel: roughly, Wasm instructions.",
        ),
        field("deadline", duration(1, 10 * SECOND), Default("100ms"), "Wall clock; at most `tick`."),
        field("memory", size(64 * KIB, 4 * GIB, 64 * KIB), Default("64MiB"), "Linear memory."),
        field(
            "output",
            size(KIB, 16 * MIB, 1),
            Default("256KiB"),
            "State, reasons and victims of one outcome together.",
        ),
        field("log_lines", integer(0, 10_000), Default("100"), "Lines that it may log."),
    ],
};

static GUARDS: Object = Object {
    exclusive: Exclusive::None,
    fields: &[
        field(
            "on_failure",
            Kind::Either(&[Kind::Choice(&["hold"]), Kind::Object(&STATIC)]),
            Default("hold"),
            "When the policy gives no decision: `hold` keeps the size, `{ static: N }` goes to N if that is \
             larger. Never a scale-in.",
        ),
        field(
            "missing_data",
            Kind::Either(&[Kind::Choice(&["no-scale-in", "hold", "ignore"]), Kind::Object(&DEFAULT)]),
            Default("no-scale-in"),
            "When a metric that the policy wants has no fresh value: `no-scale-in` allows only scale-out, \
             `hold` keeps the size, `{ default: N }` goes to N if that is larger, `ignore` leaves it to \
             the policy.",
        ),
    ],
};

static STATIC: Object = Object {
    exclusive: Exclusive::None,
    fields: &[field(
        "static",
        integer(0, MAX_CAPACITY),
        Required,
        "Size to go to, from `capacity.min` to `capacity.max`.",
    )],
};

static DEFAULT: Object = Object {
    exclusive: Exclusive::None,
    fields: &[field(
        "default",
        integer(0, MAX_CAPACITY),
        Required,
        "Size to go to, from `capacity.min` to `capacity.max`.",
    )],
};

static REPAIR: Object = Object {
    exclusive: Exclusive::None,
    fields: &[
        field(
            "enabled",
            Kind::Boolean,
            Default("true"),
            "Replace unhealthy instances. Failed ones are always removed.",
        ),
        field("grace", duration(0, DAY), Default("10s"), "How long an instance may be unhealthy first."),
        field(
            "max_percent",
            integer(1, 100),
            Default("5"),
            "Share of the capacity that is repaired at once, percent; at least one instance.",
        ),
    ],
};
