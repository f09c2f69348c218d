/// Policy `tolerant-target`: keeps a metric at its target, within a tolerance.
///
/// Scales out at once, scales in only when the metric was below its target for three ticks in a row and nothing is
/// warming up.
module policy;

import json : Json;
import regatta;

@nogc nothrow:

enum patience = 3; /// Ticks in a row below the target before it scales in.
enum rounding = 1e-9; /// What rounding may add to a quotient of floats; it must not cost an instance.
enum maxCapacity = 1e6; /// The host refuses more instances than this.

Manifest describe() {
    // A name that starts with `/` points at the parameter that holds the name.
    __gshared MetricRequest[1] metrics;
    metrics[0] = MetricRequest(Str("/metric"), 0);
    Manifest manifest = {
        name: Str("tolerant-target"),
        version_: Str("1.0.0"),
        description: Str("Keeps a metric at its target, within a tolerance."),
        paramsSchema: Str(import("params.schema.json")),
        metrics: List!MetricRequest(metrics[]),
        stateVersion: 1,
    };
    return manifest;
}

struct Params { const(char)[] metric; double target = 0; double tolerance = 0.1; }

/// Reads the parameters; all problems at once.
List!Problem parse(const(char)[] text, out Params to) {
    __gshared Problem[8] problems;
    size_t found;
    void require(bool ok, string path, string message) {
        if (!ok && found < problems.length) problems[found++] = Problem(Str(path), Str(message));
    }
    bool hasMetric, hasTarget;
    auto json = Json(text);
    require(json.peek() == '{', "", "must be an object");
    for (const(char)[] name; json.member(name);) {
        // What is of the wrong kind stays as it is here, and is not valid.
        switch (name) {
        case "metric":
            hasMetric = true;
            if (!json.text(to.metric)) json.skip();
            require(to.metric.length > 0, "/metric", "must name a metric");
            break;
        case "target":
            hasTarget = true;
            if (!json.number(to.target)) json.skip();
            require(to.target > 0, "/target", "must be a number above 0");
            break;
        case "tolerance":
            if (!json.number(to.tolerance)) { json.skip(); to.tolerance = -1; }
            require(to.tolerance >= 0 && to.tolerance <= 1, "/tolerance", "must be a number from 0 to 1");
            break;
        default:
            json.skip();
            require(false, "", "there is an unknown parameter");
        }
    }
    require(hasMetric, "", "missing parameter metric");
    require(hasTarget, "", "missing parameter target");
    return List!Problem(problems[0 .. found]);
}

List!Problem validate(const(char)[] params) {
    Params ignored;
    return parse(params, ignored);
}

/// Whole instances for a demand: at least one, and no more than a host accepts.
uint whole(double demand) {
    const exact = demand - rounding;
    return cast(uint) ceil(exact < 1 ? 1 : exact > maxCapacity ? maxCapacity : exact);
}

/// The outcome with one reason; the streak is the whole state.
Decision wants(uint capacity, ubyte streak, string code, string text, const double* demand = null) {
    __gshared ubyte[1] state;
    __gshared char[400] number;
    __gshared Evidence[1] evidence;
    __gshared Reason[1] reasons;
    state[0] = streak;
    if (demand !is null) {
        const length = snprintf(number.ptr, number.length, "%.3f", *demand);
        evidence[0] = Evidence(Str("demand"), Str(number[0 .. length]));
    }
    reasons[0] = Reason(Str(code), Str(text), List!Evidence(evidence[0 .. demand !is null]));
    Decision decision;
    decision.outcome = Outcome.init;
    decision.outcome.capacity = capacity;
    decision.outcome.reasons = List!Reason(reasons[]);
    decision.outcome.state = List!ubyte(state[]);
    return decision;
}

Decision decide(ref const Tick tick, const(char)[] text, const(ubyte)[] state) {
    Params params;
    parse(text, params);
    const desired = tick.desired;
    // A state that cannot be read counts as none.
    ubyte streak = state.length == 1 && state[0] <= patience ? state[0] : 0;

    const(Aggregate)* metric;
    foreach (ref one; tick.metrics[]) if (one.name[] == params.metric) metric = &one;
    // Never act on no data: it is not the same as no load.
    const known = metric !is null && metric.sum.status == Freshness.fresh && metric.sum.value - metric.sum.value == 0;
    if (!known || tick.counts.inService == 0 || desired == 0)
        return wants(desired, 0, "no-data", "there is nothing to go by");

    // How many instances the measured load needs. Those that were never measured, as they have just come into service,
    // take their load from the others: to count them as busy would ask for that load twice.
    double demand = metric.sum.value / params.target;
    if (demand / desired - 1 > params.tolerance + rounding)
        return wants(whole(demand), 0, "above-target", "the load is above its target", &demand);

    // Towards a scale-in they count as busy.
    demand += metric.stale + metric.missing;
    if (1 - demand / desired <= params.tolerance + rounding)
        return wants(desired, 0, "within-tolerance", "the load is close to its target", &demand);
    if (streak < patience) streak++;
    const warming = tick.counts.pending + tick.counts.creating + tick.counts.booting + tick.counts.initializing;
    if (streak < patience || warming > 0)
        return wants(desired, streak, "waiting", "the load may come back", &demand);
    return wants(whole(demand), 0, "below-target", "the load is below its target", &demand);
}
