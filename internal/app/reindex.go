package app

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"leat"
	"leat/internal/bus"
	"leat/internal/config"
	"leat/internal/guard"
	"leat/internal/reindex"
	"leat/internal/stage"
	"leat/sources/listing"
)

// ReindexProgress is how far a generation is from having caught up.
type ReindexProgress struct {
	Generation int
	Done       int64         // records that have passed all of its stages, of
	Total      int64         // those on the documents topic
	Rate       float64       // records a second, of late
	Left       time.Duration // at that rate; 0: unknown
	Idle       []string      // stages with a backlog that no process runs
	Trouble    []string      // what stages wait for, and what to do
}

// Reindex builds the next generation with pipeline.yaml's chunker and model beside
// the live one, from the documents topic, and makes it live once it has caught up
// and is found to hold what the live one holds. A generation that is under way
// is gone on with. It returns the generation's number.
func (a *App) Reindex(ctx context.Context, report func(ReindexProgress)) (n int, err error) {
	err = a.withStages(ctx, func(ctx context.Context, conn connection, p *bus.Producer) error {
		settings, config, err := a.made()
		if err != nil {
			return err
		}
		s, err := a.begun(ctx, conn, p)
		if err != nil {
			return err
		}
		if s.Switching == 0 {
			s, err = a.generations(conn).Change(ctx, p, func(s *reindex.State) error {
				g := s.Building()
				if g == nil {
					n = s.Begin(settings, config)
					return nil
				}
				if n = g.Number; g.Settings != settings {
					return leat.Hint(fmt.Errorf("generation %d is being built, and pipeline.yaml asks for %s: %w",
						n, settings.Difference(g.Settings), leat.ErrMismatch),
						"give it up first (leat reindex --abort), or set pipeline.yaml back")
				}
				return reindex.ErrUnchanged
			})
			if err != nil {
				return err
			}
		} else {
			n = s.Switching // a switch was interrupted
		}
		return a.makeLive(ctx, conn, p, n, report)
	})
	return n, err
}

// Rollback makes the generation live again that was before the one that is, and
// returns its number.
func (a *App) Rollback(ctx context.Context, report func(ReindexProgress)) (n int, err error) {
	err = a.withStages(ctx, func(ctx context.Context, conn connection, p *bus.Producer) error {
		s, err := a.state(ctx, conn)
		if err != nil {
			return err
		}
		switch g := s.Former(); {
		case s.Switching != 0:
			n = s.Switching
		case g == nil:
			return leat.Hint(fmt.Errorf("no former generation is kept beside generation %d", s.Live), "leat reindex builds another one")
		default:
			n = g.Number
		}
		return a.makeLive(ctx, conn, p, n, report)
	})
	return n, err
}

// Abort gives up the generation that is being built and returns its number.
func (a *App) Abort(ctx context.Context) (n int, err error) {
	conn, err := a.open(ctx)
	if err != nil {
		return 0, err
	}
	s, err := a.state(ctx, conn)
	if err = errors.Join(err, conn.Close()); err != nil {
		return 0, err
	}
	g := s.Building()
	if g == nil {
		return 0, leat.Hint(errors.New("no generation is being built"), "`leat reindex list` lists them")
	}
	return g.Number, a.Drop(ctx, g.Number)
}

// Generations lists them by number.
func (a *App) Generations(ctx context.Context) ([]GenerationStatus, error) {
	conn, err := a.open(ctx)
	if err != nil {
		return nil, err
	}
	s, err := a.state(ctx, conn)
	if err = errors.Join(err, conn.Close()); err != nil {
		return nil, err
	}
	var all []GenerationStatus
	for _, g := range s.Generations {
		all = append(all, generationStatus(s, g))
	}
	return all, nil
}

// Reread has sources, all if none is named, be read again from their beginning
// by the process that leads them, or the next that does. It returns their names.
func (a *App) Reread(ctx context.Context, names ...string) ([]string, error) {
	var full []string
	for _, s := range a.cfg.Sources {
		if len(names) == 0 || slices.ContainsFunc(names, func(name string) bool { return isSource(s, name) }) {
			full = append(full, s.Kind()+":"+s.Name)
		}
	}
	if err := a.knowsSources(names); err != nil {
		return nil, err
	}
	return full, a.withProducer(ctx, func(conn connection, p *bus.Producer) error {
		if _, err := a.begun(ctx, conn, p); err != nil {
			return err
		}
		_, err := a.generations(conn).Change(ctx, p, func(s *reindex.State) error {
			for _, name := range full {
				s.Reread[name]++
			}
			return nil
		})
		return err
	})
}

func isSource(s config.Source, name string) bool {
	return s.Name == name || s.Kind()+":"+s.Name == name
}

func (a *App) knowsSources(names []string) error {
	for _, name := range names {
		if !slices.ContainsFunc(a.cfg.Sources, func(s config.Source) bool { return isSource(s, name) }) {
			return leat.Hint(fmt.Errorf("pipeline.yaml has no source %q", name), "its sources: %s", a.Describe())
		}
	}
	return nil
}

// withStages calls f while the stages of the generations run: in the processes
// that run the pipeline or, where none does, in this one.
func (a *App) withStages(ctx context.Context, f func(context.Context, connection, *bus.Producer) error) error {
	running := false
	err := a.withProducer(ctx, func(conn connection, p *bus.Producer) error {
		s, err := a.state(ctx, conn)
		if err != nil {
			return err
		}
		members, err := a.readRunning(ctx, conn, s)
		if err != nil {
			return err
		}
		for _, processes := range members {
			running = running || len(processes) > 0
		}
		if !running {
			return nil
		}
		return f(ctx, conn, p)
	})
	if running || err != nil {
		return err
	}
	return a.runStages(ctx, f)
}

// runStages is run without sources, for as long as f takes.
func (a *App) runStages(ctx context.Context, f func(context.Context, connection, *bus.Producer) error) (err error) {
	p := process{App: a, options: RunOptions{Stages: stage.Names[1:]}, free: true}
	defer func() { err = errors.Join(err, p.close()) }()
	if err := p.open(ctx); err != nil {
		return err
	}
	rctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, rctx := errgroup.WithContext(rctx)
	g.Go(func() error { return p.run(rctx) })
	g.Go(func() error {
		defer cancel()
		return f(rctx, p.conn, p.producer)
	})
	return g.Wait()
}

// makeLive moves the aliases to a generation once it has caught up and holds what
// the live one holds. Each step may be repeated: where it is cut short, the next
// call goes on.
func (a *App) makeLive(ctx context.Context, conn connection, p *bus.Producer, n int, report func(ReindexProgress)) error {
	s, err := a.generations(conn).Load(ctx)
	if err != nil {
		return err
	}
	if s.Switching != n {
		if err := a.catchUp(ctx, conn, n, report); err != nil {
			return err
		}
		if err := a.compareGenerations(ctx, conn, s.Live, n); err != nil {
			return err
		}
		if s, err = a.generations(conn).Change(ctx, p, func(s *reindex.State) error {
			switch g := s.Find(n); {
			case g == nil || g.Phase == reindex.Dropping:
				return fmt.Errorf("generation %d was dropped meanwhile", n)
			case s.Switching != 0 && s.Switching != n:
				return leat.Hint(fmt.Errorf("the aliases are being moved to generation %d", s.Switching), "run `leat reindex` to finish that")
			}
			s.Switching = n
			return nil
		}); err != nil {
			return err
		}
	}
	err = a.eachGenerations(ctx, func(g leat.Generations) error { return g.Switch(ctx, n) })
	if err != nil {
		return fmt.Errorf("move the aliases to generation %d: %w", n, err)
	}
	_, err = a.generations(conn).Change(ctx, p, func(s *reindex.State) error {
		g := s.Find(n)
		if g == nil || s.Switching != n {
			return reindex.ErrUnchanged
		}
		s.Live, s.Switching, g.Phase, g.Live = n, 0, reindex.Ready, time.Now().UTC()
		return nil
	})
	return err
}

// reportEvery is how often progress is told.
const reportEvery = time.Second

// catchUp waits until a generation has consumed what the documents topic holds.
func (a *App) catchUp(ctx context.Context, conn connection, n int, report func(ReindexProgress)) error {
	if err := a.ensureGeneration(ctx, conn, n); err != nil || guard.Removed("I6") {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	told := make(chan struct{})
	go func() {
		defer close(told)
		var pace pace
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(reportEvery):
			}
			if p, err := a.progress(ctx, conn, n, &pace); err == nil {
				report(p)
			}
		}
	}()
	_, err := a.waitFor(ctx, conn, n)
	cancel()
	<-told
	return err
}

// pace measures a rate over the latest paceSpan.
type pace struct {
	times []time.Time
	done  []int64
}

const paceSpan = 15 * time.Second

func (p *pace) add(done int64) (perSecond float64) {
	now := time.Now()
	p.times, p.done = append(p.times, now), append(p.done, done)
	for now.Sub(p.times[0]) > paceSpan {
		p.times, p.done = p.times[1:], p.done[1:]
	}
	if span := now.Sub(p.times[0]).Seconds(); span > 0 {
		return float64(done-p.done[0]) / span
	}
	return 0
}

func (a *App) progress(ctx context.Context, conn connection, n int, pace *pace) (ReindexProgress, error) {
	out := ReindexProgress{Generation: n}
	lag, err := conn.Lag(ctx, bus.Groups(a.cfg.Name, n).Chunker, a.topics().Documents)
	if err != nil {
		return out, err
	}
	for _, l := range lag {
		out.Total += l.End - l.First
	}
	// A record is behind where it is in the stage that it has come least far to;
	// the two indexers work beside each other.
	behind := map[string]int64{}
	var groups []string
	for _, s := range a.flow(n) {
		if behind[s.name], err = a.backlog(ctx, conn, s); err != nil {
			return out, err
		}
		groups = append(groups, s.group)
	}
	members, err := conn.Members(ctx, groups...)
	if err != nil {
		return out, err
	}
	for _, s := range a.flow(n) {
		if behind[s.name] > 0 && len(members[s.group]) == 0 {
			out.Idle = append(out.Idle, s.name)
		}
	}
	states, _, err := a.readStates(ctx, conn)
	if err != nil {
		return out, err
	}
	for _, s := range a.flow(n) {
		running := map[string]bool{}
		for _, id := range members[s.group] {
			running[strings.TrimPrefix(id, clientPrefix)] = true
		}
		if st, ok := latest(states[stage.Component(n, s.name)], running); ok && st.Error != "" {
			out.Trouble = append(out.Trouble, strings.TrimSuffix(fmt.Sprintf("%s: %s; %s", st.Component, st.Error, st.Hint), "; "))
		}
	}
	left := behind[stage.Chunker] + max(behind[stage.TextIndexer], behind[stage.Embedder]+behind[stage.VectorIndexer])
	out.Done = max(out.Total-left, 0)
	if out.Rate = pace.add(out.Done); out.Rate > 0 {
		out.Left = time.Duration(float64(left) / out.Rate * float64(time.Second))
	}
	return out, nil
}

// compareGenerations finds that generation n holds what the live one holds, and
// the same in both of its indexes. Documents that only n's stages could not
// process speak against it; those that the live one's could not either do not.
func (a *App) compareGenerations(ctx context.Context, conn connection, live, n int) error {
	if guard.Removed("I6") {
		return nil
	}
	was, is := &stores{app: a, generation: live}, &stores{app: a, generation: n}
	defer was.Close()
	defer is.Close()
	var sinks []leat.Sink
	var states []iter.Seq2[leat.DocumentState, error]
	for _, open := range []func() (leat.Sink, error){
		func() (leat.Sink, error) { return was.Text(ctx) },
		func() (leat.Sink, error) { return is.Text(ctx) },
		func() (leat.Sink, error) { return is.Vectors(ctx, leat.Model{}) },
	} {
		x, err := open()
		if err != nil {
			return fmt.Errorf("compare generation %d with %d: %w", n, live, err)
		}
		sinks, states = append(sinks, x), append(states, x.Documents(ctx, ""))
	}
	var suspects []string
	err := listing.Merge(states, func(d *leat.DocumentState) string { return d.ID }, func(id string, at []*leat.DocumentState) error {
		if !sameVersion(at) {
			suspects = append(suspects, id)
		}
		return nil
	})
	if err != nil {
		return err
	}
	// What the live one holds of them now has reached the new one once that has
	// consumed what the documents topic holds, however much they change meanwhile.
	for range 2 {
		var held []*leat.DocumentState
		for _, id := range suspects {
			d, err := state(ctx, sinks[0], id)
			if err != nil {
				return err
			}
			held = append(held, d)
		}
		if _, err := a.waitFor(ctx, conn, n); err != nil {
			return err
		}
		var still []string
		for i, id := range suspects {
			text, err := state(ctx, sinks[1], id)
			if err != nil {
				return err
			}
			vectors, err := state(ctx, sinks[2], id)
			if err != nil {
				return err
			}
			if !reaches(held[i], text, vectors) {
				still = append(still, id)
			}
		}
		suspects = still
	}
	if len(suspects) == 0 {
		return nil
	}
	return a.explainSuspects(ctx, conn, live, n, suspects)
}

// reaches reports whether both indexes of a generation hold of a document what
// the live one held, or a newer version of it.
func reaches(held, text, vectors *leat.DocumentState) bool {
	switch {
	case text == nil || vectors == nil:
		return text == vectors && (held == nil || held.Deleted)
	case held == nil:
		return text.Version == vectors.Version
	}
	return min(text.Version, vectors.Version) >= held.Version
}

// sameVersion reports whether the live generation's state and the two of the new
// one are the same. One that the live one lacks, because its stages could not
// process it, speaks for the new one.
func sameVersion(at []*leat.DocumentState) bool {
	was, text, vectors := at[0], at[1], at[2]
	if text == nil || vectors == nil {
		return text == vectors && was == nil
	}
	return text.Version == vectors.Version && (was == nil || text.Version >= was.Version)
}

// explainSuspects tells which documents keep a generation from becoming live;
// nil where the dead letters of the live one explain them all.
func (a *App) explainSuspects(ctx context.Context, conn connection, live, n int, suspects []string) error {
	letters, err := a.deadLetters(ctx, conn)
	if err != nil {
		return err
	}
	known, reason := map[string]bool{}, map[string]string{}
	for _, l := range letters {
		switch l.Generation() {
		case live:
			known[l.Document] = true
		case n:
			reason[l.Document] = l.Reason
		}
	}
	var bad []string
	for _, id := range suspects {
		if known[id] {
			continue
		}
		if r := reason[id]; r != "" {
			id += ": " + r
		}
		bad = append(bad, id)
	}
	if len(bad) == 0 {
		return nil
	}
	more := ""
	if len(bad) > 10 {
		more = fmt.Sprintf("\n  and %d more", len(bad)-10)
	}
	return leat.Hint(fmt.Errorf("generation %d lacks %d documents of generation %d, or holds them otherwise, and is not made live:\n  %s%s",
		n, len(bad), live, strings.Join(bad[:min(len(bad), 10)], "\n  "), more),
		"`leat dlq list` says what could not be processed, `leat verify --repair` mends the live index; then run `leat reindex` again, or give up with `leat reindex --abort`")
}
