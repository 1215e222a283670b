package e2e

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"leat"
	"leat/internal/app"
	"leat/internal/config"
	"leat/internal/search"
)

// known is a document that stays as it is, and words that no other has.
type known struct{ id, query string }

// searching searches for known documents all the time, by the code that `leat
// search` runs: by searchers that are kept, and every other second by a new one.
// Each search finds its document, never at an older version than was found before
// it, and never two versions of a document.
type searching struct {
	t      *testing.T
	config string // pipeline.yaml
	known  []known

	// faults rises when a server is about to be taken down, and when it is there
	// again: errors of searches in between do not count.
	faults atomic.Int64

	asked atomic.Int64

	mu       sync.Mutex
	down     time.Duration     // with a fault
	versions map[string]uint64 // seen of known documents
	took     []time.Duration
	failed   []string
	count    int // of what failed
	excused  int

	began time.Time
	quiet chan chan struct{}
	done  chan struct{}
	ended sync.WaitGroup
}

const searchers = 16 // so that one that is slow does not keep the next one waiting

// search begins to search, so many times a second, for documents that are in the
// index.
func (p *pipeline) search(known []known, rate int) *searching {
	s := &searching{t: p.t, config: p.config, known: known, versions: map[string]uint64{},
		began: time.Now(), quiet: make(chan chan struct{}), done: make(chan struct{})}
	tick := time.NewTicker(time.Second / time.Duration(rate))
	p.t.Cleanup(tick.Stop)
	for range searchers {
		s.ended.Go(func() { s.run(tick.C) })
	}
	p.t.Cleanup(s.stop)
	return s
}

// fault tells that a server is about to be taken down, until it is over.
func (s *searching) fault() (over func()) {
	began := time.Now()
	s.faults.Add(1)
	return func() {
		s.faults.Add(1)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.down += time.Since(began)
	}
}

// stop ends the searches and says how they went.
func (s *searching) stop() {
	select {
	case <-s.done:
		return
	default:
	}
	close(s.done)
	s.ended.Wait()
	for _, f := range s.failed {
		s.t.Error(f)
	}
	if len(s.took) == 0 {
		s.t.Error("nothing was searched")
		return
	}
	slices.Sort(s.took)
	s.t.Logf("%d searches, %.1f a second while all servers were up, %d wrong, %d errors while one was down; took %v (p50), %v (p99), %v (longest)",
		len(s.took), float64(len(s.took))/(time.Since(s.began)-s.down).Seconds(), s.count, s.excused,
		s.took[len(s.took)/2].Round(time.Millisecond), s.took[len(s.took)*99/100].Round(time.Millisecond), s.took[len(s.took)-1].Round(time.Millisecond))
}

func (s *searching) wrong(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count++; s.count <= 10 {
		s.failed = append(s.failed, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
	}
}

func (s *searching) run(tick <-chan time.Time) {
	kept := &searcher{config: s.config}
	defer func() {
		if err := kept.close(); err != nil {
			s.wrong("close the searcher: %v", err)
		}
	}()
	for {
		select {
		case <-s.done:
			return
		case answered := <-s.quiet:
			s.compare(kept)
			close(answered)
			continue
		case <-tick:
		}
		i := int(s.asked.Add(1)) - 1
		by := kept
		if i%40 == 39 {
			by = &searcher{config: s.config}
		}
		s.once(by, s.known[i%len(s.known)])
		if by != kept {
			if err := by.close(); err != nil {
				s.wrong("close a new searcher: %v", err)
			}
		}
	}
}

// follows checks, while nothing changes, that the searcher that is kept finds what
// a new one finds: it has moved to the live generation.
func (s *searching) follows() {
	answered := make(chan struct{})
	s.quiet <- answered
	<-answered
}

func (s *searching) compare(kept *searcher) {
	fresh := &searcher{config: s.config}
	for _, k := range s.known {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		got, err := kept.search(ctx, k.query)
		want, werr := fresh.search(ctx, k.query)
		same := func(a, b *leat.Hit) bool { return a.Chunk == b.Chunk && math.Abs(a.Score-b.Score) < 0.01 }
		if err != nil || werr != nil || !slices.EqualFunc(got, want, same) {
			s.wrong("search %q: the searcher that is kept finds other chunks than a new one (%v, %v)", k.query, err, werr)
		}
	}
	if err := fresh.close(); err != nil {
		s.wrong("close a new searcher: %v", err)
	}
}

func (s *searching) once(by *searcher, k known) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s.mu.Lock()
	before := s.versions[k.id]
	s.mu.Unlock()
	faults, began := s.faults.Load(), time.Now()
	hits, err := by.search(ctx, k.query)
	took := time.Since(began)
	switch {
	case err != nil && (faults%2 == 1 || s.faults.Load() != faults):
		s.mu.Lock()
		s.excused++
		s.mu.Unlock()
		return
	case err != nil:
		s.wrong("search %q: after %v: %v", k.query, took, err)
		return
	}
	versions := map[string]uint64{}
	for _, h := range hits {
		if v, ok := versions[h.Document]; ok && v != h.Version {
			s.wrong("search %q: versions %d and %d of %s", k.query, v, h.Version, h.Document)
		}
		versions[h.Document] = h.Version
	}
	switch version, found := versions[k.id]; {
	case !found:
		s.wrong("search %q: %s is missing among %d documents", k.query, k.id, len(versions))
	case version < before: // a snapshot that begins again gives higher ones
		s.wrong("search %q: version of %s went back from %d to %d", k.query, k.id, before, version)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.took = append(s.took, took)
	s.versions[k.id] = max(s.versions[k.id], versions[k.id])
}

// searcher is opened by its first search.
type searcher struct {
	config string
	by     interface {
		Search(ctx context.Context, query string, mode search.Mode, limit int) (search.Result, error)
	}
	end func() error
}

func (s *searcher) search(ctx context.Context, query string) ([]*leat.Hit, error) {
	if s.by == nil {
		cfg, err := config.Load(s.config)
		if err != nil {
			return nil, err
		}
		by, end, err := app.New(cfg, slog.New(slog.DiscardHandler)).Searcher(ctx, search.Hybrid)
		if err != nil {
			return nil, fmt.Errorf("open: %w", err)
		}
		s.by, s.end = by, end
	}
	r, err := s.by.Search(ctx, query, search.Hybrid, 10)
	return r.Hits, err
}

func (s *searcher) close() error {
	if s.end == nil {
		return nil
	}
	return s.end()
}
