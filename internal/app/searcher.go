package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"leat"
	"leat/embedder"
	"leat/internal/reindex"
	"leat/internal/search"
)

// followEvery is how long a searcher may go on with a generation that is no
// longer live. Changes flow into that one too until it is dropped.
const followEvery = 250 * time.Millisecond

// Searcher searches the live generation, whichever that is: all indexes and the
// model of a search are of one generation. Safe for concurrent use.
type Searcher struct {
	app    *App
	mode   search.Mode
	alias  leat.Generations
	looked sync.Mutex // by one at a time; taken before mu

	mu      sync.Mutex
	now     *served
	checked time.Time // when the alias was last looked at
}

// served is what one generation is searched with.
type served struct {
	*search.Searcher
	generation int
	users      sync.WaitGroup
	close      func() error
}

// Searcher opens what a search in mode needs: the indexes, and the model unless
// the search is by words only.
func (a *App) Searcher(ctx context.Context, mode search.Mode) (*Searcher, func() error, error) {
	alias, err := a.textGenerations(false)
	if err != nil {
		return nil, nil, err
	}
	s := &Searcher{app: a, mode: mode, alias: alias}
	if err := s.follow(ctx); err != nil {
		return nil, nil, errors.Join(err, s.close())
	}
	return s, s.close, nil
}

// Search returns the best limit chunks for a query.
func (s *Searcher) Search(ctx context.Context, query string, mode search.Mode, limit int) (search.Result, error) {
	for tried := 0; ; {
		x := s.use(ctx)
		r, err := x.Search(ctx, query, mode, limit)
		x.users.Done()
		if err == nil || ctx.Err() != nil || tried == x.generation {
			return r, err
		}
		// The generation may just have been dropped: once more where another is live.
		tried = x.generation
		if ferr := s.follow(ctx); ferr != nil {
			return r, err
		}
	}
}

// use returns what to search with; its user tells when it is done.
func (s *Searcher) use(ctx context.Context) *served {
	s.mu.Lock()
	due := time.Since(s.checked) > followEvery
	s.mu.Unlock()
	if due && s.looked.TryLock() {
		s.looked.Unlock()
		if err := s.follow(ctx); err != nil {
			s.app.log.Debug("searching on without knowing which generation is live", "error", err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.users.Add(1)
	return s.now
}

// follow opens the live generation where that is another one.
func (s *Searcher) follow(ctx context.Context) error {
	s.looked.Lock()
	defer s.looked.Unlock()
	live, err := s.alias.Live(ctx)
	if err != nil {
		return err
	}
	if live == 0 {
		return leat.Hint(fmt.Errorf("no index: %w", fs.ErrNotExist), "nothing has been indexed here yet: start `leat run` first")
	}
	s.mu.Lock()
	s.checked = time.Now()
	same := s.now != nil && s.now.generation == live
	s.mu.Unlock()
	if same {
		return nil
	}
	x, err := s.app.serve(ctx, s.mode, live)
	if err != nil {
		return err
	}
	s.mu.Lock()
	before := s.now
	s.now = x
	s.mu.Unlock()
	if before == nil {
		return nil
	}
	before.users.Wait()
	return before.close()
}

func (s *Searcher) close() error {
	err := s.alias.Close()
	if s.now != nil {
		s.now.users.Wait()
		err = errors.Join(err, s.now.close())
	}
	return err
}

// serve opens what a search of a generation in mode needs.
func (a *App) serve(ctx context.Context, mode search.Mode, generation int) (_ *served, err error) {
	s := &stores{app: a, generation: generation}
	x := &served{generation: generation, close: s.Close}
	defer func() {
		if err != nil {
			err = errors.Join(err, x.close())
		}
	}()
	text, err := s.Text(ctx)
	if err != nil {
		return nil, err
	}
	if mode == search.Text {
		x.Searcher = search.New(text, nil, nil)
		return x, nil
	}
	model, err := a.modelOf(ctx, s)
	if err != nil {
		return nil, err
	}
	x.close = func() error { return errors.Join(model.Close(), s.Close()) }
	vectors, err := s.Vectors(ctx, model.Model())
	if err != nil {
		return nil, err
	}
	x.Searcher = search.New(text, vectors, model)
	return x, nil
}

// modelOf opens the model whose vectors a generation holds: pipeline.yaml's
// unless that is ahead of the generation, which then has a record of its own.
func (a *App) modelOf(ctx context.Context, s *stores) (leat.Embedder, error) {
	kept, err := s.Model(ctx)
	if err != nil {
		return nil, err
	}
	model, _, err := a.cfg.Embedder.Identity()
	if err != nil || kept.Dimension == 0 || kept.Name == model.Name && kept.Dimension == model.Dimension {
		return a.Embedder()
	}
	var state reindex.State
	err = a.whileAway(ctx, func() error {
		conn, err := a.connectOnce(ctx, false)
		if err != nil {
			return err
		}
		state, err = a.generations(conn).Load(ctx)
		return errors.Join(err, conn.Close())
	})
	if err != nil {
		return nil, errors.Join(mismatch(kept, model), err)
	}
	g := state.Find(s.generation)
	if g == nil || g.Settings.Model.Name != kept.Name || g.Settings.Model.Dimension != kept.Dimension {
		return nil, mismatch(kept, model)
	}
	config, err := a.configOf(*g)
	if err != nil {
		return nil, err
	}
	e, _, err := embedder.New(config.Embedder, a.cacheDir(), a.log)
	return e, err
}
