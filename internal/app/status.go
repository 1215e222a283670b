package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	"leat"
	"leat/internal/bus"
	"leat/internal/stage"
)

// Status of a pipeline: what is behind, why, and what to do.
type Status struct {
	Name        string         `json:"name"`
	Running     bool           `json:"running"` // a process runs the embedded broker; always true with Kafka
	Sources     []SourceStatus `json:"sources"`
	Stages      []StageStatus  `json:"stages"`
	Index       IndexStatus    `json:"index"`
	DeadLetters map[string]int `json:"dead_letters"` // by reason
	ToDo        []string       `json:"to_do"`
}

// SourceStatus of one source.
type SourceStatus struct {
	Name     string         `json:"name"`
	State    string         `json:"state"` // "running", "retrying", "failed", "stopped" or "never run"
	Error    string         `json:"error,omitempty"`
	Hint     string         `json:"hint,omitempty"`
	Since    time.Time      `json:"since,omitzero"`
	Saved    time.Time      `json:"position_saved,omitzero"`
	Progress *leat.Progress `json:"progress,omitempty"`
}

// StageStatus of one stage.
type StageStatus struct {
	Name    string    `json:"name"`
	State   string    `json:"state"`
	Error   string    `json:"error,omitempty"`
	Hint    string    `json:"hint,omitempty"`
	Backlog int64     `json:"backlog"`         // records not yet consumed; after compaction an upper bound
	Oldest  time.Time `json:"oldest,omitzero"` // of them
}

// IndexStatus counts what is searchable.
type IndexStatus struct {
	Text    leat.Stats `json:"text"`
	Vectors leat.Stats `json:"vectors"`
}

// Status reads the state of the pipeline, running or not.
func (a *App) Status(ctx context.Context) (st Status, err error) {
	st = Status{Name: a.cfg.Name, Running: a.cfg.Kafka != nil, DeadLetters: map[string]int{}, ToDo: []string{}}
	conn, err := a.connect(ctx, false)
	if err != nil {
		return st, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if a.cfg.Kafka == nil {
		st.Running = conn.embedded == nil
	}
	if err := a.ensureTopics(ctx, conn); err != nil {
		return st, err
	}
	states, positions, err := a.readStates(ctx, conn)
	if err != nil {
		return st, err
	}
	for _, s := range a.cfg.Sources {
		name := s.Kind() + ":" + s.Name
		src := SourceStatus{Name: name, State: "never run", Saved: positions[name].Saved}
		if s, ok := states["source/"+name]; ok {
			src.State, src.Error, src.Hint, src.Since, src.Progress = s.State, s.Error, s.Hint, s.Since, s.Progress
			if !st.Running {
				src.State = "stopped"
			}
		}
		st.Sources = append(st.Sources, src)
	}
	for _, s := range a.flow() {
		lag, err := conn.Lag(ctx, s.group, s.topic)
		if err != nil {
			return st, err
		}
		out := StageStatus{Name: s.name, State: "never run"}
		for _, l := range lag {
			out.Backlog += l.Records()
			if out.Oldest.IsZero() || (!l.Oldest.IsZero() && l.Oldest.Before(out.Oldest)) {
				out.Oldest = l.Oldest
			}
		}
		if s, ok := states[s.name]; ok {
			out.State, out.Error, out.Hint = s.State, s.Error, s.Hint
			if !st.Running {
				out.State = "stopped"
			}
		}
		st.Stages = append(st.Stages, out)
	}
	if st.Index, err = a.indexStatus(ctx); err != nil {
		return st, err
	}
	letters, err := a.deadLetters(ctx, conn)
	if err != nil {
		return st, err
	}
	for _, l := range letters {
		st.DeadLetters[l.Reason]++
	}
	st.ToDo = append(st.ToDo, a.toDo(st, len(letters))...)
	return st, nil
}

// readStates reads what the parts of leat last said of themselves, the newest
// by component, and the saved positions by source.
func (a *App) readStates(ctx context.Context, conn connection) (map[string]stage.State, map[string]stage.Position, error) {
	states, positions := map[string]stage.State{}, map[string]stage.Position{}
	err := conn.Latest(ctx, a.topics.Positions, func(r bus.Record) error {
		if r.Value == nil {
			return nil
		}
		key := string(r.Key)
		if name, ok := strings.CutPrefix(key, stage.PositionKey("")); ok {
			var p stage.Position
			if err := json.Unmarshal(r.Value, &p); err != nil {
				return fmt.Errorf("%s at offset %d: %w", key, r.Offset, err)
			}
			positions[name] = p
		}
		if strings.HasPrefix(key, stage.StateKey) {
			var s stage.State
			if err := json.Unmarshal(r.Value, &s); err != nil {
				return fmt.Errorf("%s at offset %d: %w", key, r.Offset, err)
			}
			if s.Updated.After(states[s.Component].Updated) {
				states[s.Component] = s
			}
		}
		return nil
	})
	return states, positions, err
}

func (a *App) indexStatus(ctx context.Context) (st IndexStatus, err error) {
	store, err := a.openStored(ctx)
	if err != nil || store == nil {
		return st, err
	}
	defer store.Close()
	if st.Text, err = store.text.Stats(ctx); err == nil && store.vectors != nil {
		st.Vectors, err = store.vectors.Stats(ctx)
	}
	return st, err
}

// toDo says what an operator can do about what is not well.
func (a *App) toDo(st Status, letters int) []string {
	var do []string
	if !st.Running {
		do = append(do, "start the pipeline: leat run")
	}
	for _, s := range st.Sources {
		if s.Hint != "" {
			do = append(do, s.Name+": "+s.Hint)
		}
		if st.Running && s.State == "failed" {
			do = append(do, s.Name+": mend it, then restart leat run")
		}
	}
	for _, s := range st.Stages {
		if s.Hint != "" {
			do = append(do, s.Name+": "+s.Hint)
		}
		if st.Running && s.State == "never run" && s.Backlog > 0 {
			do = append(do, fmt.Sprintf("no process runs the %s: leat run --stages %s", s.Name, s.Name))
		}
	}
	if letters > 0 {
		do = append(do, fmt.Sprintf("%d dead letters: leat dlq list, then leat dlq retry", letters))
	}
	sort.Strings(do)
	return do
}
