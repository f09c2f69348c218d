//! The table of the manifest's fields: kind, default and meaning of each. A `section!` is also their type, reader and
//! writer.

use std::net::SocketAddr;

use super::export::{self, Tree};
use super::formats::Format;
use super::rate_limit::RateLimit;
use super::report::Invalid;
use super::schema::{Exclusive, Field, Kind, Object, Presence};
use super::section::{Item, Section};
use super::types::{
    Checkpoint, DrainMode, DrainPolicy, FlapRule, MaxCost, MissingData, OnFailure, Probe, RepairAction,
    UpgradeMode,
};
use super::value_range::ValueRange;
use crate::plan::ScaleInOrder;

const fn field(name: &'static str, kind: Kind, presence: Presence, doc: &'static str) -> Field {
    Field { name, kind, presence, doc, new_instances: false }
}

impl Field {
    const fn for_new_instances(mut self) -> Self {
        self.new_instances = true;
        self
    }
}

const fn boolean() -> Kind {
    Kind::Boolean
}

const fn integer(min: u64, max: u64) -> Kind {
    Kind::Integer { min, max }
}

const fn integer_u64(min: u64, max: u64) -> Kind {
    integer(min, max)
}

const fn duration(min_ms: u64, max_ms: u64) -> Kind {
    Kind::Duration { min_ms, max_ms }
}

const fn range() -> Kind {
    Kind::Range
}

const fn size(min_bytes: u64, max_bytes: u64, multiple_bytes: u64) -> Kind {
    Kind::Size { min_bytes, max_bytes, multiple_bytes }
}

mod instance;
mod network;
mod section_macro;

use Kind::{Choice, Either, Text};
use Presence::{Default, Empty, Optional, Required};
use instance::INSTANCE;
use network::NETWORK;
use section_macro::{default_doc, kind, presence, section};

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

/// The word that every manifest begins with.
pub(crate) const VERSION: &str = "regatta/v1";

/// The whole manifest.
pub(crate) static MANIFEST: Object = Object {
    exclusive: Exclusive::ExactlyOne(&["policy", "policies"]),
    fields: &[
        field("version", Kind::Choice(&[VERSION]), Required, "Version of the manifest's format."),
        field(
            "name",
            Kind::Text(Format::Name),
            Required,
            "Name of the scale set: lower-case letters, digits and `-`, at most 32 characters, \
             starting with a letter and not ending with `-`.",
        ),
        field("tick", duration(20, HOUR), Default("5s"), "Time between two decisions."),
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
        field(
            "policy",
            Kind::Object(&POLICY),
            Optional,
            "Who decides the capacity. Exactly one of `policy` and `policies`.",
        ),
        field(
            "policies",
            Kind::List { of: &POLICY, max: 16 },
            Optional,
            "Several policies, each with its own parameters and limits; `combine` makes one decision of theirs.",
        ),
        field(
            "combine",
            Kind::Choice(&["any-out-all-in", "max", "min", "first"]),
            Default("any-out-all-in"),
            "How the decisions of several policies become one. `any-out-all-in`: any may scale out, all must agree \
             to scale in, the largest wins; `max`, `min`: the largest, the smallest; `first`: that of the first \
             policy that gave one. A policy that failed abstains; with `any-out-all-in` nothing scales in then.",
        ),
        field(
            "schedules",
            Kind::List { of: &SCHEDULE, max: 128 },
            Optional,
            "Times at which other limits count, a capacity is gone to, or nothing is removed.",
        ),
        field("guards", Kind::Object(&GUARDS), Empty, "What the host does not leave to the policy."),
        field("repair", Kind::Object(&REPAIR), Empty, "What happens to broken instances."),
        field(
            "upgrade",
            Kind::Object(&UPGRADE),
            Empty,
            "How instances follow the manifest when a field that is read when an instance is made (↻), or the content of \
             its image, has changed.",
        ),
        field("scale_in", Kind::Object(&SCALE_IN), Empty, "Which instances a scale-in removes."),
    ],
};

static SCHEDULE: Object = Object {
    exclusive: Exclusive::ExactlyOne(&["cron", "start"]),
    fields: &[
        field("name", Kind::Text(Format::Name), Required, "Its name, unique among the entries."),
        field(
            "cron",
            Kind::Text(Format::Cron),
            Optional,
            "When it begins, again and again: minute, hour, day of month, month and day of week, as in crontab(5). Needs \
             `duration`. Exactly one of `cron` and `start`.",
        ),
        field(
            "duration",
            duration(MINUTE, 366 * DAY),
            Optional,
            "How long it lasts after each beginning. Only with `cron`.",
        ),
        field(
            "start",
            Kind::Text(Format::Moment),
            Optional,
            "When it begins, once: RFC 3339, or a local time without an offset. Needs `end`.",
        ),
        field("end", Kind::Text(Format::Moment), Optional, "When it ends. Only with `start`."),
        field(
            "time_zone",
            Kind::Text(Format::TimeZone),
            Default("UTC"),
            "IANA time zone of `cron` and of local times. A local time that the clock skips counts after the gap; one that \
             comes twice counts the first time.",
        ),
        field(
            "min",
            integer(0, MAX_CAPACITY),
            Optional,
            "Least capacity meanwhile, instead of `capacity.min`. Where entries overlap, the largest counts.",
        ),
        field(
            "max",
            integer(1, MAX_CAPACITY),
            Optional,
            "Greatest capacity meanwhile, instead of `capacity.max`. Where entries overlap, the largest counts.",
        ),
        field(
            "capacity",
            integer(0, MAX_CAPACITY),
            Optional,
            "Capacity to go to once, when it begins; policies go on from there. Where entries begin together, the largest \
             counts.",
        ),
        field(
            "freeze",
            Kind::Boolean,
            Default("false"),
            "Nothing that serves is removed meanwhile: no scale-in, no repair, no roll-out.",
        ),
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

const PORT: Kind = integer(1, 65_535);

section! {
    /// When an instance is healthy.
    Health, HEALTH: Exclusive::AtMostOne(&["http", "tcp"]);
    several {
        /// What is asked; none takes an instance into service once it has booted.
        probe: Option<Probe> => export::probe, [
            field(
                "http",
                Kind::Either(&[Kind::Text(Format::HttpPath), Kind::Object(&HTTP_PROBE)]),
                Optional,
                "Probe by GET: a path, or a mapping; any 2xx passes. At most one of `http` and `tcp`; without \
                 both an instance is in service once it has booted."
            ),
            field(
                "tcp",
                Kind::Either(&[Kind::Boolean, Kind::Object(&TCP_PROBE)]),
                Optional,
                "Probe by TCP: `true`, or a mapping; an accepted connection passes."
            )
        ];
    }
    /// Time between two probes of an instance.
    interval_ms, "interval": duration(100, HOUR) = "5s";
    /// A probe without an answer by then has failed.
    timeout_ms, "timeout": duration(10, 5 * MINUTE) = "2s";
    /// Passes in a row that make an instance healthy.
    healthy_threshold, "healthy_threshold": integer(1, 100) = "2";
    /// Failures in a row that make it unhealthy.
    unhealthy_threshold, "unhealthy_threshold": integer(1, 100) = "3";
}

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

section! {
    /// Where the set's traffic comes in.
    LoadBalancer, LOAD_BALANCER: Exclusive::None;
    /// Address and port of the TCP listener, for example `0.0.0.0:80` or `[::]:80`.
    listen: SocketAddr => export::address, "listen": Text(Format::Listen);
    /// How long the connections of an instance that is being removed may stay; then they are cut.
    drain: DrainPolicy => export::drain, "drain_timeout": duration(0, HOUR) = "30s";
    /// What happens meanwhile to a connection on which nothing moves and no answer is owed: `wait` leaves it open until
    /// `drain_timeout`, `idle` closes it after 0.2s, so that removals take less time. With `idle`, a request that is
    /// just being sent on a kept-alive connection may be lost.
    #[serde(default)]
    drain_mode: DrainMode => export::drain_mode, "drain": Choice(&["wait", "idle"]) = "wait";
    /// A connection on which nothing moves for this long is closed, up to a sixteenth of it (at most 15s) later.
    #[serde(default = "super::types::default_idle_timeout_ms")]
    idle_timeout_ms, "idle_timeout": duration(SECOND, DAY) = "5m";
    /// How long a connection waits for an instance while none is in service; then it is closed. A set with `min: 0` starts
    /// its first instance meanwhile, so this must be longer than an instance takes to boot.
    #[serde(default = "super::types::default_queue_timeout_ms")]
    queue_timeout_ms, "queue_timeout": duration(0, HOUR) = "30s";
    /// Connections at once, over all instances; more are reset at once.
    max_connections, "max_connections": integer(1, 1_000_000) = "10000";
    /// When less than this share of the instances that should serve is healthy, percent, connections go to the
    /// unhealthy as well. `0` never does.
    #[serde(default)]
    panic_threshold_percent, "panic_threshold": integer(0, 100) = "50";
}

section! {
    /// A metric taken from the guests' Prometheus text.
    GuestMetric, METRIC: Exclusive::None;
    /// Name under which policies see it: lower-case letters, digits and `_`, at most 64
    /// characters, starting with a letter; not the name of a built-in metric.
    name: String => export::text, "name": Text(Format::MetricName);
    /// Name of the series in the guest's Prometheus text, for example `guest_utilization`.
    series, "series": Text(Format::SeriesName);
    /// Path of the guest's Prometheus text.
    path, "path": Text(Format::HttpPath) = "/metrics";
    /// Turns a counter into its rate per second.
    rate, "rate": boolean() = "false";
    /// Lowest and highest value that count, of a `rate` per second. An instance that shows another one counts as one without
    /// a value, and is named. Without it, every value counts.
    #[serde(default)]
    range: ValueRange => export::range, "range": range() = none;
}

static POLICY: Object = Object {
    exclusive: Exclusive::None,
    fields: &[
        field(
            "name",
            Kind::Text(Format::Name),
            Optional,
            "What the set calls it, in records and for `regatta policy swap`. Without it, the name of the module, or of the policy that it replaces.",
        ),
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
        field(
            "follow",
            Kind::Boolean,
            Default("false"),
            "Another file in the place of the module takes over by itself, checked and tried as by `regatta policy swap`, \
             wherever the file is.",
        ),
    ],
};

section! {
    /// What one decision may cost.
    #[derive(Copy)]
    PolicyLimits, LIMITS: Exclusive::None;
    /// Fuel: roughly, Wasm instructions.
    fuel, "fuel": integer_u64(10_000, 1_000_000_000_000) = "50000000";
    /// Wall clock; at most `tick`. Without it, 100ms, or `tick` when that is shorter.
    deadline_ms: u64 => export::deadline, "deadline": duration(1, 10 * SECOND) = none;
    /// Linear memory.
    memory_bytes, "memory": size(64 * KIB, 4 * GIB, 64 * KIB) = "64MiB";
    /// State, reasons and victims of one outcome together.
    output_bytes, "output": size(KIB, 16 * MIB, 1) = "256KiB";
    /// Lines that it may log.
    log_lines, "log_lines": integer(0, 10_000) = "100";
    /// Least time from a tick to the next that it may ask for; it counts for less. Every tick is one write to the disk.
    #[serde(default = "super::types::default_wake_after_ms")]
    wake_after_ms, "wake_after": duration(20, HOUR) = "1s";
    /// Elements of all its tables (of functions) together.
    #[serde(default = "super::types::default_table_elements")]
    table_elements, "table": integer(1, 1_000_000) = "100000";
}

section! {
    /// What the host does not leave to the policy.
    #[derive(Default)]
    Guards, GUARDS: Exclusive::None;
    /// When the policy gives no decision: `hold` keeps the size, `{ static: N }` goes to N if that is
    /// larger. Never a scale-in.
    on_failure: OnFailure => export::on_failure,
        "on_failure": Either(&[Kind::Choice(&["hold"]), Kind::Object(&STATIC)]) = "hold";
    /// When a metric that the policy wants has no fresh value: `no-scale-in` allows only scale-out,
    /// `hold` keeps the size, `{ default: N }` goes to N if that is larger, `ignore` leaves it to
    /// the policy.
    missing_data: MissingData => export::missing_data, "missing_data": Either(&[
        Kind::Choice(&["no-scale-in", "hold", "ignore"]),
        Kind::Object(&DEFAULT)
    ]) = "no-scale-in";
    /// For so long after an instance came into service, its `cpu` and the metrics that it reports do not count, and
    /// after the daemon was away nothing is scaled in. Without it, 6 ticks. `0s` lets everything count.
    #[serde(default)]
    warm_up_ms: u64 => export::millis, "warm_up": duration(0, HOUR) = none;
    /// Scale in only to the largest capacity that the policies wanted within this time, as the Kubernetes HPA's
    /// stabilization window does. Without it, 20 ticks, at least 10s. `0s` lets every scale-in pass.
    #[serde(default)]
    scale_in_stabilization_ms: u64 => export::millis, "scale_in_stabilization": duration(0, DAY) = none;
    /// How far a set may scale out within a period; `none` for no limit. Without it,
    /// `{ percent: 100, count: 4 }`: per tick, at most twice the size or 4 more.
    #[serde(default)]
    scale_out_limit: RateLimit => export::rate_limit,
        "scale_out_limit": Either(&[Kind::Choice(&["none"]), Kind::Object(&RATE_LIMIT)]) = none;
    /// How far a set may scale in within a period; `none` for no limit. Without it,
    /// `{ percent: 50, count: 4 }`: per tick, at most half the size or 4 less.
    #[serde(default)]
    scale_in_limit: RateLimit => export::rate_limit,
        "scale_in_limit": Either(&[Kind::Choice(&["none"]), Kind::Object(&RATE_LIMIT)]) = none;
    /// Changes of at most this share of the size are not made, percent. `0` makes every change.
    #[serde(default)]
    tolerance_percent, "tolerance": integer(0, 100) = "0";
    /// From one scale-out to the next one.
    #[serde(default)]
    scale_out_cooldown_ms, "scale_out_cooldown": duration(0, DAY) = "0s";
    /// From any change of the size, whoever made it, to a scale-in.
    #[serde(default)]
    scale_in_cooldown_ms, "scale_in_cooldown": duration(0, DAY) = "0s";
    /// Scale in only so far that none of these metrics, shared by fewer instances, would be above where the policy scales out: Azure's
    /// guard against flapping. Without it, none.
    #[serde(default)]
    flapping: Vec<FlapRule> => export::flapping, "flapping": flap_rules() = none;
    /// Scale out only to what the set may cost; `none` for no limit. Nothing is removed for its price. Without it, `none`.
    #[serde(default)]
    max_cost: Option<MaxCost> => export::max_cost,
        "max_cost": Either(&[Kind::Choice(&["none"]), Kind::Object(&MAX_COST)]) = none;
}

const fn flap_rules() -> Kind {
    Kind::List { of: &FLAP_RULE, max: 16 }
}

static FLAP_RULE: Object = Object {
    exclusive: Exclusive::None,
    fields: &[
        field(
            "metric",
            Kind::Text(Format::WantedMetric),
            Required,
            "A metric of instances: one of `metrics`, or a built-in one.",
        ),
        field("above", Kind::Positive, Required, "Where the policy scales out."),
    ],
};

static MAX_COST: Object = Object {
    exclusive: Exclusive::None,
    fields: &[
        field(
            "per_instance_hour",
            Kind::Positive,
            Required,
            "Price of an instance for an hour, in any currency.",
        ),
        field("per_hour", Kind::Positive, Required, "What the set may cost in an hour, in the same one."),
    ],
};

static RATE_LIMIT: Object = Object {
    exclusive: Exclusive::None,
    fields: &[
        field(
            "percent",
            integer(0, 1_000),
            Required,
            "Share of the size, percent. The share or `count`, whichever is more.",
        ),
        field("count", integer(1, MAX_CAPACITY), Required, "Instances."),
        field("per", duration(1, DAY), Optional, "The period. Without it, one `tick`."),
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

section! {
    /// Which instances a scale-in removes.
    #[derive(Copy, Default)]
    ScaleIn, SCALE_IN: Exclusive::None;
    /// Which instances go first. In every order instances that are not in service yet go before unhealthy ones, and these
    /// before those that serve; fault domains stay balanced; the policy's preferred victims go before the others of
    /// their fault domain. What is left is decided by: `default`: the oldest generation, then the newest instance; `oldest`,
    /// `newest`: the age of instances; `unhealthy-first`: as `default`, but unhealthy instances go before those that are
    /// not in service yet; `least-busy`: the fewest open connections at the load balancer, then as `default`.
    order: ScaleInOrder => export::scale_in_order, "order": Choice(SCALE_IN_ORDERS) = "default";
}

const SCALE_IN_ORDERS: &[&str] = &["default", "oldest", "newest", "unhealthy-first", "least-busy"];

section! {
    /// What happens to broken instances.
    #[derive(Copy)]
    Repair, REPAIR: Exclusive::None;
    /// Replace unhealthy instances. Failed ones are always removed.
    enabled, "enabled": boolean() = "true";
    /// What is done to an unhealthy instance: `replace` removes it, and another takes its place; `restart` resets its VM, which
    /// keeps number, address and disks.
    #[serde(default)]
    action: RepairAction => export::repair_action, "action": Choice(&["replace", "restart"]) = "replace";
    /// How long an instance may be unhealthy first.
    grace_ms, "grace": duration(0, DAY) = "10s";
    /// Share of the capacity that is repaired at once, percent; at least one instance.
    max_percent, "max_percent": integer(1, 100) = "5";
    /// When more than this share of the instances that should serve is unhealthy, percent, and more than one, repair
    /// waits: that is rather a fault of the host, the network or the probe. `100` never waits.
    #[serde(default = "super::types::all_percent")]
    max_unhealthy_percent, "max_unhealthy": integer(1, 100) = "50";
    /// For this long after a manifest replaced another, instances that became unhealthy since stay: that is rather a
    /// fault of the new manifest.
    #[serde(default)]
    hold_after_apply_ms, "hold_after_apply": duration(0, DAY) = "1m";
}

const fn checkpoints() -> Kind {
    Kind::List { of: &CHECKPOINT, max: 20 }
}

static CHECKPOINT: Object = Object {
    exclusive: Exclusive::None,
    fields: &[
        field("percent", integer(1, 100), Required, "Share of the outdated instances, percent, rounded up."),
        field("bake", duration(0, 30 * DAY), Required, "For how long the upgrade waits there."),
    ],
};

section! {
    /// How running instances are replaced when what they are made of has changed.
    UpgradePolicy, UPGRADE: Exclusive::None;
    /// `manual`: only new instances are made from the new manifest; `regatta upgrade start` replaces the others. `rolling`: an apply
    /// replaces outdated instances batch by batch. `all-at-once`: it replaces them all at once, whatever that does to
    /// the service.
    mode: UpgradeMode => export::upgrade_mode, "mode": Choice(&["manual", "rolling", "all-at-once"]) = "manual";
    /// Instances of one batch, percent of the outdated ones; at least one.
    max_batch_percent, "max_batch": integer(1, 100) = "20";
    /// Instances beyond the capacity while a batch is replaced, percent of the capacity, rounded up. `0` makes none.
    max_surge_percent, "max_surge": integer(0, 100) = "20";
    /// Instances that may be missing from service while a batch is replaced, percent of the capacity, rounded down.
    max_unavailable_percent, "max_unavailable": integer(0, 100) = "0";
    /// While more than this share of the set is unhealthy, percent, no healthy instance is replaced.
    max_unhealthy_percent, "max_unhealthy": integer(0, 100) = "20";
    /// When more than this share of the new instances has failed or is unhealthy, percent, the upgrade has failed.
    max_unhealthy_upgraded_percent, "max_unhealthy_upgraded": integer(0, 100) = "20";
    /// Time from the end of a batch, when all of its instances are in service, to the next one.
    pause_ms, "pause": duration(0, DAY) = "0s";
    /// Where the upgrade waits longer, to see how the new instances do. A canary is a first checkpoint with a small share. Without it, nowhere.
    checkpoints: Vec<Checkpoint> => export::checkpoints, "checkpoints": checkpoints() = none;
    /// Go back to the instance model from before when the upgrade has failed. Otherwise it pauses.
    rollback, "rollback": boolean() = "true";
}
