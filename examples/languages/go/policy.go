// Policy `tolerant-target`: keeps a metric at its target, within a tolerance.
//
// Scales out at once, scales in only when the metric was below its target for three ticks in a row and nothing is
// warming up.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
)

const (
	patience    = 3         // ticks in a row below the target before it scales in
	rounding    = 1e-9      // what rounding may add to a quotient of floats; it must not cost an instance
	maxCapacity = 1_000_000 // the host refuses more instances than this
)

// Params are what users write under `policy.params`.
type Params struct {
	Metric    string
	Target    float64
	Tolerance float64
}

// State is carried from one tick to the next.
type State struct {
	Streak int `json:"streak"` // ticks in a row below the target, at most patience
}

func Describe() Manifest {
	return Manifest{
		Name:        "tolerant-target",
		Version:     "1.0.0",
		Description: "Keeps a metric at its target, within a tolerance.",
		ParamsSchema: json.RawMessage(`{
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
		}`),
		// A name that starts with `/` points at the parameter that holds the name.
		Metrics:      []MetricRequest{{Name: "/metric"}},
		StateVersion: 1,
	}
}

// Validate tells all problems at once.
func Validate(params []byte) []Problem {
	_, problems := read(params)
	return problems
}

func read(text []byte) (params Params, problems []Problem) {
	require := func(ok bool, path, message string) {
		if !ok {
			problems = append(problems, Problem{path, message})
		}
	}
	var given map[string]json.RawMessage
	if err := json.Unmarshal(text, &given); err != nil || given == nil {
		require(false, "", "must be an object")
		return
	}
	// A value of the wrong kind, `null` among them, is no value.
	value := func(name string, to any) bool {
		text := given[name]
		return !bytes.Equal(text, []byte("null")) && json.Unmarshal(text, to) == nil
	}
	params.Tolerance = 0.1
	for _, name := range slices.Sorted(maps.Keys(given)) {
		switch name {
		case "metric":
			require(value(name, &params.Metric) && params.Metric != "", "/metric", "must name a metric")
		case "target":
			require(value(name, &params.Target) && params.Target > 0, "/target", "must be a number above 0")
		case "tolerance":
			ok := value(name, &params.Tolerance) && params.Tolerance >= 0 && params.Tolerance <= 1
			require(ok, "/tolerance", "must be a number from 0 to 1")
		default:
			require(false, "", "unknown parameter "+name)
		}
	}
	for _, name := range []string{"metric", "target"} {
		_, there := given[name]
		require(there, "", "missing parameter "+name)
	}
	return
}

// Decide turns one tick into one outcome. An error says why there is none; the set then keeps its size.
func Decide(tick Tick, paramsText, stateText []byte) (Outcome, error) {
	params, problems := read(paramsText)
	if len(problems) > 0 {
		return Outcome{}, fmt.Errorf("parameter %s: %s", problems[0].Path, problems[0].Message)
	}
	var state State
	if json.Unmarshal(stateText, &state) != nil || state.Streak < 0 {
		state = State{} // one that cannot be read counts as none
	}
	counts, desired := tick.Counts, tick.Desired
	metric := tick.Metric(params.Metric)

	// Never act on no data: it is not the same as no load.
	if metric.Sum.Status != "fresh" || counts.InService == 0 || desired == 0 {
		return wants(desired, 0, Reason{Code: "no-data", Text: "there is nothing to go by"}), nil
	}

	// How many instances the measured load needs. Those that were never measured, as they have just come into
	// service, take their load from the others: to count them as busy would ask for that load twice.
	demand := metric.Sum.Value / params.Target
	if demand/float64(desired)-1 > params.Tolerance+rounding {
		return wants(whole(demand), 0, because("above-target", "the load is above its target", demand)), nil
	}

	// Towards a scale-in they count as busy.
	demand += float64(metric.Unmeasured())
	if 1-demand/float64(desired) <= params.Tolerance+rounding {
		return wants(desired, 0, because("within-tolerance", "the load is close to its target", demand)), nil
	}
	streak := min(state.Streak+1, patience)
	if streak < patience || counts.Warming() > 0 {
		return wants(desired, streak, because("waiting", "the load may come back", demand)), nil
	}
	return wants(whole(demand), 0, because("below-target", "the load is below its target", demand)), nil
}

func because(code, text string, demand float64) Reason {
	return Reason{code, text, [][2]string{{"demand", strconv.FormatFloat(demand, 'f', 3, 64)}}}
}

func wants(capacity uint32, streak int, reason Reason) Outcome {
	return Outcome{Capacity: capacity, Reasons: []Reason{reason}, State: State{streak}}
}

// Whole instances for a demand: at least one, and no more than a host accepts.
func whole(demand float64) uint32 {
	return uint32(math.Ceil(min(max(demand-rounding, 1), maxCapacity)))
}
