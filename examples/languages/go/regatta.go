package main

// The plain-memory JSON contract of Regatta: the host writes JSON text into this module's memory and reads JSON text
// from it. Nothing here is about the policy; it calls Describe, Validate and Decide.

import (
	"encoding/json"
	"fmt"
	"unsafe"
)

// Instances by state.
type Counts struct {
	Pending      uint32 `json:"pending"`
	Creating     uint32 `json:"creating"`
	Booting      uint32 `json:"booting"`
	Initializing uint32 `json:"initializing"`
	InService    uint32 `json:"in_service"`
	Standby      uint32 `json:"standby"`
	Unhealthy    uint32 `json:"unhealthy"`
	Draining     uint32 `json:"draining"`
	Terminating  uint32 `json:"terminating"`
	Failed       uint32 `json:"failed"`
}

// Warming is how many instances are on their way into service.
func (c Counts) Warming() uint32 { return c.Pending + c.Creating + c.Booting + c.Initializing }

// MetricValue is "fresh", "stale" or "missing": "no data" can never read as zero.
type MetricValue struct {
	Status string  `json:"status"`
	Value  float64 `json:"value"`
	AgeMs  uint64  `json:"age_ms"`
}

// Aggregate is a metric folded over the instances in service.
type Aggregate struct {
	Name                  string
	Mean, Sum, Min, Max   MetricValue
	Fresh, Stale, Missing uint32
}

// Unmeasured is how many instances in service it says nothing about.
func (a Aggregate) Unmeasured() uint32 { return a.Stale + a.Missing }

type LastDecision struct {
	Tick       uint64   `json:"tick"`
	Wanted     *uint32  `json:"wanted"`
	Granted    uint32   `json:"granted"`
	Reasons    []Reason `json:"reasons"`
	NarrowedBy []string `json:"narrowed_by"`
}

// Tick is what a policy sees.
type Tick struct {
	NowMs      uint64        `json:"now_ms"`
	Number     uint64        `json:"number"`
	Set        string        `json:"set"`
	Generation uint64        `json:"generation"`
	Min        uint32        `json:"min"`
	Max        uint32        `json:"max"`
	Desired    uint32        `json:"desired"` // capacity in force before this tick
	Counts     Counts        `json:"counts"`
	Last       *LastDecision `json:"last"`
	Schedule   []string      `json:"schedule"`
	Metrics    []Aggregate   `json:"metrics"` // those that Describe asked for
}

// Metric that Describe asked for; without a value if the set has none of that name.
func (t Tick) Metric(name string) Aggregate {
	for _, metric := range t.Metrics {
		if metric.Name == name {
			return metric
		}
	}
	missing := MetricValue{Status: "missing"}
	return Aggregate{Name: name, Mean: missing, Sum: missing, Min: missing, Max: missing}
}

// Reason says why a policy decided as it did: a stable code, a sentence, and what it rests on.
type Reason struct {
	Code     string      `json:"code"`
	Text     string      `json:"text"`
	Evidence [][2]string `json:"evidence,omitempty"`
}

// Outcome is what a policy wants. State is handed to the next Decide.
type Outcome struct {
	Capacity    uint32   `json:"capacity"`
	Standby     *uint32  `json:"standby,omitempty"`
	Victims     []uint32 `json:"victims,omitempty"`
	WakeAfterMs *uint64  `json:"wake_after_ms,omitempty"`
	Reasons     []Reason `json:"reasons"`
	State       any      `json:"state"`
}

type MetricRequest struct {
	Name     string `json:"name"`
	WindowMs uint64 `json:"window_ms"`
}

// Manifest is what a policy says of itself.
type Manifest struct {
	Name         string          `json:"name"`
	Version      string          `json:"version"`
	Description  string          `json:"description"`
	ParamsSchema json.RawMessage `json:"params_schema"`
	Metrics      []MetricRequest `json:"metrics"`
	StateVersion uint32          `json:"state_version"`
}

// Problem of the parameters; Path is a JSON pointer.
type Problem struct {
	Path    string `json:"path"`
	Message string `json:"message"`
}

// LogLevel is how much a line matters.
type LogLevel int32

const (
	Trace LogLevel = iota
	Debug
	Info
	Warn
	Error
)

// Log writes a line to the record of the tick.
func Log(level LogLevel, format string, values ...any) {
	line := []byte(fmt.Sprintf(format, values...))
	hostLog(int32(level), unsafe.Pointer(unsafe.SliceData(line)), int32(len(line)))
}

//go:wasmimport regatta log
func hostLog(level int32, at unsafe.Pointer, length int32)

// ---- exports

// What the host reads or writes while a call is under way: the garbage collector must not take it.
var alive [][]byte

//go:wasmexport regatta_alloc
func alloc(length int32) unsafe.Pointer {
	buffer := make([]byte, max(length, 1))
	alive = append(alive, buffer)
	return unsafe.Pointer(unsafe.SliceData(buffer))
}

//go:wasmexport regatta_describe
func describe() int64 { return give(Describe()) }

//go:wasmexport regatta_validate
func validate(at unsafe.Pointer, length int32) int64 {
	problems := Validate(unsafe.Slice((*byte)(at), length))
	if problems == nil {
		problems = []Problem{}
	}
	return give(problems)
}

//go:wasmexport regatta_decide
func decide(at unsafe.Pointer, length int32) int64 {
	var given struct {
		Tick   Tick            `json:"tick"`
		Params json.RawMessage `json:"params"`
		State  json.RawMessage `json:"state"`
	}
	err := json.Unmarshal(unsafe.Slice((*byte)(at), length), &given)
	if err == nil {
		var outcome Outcome
		if outcome, err = Decide(given.Tick, given.Params, given.State); err == nil {
			return give(map[string]any{"ok": outcome})
		}
	}
	return give(map[string]any{"error": err.Error()})
}

// Address and length of the value's JSON text.
func give(value any) int64 {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err) // ends up in the log of the tick
	}
	alive = append(alive, text)
	at := uintptr(unsafe.Pointer(unsafe.SliceData(text)))
	return int64(at)<<32 | int64(len(text))
}

func main() {}
