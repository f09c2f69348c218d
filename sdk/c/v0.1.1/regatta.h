// The contract regatta:policy@0.1.1 for C and C++.
//
// Include it in one source file and define `describe`, `validate` and `decide`. The structs are laid out as the
// component model's canonical ABI wants them on wasm32, which is how C lays them out by itself; nothing is generated
// and nothing is copied. What the policy returns must live until the call is over: an instance runs one call and is
// gone, so static data and malloc without free will do.
#pragma once

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// Text in UTF-8, without a NUL at its end.
typedef struct { const char *at; size_t len; } str;
#ifdef __cplusplus
#define STR(literal) (str{literal, sizeof(literal) - 1})
#else
#define STR(literal) ((str){literal, sizeof(literal) - 1})
#endif
typedef struct { const uint8_t *at; size_t len; } bytes;
typedef struct { const str *at; size_t len; } str_list;
typedef struct { const uint32_t *at; size_t len; } u32_list;
typedef struct { bool some; uint32_t value; } opt_u32;
typedef struct { bool some; uint64_t value; } opt_u64;

// "No data" can never read as zero: look at `status` first.
typedef enum { FRESH, STALE, MISSING } freshness;
typedef struct { uint8_t status; double value; uint64_t age_ms; } metric_value;

typedef struct {
    uint32_t pending, creating, booting, initializing, in_service, standby, unhealthy, draining, terminating, failed;
} counts;

// A metric folded over the instances in service.
typedef struct {
    str name;
    metric_value mean, sum, min, max;
    uint32_t fresh, stale, missing;
} aggregate;
typedef struct { const aggregate *at; size_t len; } aggregate_list;

typedef struct { str name, value; } evidence;
typedef struct { const evidence *at; size_t len; } evidence_list;
typedef struct { str code, text; evidence_list evidence; } reason;
typedef struct { const reason *at; size_t len; } reason_list;

typedef struct { uint64_t tick; opt_u32 wanted; uint32_t granted; reason_list reasons; str_list narrowed_by; } last_decision;

typedef struct {
    uint64_t now_ms, number;
    str set;
    uint64_t generation;
    uint32_t min, max;
    uint32_t desired; // capacity in force before this tick
    counts counts;
    struct { bool some; last_decision value; } last;
    str_list schedule;
    aggregate_list metrics; // those that `describe` asked for
} tick;

typedef struct {
    uint32_t capacity;
    opt_u32 standby;
    u32_list victims;
    opt_u64 wake_after_ms;
    reason_list reasons;
    bytes state; // handed to the next `decide`
} outcome;

typedef struct { str name; uint64_t window_ms; } metric_request;
typedef struct { const metric_request *at; size_t len; } metric_request_list;
typedef struct { str name, version, description, params_schema; metric_request_list metrics; uint32_t state_version; } manifest;

typedef struct { str path, message; } problem;
typedef struct { const problem *at; size_t len; } problem_list;

// What `decide` returns: an outcome, or an error in words.
typedef struct { bool is_error; union { outcome outcome; str error; }; } decision;

// ---- what the policy defines

static manifest describe(void);
static problem_list validate(str params);
static decision decide(const tick *tick, str params, bytes state);

// ---- what it may call

typedef enum { LOG_TRACE, LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR } log_level;
__attribute__((import_module("regatta:policy/log@0.1.1"), import_name("log")))
void regatta_log(int32_t level, const char *at, size_t len);

// The instances, ordered by id: columns of one length. A state is its place in the enum `instance-state` of the contract.
typedef struct {
    u32_list id;
    bytes state;
    struct { const uint64_t *at; size_t len; } state_since_ms, created_ms, generation;
    bytes is_protected;
} instance_table;
__attribute__((import_module("regatta:policy/observe@0.1.1"), import_name("instances")))
void regatta_instances(instance_table *to);

// One value per row of the instance table; its `status` is a `freshness`.
typedef struct { struct { const double *at; size_t len; } value; bytes status; } metric_column;
__attribute__((import_module("regatta:policy/observe@0.1.1"), import_name("metric")))
void regatta_metric(const char *name, size_t len, metric_column *to);

// Past values of the set, oldest first.
typedef struct { struct { const uint64_t *at; size_t len; } at_ms; struct { const double *at; size_t len; } value; } metric_window;
__attribute__((import_module("regatta:policy/observe@0.1.1"), import_name("window")))
void regatta_window(const char *name, size_t len, metric_window *to);

// ---- the exports

#define REGATTA_EXPORT(name) __attribute__((export_name(name), used))

REGATTA_EXPORT("cabi_realloc")
void *regatta_realloc(void *old, size_t old_size, size_t align, size_t size) {
    (void)old_size;
    if (size == 0) return (void *)align;
    void *at = realloc(old, size);
    if (!at) __builtin_trap();
    return at;
}

REGATTA_EXPORT("regatta:policy/scaling@0.1.1#describe")
manifest *regatta_describe(void) {
    static manifest to;
    to = describe();
    return &to;
}

typedef struct { bool is_error; problem_list problems; } regatta_validity;
REGATTA_EXPORT("regatta:policy/scaling@0.1.1#validate")
regatta_validity *regatta_validate(const char *at, size_t len) {
    static regatta_validity to;
    str params = {at, len};
    to.problems = validate(params);
    to.is_error = to.problems.len > 0;
    return &to;
}

typedef struct { tick tick; str params; bytes state; } regatta_arguments;
REGATTA_EXPORT("regatta:policy/scaling@0.1.1#decide")
decision *regatta_decide(const regatta_arguments *given) {
    static decision to;
    to = decide(&given->tick, given->params, given->state);
    return &to;
}

// The layouts that the canonical ABI prescribes; a compiler for another target stops here.
static_assert(sizeof(aggregate) == 120 && sizeof(last_decision) == 40 && sizeof(tick) == 152, "layout of a tick");
static_assert(sizeof(outcome) == 56 && sizeof(decision) == 64 && sizeof(manifest) == 44, "layout of a result");
