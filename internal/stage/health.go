package stage

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"leat"
	"leat/internal/bus"
)

// State is what a running part of leat last said of itself, for `leat status`.
type State struct {
	Component string         `json:"component"` // a stage, or "source/" and a source
	State     string         `json:"state"`     // "running", "retrying", "failed" or "stopped"
	Error     string         `json:"error,omitempty"`
	Hint      string         `json:"hint,omitempty"`
	Since     time.Time      `json:"since"`   // of State
	Updated   time.Time      `json:"updated"` // of the record
	Process   string         `json:"process"` // host and process id
	Progress  *leat.Progress `json:"progress,omitempty"`
}

// Process names this process: host and process id.
func Process() string {
	host, _ := os.Hostname()
	return fmt.Sprintf("%s/%d", host, os.Getpid())
}

// StateKey prefixes the keys of states on the positions topic.
const StateKey = "state/"

// Health keeps the states of this process's parts on the positions topic, where
// `leat status` of any process finds them. It writes when a state changes, at
// most once a second, and nothing while nothing changes.
type Health struct {
	Topic string
	Out   Producer
	Log   *slog.Logger

	mu    sync.Mutex
	parts map[string]*State
	dirty map[string]bool
}

// Running says that a component works, again if it had not.
func (h *Health) Running(component string) {
	if was := h.set(component, "running", nil); was == "retrying" {
		h.Log.Info("works again", "component", component)
	}
}

// Retrying says that a component waits for err to heal; news are logged.
func (h *Health) Retrying(component string, err error) {
	if was := h.set(component, "retrying", err); was != "" {
		h.Log.Warn("retrying", "component", component, "error", err, "hint", leat.HintOf(err))
	}
}

// Failed says that a component has stopped for good: err needs an operator.
func (h *Health) Failed(component string, err error) {
	h.set(component, "failed", err)
	h.Log.Error("stopped", "component", component, "error", err, "hint", leat.HintOf(err))
}

// Progress says how far a source is.
func (h *Health) Progress(component string, p leat.Progress) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.state(component)
	if s.Progress == nil || *s.Progress != p {
		s.Progress = &p
		h.dirty[component] = true
	}
}

// States returns the present states of this process's parts.
func (h *Health) States() map[string]State {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make(map[string]State, len(h.parts))
	for k, s := range h.parts {
		out[k] = *s
	}
	return out
}

// set returns the state before, or "" where nothing has changed.
func (h *Health) set(component, state string, err error) (was string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.state(component)
	var text, hint string
	if err != nil {
		text, hint = err.Error(), leat.HintOf(err)
	}
	if s.State == state && s.Error == text && s.Hint == hint {
		return ""
	}
	was = cmp.Or(s.State, "new")
	if s.State != state {
		s.Since = time.Now().UTC()
	}
	s.State, s.Error, s.Hint = state, text, hint
	h.dirty[component] = true
	return was
}

func (h *Health) state(component string) *State {
	if h.parts == nil {
		h.parts, h.dirty = map[string]*State{}, map[string]bool{}
	}
	s := h.parts[component]
	if s == nil {
		s = &State{Component: component, Process: Process()}
		h.parts[component] = s
	}
	return s
}

// Run writes changed states until ctx ends; then it says that all have stopped.
func (h *Health) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if err := h.flush(ctx); err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return h.stopped(context.WithoutCancel(ctx))
		case <-tick.C:
		}
	}
}

func (h *Health) stopped(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	h.mu.Lock()
	names := make([]string, 0, len(h.parts))
	for name := range h.parts {
		names = append(names, name)
	}
	h.mu.Unlock()
	for _, name := range names {
		h.set(name, "stopped", nil)
	}
	// What is lost here is only how status words it.
	_ = h.flush(ctx)
	return nil
}

func (h *Health) flush(ctx context.Context) error {
	h.mu.Lock()
	var records []bus.Record
	for name := range h.dirty {
		s := h.parts[name]
		s.Updated = time.Now().UTC()
		value, err := json.Marshal(s)
		if err != nil {
			h.mu.Unlock()
			return err
		}
		records = append(records, bus.Record{Topic: h.Topic, Key: []byte(StateKey + name + "@" + s.Process), Value: value})
		delete(h.dirty, name)
	}
	h.mu.Unlock()
	if len(records) == 0 {
		return nil
	}
	return h.Out.Produce(ctx, records...)
}
