//! The plain-memory JSON contract of Regatta: the host writes JSON text into this module's memory and reads JSON text
//! from it. Nothing here is about the policy; it calls what `policy.zig` exports.
//!
//! An instance runs one call and is gone, so nothing is ever freed.

const std = @import("std");

/// For all that a call needs.
pub const allocator = std.heap.wasm_allocator;

/// Instances by state.
pub const Counts = struct {
    pending: u32,
    creating: u32,
    booting: u32,
    initializing: u32,
    in_service: u32,
    standby: u32,
    unhealthy: u32,
    draining: u32,
    terminating: u32,
    failed: u32,

    /// Instances on their way into service.
    pub fn warming(self: Counts) u32 {
        return self.pending + self.creating + self.booting + self.initializing;
    }
};

pub const Status = enum { fresh, stale, missing };

/// "No data" can never read as zero: look at `status` first.
pub const MetricValue = struct {
    status: Status,
    value: f64 = 0,
    age_ms: u64 = 0,
};

/// A metric folded over the instances in service.
pub const Aggregate = struct {
    name: []const u8,
    mean: MetricValue,
    sum: MetricValue,
    min: MetricValue,
    max: MetricValue,
    fresh: u32,
    stale: u32,
    missing: u32,

    /// Instances in service that it says nothing about.
    pub fn unmeasured(self: Aggregate) u32 {
        return self.stale + self.missing;
    }
};

pub const Evidence = struct { []const u8, []const u8 };

/// Why a policy decided as it did: a stable code, a sentence, and what it rests on.
pub const Reason = struct {
    code: []const u8,
    text: []const u8,
    evidence: []const Evidence = &.{},
};

pub const LastDecision = struct {
    tick: u64,
    wanted: ?u32 = null,
    granted: u32,
    reasons: []const Reason,
    narrowed_by: []const []const u8,
};

/// What a policy sees.
pub const Tick = struct {
    now_ms: u64,
    number: u64,
    set: []const u8,
    generation: u64,
    min: u32,
    max: u32,
    /// Capacity in force before this tick.
    desired: u32,
    counts: Counts,
    last: ?LastDecision = null,
    schedule: []const []const u8,
    /// Those that `describe` asked for.
    metrics: []const Aggregate,

    /// A metric that `describe` asked for, if the set has it.
    pub fn metric(self: Tick, name: []const u8) ?Aggregate {
        for (self.metrics) |one| {
            if (std.mem.eql(u8, one.name, name)) return one;
        }
        return null;
    }
};

/// What a policy wants; `State` is handed to the next `decide`.
pub fn Outcome(comptime State: type) type {
    return struct {
        capacity: u32,
        standby: ?u32 = null,
        victims: []const u32 = &.{},
        wake_after_ms: ?u64 = null,
        reasons: []const Reason = &.{},
        state: State,
    };
}

pub const MetricRequest = struct { name: []const u8, window_ms: u64 = 0 };

/// What a policy says of itself. `params_schema` is a struct that prints as the JSON schema, or a parsed value.
pub fn Manifest(comptime Schema: type) type {
    return struct {
        name: []const u8,
        version: []const u8,
        description: []const u8,
        params_schema: Schema,
        metrics: []const MetricRequest,
        state_version: u32 = 1,
    };
}

/// What is wrong with the parameters, and where (a JSON pointer).
pub const Problem = struct { path: []const u8, message: []const u8 };

pub const Level = enum(i32) { trace, debug, info, warn, err };

/// Writes a line to the record of the tick.
pub fn log(level: Level, line: []const u8) void {
    const host = struct {
        extern "regatta" fn log(level: i32, at: [*]const u8, len: usize) void;
    };
    host.log(@intFromEnum(level), line.ptr, line.len);
}

/// What JSON text says, or null when it says something else.
pub fn parse(comptime T: type, text: []const u8) ?T {
    return std.json.parseFromSliceLeaky(T, allocator, text, .{ .ignore_unknown_fields = true }) catch null;
}

/// The exports, for a policy with `State`, `describe`, `validate` and `decide`.
pub fn Exports(comptime policy: type) type {
    return struct {
        pub fn alloc(len: usize) callconv(.c) [*]u8 {
            const buffer = allocator.alloc(u8, @max(len, 1)) catch @panic("out of memory");
            return buffer.ptr;
        }

        pub fn describe() callconv(.c) i64 {
            return give(policy.describe());
        }

        pub fn validate(at: [*]const u8, len: usize) callconv(.c) i64 {
            const params = parse(std.json.Value, at[0..len]) orelse .null;
            return give(policy.validate(params));
        }

        pub fn decide(at: [*]const u8, len: usize) callconv(.c) i64 {
            const Given = struct { tick: Tick, params: std.json.Value, state: std.json.Value };
            const given = parse(Given, at[0..len]) orelse
                return give(.{ .@"error" = "the tick is not what this policy knows" });
            // A state that cannot be read counts as none.
            const state = std.json.parseFromValueLeaky(policy.State, allocator, given.state, .{}) catch policy.State{};
            return give(.{ .ok = policy.decide(given.tick, given.params, state) });
        }

        /// Address and length of the value's JSON text.
        fn give(value: anytype) i64 {
            const text = std.json.Stringify.valueAlloc(allocator, value, .{}) catch @panic("out of memory");
            return @bitCast(@as(u64, @intFromPtr(text.ptr)) << 32 | text.len);
        }
    };
}
