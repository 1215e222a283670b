package app

import (
	"context"
	"errors"
	"fmt"
	"os"

	"leat"
	"leat/internal/config"
	"leat/sinks/sqlite"
)

// Check is the outcome of trying one component.
type Check struct {
	Component string
	Err       error // joined, each with a hint; nil: all is well
}

// Checks tries everything that pipeline.yaml points at: the broker, each
// source, the model and the store.
func (a *App) Checks(ctx context.Context) []Check {
	checks := []Check{{"broker", a.checkBroker(ctx)}}
	for _, s := range a.cfg.Sources {
		checks = append(checks, Check{"source " + s.Kind() + ":" + s.Name, a.checkSource(ctx, s)})
	}
	model, err := a.checkModel(ctx)
	checks = append(checks, Check{"embedder", err})
	return append(checks, Check{"store", a.checkStore(ctx, model)})
}

func (a *App) checkBroker(ctx context.Context) error {
	conn, err := a.connect(ctx, false)
	if err != nil {
		return err
	}
	return errors.Join(a.ensureTopics(ctx, conn), conn.Close())
}

func (a *App) checkSource(ctx context.Context, cfg config.Source) error {
	s, err := a.source(cfg)
	if err != nil {
		return err
	}
	defer s.Close()
	if c, ok := s.Source.(leat.Checker); ok {
		return c.Check(ctx)
	}
	return nil
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

func (a *App) checkStore(ctx context.Context, model leat.Model) error {
	if err := os.MkdirAll(a.cfg.DataDir, 0o755); err != nil {
		return leat.Hint(fmt.Errorf("data directory: %w", err), "make %s writable, or set data_dir in pipeline.yaml", a.cfg.DataDir)
	}
	store, err := sqlite.Open(a.storePath(), a.cfg.Store, a.log)
	if err != nil {
		return err
	}
	defer store.Close()
	err = store.Check(ctx)
	if kept, merr := store.Model(ctx); merr == nil && kept.Dimension > 0 && model.Dimension > 0 {
		_, merr = store.Vectors(model)
		err = errors.Join(err, merr)
	}
	return err
}
