package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"leat"
	"leat/internal/stage"
	"leat/sinks/elastic"
	"leat/sinks/milvus"
	"leat/sinks/sqlite"
)

// stores are the text and the vector index, each opened when it is first asked
// for and closed with the others. Safe for concurrent use.
type stores struct {
	app *App
	// write makes what is missing; without it fs.ErrNotExist says that nothing
	// was indexed yet.
	write bool

	mu      sync.Mutex
	file    *sqlite.Store // the embedded store, which holds both
	text    leat.TextIndex
	vectors leat.VectorIndex
}

// Text opens the text index.
func (s *stores) Text(ctx context.Context) (leat.TextIndex, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.text != nil {
		return s.text, nil
	}
	if cfg := s.app.cfg.Elasticsearch; cfg != nil {
		x, err := s.elastic(ctx, *cfg)
		if err != nil {
			return nil, err
		}
		s.text = x
		return x, nil
	}
	file, err := s.embedded()
	if err != nil {
		return nil, err
	}
	s.text = file.Text()
	return s.text, nil
}

func (s *stores) elastic(ctx context.Context, cfg elastic.Config) (*elastic.Index, error) {
	if s.write {
		return elastic.Open(ctx, cfg, s.app.cfg.Name, generation, s.app.log)
	}
	return elastic.OpenReader(ctx, cfg, s.app.cfg.Name, s.app.log)
}

// Vectors opens the vector index for vectors of model. Reading, the zero Model
// stands for the one whose vectors it holds.
func (s *stores) Vectors(ctx context.Context, model leat.Model) (leat.VectorIndex, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.vectors != nil {
		return s.vectors, nil
	}
	if cfg := s.app.cfg.Milvus; cfg != nil {
		x, err := s.milvus(ctx, *cfg, model)
		if err != nil {
			return nil, err
		}
		s.vectors = x
		return x, nil
	}
	file, err := s.embedded()
	if err != nil {
		return nil, err
	}
	if model.Dimension == 0 {
		if model, err = file.Model(ctx); err != nil {
			return nil, err
		}
		if model.Dimension == 0 {
			return nil, fmt.Errorf("nothing was embedded yet: %w", fs.ErrNotExist)
		}
	}
	v, err := file.Vectors(model)
	if err != nil {
		return nil, err
	}
	s.vectors = v
	return v, nil
}

func (s *stores) milvus(ctx context.Context, cfg milvus.Config, model leat.Model) (*milvus.Index, error) {
	if s.write {
		return milvus.Open(ctx, cfg, s.app.cfg.Name, generation, model, s.app.log)
	}
	x, err := milvus.OpenReader(ctx, cfg, s.app.cfg.Name, s.app.log)
	if err != nil {
		return nil, err
	}
	if kept := x.Model(); model.Dimension > 0 && (kept.Name != model.Name || kept.Dimension != model.Dimension) {
		return nil, errors.Join(mismatch(kept, model), x.Close())
	}
	return x, nil
}

// mismatch says that the index holds vectors of another model than the one configured.
func mismatch(kept, model leat.Model) error {
	return leat.Hint(fmt.Errorf("the vector index holds vectors of %s (%d dimensions), not of %s (%d): %w",
		kept.Name, kept.Dimension, model.Name, model.Dimension, leat.ErrMismatch),
		"run `leat reindex` to embed everything with the new model, or configure %s again", kept.Name)
}

func (s *stores) embedded() (_ *sqlite.Store, err error) {
	a := s.app
	switch {
	case s.file != nil:
	case s.write:
		if err := os.MkdirAll(a.cfg.DataDir, 0o755); err != nil {
			return nil, a.dataDirError(err)
		}
		s.file, err = sqlite.Open(a.storePath(), a.cfg.Store, a.log)
	default:
		s.file, err = sqlite.OpenReader(a.storePath(), a.cfg.Store, a.log)
	}
	return s.file, err
}

// Close closes what was opened.
func (s *stores) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	if s.text != nil {
		errs = append(errs, s.text.Close())
	}
	if s.vectors != nil {
		errs = append(errs, s.vectors.Close())
	}
	if s.file != nil {
		errs = append(errs, s.file.Close())
	}
	return errors.Join(errs...)
}

// reading calls read with the indexes as they are, beside a running pipeline or
// without one: nil where nothing was indexed, or embedded, yet.
func (a *App) reading(ctx context.Context, read func(text leat.TextIndex, vectors leat.VectorIndex) error) (err error) {
	s := &stores{app: a}
	defer func() { err = errors.Join(err, s.Close()) }()
	text, err := s.Text(ctx)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	vectors, err := s.Vectors(ctx, leat.Model{})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return read(text, vectors)
}

// remote reports whether a stage writes to a server.
func (a *App) remote(name string) bool {
	return name == stage.TextIndexer && a.cfg.Elasticsearch != nil || name == stage.VectorIndexer && a.cfg.Milvus != nil
}
