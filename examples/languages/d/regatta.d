/// The contract regatta:policy@0.1.1 for D without its runtime (`-betterC`).
///
/// The structs are laid out as the component model's canonical ABI wants them on wasm32, which is how D lays them out by itself;
/// nothing is generated and nothing is copied. What the policy returns must live until the call is over: an instance runs
/// one call and is gone, so `__gshared` data and malloc without free will do.
module regatta;

import ldc.attributes : llvmAttr;
import ldc.intrinsics : llvm_trap;

// What the policy defines.
static import policy;

extern (C) @nogc nothrow:

/// An array as the contract has it: D's own slices have the length first.
struct List(T) {
    const(T)* at;
    size_t len;

    this(const(T)[] slice) { at = slice.ptr; len = slice.length; }
    const(T)[] opIndex() const { return at[0 .. len]; }
    alias opIndex this;
}
/// Text in UTF-8.
alias Str = List!char;
struct Optional(T) { bool some; T value; }

/// "No data" can never read as zero: look at `status` first.
enum Freshness : ubyte { fresh, stale, missing }
struct MetricValue { Freshness status; double value; ulong ageMs; }

struct Counts {
    uint pending, creating, booting, initializing, inService, standby, unhealthy, draining, terminating, failed;
}

/// A metric folded over the instances in service.
struct Aggregate {
    Str name;
    MetricValue mean, sum, min, max;
    uint fresh, stale, missing;
}

struct Evidence { Str name, value; }
struct Reason { Str code, text; List!Evidence evidence; }
struct LastDecision { ulong tick; Optional!uint wanted; uint granted; List!Reason reasons; List!Str narrowedBy; }

struct Tick {
    ulong nowMs, number;
    Str set;
    ulong generation;
    uint min, max;
    uint desired; /// capacity in force before this tick
    Counts counts;
    Optional!LastDecision last;
    List!Str schedule;
    List!Aggregate metrics; /// those that `describe` asked for
}

struct Outcome {
    uint capacity;
    Optional!uint standby;
    List!uint victims;
    Optional!ulong wakeAfterMs;
    List!Reason reasons;
    List!ubyte state; /// handed to the next `decide`
}

struct MetricRequest { Str name; ulong windowMs; }
struct Manifest { Str name, version_, description, paramsSchema; List!MetricRequest metrics; uint stateVersion; }
struct Problem { Str path, message; }

/// What `decide` returns: an outcome, or an error in words.
struct Decision {
    bool isError;
    union { Outcome outcome; Str error; }
}

// ---- what it may call

enum LogLevel { trace, debug_, info, warn, error }
@llvmAttr("wasm-import-module", "regatta:policy/log@0.1.1") @llvmAttr("wasm-import-name", "log")
void regatta_log(LogLevel level, const(char)* at, size_t len);

/// The instances, ordered by id: columns of one length. A state is its place in the enum `instance-state` of the contract.
struct InstanceTable {
    List!uint id;
    List!ubyte state;
    List!ulong stateSinceMs, createdMs, generation;
    List!bool isProtected;
}
@llvmAttr("wasm-import-module", "regatta:policy/observe@0.1.1") @llvmAttr("wasm-import-name", "instances")
void regatta_instances(ref InstanceTable to);

/// One value per row of the instance table.
struct MetricColumn { List!double value; List!Freshness status; }
@llvmAttr("wasm-import-module", "regatta:policy/observe@0.1.1") @llvmAttr("wasm-import-name", "metric")
void regatta_metric(const(char)* name, size_t len, ref MetricColumn to);

/// Past values of the set, oldest first.
struct MetricWindow { List!ulong atMs; List!double value; }
@llvmAttr("wasm-import-module", "regatta:policy/observe@0.1.1") @llvmAttr("wasm-import-name", "window")
void regatta_window(const(char)* name, size_t len, ref MetricWindow to);

// ---- the exports

/// Of the C library, which the linker brings.
void* realloc(void* old, size_t size);
/// ditto
int snprintf(char* to, size_t size, const char* format, ...);
/// ditto
double strtod(const char* text, char** end);
/// ditto
double ceil(double);

/// What D calls when an assertion fails or an index is out of bounds: the log says where, and the call traps.
void __assert(const(char)* what, const(char)* file, int line) {
    char[256] text = 0;
    const length = snprintf(text.ptr, text.length, "%s:%d: %s", file, line, what);
    regatta_log(LogLevel.error, text.ptr, length < text.length ? length : text.length - 1);
    llvm_trap();
}

@llvmAttr("wasm-export-name", "cabi_realloc")
void* regatta_realloc(void* old, size_t oldSize, size_t alignment, size_t size) {
    if (size == 0) return cast(void*) alignment;
    void* at = realloc(old, size);
    if (at is null) assert(0);
    return at;
}

@llvmAttr("wasm-export-name", "regatta:policy/scaling@0.1.1#describe")
Manifest* regatta_describe() {
    __gshared Manifest to;
    to = policy.describe();
    return &to;
}

struct Validity { bool isError; List!Problem problems; }
@llvmAttr("wasm-export-name", "regatta:policy/scaling@0.1.1#validate")
Validity* regatta_validate(const(char)* at, size_t len) {
    __gshared Validity to;
    to.problems = policy.validate(at[0 .. len]);
    to.isError = to.problems.len > 0;
    return &to;
}

struct Arguments { Tick tick; Str params; List!ubyte state; }
@llvmAttr("wasm-export-name", "regatta:policy/scaling@0.1.1#decide")
Decision* regatta_decide(const Arguments* given) {
    __gshared Decision to;
    to = policy.decide(given.tick, given.params[], given.state[]);
    return &to;
}

// The layouts that the canonical ABI prescribes; a compiler for another target stops here.
static assert(Aggregate.sizeof == 120 && LastDecision.sizeof == 40 && Tick.sizeof == 152, "layout of a tick");
static assert(Outcome.sizeof == 56 && Decision.sizeof == 64 && Manifest.sizeof == 44, "layout of a result");
