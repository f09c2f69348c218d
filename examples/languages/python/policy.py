"""Policy `tolerant-target`: keeps a metric at its target, within a tolerance.

Scales out at once, scales in only when the metric was below its target for
three ticks in a row and nothing is warming up.
"""

import json
import math

from componentize_py_types import Err
from wit_world.exports import Scaling as Contract
from wit_world.imports.types import Manifest, MetricRequest, MetricValue_Fresh, Outcome, Problem, Reason, Tick

PATIENCE = 3
"""Ticks in a row below the target before it scales in."""
ROUNDING = 1e-9
"""What rounding may add to a quotient of floats; it must not cost an instance."""
MAX_CAPACITY = 1_000_000
"""The host refuses more instances than this."""

SCHEMA = {
    "type": "object",
    "properties": {
        "metric": {
            "type": "string",
            "minLength": 1,
            "description": "Name of the metric. It must fall when instances are added.",
        },
        "target": {"type": "number", "exclusiveMinimum": 0, "description": "Value to keep per instance."},
        "tolerance": {
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "default": 0.1,
            "description": "Deviation from the target that is left alone, as a share of it.",
        },
    },
    "required": ["metric", "target"],
    "additionalProperties": False,
}


class Scaling(Contract):
    """What the contract asks a policy to export."""

    def describe(self) -> Manifest:
        return Manifest(
            name="tolerant-target",
            version="1.0.0",
            description="Keeps a metric at its target, within a tolerance.",
            params_schema=json.dumps(SCHEMA),
            # A name that starts with `/` points at the parameter that holds the name.
            metrics=[MetricRequest(name="/metric", window_ms=0)],
            state_version=1,
        )

    def validate(self, params: str) -> None:
        if found := problems(parse(params)):
            raise Err([Problem(path, message) for path, message in found])

    def decide(self, tick: Tick, params: str, state: bytes) -> Outcome:
        return decide(tick, parse(params), load(state))


def problems(params) -> list[tuple[str, str]]:
    """All problems of the parameters: JSON pointer and message."""
    if not isinstance(params, dict):
        return [("", "must be an object")]
    found = [("", f"unknown parameter {name}") for name in params if name not in SCHEMA["properties"]]
    found += [("", f"missing parameter {name}") for name in SCHEMA["required"] if name not in params]
    metric = params.get("metric", "?")
    if not isinstance(metric, str) or not metric:
        found.append(("/metric", "must name a metric"))
    target = params.get("target", 1)
    if not is_number(target) or not target > 0:
        found.append(("/target", "must be a number above 0"))
    tolerance = params.get("tolerance", 0.1)
    if not is_number(tolerance) or not 0 <= tolerance <= 1:
        found.append(("/tolerance", "must be a number from 0 to 1"))
    return found


def decide(tick: Tick, params: dict, streak: int) -> Outcome:
    """One tick; `streak` is how many ticks in a row were below the target."""
    counts, desired = tick.counts, tick.desired
    metric = next((metric for metric in tick.metrics if metric.name == params["metric"]), None)

    # Never act on no data: it is not the same as no load.
    known = metric and isinstance(metric.sum, MetricValue_Fresh) and math.isfinite(metric.sum.value)
    if not known or counts.in_service == 0 or desired == 0:
        return outcome(desired, 0, "no-data", "there is nothing to go by")

    # How many instances the measured load needs. Those that were never measured,
    # as they have just come into service, take their load from the others: to
    # count them as busy would ask for that load twice.
    tolerance = params.get("tolerance", 0.1) + ROUNDING
    demand = metric.sum.value / params["target"]
    if demand / desired - 1 > tolerance:
        return outcome(whole(demand), 0, "above-target", "the load is above its target", demand)

    # Towards a scale-in they count as busy.
    demand += metric.stale + metric.missing
    if 1 - demand / desired <= tolerance:
        return outcome(desired, 0, "within-tolerance", "the load is close to its target", demand)
    streak = min(streak + 1, PATIENCE)
    warming = counts.pending + counts.creating + counts.booting + counts.initializing
    if streak < PATIENCE or warming > 0:
        return outcome(desired, streak, "waiting", "the load may come back", demand)
    return outcome(whole(demand), 0, "below-target", "the load is below its target", demand)


def outcome(capacity: int, streak: int, code: str, text: str, demand: float | None = None) -> Outcome:
    evidence = [] if demand is None else [("demand", f"{demand:.3f}")]
    return Outcome(
        capacity=capacity,
        standby=None,
        victims=[],
        wake_after_ms=None,
        reasons=[Reason(code, text, evidence)],
        state=json.dumps({"streak": streak}).encode(),
    )


def whole(demand: float) -> int:
    """Whole instances for a demand: at least one, and no more than a host accepts."""
    return math.ceil(min(max(demand - ROUNDING, 1), MAX_CAPACITY))


def is_number(value) -> bool:
    # To Python, True is a number.
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def parse(text: str):
    """What the JSON says; None when it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def load(state: bytes) -> int:
    """The streak so far; a state that cannot be read counts as none."""
    try:
        streak = json.loads(state)["streak"]
    except (ValueError, TypeError, KeyError):
        return 0
    return streak if isinstance(streak, int) and streak >= 0 else 0
