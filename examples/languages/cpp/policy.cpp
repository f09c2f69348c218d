// Policy `tolerant-target`: keeps a metric at its target, within a tolerance.
//
// Scales out at once, scales in only when the metric was below its target for three ticks in a row and nothing is
// warming up.

#include <math.h>
#include <stdio.h>

#include "json.h"
#include "regatta.h"

// The lists of the contract's header, for loops.
static const aggregate *begin(const aggregate_list &list) { return list.at; }
static const aggregate *end(const aggregate_list &list) { return list.at + list.len; }

namespace {

constexpr uint8_t PATIENCE = 3;      // ticks in a row below the target before it scales in
constexpr double ROUNDING = 1e-9;    // what rounding may add to a quotient of floats; it must not cost an instance
constexpr double MAX_CAPACITY = 1e6; // the host refuses more instances than this

constexpr char SCHEMA[] = R"({
  "type": "object",
  "properties": {
    "metric": {"type": "string", "minLength": 1,
      "description": "Name of the metric. It must fall when instances are added."},
    "target": {"type": "number", "exclusiveMinimum": 0, "description": "Value to keep per instance."},
    "tolerance": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.1,
      "description": "Deviation from the target that is left alone, as a share of it."}
  },
  "required": ["metric", "target"],
  "additionalProperties": false
})";

bool operator==(str one, str other) { return one.len == other.len && memcmp(one.at, other.at, one.len) == 0; }

// The parameters, and all that is wrong with them.
class Params {
  public:
    str metric{};
    double target = NAN, tolerance = 0.1;

    explicit Params(str text) {
        bool has_metric = false, has_target = false;
        json in = json_open(text);
        require(json_peek(&in) == '{', STR(""), STR("must be an object"));
        for (str name; json_member(&in, &name);) {
            if (name == STR("metric")) {
                has_metric = true;
                if (!json_string(&in, &metric)) json_skip(&in);
                require(metric.len > 0, STR("/metric"), STR("must name a metric"));
            } else if (name == STR("target")) {
                has_target = true;
                target = number(in);
                // What is no number is NaN, and NaN is not above 0.
                require(target > 0, STR("/target"), STR("must be a number above 0"));
            } else if (name == STR("tolerance")) {
                tolerance = number(in);
                require(tolerance >= 0 && tolerance <= 1, STR("/tolerance"), STR("must be a number from 0 to 1"));
            } else {
                json_skip(&in);
                require(false, STR(""), STR("there is an unknown parameter"));
            }
        }
        require(has_metric, STR(""), STR("missing parameter metric"));
        require(has_target, STR(""), STR("missing parameter target"));
    }

    problem_list problems() const { return {found, count}; }

  private:
    problem found[8];
    size_t count = 0;

    void require(bool ok, str path, str message) {
        if (!ok && count < 8) found[count++] = {path, message};
    }

    static double number(json &in) {
        double value = NAN;
        if (!json_number(&in, &value)) json_skip(&in);
        return value;
    }
};

// Whole instances for a demand: at least one, and no more than a host accepts.
uint32_t whole(double demand) { return uint32_t(ceil(fmin(fmax(demand - ROUNDING, 1), MAX_CAPACITY))); }

// The outcome with one reason; the streak is the whole state. What is returned must live until the call is over.
decision wants(uint32_t capacity, uint8_t streak, str code, str text, const double *demand = nullptr) {
    static uint8_t state[1];
    static char number[400];
    static evidence facts[1];
    static reason reasons[1];
    state[0] = streak;
    if (demand) {
        size_t length = snprintf(number, sizeof number, "%.3f", *demand);
        facts[0] = {STR("demand"), {number, length}};
    }
    reasons[0] = {code, text, {facts, demand ? 1u : 0u}};
    decision wanted{};
    wanted.outcome.capacity = capacity;
    wanted.outcome.reasons = {reasons, 1};
    wanted.outcome.state = {state, 1};
    return wanted;
}

} // namespace

static manifest describe() {
    // A name that starts with `/` points at the parameter that holds the name.
    static const metric_request metrics[] = {{STR("/metric"), 0}};
    return {
        .name = STR("tolerant-target"),
        .version = STR("1.0.0"),
        .description = STR("Keeps a metric at its target, within a tolerance."),
        .params_schema = STR(SCHEMA),
        .metrics = {metrics, 1},
        .state_version = 1,
    };
}

static problem_list validate(str text) {
    static const Params params(text);
    return params.problems();
}

static decision decide(const tick *tick, str text, bytes state) {
    const Params params(text);
    const counts &counts = tick->counts;
    const uint32_t desired = tick->desired;
    // A state that cannot be read counts as none.
    const uint8_t before = state.len == 1 && state.at[0] <= PATIENCE ? state.at[0] : 0;

    const aggregate *metric = nullptr;
    for (const aggregate &one : tick->metrics)
        if (one.name == params.metric) metric = &one;
    // Never act on no data: it is not the same as no load.
    const bool known = metric && metric->sum.status == FRESH && isfinite(metric->sum.value);
    if (!known || counts.in_service == 0 || desired == 0)
        return wants(desired, 0, STR("no-data"), STR("there is nothing to go by"));

    // How many instances the measured load needs. Those that were never measured, as they have just come into service,
    // take their load from the others: to count them as busy would ask for that load twice.
    double demand = metric->sum.value / params.target;
    if (demand / desired - 1 > params.tolerance + ROUNDING)
        return wants(whole(demand), 0, STR("above-target"), STR("the load is above its target"), &demand);

    // Towards a scale-in they count as busy.
    demand += metric->stale + metric->missing;
    if (1 - demand / desired <= params.tolerance + ROUNDING)
        return wants(desired, 0, STR("within-tolerance"), STR("the load is close to its target"), &demand);
    const uint8_t streak = before < PATIENCE ? before + 1 : PATIENCE;
    const uint32_t warming = counts.pending + counts.creating + counts.booting + counts.initializing;
    if (streak < PATIENCE || warming > 0)
        return wants(desired, streak, STR("waiting"), STR("the load may come back"), &demand);
    return wants(whole(demand), 0, STR("below-target"), STR("the load is below its target"), &demand);
}
