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
	"leat/internal/reindex"
	"leat/internal/stage"
)

// Status of a pipeline: what is behind, why, and what to do.
type Status struct {
	Name        string             `json:"name"`
	Running     bool               `json:"running"` // some process runs part of it
	Sources     []SourceStatus     `json:"sources"`
	Stages      []StageStatus      `json:"stages"` // of the live generation
	Index       IndexStatus        `json:"index"`
	Generations []GenerationStatus `json:"generations"`
	DeadLetters map[string]int     `json:"dead_letters"` // by reason
	ToDo        []string           `json:"to_do"`
}

// GenerationStatus of one generation.
type GenerationStatus struct {
	Number    int           `json:"generation"`
	State     string        `json:"state"` // "live", "building", "kept" or "dropping"
	Model     string        `json:"model"`
	Dimension int           `json:"dimension"`
	Target    int           `json:"target_tokens"` // of a chunk
	Max       int           `json:"max_tokens"`
	Started   time.Time     `json:"started"`
	Stages    []StageStatus `json:"stages,omitempty"`
}

func generationStatus(s reindex.State, g reindex.Generation) GenerationStatus {
	out := GenerationStatus{
		Number: g.Number, State: string(g.Phase), Started: g.Started,
		Model: g.Settings.Model.Name, Dimension: g.Settings.Model.Dimension,
		Target: g.Settings.TargetTokens, Max: g.Settings.MaxTokens,
	}
	switch {
	case g.Number == s.Live:
		out.State = "live"
	case g.Phase == reindex.Ready:
		out.State = "kept"
	}
	return out
}

// SourceStatus of one source.
type SourceStatus struct {
	Name     string         `json:"name"`
	State    string         `json:"state"` // "running", "retrying", "failed", "stopped" or "never run"
	Error    string         `json:"error,omitempty"`
	Hint     string         `json:"hint,omitempty"`
	Since    time.Time      `json:"since,omitzero"`
	Process  string         `json:"process,omitempty"` // that reads it, or did last: host and process id
	Saved    time.Time      `json:"position_saved,omitzero"`
	Progress *leat.Progress `json:"progress,omitempty"`
}

// StageStatus of one stage.
type StageStatus struct {
	Name      string    `json:"name"`
	State     string    `json:"state"`     // "running", "retrying", "stopped" or "never run"
	Processes int       `json:"processes"` // that run it
	Error     string    `json:"error,omitempty"`
	Hint      string    `json:"hint,omitempty"`
	Backlog   int64     `json:"backlog"`         // records not yet consumed; after compaction an upper bound
	Oldest    time.Time `json:"oldest,omitzero"` // of them
}

// IndexStatus counts what is searchable.
type IndexStatus struct {
	Text    leat.Stats `json:"text"`
	Vectors leat.Stats `json:"vectors"`
	Error   string     `json:"error,omitempty"` // why they could not be counted
	Hint    string     `json:"hint,omitempty"`
}

// Status reads the state of the pipeline, running or not.
func (a *App) Status(ctx context.Context) (st Status, err error) {
	st = Status{Name: a.cfg.Name, DeadLetters: map[string]int{}, ToDo: []string{}}
	conn, err := a.open(ctx)
	if err != nil {
		return st, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	generations, err := a.state(ctx, conn)
	if err != nil {
		return st, err
	}
	running, err := a.readRunning(ctx, conn, generations)
	if err != nil {
		return st, err
	}
	for _, processes := range running {
		st.Running = st.Running || len(processes) > 0
	}
	states, positions, err := a.readStates(ctx, conn)
	if err != nil {
		return st, err
	}
	for _, s := range a.cfg.Sources {
		name := s.Kind() + ":" + s.Name
		src := SourceStatus{Name: name, State: "never run", Saved: positions[name].Saved}
		if s, ok := latest(states["source/"+name], running[a.sourcesGroup()]); ok {
			src.State, src.Error, src.Hint, src.Since, src.Process, src.Progress = s.State, s.Error, s.Hint, s.Since, s.Process, s.Progress
		}
		st.Sources = append(st.Sources, src)
	}
	for _, g := range generations.Generations {
		gs := generationStatus(generations, g)
		if g.Phase != reindex.Dropping {
			if err := a.ensureGeneration(ctx, conn, g.Number); err != nil {
				return st, err
			}
			for _, s := range a.flow(g.Number) {
				out, err := a.stageStatus(ctx, conn, s, states[stage.Component(g.Number, s.name)], running[s.group])
				if err != nil {
					return st, err
				}
				gs.Stages = append(gs.Stages, out)
			}
		}
		if g.Number == generations.Live {
			st.Stages, gs.Stages = gs.Stages, nil // they are there once
		}
		st.Generations = append(st.Generations, gs)
	}
	if st.Index, err = a.indexStatus(ctx); err != nil { // the rest is known all the same
		st.Index.Error, st.Index.Hint = err.Error(), leat.HintOf(err)
	}
	letters, err := a.deadLetters(ctx, conn)
	if err != nil {
		return st, err
	}
	for _, l := range letters {
		st.DeadLetters[l.Reason]++
	}
	st.ToDo = append(st.ToDo, a.toDo(st, generations, len(letters))...)
	return st, nil
}

// backlog is how many records a stage has not yet consumed.
func (a *App) backlog(ctx context.Context, conn connection, s flowStage) (n int64, err error) {
	lag, err := conn.Lag(ctx, s.group, s.topic)
	for _, l := range lag {
		n += l.Records()
	}
	return n, err
}

func (a *App) stageStatus(ctx context.Context, conn connection, s flowStage, states []stage.State, running map[string]bool) (StageStatus, error) {
	out := StageStatus{Name: s.name, State: "never run", Processes: len(running)}
	lag, err := conn.Lag(ctx, s.group, s.topic)
	if err != nil {
		return out, err
	}
	for _, l := range lag {
		out.Backlog += l.Records()
	}
	if out.Oldest, err = conn.Oldest(ctx, s.topic, lag); err != nil {
		return out, err
	}
	if s, ok := latest(states, running); ok {
		out.State, out.Error, out.Hint = s.State, s.Error, s.Hint
	}
	return out, nil
}

// readRunning finds the processes that are in each group.
func (a *App) readRunning(ctx context.Context, conn connection, generations reindex.State) (map[string]map[string]bool, error) {
	groups := []string{a.sourcesGroup()}
	for _, g := range generations.Fed() {
		for _, s := range a.flow(g.Number) {
			groups = append(groups, s.group)
		}
	}
	members, err := conn.Members(ctx, groups...)
	if err != nil {
		return nil, err
	}
	running := make(map[string]map[string]bool, len(groups))
	for group, clients := range members {
		running[group] = map[string]bool{}
		for _, id := range clients {
			running[group][strings.TrimPrefix(id, clientPrefix)] = true
		}
	}
	return running, nil
}

// latest is the newest state of a component that a running process gave, one
// with trouble before one without; where no process runs it, the newest of all
// as it ended.
func latest(states []stage.State, running map[string]bool) (newest stage.State, ok bool) {
	rank := func(s stage.State) int {
		switch {
		case !running[s.Process]:
			return 0
		case s.Error == "":
			return 1
		}
		return 2
	}
	for _, s := range states {
		if r, top := rank(s), rank(newest); !ok || r > top || r == top && s.Updated.After(newest.Updated) {
			newest, ok = s, true
		}
	}
	if ok && rank(newest) == 0 && newest.State != "failed" {
		newest.State = "stopped"
	}
	return newest, ok
}

// readStates reads what the parts of leat last said of themselves, by component,
// and the saved positions by source.
func (a *App) readStates(ctx context.Context, conn connection) (map[string][]stage.State, map[string]stage.Position, error) {
	states, positions := map[string][]stage.State{}, map[string]stage.Position{}
	err := conn.Latest(ctx, a.topics().Positions, func(r bus.Record) error {
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
			states[s.Component] = append(states[s.Component], s)
		}
		return nil
	})
	return states, positions, err
}

func (a *App) indexStatus(ctx context.Context) (st IndexStatus, err error) {
	return st, a.reading(ctx, func(text leat.TextIndex, vectors leat.VectorIndex) (err error) {
		if text != nil {
			if st.Text, err = text.Stats(ctx); err != nil {
				return err
			}
		}
		if vectors != nil {
			st.Vectors, err = vectors.Stats(ctx)
		}
		return err
	})
}

// toDo says what an operator can do about what is not well.
func (a *App) toDo(st Status, generations reindex.State, letters int) []string {
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
	stages := func(all []StageStatus, of string) {
		for _, s := range all {
			if s.Hint != "" {
				do = append(do, s.Name+of+": "+s.Hint)
			}
			if st.Running && s.Processes == 0 && s.Backlog > 0 {
				do = append(do, fmt.Sprintf("no process runs the %s%s: leat run --stages %s", s.Name, of, s.Name))
			}
		}
	}
	stages(st.Stages, "")
	for _, g := range st.Generations {
		stages(g.Stages, fmt.Sprintf(" of generation %d", g.Number))
		switch {
		case g.Number == generations.Switching:
			do = append(do, fmt.Sprintf("the move of the aliases to generation %d was interrupted: leat reindex finishes it", g.Number))
		case g.State == "building":
			do = append(do, fmt.Sprintf("generation %d is being built: leat reindex goes on with it, leat reindex --abort gives it up", g.Number))
		case g.State == "kept":
			do = append(do, fmt.Sprintf("generation %d is kept for leat reindex rollback and fed like the live one: leat reindex drop %d ends that", g.Number, g.Number))
		case g.State == "dropping":
			do = append(do, fmt.Sprintf("generation %d was not dropped to the end: leat reindex drop %d", g.Number, g.Number))
		}
	}
	if st.Index.Hint != "" {
		do = append(do, "index: "+st.Index.Hint)
	}
	if letters > 0 {
		do = append(do, fmt.Sprintf("%d dead letters: leat dlq list, then leat dlq retry", letters))
	}
	sort.Strings(do)
	return do
}
