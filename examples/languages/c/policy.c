// Policy `tolerant-target`: keeps a metric at its target, within a tolerance.
//
// Scales out at once, scales in only when the metric was below its target for three ticks in a row and nothing is
// warming up.

#include <math.h>
#include <stdio.h>

#include "json.h"
#include "regatta.h"

#define PATIENCE 3         // ticks in a row below the target before it scales in
#define ROUNDING 1e-9      // what rounding may add to a quotient of floats; it must not cost an instance
#define MAX_CAPACITY 1e6   // the host refuses more instances than this

static const char SCHEMA[] =
    "{\"type\": \"object\", \"properties\": {"
    "\"metric\": {\"type\": \"string\", \"minLength\": 1,"
    " \"description\": \"Name of the metric. It must fall when instances are added.\"},"
    "\"target\": {\"type\": \"number\", \"exclusiveMinimum\": 0, \"description\": \"Value to keep per instance.\"},"
    "\"tolerance\": {\"type\": \"number\", \"minimum\": 0, \"maximum\": 1, \"default\": 0.1,"
    " \"description\": \"Deviation from the target that is left alone, as a share of it.\"}},"
    "\"required\": [\"metric\", \"target\"], \"additionalProperties\": false}";

static manifest describe(void) {
    // A name that starts with `/` points at the parameter that holds the name.
    static const metric_request metrics[] = {{STR("/metric"), 0}};
    return (manifest){
        .name = STR("tolerant-target"),
        .version = STR("1.0.0"),
        .description = STR("Keeps a metric at its target, within a tolerance."),
        .params_schema = STR(SCHEMA),
        .metrics = {metrics, 1},
        .state_version = 1,
    };
}

typedef struct { str metric; double target, tolerance; } parameters;

// Reads the parameters; all problems at once.
static problem_list parse(str text, parameters *to) {
    static problem problems[8];
    size_t found = 0;
#define REQUIRE(ok, where, what) if (!(ok) && found < 8) problems[found++] = (problem){STR(where), STR(what)}
    bool has_metric = false, has_target = false;
    *to = (parameters){.tolerance = 0.1};
    json in = json_open(text);
    REQUIRE(json_peek(&in) == '{', "", "must be an object");
    for (str name; json_member(&in, &name);) {
        // What is of the wrong kind stays as it is here, and is not valid.
        if (is(name, "metric")) {
            has_metric = true;
            if (!json_string(&in, &to->metric)) json_skip(&in);
            REQUIRE(to->metric.len > 0, "/metric", "must name a metric");
        } else if (is(name, "target")) {
            has_target = true;
            if (!json_number(&in, &to->target)) json_skip(&in);
            REQUIRE(to->target > 0, "/target", "must be a number above 0");
        } else if (is(name, "tolerance")) {
            if (!json_number(&in, &to->tolerance)) { json_skip(&in); to->tolerance = -1; }
            REQUIRE(to->tolerance >= 0 && to->tolerance <= 1, "/tolerance", "must be a number from 0 to 1");
        } else {
            json_skip(&in);
            REQUIRE(false, "", "there is an unknown parameter");
        }
    }
    REQUIRE(has_metric, "", "missing parameter metric");
    REQUIRE(has_target, "", "missing parameter target");
#undef REQUIRE
    return (problem_list){problems, found};
}

static problem_list validate(str params) {
    parameters ignored;
    return parse(params, &ignored);
}

// Whole instances for a demand: at least one, and no more than a host accepts.
static uint32_t whole(double demand) { return (uint32_t)ceil(fmin(fmax(demand - ROUNDING, 1), MAX_CAPACITY)); }

// The outcome with one reason; the streak is the whole state.
static decision wants(uint32_t capacity, uint8_t streak, str code, str text, const double *demand) {
    static uint8_t state[1];
    static char number[400];
    static evidence evidence[1];
    static reason reasons[1];
    state[0] = streak;
    if (demand) {
        size_t len = (size_t)snprintf(number, sizeof number, "%.3f", *demand);
        evidence[0].name = STR("demand");
        evidence[0].value = (str){number, len};
    }
    reasons[0] = (reason){code, text, {evidence, demand ? 1 : 0}};
    return (decision){.outcome = {.capacity = capacity, .reasons = {reasons, 1}, .state = {state, 1}}};
}

static decision decide(const tick *tick, str text, bytes state) {
    parameters params;
    parse(text, &params);
    const counts *counts = &tick->counts;
    uint32_t desired = tick->desired;
    // A state that cannot be read counts as none.
    uint8_t streak = state.len == 1 && state.at[0] <= PATIENCE ? state.at[0] : 0;

    const aggregate *metric = NULL;
    for (size_t i = 0; i < tick->metrics.len; i++) {
        const aggregate *one = &tick->metrics.at[i];
        if (one->name.len == params.metric.len && !memcmp(one->name.at, params.metric.at, params.metric.len)) metric = one;
    }
    // Never act on no data: it is not the same as no load.
    bool known = metric && metric->sum.status == FRESH && isfinite(metric->sum.value);
    if (!known || counts->in_service == 0 || desired == 0)
        return wants(desired, 0, STR("no-data"), STR("there is nothing to go by"), NULL);

    // How many instances the measured load needs. Those that were never measured, as they have just come into service,
    // take their load from the others: to count them as busy would ask for that load twice.
    double demand = metric->sum.value / params.target;
    if (demand / desired - 1 > params.tolerance + ROUNDING)
        return wants(whole(demand), 0, STR("above-target"), STR("the load is above its target"), &demand);

    // Towards a scale-in they count as busy.
    demand += metric->stale + metric->missing;
    if (1 - demand / desired <= params.tolerance + ROUNDING)
        return wants(desired, 0, STR("within-tolerance"), STR("the load is close to its target"), &demand);
    if (streak < PATIENCE) streak++;
    uint32_t warming = counts->pending + counts->creating + counts->booting + counts->initializing;
    if (streak < PATIENCE || warming > 0)
        return wants(desired, streak, STR("waiting"), STR("the load may come back"), &demand);
    return wants(whole(demand), 0, STR("below-target"), STR("the load is below its target"), &demand);
}
