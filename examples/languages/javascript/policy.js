// Policy `tolerant-target`: keeps a metric at its target, within a tolerance.
//
// Scales out at once, scales in only when the metric was below its target for
// three ticks in a row and nothing is warming up.

/** Ticks in a row below the target before it scales in. */
const PATIENCE = 3;
/** What rounding may add to a quotient of floats; it must not cost an instance. */
const ROUNDING = 1e-9;
/** The host refuses more instances than this. */
const MAX_CAPACITY = 1_000_000;

const SCHEMA = {
  type: "object",
  properties: {
    metric: { type: "string", minLength: 1, description: "Name of the metric. It must fall when instances are added." },
    target: { type: "number", exclusiveMinimum: 0, description: "Value to keep per instance." },
    tolerance: {
      type: "number", minimum: 0, maximum: 1, default: 0.1,
      description: "Deviation from the target that is left alone, as a share of it.",
    },
  },
  required: ["metric", "target"],
  additionalProperties: false,
};

function describe() {
  return {
    name: "tolerant-target",
    version: "1.0.0",
    description: "Keeps a metric at its target, within a tolerance.",
    paramsSchema: JSON.stringify(SCHEMA),
    // A name that starts with `/` points at the parameter that holds the name.
    metrics: [{ name: "/metric", windowMs: 0 }],
    stateVersion: 1,
  };
}

/** Throws all problems at once: `path` is a JSON pointer into the parameters. */
function validate(text) {
  const params = parse(text);
  if (params === null || typeof params !== "object" || Array.isArray(params)) {
    throw [{ path: "", message: "must be an object" }];
  }
  const problems = [];
  const require = (ok, path, message) => ok || problems.push({ path, message });
  for (const name of Object.keys(params)) {
    require(name in SCHEMA.properties, "", `unknown parameter ${name}`);
  }
  for (const name of SCHEMA.required) {
    require(name in params, "", `missing parameter ${name}`);
  }
  const { metric = "?", target = 1, tolerance = 0.1 } = params;
  require(typeof metric === "string" && metric !== "", "/metric", "must name a metric");
  require(typeof target === "number" && target > 0, "/target", "must be a number above 0");
  require(
    typeof tolerance === "number" && tolerance >= 0 && tolerance <= 1,
    "/tolerance", "must be a number from 0 to 1",
  );
  if (problems.length > 0) throw problems;
}

/** Returns an outcome; what it throws as a string is its refusal to decide. */
function decide(tick, text, state) {
  const { metric, target, tolerance = 0.1 } = parse(text);
  const { desired, counts } = tick;
  const { sum, stale = 0, missing = 0 } = tick.metrics.find(({ name }) => name === metric) ?? {};
  const outcome = (capacity, streak, code, text, demand) => {
    // On its way to the host, NaN would become 0: no instance at all.
    if (!Number.isInteger(capacity)) throw `the capacity would be ${capacity}`;
    return {
      capacity, standby: null, victims: [], wakeAfterMs: null,
      reasons: [{ code, text, evidence: demand === undefined ? [] : [["demand", String(Math.round(demand * 1000) / 1000)]] }],
      state: save({ streak }),
    };
  };

  // Never act on no data: it is not the same as no load.
  if (sum?.tag !== "fresh" || !Number.isFinite(sum.val) || counts.inService === 0 || desired === 0) {
    return outcome(desired, 0, "no-data", "there is nothing to go by");
  }

  // How many instances the measured load needs. Those that were never measured, as they have just come into service,
  // take their load from the others: to count them as busy would ask for that load twice.
  const measured = sum.val / target;
  if (measured / desired - 1 > tolerance + ROUNDING) {
    return outcome(whole(measured), 0, "above-target", "the load is above its target", measured);
  }

  // Towards a scale-in they count as busy.
  const demand = measured + stale + missing;
  if (1 - demand / desired <= tolerance + ROUNDING) {
    return outcome(desired, 0, "within-tolerance", "the load is close to its target", demand);
  }
  const streak = Math.min(load(state).streak + 1, PATIENCE);
  const warming = counts.pending + counts.creating + counts.booting + counts.initializing;
  if (streak < PATIENCE || warming > 0) {
    return outcome(desired, streak, "waiting", "the load may come back", demand);
  }
  return outcome(whole(demand), 0, "below-target", "the load is below its target", demand);
}

/** Whole instances for a demand: at least one, and no more than a host accepts. */
function whole(demand) {
  return Math.ceil(Math.min(Math.max(demand - ROUNDING, 1), MAX_CAPACITY));
}

/** Parameters; the host has made the text, so this fails only in tests by hand. */
function parse(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    return null;
  }
}

/** The state of the last tick; a state that cannot be read counts as none. */
function load(bytes) {
  const { streak } = parse(String.fromCharCode(...bytes)) ?? {};
  return { streak: Number.isInteger(streak) && streak >= 0 ? streak : 0 };
}

/** The state for the next tick: JSON, all of it ASCII. */
function save(state) {
  return Uint8Array.from(JSON.stringify(state), (char) => char.charCodeAt(0));
}

export const scaling = { describe, validate, decide };
