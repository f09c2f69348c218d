// The contract regatta:policy@0.1.1 for AssemblyScript, by hand: reads what the host hands over and lays out what it
// wants back, as the component model's canonical ABI prescribes.
//
// An instance runs one call and is gone, so nothing is ever freed: compile with `--runtime stub`.

/** The host allocates the arguments with this. */
export function cabi_realloc(old: usize, oldSize: usize, align: usize, size: usize): usize {
  if (size == 0) return align;
  return old == 0 ? heap.alloc(size) : heap.realloc(old, size);
}

// ---- what the host hands over

/** A string of the host. */
export function text(at: usize, length: usize): string {
  return String.UTF8.decodeUnsafe(at, length);
}

export enum Status { Fresh, Stale, Missing }

/** "No data" can never read as zero: look at `status` first. */
export class MetricValue {
  constructor(private at: usize) {}
  get status(): Status { return load<u8>(this.at); }
  get value(): f64 { return load<f64>(this.at, 8); }
  get ageMs(): u64 { return load<u64>(this.at, 16); }
}

/** A metric folded over the instances in service. */
export class Aggregate {
  constructor(private at: usize) {}
  get name(): string { return text(load<usize>(this.at), load<usize>(this.at, 4)); }
  get mean(): MetricValue { return new MetricValue(this.at + 8); }
  get sum(): MetricValue { return new MetricValue(this.at + 32); }
  get min(): MetricValue { return new MetricValue(this.at + 56); }
  get max(): MetricValue { return new MetricValue(this.at + 80); }
  /** Instances in service with a fresh, a stale and no value. */
  get fresh(): u32 { return load<u32>(this.at, 104); }
  get stale(): u32 { return load<u32>(this.at, 108); }
  get missing(): u32 { return load<u32>(this.at, 112); }
  get unmeasured(): u32 { return this.stale + this.missing; }
}

/** The arguments of `decide`. */
export class Tick {
  constructor(private at: usize) {}
  get nowMs(): u64 { return load<u64>(this.at); }
  get number(): u64 { return load<u64>(this.at, 8); }
  get set(): string { return text(load<usize>(this.at, 16), load<usize>(this.at, 20)); }
  get generation(): u64 { return load<u64>(this.at, 24); }
  get min(): u32 { return load<u32>(this.at, 32); }
  get max(): u32 { return load<u32>(this.at, 36); }
  /** Capacity in force before this tick. */
  get desired(): u32 { return load<u32>(this.at, 40); }
  get pending(): u32 { return load<u32>(this.at, 44); }
  get creating(): u32 { return load<u32>(this.at, 48); }
  get booting(): u32 { return load<u32>(this.at, 52); }
  get initializing(): u32 { return load<u32>(this.at, 56); }
  get inService(): u32 { return load<u32>(this.at, 60); }
  get standby(): u32 { return load<u32>(this.at, 64); }
  get unhealthy(): u32 { return load<u32>(this.at, 68); }
  get draining(): u32 { return load<u32>(this.at, 72); }
  get terminating(): u32 { return load<u32>(this.at, 76); }
  get failed(): u32 { return load<u32>(this.at, 80); }
  /** Instances on their way into service. */
  get warming(): u32 { return this.pending + this.creating + this.booting + this.initializing; }

  /** A metric that `describe` asked for. */
  metric(name: string): Aggregate | null {
    const first = load<usize>(this.at, 144);
    for (let i: usize = 0, count = load<usize>(this.at, 148); i < count; i++) {
      const aggregate = new Aggregate(first + i * 120);
      if (aggregate.name == name) return aggregate;
    }
    return null;
  }

  get params(): string { return text(load<usize>(this.at, 152), load<usize>(this.at, 156)); }

  /** What the last `decide` returned as its state. */
  get state(): StaticArray<u8> {
    const length = load<usize>(this.at, 164);
    const bytes = new StaticArray<u8>(<i32>length);
    memory.copy(changetype<usize>(bytes), load<usize>(this.at, 160), length);
    return bytes;
  }
}

// ---- what it wants back

/** Pointer and length of a text. */
function storeText(to: usize, value: string): void {
  const bytes = String.UTF8.encode(value);
  store<usize>(to, changetype<usize>(bytes));
  store<usize>(to, <usize>bytes.byteLength, 4);
}

/** Room for a list of `count` records; its pointer and length go to `to`. */
function storeList(to: usize, count: i32, size: usize): usize {
  const first = zeroed(<usize>count * size);
  store<usize>(to, first);
  store<usize>(to, <usize>count, 4);
  return first;
}

function zeroed(size: usize): usize {
  const at = heap.alloc(max<usize>(size, 8));
  memory.fill(at, 0, size);
  return at;
}

/** A metric that the policy wants. */
export class MetricRequest {
  constructor(public name: string, public windowMs: u64 = 0) {}
}

/** What a policy says of itself. */
export class Manifest {
  constructor(
    public name: string,
    public version: string,
    public description: string,
    public paramsSchema: string,
    public metrics: MetricRequest[],
    public stateVersion: u32 = 1,
  ) {}

  lower(): usize {
    const at = zeroed(44);
    storeText(at, this.name);
    storeText(at + 8, this.version);
    storeText(at + 16, this.description);
    storeText(at + 24, this.paramsSchema);
    const metrics = storeList(at + 32, this.metrics.length, 16);
    for (let i = 0; i < this.metrics.length; i++) {
      storeText(metrics + 16 * i, this.metrics[i].name);
      store<u64>(metrics + 16 * i, this.metrics[i].windowMs, 8);
    }
    store<u32>(at, this.stateVersion, 40);
    return at;
  }
}

/** What is wrong with the parameters, and where (a JSON pointer). */
export class Problem {
  constructor(public path: string, public message: string) {}
}

/** What `validate` returns: no problems are "valid". */
export function lowerProblems(problems: Problem[]): usize {
  const at = zeroed(12);
  store<u8>(at, problems.length > 0 ? 1 : 0);
  const first = storeList(at + 4, problems.length, 16);
  for (let i = 0; i < problems.length; i++) {
    storeText(first + 16 * i, problems[i].path);
    storeText(first + 16 * i + 8, problems[i].message);
  }
  return at;
}

/** Why a policy decided as it did. */
export class Reason {
  private names: string[] = [];
  private values: string[] = [];
  constructor(public code: string, public text: string) {}

  with(name: string, value: string): Reason {
    this.names.push(name);
    this.values.push(value);
    return this;
  }

  lowerTo(at: usize): void {
    storeText(at, this.code);
    storeText(at + 8, this.text);
    const evidence = storeList(at + 16, this.names.length, 16);
    for (let i = 0; i < this.names.length; i++) {
      storeText(evidence + 16 * i, this.names[i]);
      storeText(evidence + 16 * i + 8, this.values[i]);
    }
  }
}

/** What a policy wants. */
export class Outcome {
  /** Instances in standby; below zero leaves the set's own setting. */
  standby: i64 = -1;
  /** Ids of the instances to remove first, best first. */
  victims: u32[] = [];
  /** Wish for an earlier next tick; below zero is none. */
  wakeAfterMs: i64 = -1;
  reasons: Reason[] = [];
  /** Handed to the next `decide`. */
  state: u8[] = [];
  constructor(public capacity: u32) {}

  lower(): usize {
    const result = zeroed(64);
    const at = result + 8;
    store<u32>(at, this.capacity);
    if (this.standby >= 0) {
      store<u8>(at, 1, 4);
      store<u32>(at, <u32>this.standby, 8);
    }
    const victims = storeList(at + 12, this.victims.length, 4);
    for (let i = 0; i < this.victims.length; i++) store<u32>(victims + 4 * i, this.victims[i]);
    if (this.wakeAfterMs >= 0) {
      store<u8>(at, 1, 24);
      store<u64>(at, <u64>this.wakeAfterMs, 32);
    }
    const reasons = storeList(at + 40, this.reasons.length, 24);
    for (let i = 0; i < this.reasons.length; i++) this.reasons[i].lowerTo(reasons + 24 * i);
    const state = storeList(at + 48, this.state.length, 1);
    for (let i = 0; i < this.state.length; i++) store<u8>(state + i, this.state[i]);
    return result;
  }
}

/** What `decide` returns when there is no outcome: why. */
export function lowerError(message: string): usize {
  const at = zeroed(64);
  store<u8>(at, 1);
  storeText(at + 8, message);
  return at;
}

// ---- what it may call

export enum Level { Trace, Debug, Info, Warn, Error }

@external("regatta:policy/log@0.1.1", "log")
declare function hostLog(level: i32, at: usize, length: usize): void;

export function log(level: Level, message: string): void {
  const bytes = String.UTF8.encode(message);
  hostLog(level, changetype<usize>(bytes), <usize>bytes.byteLength);
}
