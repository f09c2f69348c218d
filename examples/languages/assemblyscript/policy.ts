// Policy `tolerant-target`: keeps a metric at its target, within a tolerance.
//
// Scales out at once, scales in only when the metric was below its target for
// three ticks in a row and nothing is warming up.

import { Kind, members } from "./json";
import { Manifest, MetricRequest, Outcome, Problem, Reason, Status, Tick, lowerProblems, text } from "./regatta";

export { cabi_realloc } from "./regatta";

/** Ticks in a row below the target before it scales in. */
const PATIENCE: u8 = 3;
/** What rounding may add to a quotient of floats; it must not cost an instance. */
const ROUNDING: f64 = 1e-9;
/** The host refuses more instances than this. */
const MAX_CAPACITY: f64 = 1_000_000;

const SCHEMA = `{
  "type": "object",
  "properties": {
    "metric": {
      "type": "string", "minLength": 1,
      "description": "Name of the metric. It must fall when instances are added."
    },
    "target": { "type": "number", "exclusiveMinimum": 0, "description": "Value to keep per instance." },
    "tolerance": {
      "type": "number", "minimum": 0, "maximum": 1, "default": 0.1,
      "description": "Deviation from the target that is left alone, as a share of it."
    }
  },
  "required": ["metric", "target"],
  "additionalProperties": false
}`;

export function describe(): usize {
  return new Manifest(
    "tolerant-target",
    "1.0.0",
    "Keeps a metric at its target, within a tolerance.",
    SCHEMA,
    // A name that starts with `/` points at the parameter that holds the name.
    [new MetricRequest("/metric")],
  ).lower();
}

export function validate(at: usize, length: usize): usize {
  return lowerProblems(read(text(at, length)).problems);
}

export function decide(given: usize): usize {
  const tick = new Tick(given);
  return outcome(tick, read(tick.params)).lower();
}

/** The parameters, and all that is wrong with them. */
class Params {
  metric: string = "";
  target: f64 = NaN;
  tolerance: f64 = 0.1;
  problems: Problem[] = [];

  require(ok: bool, path: string, message: string): void {
    if (!ok) this.problems.push(new Problem(path, message));
  }
}

function read(json: string): Params {
  const params = new Params();
  const found = members(json);
  if (found == null) {
    params.require(false, "", "must be an object");
    return params;
  }
  const names: string[] = [];
  for (let i = 0; i < found.length; i++) {
    const member = found[i];
    names.push(member.name);
    if (member.name == "metric") {
      params.metric = member.text;
      params.require(member.kind == Kind.String && member.text != "", "/metric", "must name a metric");
    } else if (member.name == "target") {
      // What is no number is NaN, and NaN is not above 0.
      params.target = member.number;
      params.require(params.target > 0, "/target", "must be a number above 0");
    } else if (member.name == "tolerance") {
      params.tolerance = member.number;
      params.require(params.tolerance >= 0 && params.tolerance <= 1, "/tolerance", "must be a number from 0 to 1");
    } else {
      params.require(false, "", "unknown parameter " + member.name);
    }
  }
  params.require(names.includes("metric"), "", "missing parameter metric");
  params.require(names.includes("target"), "", "missing parameter target");
  return params;
}

function outcome(tick: Tick, params: Params): Outcome {
  const desired = tick.desired;
  const metric = tick.metric(params.metric);
  // Never act on no data: it is not the same as no load.
  if (metric == null || metric.sum.status != Status.Fresh || !isFinite(metric.sum.value)
    || tick.inService == 0 || desired == 0) {
    return wants(desired, 0, new Reason("no-data", "there is nothing to go by"));
  }

  // How many instances the measured load needs. Those that were never measured, as they have just come into service,
  // take their load from the others: to count them as busy would ask for that load twice.
  const measured = metric.sum.value / params.target;
  if (measured / <f64>desired - 1 > params.tolerance + ROUNDING) {
    const reason = new Reason("above-target", "the load is above its target");
    return wants(whole(measured), 0, reason.with("demand", shown(measured)));
  }

  // Towards a scale-in they count as busy.
  const demand = measured + <f64>metric.unmeasured;
  if (1 - demand / <f64>desired <= params.tolerance + ROUNDING) {
    const reason = new Reason("within-tolerance", "the load is close to its target");
    return wants(desired, 0, reason.with("demand", shown(demand)));
  }
  // The streak is the whole state; a state that cannot be read counts as none.
  const state = tick.state;
  const before: u8 = state.length == 1 && state[0] <= PATIENCE ? state[0] : 0;
  const streak = min<u8>(before + 1, PATIENCE);
  if (streak < PATIENCE || tick.warming > 0) {
    return wants(desired, streak, new Reason("waiting", "the load may come back").with("demand", shown(demand)));
  }
  const reason = new Reason("below-target", "the load is below its target");
  return wants(whole(demand), 0, reason.with("demand", shown(demand)));
}

function shown(demand: f64): string {
  return (Math.round(demand * 1000) / 1000).toString();
}

function wants(capacity: u32, streak: u8, reason: Reason): Outcome {
  const outcome = new Outcome(capacity);
  outcome.reasons = [reason];
  outcome.state = [streak];
  return outcome;
}

/** Whole instances for a demand: at least one, and no more than a host accepts. */
function whole(demand: f64): u32 {
  return <u32>Math.ceil(Math.min(Math.max(demand - ROUNDING, 1), MAX_CAPACITY));
}
