package app

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"leat"
	"leat/chunker"
	"leat/embedder"
	"leat/internal/bus"
	"leat/internal/reindex"
)

func (a *App) generations(c connection) *reindex.Log {
	return &reindex.Log{Topic: a.topics().Generations, In: c.Client}
}

// makers are the configurations that a generation is made with.
type makers struct {
	Chunker  chunker.Config  `json:"chunker"`
	Embedder embedder.Config `json:"embedder"`
}

// settings are those of pipeline.yaml.
func (a *App) settings() (reindex.Settings, error) {
	model, prefix, err := a.cfg.Embedder.Identity()
	if err != nil {
		return reindex.Settings{}, err
	}
	cut := a.cfg.Chunker.Resolved()
	return reindex.Settings{
		TargetTokens: cut.TargetTokens, MaxTokens: cut.MaxTokens, Rules: chunker.Rules, Model: model, PassagePrefix: prefix,
	}, nil
}

// made is what a generation's record keeps of pipeline.yaml.
func (a *App) made() (reindex.Settings, json.RawMessage, error) {
	settings, err := a.settings()
	if err != nil {
		return settings, nil, err
	}
	config, err := json.Marshal(makers{a.cfg.Chunker, a.cfg.Embedder.WithoutSecrets()})
	return settings, config, err
}

// first is the state of a pipeline without a record of its generations: one,
// made by pipeline.yaml, of the number that the stores' alias leads to.
func (a *App) first(ctx context.Context) (reindex.State, error) {
	settings, config, err := a.made()
	if err != nil {
		return reindex.State{}, err
	}
	n, err := a.live(ctx)
	if err != nil {
		a.log.Warn("cannot see which generation the index is of: taking it for the first", "error", err, "hint", leat.HintOf(err))
	}
	return reindex.First(max(n, 1), settings, config), nil
}

// state reads the generations, as they will be where nothing runs yet.
func (a *App) state(ctx context.Context, c connection) (reindex.State, error) {
	s, err := a.generations(c).Load(ctx)
	if err != nil || s.Revision > 0 {
		return s, err
	}
	return a.first(ctx)
}

// begun makes sure that there is a record of the generations and returns it.
func (a *App) begun(ctx context.Context, c connection, out reindex.Producer) (reindex.State, error) {
	return a.generations(c).Change(ctx, out, func(s *reindex.State) (err error) {
		if s.Revision > 0 {
			return reindex.ErrUnchanged
		}
		*s, err = a.first(ctx)
		return err
	})
}

// fits refuses a pipeline.yaml that no generation is made by.
func (a *App) fits(s reindex.State) error {
	settings, err := a.settings()
	if err != nil {
		return err
	}
	live := s.Find(s.Live)
	switch g := s.Fitting(settings); {
	case live == nil:
		return fmt.Errorf("generation %d is live and there is no record of it: %w", s.Live, leat.ErrMismatch)
	case g == nil:
		return leat.Hint(fmt.Errorf("pipeline.yaml asks for %s as in the index (generation %d): %w",
			settings.Difference(live.Settings), live.Number, leat.ErrMismatch),
			"run `leat reindex` to build the index anew with it while the old one is searched, or set pipeline.yaml back")
	case g.Number != s.Live:
		a.log.Warn("the live index is not made by pipeline.yaml", "live", s.Live, "pipeline.yaml", g.Number,
			"difference", settings.Difference(live.Settings))
	}
	return nil
}

// configOf returns what a generation is made with: pipeline.yaml where that fits,
// what pipeline.yaml held when the generation began where not.
func (a *App) configOf(g reindex.Generation) (makers, error) {
	settings, err := a.settings()
	if err != nil {
		return makers{}, err
	}
	if settings == g.Settings {
		return makers{a.cfg.Chunker, a.cfg.Embedder}, nil
	}
	if g.Settings.Rules != chunker.Rules {
		return makers{}, leat.Hint(fmt.Errorf("generation %d is cut by rules %d, this program cuts by %d: %w",
			g.Number, g.Settings.Rules, chunker.Rules, leat.ErrMismatch),
			"run `leat reindex` to build the index anew; until it is done, changes wait")
	}
	var kept makers
	if err := json.Unmarshal(g.Config, &kept); err != nil {
		return makers{}, fmt.Errorf("the record of generation %d: %w", g.Number, err)
	}
	kept.Embedder = kept.Embedder.WithoutSecrets().WithSecretsOf(a.cfg.Embedder)
	return kept, nil
}

// waitFor waits until a generation has consumed all that the documents topic
// holds at the call. It returns the stage that it waits for with ctx's error.
func (a *App) waitFor(ctx context.Context, c connection, n int) (stage string, err error) {
	for _, s := range a.flow(n) {
		if err := c.WaitConsumed(ctx, s.group, s.topic); err != nil {
			return s.name, err
		}
	}
	return "", nil
}

// tidyWait is how long members of a group may take to end, or, killed, to be
// taken for dead.
const tidyWait = time.Minute

// Drop removes a generation that is not live: its indexes, topics, groups and
// dead letters. It may be run again where it was interrupted.
func (a *App) Drop(ctx context.Context, n int) error {
	return a.withProducer(ctx, func(conn connection, p *bus.Producer) error {
		_, err := a.generations(conn).Change(ctx, p, func(s *reindex.State) error {
			g := s.Find(n)
			switch {
			case s.Live == n:
				return leat.Hint(fmt.Errorf("generation %d is live", n), "`leat reindex rollback` makes the former one live again")
			case s.Switching == n:
				return leat.Hint(fmt.Errorf("the aliases are being moved to generation %d", n), "run `leat reindex` to finish that")
			case g == nil:
				return leat.Hint(fmt.Errorf("there is no generation %d", n), "`leat reindex list` lists them")
			case g.Phase == reindex.Dropping:
				return reindex.ErrUnchanged
			}
			g.Phase = reindex.Dropping
			return nil
		})
		if err != nil {
			return err
		}
		return a.finishDrop(ctx, conn, p, n)
	})
}

func (a *App) finishDrop(ctx context.Context, conn connection, p *bus.Producer, n int) error {
	// Whoever works for it ends once it hears of the change; what it still writes
	// must not come after what is removed here.
	wctx, cancel := context.WithTimeout(ctx, tidyWait)
	defer cancel()
	var groups []string
	for _, s := range a.flow(n) {
		groups = append(groups, s.group)
	}
	if err := conn.DeleteGroups(wctx, groups...); err != nil {
		return leat.Hint(fmt.Errorf("processes still work for generation %d: %w", n, err), "run `leat reindex drop %d` again", n)
	}
	if err := a.eachGenerations(ctx, func(g leat.Generations) error { return g.Drop(ctx, n) }); err != nil {
		return err
	}
	topics := bus.Topics(a.cfg.Name, n)
	if err := conn.DeleteTopics(ctx, topics.Chunks, topics.Vectors); err != nil {
		return err
	}
	if err := a.forgetLetters(ctx, conn, p, n); err != nil {
		return err
	}
	_, err := a.generations(conn).Change(ctx, p, func(s *reindex.State) error {
		s.Generations = slices.DeleteFunc(s.Generations, func(g reindex.Generation) bool { return g.Number == n })
		return nil
	})
	return err
}
