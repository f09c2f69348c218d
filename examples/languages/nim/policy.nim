## Policy `tolerant-target`: keeps a metric at its target, within a tolerance.
##
## Scales out at once, scales in only when the metric was below its target for three ticks in a row and nothing is
## warming up.

import std/[json, math, strutils]

import regatta

const
  Patience = 3 ## Ticks in a row below the target before it scales in.
  Rounding = 1e-9 ## What rounding may add to a quotient of floats; it must not cost an instance.
  MaxCapacity = 1e6 ## The host refuses more instances than this.

proc describe(): Manifest =
  Manifest(
    name: "tolerant-target",
    version: "1.0.0",
    description: "Keeps a metric at its target, within a tolerance.",
    paramsSchema: %*{
      "type": "object",
      "properties": {
        "metric": {
          "type": "string", "minLength": 1,
          "description": "Name of the metric. It must fall when instances are added."
        },
        "target": {"type": "number", "exclusiveMinimum": 0, "description": "Value to keep per instance."},
        "tolerance": {
          "type": "number", "minimum": 0, "maximum": 1, "default": 0.1,
          "description": "Deviation from the target that is left alone, as a share of it."
        }
      },
      "required": ["metric", "target"],
      "additionalProperties": false
    },
    # A name that starts with `/` points at the parameter that holds the name.
    metrics: @["/metric"])

proc number(params: JsonNode, name: string, otherwise: float): float =
  ## What is no number is NaN, and NaN is in no range.
  let value = params{name}
  if value == nil: otherwise
  elif value.kind in {JInt, JFloat}: value.getFloat
  else: NaN

proc validate(params: JsonNode): seq[Problem] =
  ## All problems at once; none means that the parameters are valid.
  var problems: seq[Problem]
  proc require(ok: bool, path, message: string) =
    if not ok: problems.add Problem(path: path, message: message)
  if params.kind != JObject:
    return @[Problem(path: "", message: "must be an object")]
  for name in params.keys:
    require(name in ["metric", "target", "tolerance"], "", "unknown parameter " & name)
  require("metric" in params, "", "missing parameter metric")
  require("target" in params, "", "missing parameter target")
  let metric = params.getOrDefault("metric")
  require(metric == nil or metric.kind == JString and metric.str != "", "/metric", "must name a metric")
  require(params.number("target", 1) > 0, "/target", "must be a number above 0")
  let tolerance = params.number("tolerance", 0.1)
  require(tolerance >= 0 and tolerance <= 1, "/tolerance", "must be a number from 0 to 1")
  problems

proc whole(demand: float): int =
  ## Whole instances for a demand: at least one, and no more than a host accepts.
  int(ceil(clamp(demand - Rounding, 1, MaxCapacity)))

proc wants(capacity, streak: int, code, text: string, demand = NaN): Outcome =
  let evidence = if demand.isNaN: @[] else: @[("demand", formatFloat(demand, ffDecimal, 3))]
  Outcome(capacity: capacity, reasons: @[Reason(code: code, text: text, evidence: evidence)], state: %*{"streak": streak})

proc decide(tick, params, state: JsonNode): Outcome =
  let
    counts = tick["counts"]
    desired = tick["desired"].getInt
    metric = tick.metric(params["metric"].getStr)
  # Never act on no data: it is not the same as no load.
  if metric == nil or metric["sum"]["status"].getStr != "fresh" or counts["in_service"].getInt == 0 or desired == 0:
    return wants(desired, 0, "no-data", "there is nothing to go by")

  # How many instances the measured load needs. Those that were never measured, as they have just come into service,
  # take their load from the others: to count them as busy would ask for that load twice.
  let
    tolerance = params.number("tolerance", 0.1) + Rounding
    measured = metric["sum"]["value"].getFloat / params.number("target", NaN)
  if measured / desired.float - 1 > tolerance:
    return wants(measured.whole, 0, "above-target", "the load is above its target", measured)

  # Towards a scale-in they count as busy.
  let demand = measured + float(metric["stale"].getInt + metric["missing"].getInt)
  if 1 - demand / desired.float <= tolerance:
    return wants(desired, 0, "within-tolerance", "the load is close to its target", demand)
  # A state that cannot be read counts as none.
  let before = max(state{"streak"}.getInt, 0)
  let streak = min(before + 1, Patience)
  var warming = 0
  for name in ["pending", "creating", "booting", "initializing"]: warming += counts[name].getInt
  if streak < Patience or warming > 0:
    return wants(desired, streak, "waiting", "the load may come back", demand)
  wants(demand.whole, 0, "below-target", "the load is below its target", demand)

exportPolicy(describe, validate, decide)
