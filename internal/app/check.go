package app

import (
	"context"
	"errors"

	"leat"
	"leat/internal/config"
)

// Check is the outcome of trying one component.
type Check struct {
	Component string
	Err       error // joined, each with a hint; nil: all is well
}

// Checks tries everything that pipeline.yaml points at: the broker, each
// source, the model and both indexes.
func (a *App) Checks(ctx context.Context) []Check {
	checks := []Check{{"broker", a.checkBroker(ctx)}}
	for _, s := range a.cfg.Sources {
		checks = append(checks, Check{"source " + s.Kind() + ":" + s.Name, a.checkSource(ctx, s)})
	}
	model, err := a.checkModel(ctx)
	checks = append(checks, Check{"embedder", err})
	return append(checks, a.checkStores(ctx, model)...)
}

func (a *App) checkBroker(ctx context.Context) error {
	conn, err := a.open(ctx)
	if err != nil {
		return err
	}
	return conn.Close()
}

func (a *App) checkSource(ctx context.Context, cfg config.Source) error {
	s, err := a.source(cfg)
	if err != nil {
		return err
	}
	defer s.Close()
	return check(ctx, s.Source)
}

func (a *App) checkModel(ctx context.Context) (leat.Model, error) {
	model, err := a.Embedder()
	if err != nil {
		return leat.Model{}, err
	}
	defer model.Close()
	if c, ok := model.(leat.Checker); ok {
		return model.Model(), c.Check(ctx)
	}
	_, err = model.Embed(ctx, leat.Query, []string{"leat"})
	return model.Model(), err
}

// checkStores tries both indexes, against what the model makes unless that failed.
func (a *App) checkStores(ctx context.Context, model leat.Model) []Check {
	n, err := a.live(ctx)
	if err != nil {
		return []Check{{"text index", err}}
	}
	s := &stores{app: a, generation: max(n, 1), write: true}
	text, err := s.Text(ctx)
	checks := []Check{{"text index", err}}
	if err == nil {
		checks[0].Err = check(ctx, text)
	}
	if model.Dimension > 0 {
		vectors, err := s.Vectors(ctx, model)
		if err == nil {
			err = check(ctx, vectors)
		}
		checks = append(checks, Check{"vector index", err})
	}
	if s.file != nil {
		checks = append(checks, Check{"embedded store", s.file.Check(ctx)})
	}
	checks[0].Err = errors.Join(checks[0].Err, s.Close())
	return checks
}

func check(ctx context.Context, component any) error {
	if c, ok := component.(leat.Checker); ok {
		return c.Check(ctx)
	}
	return nil
}
