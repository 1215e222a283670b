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

// stores are the text and the vector index of a generation, each opened when it
// is first asked for and closed with the others. Safe for concurrent use.
type stores struct {
	app        *App
	generation int
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
	if s.text == nil {
		x, err := s.openText(ctx)
		if err != nil {
			return nil, err
		}
		s.text = x
	}
	return s.text, nil
}

func (s *stores) openText(ctx context.Context) (leat.TextIndex, error) {
	if cfg := s.app.cfg.Elasticsearch; cfg != nil {
		open := elastic.OpenReader
		if s.write {
			open = elastic.Open
		}
		x, err := open(ctx, *cfg, s.app.cfg.Name, s.generation, s.app.log)
		if err != nil {
			return nil, err
		}
		return x, nil
	}
	file, err := s.embedded()
	if err != nil {
		return nil, err
	}
	x, err := file.Text(s.generation)
	if err != nil {
		return nil, err
	}
	return x, nil
}

// Vectors opens the vector index for vectors of model. Reading, the zero Model
// stands for the one whose vectors it holds.
func (s *stores) Vectors(ctx context.Context, model leat.Model) (leat.VectorIndex, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.vectors == nil {
		x, err := s.openVectors(ctx, model)
		if err != nil {
			return nil, err
		}
		s.vectors = x
	}
	return s.vectors, nil
}

func (s *stores) openVectors(ctx context.Context, model leat.Model) (leat.VectorIndex, error) {
	if cfg := s.app.cfg.Milvus; cfg != nil {
		x, err := s.milvus(ctx, *cfg, model)
		if err != nil {
			return nil, err
		}
		return x, nil
	}
	file, err := s.embedded()
	if err != nil {
		return nil, err
	}
	if model.Dimension == 0 {
		if model, err = file.Model(ctx, s.generation); err != nil {
			return nil, err
		}
		if model.Dimension == 0 {
			return nil, fmt.Errorf("nothing was embedded yet: %w", fs.ErrNotExist)
		}
	}
	x, err := file.Vectors(s.generation, model)
	if err != nil {
		return nil, err
	}
	return x, nil
}

func (s *stores) milvus(ctx context.Context, cfg milvus.Config, model leat.Model) (*milvus.Index, error) {
	if s.write {
		return milvus.Open(ctx, cfg, s.app.cfg.Name, s.generation, model, s.app.log)
	}
	x, err := milvus.OpenReader(ctx, cfg, s.app.cfg.Name, s.generation, s.app.log)
	if err != nil {
		return nil, err
	}
	if kept := x.Model(); model.Dimension > 0 && (kept.Name != model.Name || kept.Dimension != model.Dimension) {
		return nil, errors.Join(mismatch(kept, model), x.Close())
	}
	return x, nil
}

// Model is whose vectors the vector index holds; the zero Model if none yet.
func (s *stores) Model(ctx context.Context) (leat.Model, error) {
	if cfg := s.app.cfg.Milvus; cfg != nil {
		x, err := milvus.OpenReader(ctx, *cfg, s.app.cfg.Name, s.generation, s.app.log)
		if errors.Is(err, fs.ErrNotExist) {
			return leat.Model{}, nil
		}
		if err != nil {
			return leat.Model{}, err
		}
		return x.Model(), x.Close()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	file, err := s.embedded()
	if err != nil {
		return leat.Model{}, err
	}
	m, err := file.Model(ctx, s.generation)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return m, err
}

// mismatch says that the index holds vectors of another model than the one configured.
func mismatch(kept, model leat.Model) error {
	return leat.Hint(fmt.Errorf("the vector index holds vectors of %s (%d dimensions), not of %s (%d): %w",
		kept.Name, kept.Dimension, model.Name, model.Dimension, leat.ErrMismatch),
		"run `leat reindex` to embed everything with the new model, or configure %s again", kept.Name)
}

func (s *stores) embedded() (_ *sqlite.Store, err error) {
	if s.file == nil {
		s.file, err = s.app.openFile(s.write)
	}
	return s.file, err
}

// openFile opens the embedded store.
func (a *App) openFile(write bool) (*sqlite.Store, error) {
	if !write {
		return sqlite.OpenReader(a.storePath(), a.cfg.Store, a.log)
	}
	if err := os.MkdirAll(a.cfg.DataDir, 0o755); err != nil {
		return nil, a.dataDirError(err)
	}
	return sqlite.Open(a.storePath(), a.cfg.Store, a.log)
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
	s.text, s.vectors, s.file = nil, nil, nil
	return errors.Join(errs...)
}

// reading calls read with the indexes of the live generation as they are, beside
// a running pipeline or without one: nil where nothing was indexed, or embedded,
// yet.
func (a *App) reading(ctx context.Context, read func(text leat.TextIndex, vectors leat.VectorIndex) error) error {
	live, err := a.live(ctx)
	if err != nil {
		return err
	}
	if live == 0 {
		return read(nil, nil)
	}
	return a.readingGeneration(ctx, live, read)
}

func (a *App) readingGeneration(ctx context.Context, n int, read func(text leat.TextIndex, vectors leat.VectorIndex) error) (err error) {
	s := &stores{app: a, generation: n}
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

// fileGenerations are those of the embedded store, which they keep open.
type fileGenerations struct {
	leat.Generations
	file *sqlite.Store
}

func (g fileGenerations) Close() error { return errors.Join(g.Generations.Close(), g.file.Close()) }

func (a *App) fileGenerations(write bool) (leat.Generations, error) {
	file, err := a.openFile(write)
	if err != nil {
		return nil, err
	}
	return fileGenerations{file.Generations(), file}, nil
}

// textGenerations opens the generations of the store that holds the text. Its
// alias decides what `leat search` searches. Without write, fs.ErrNotExist says
// that there is no embedded store yet.
func (a *App) textGenerations(write bool) (leat.Generations, error) {
	if cfg := a.cfg.Elasticsearch; cfg != nil {
		return elastic.OpenGenerations(*cfg, a.cfg.Name, a.log)
	}
	return a.fileGenerations(write)
}

// vectorGenerations are the same of the store that holds the vectors.
func (a *App) vectorGenerations(ctx context.Context, write bool) (leat.Generations, error) {
	if cfg := a.cfg.Milvus; cfg != nil {
		return milvus.OpenGenerations(ctx, *cfg, a.cfg.Name, a.log)
	}
	return a.fileGenerations(write)
}

// eachGenerations calls f with the generations of every store, that of the text
// last.
func (a *App) eachGenerations(ctx context.Context, f func(leat.Generations) error) error {
	if a.cfg.Milvus != nil || a.cfg.Elasticsearch != nil { // else one file holds both
		g, err := a.vectorGenerations(ctx, true)
		if err != nil {
			return err
		}
		if err := errors.Join(f(g), g.Close()); err != nil {
			return err
		}
	}
	g, err := a.textGenerations(true)
	if err != nil {
		return err
	}
	return errors.Join(f(g), g.Close())
}

// live is the generation that searches are answered from; 0 where there is none.
func (a *App) live(ctx context.Context) (n int, err error) {
	g, err := a.textGenerations(false)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err = g.Live(ctx)
	return n, errors.Join(err, g.Close())
}
