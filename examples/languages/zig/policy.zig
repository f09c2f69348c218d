//! Policy `tolerant-target`: keeps a metric at its target, within a tolerance.
//!
//! Scales out at once, scales in only when the metric was below its target for three ticks in a row and nothing is
//! warming up.

const std = @import("std");
const regatta = @import("regatta.zig");
const Problem = regatta.Problem;

/// Ticks in a row below the target before it scales in.
const patience = 3;
/// What rounding may add to a quotient of floats; it must not cost an instance.
const rounding = 1e-9;
/// The host refuses more instances than this.
const max_capacity = 1_000_000;

/// What is carried from one tick to the next.
pub const State = struct { streak: u32 = 0 };

const Outcome = regatta.Outcome(State);

const schema = .{
    .type = "object",
    .properties = .{
        .metric = .{
            .type = "string",
            .minLength = 1,
            .description = "Name of the metric. It must fall when instances are added.",
        },
        .target = .{ .type = "number", .exclusiveMinimum = 0, .description = "Value to keep per instance." },
        .tolerance = .{
            .type = "number",
            .minimum = 0,
            .maximum = 1,
            .default = 0.1,
            .description = "Deviation from the target that is left alone, as a share of it.",
        },
    },
    .required = .{ "metric", "target" },
    .additionalProperties = false,
};

pub fn describe() regatta.Manifest(@TypeOf(schema)) {
    return .{
        .name = "tolerant-target",
        .version = "1.0.0",
        .description = "Keeps a metric at its target, within a tolerance.",
        .params_schema = schema,
        // A name that starts with `/` points at the parameter that holds the name.
        .metrics = &.{.{ .name = "/metric" }},
    };
}

/// All problems at once; none means that the parameters are valid.
pub fn validate(params: std.json.Value) []const Problem {
    const object = switch (params) {
        .object => |object| object,
        else => return &.{.{ .path = "", .message = "must be an object" }},
    };
    var problems: std.ArrayList(Problem) = .empty;
    for (object.keys()) |name| {
        const known = std.mem.eql(u8, name, "metric") or std.mem.eql(u8, name, "target") or
            std.mem.eql(u8, name, "tolerance");
        require(&problems, known, "", "there is an unknown parameter");
    }
    require(&problems, object.contains("metric"), "", "missing parameter metric");
    require(&problems, object.contains("target"), "", "missing parameter target");
    const read = Params.read(params);
    const metric_ok = !object.contains("metric") or read.metric.len > 0;
    require(&problems, metric_ok, "/metric", "must name a metric");
    // What is no number is NaN, and NaN is not above 0.
    const target_ok = !object.contains("target") or read.target > 0;
    require(&problems, target_ok, "/target", "must be a number above 0");
    const tolerance_ok = read.tolerance >= 0 and read.tolerance <= 1;
    require(&problems, tolerance_ok, "/tolerance", "must be a number from 0 to 1");
    return problems.items;
}

fn require(problems: *std.ArrayList(Problem), ok: bool, path: []const u8, message: []const u8) void {
    if (!ok) problems.append(regatta.allocator, .{ .path = path, .message = message }) catch @panic("out of memory");
}

/// The parameters; one of the wrong kind is empty, or NaN.
const Params = struct {
    metric: []const u8,
    target: f64,
    tolerance: f64,

    fn read(params: std.json.Value) Params {
        const object = params.object;
        const metric = object.get("metric") orelse .null;
        return .{
            .metric = if (metric == .string) metric.string else "",
            .target = number(object.get("target") orelse .null),
            .tolerance = number(object.get("tolerance") orelse .{ .float = 0.1 }),
        };
    }

    fn number(value: std.json.Value) f64 {
        return switch (value) {
            .integer => |integer| @floatFromInt(integer),
            .float => |float| float,
            // A number of more digits than an integer has.
            .number_string => |text| std.fmt.parseFloat(f64, text) catch std.math.nan(f64),
            else => std.math.nan(f64),
        };
    }
};

pub fn decide(tick: regatta.Tick, given: std.json.Value, state: State) Outcome {
    const params = Params.read(given);
    const nothing = wants(tick.desired, 0, "no-data", "there is nothing to go by", null);
    // Never act on no data: it is not the same as no load.
    const metric = tick.metric(params.metric) orelse return nothing;
    if (metric.sum.status != .fresh or tick.counts.in_service == 0 or tick.desired == 0) return nothing;

    // How many instances the measured load needs. Those that were never measured, as they have just come into service,
    // take their load from the others: to count them as busy would ask for that load twice.
    const desired: f64 = @floatFromInt(tick.desired);
    const measured = metric.sum.value / params.target;
    if (measured / desired - 1 > params.tolerance + rounding) {
        return wants(whole(measured), 0, "above-target", "the load is above its target", measured);
    }

    // Towards a scale-in they count as busy.
    const demand = measured + @as(f64, @floatFromInt(metric.unmeasured()));
    if (1 - demand / desired <= params.tolerance + rounding) {
        return wants(tick.desired, 0, "within-tolerance", "the load is close to its target", demand);
    }
    const streak = @min(state.streak +| 1, patience);
    if (streak < patience or tick.counts.warming() > 0) {
        return wants(tick.desired, streak, "waiting", "the load may come back", demand);
    }
    return wants(whole(demand), 0, "below-target", "the load is below its target", demand);
}

fn wants(capacity: u32, streak: u32, code: []const u8, text: []const u8, demand: ?f64) Outcome {
    const reasons = regatta.allocator.alloc(regatta.Reason, 1) catch @panic("out of memory");
    reasons[0] = .{ .code = code, .text = text };
    if (demand) |number| {
        const evidence = regatta.allocator.alloc(regatta.Evidence, 1) catch @panic("out of memory");
        evidence[0] = .{ "demand", std.fmt.allocPrint(regatta.allocator, "{d:.3}", .{number}) catch "?" };
        reasons[0].evidence = evidence;
    }
    return .{ .capacity = capacity, .reasons = reasons, .state = .{ .streak = streak } };
}

/// Whole instances for a demand: at least one, and no more than a host accepts.
fn whole(demand: f64) u32 {
    return @intFromFloat(@ceil(@min(@max(demand - rounding, 1), max_capacity)));
}

comptime {
    const exports = regatta.Exports(@This());
    @export(&exports.alloc, .{ .name = "regatta_alloc" });
    @export(&exports.describe, .{ .name = "regatta_describe" });
    @export(&exports.validate, .{ .name = "regatta_validate" });
    @export(&exports.decide, .{ .name = "regatta_decide" });
}

/// A panic ends up in the log of the tick, and traps.
pub const panic = std.debug.FullPanic(struct {
    fn panic(message: []const u8, _: ?usize) noreturn {
        regatta.log(.err, message);
        @trap();
    }
}.panic);
