// Package search finds chunks by their words, by their meaning or by both.
package search

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"leat"

	"golang.org/x/sync/errgroup"
)

// Mode says what a search goes by.
type Mode string

const (
	Text   Mode = "text"   // words: BM25
	Vector Mode = "vector" // meaning: cosine of embeddings
	Hybrid Mode = "hybrid" // both
)

// ParseMode reads a mode as users write it.
func ParseMode(s string) (Mode, error) {
	switch m := Mode(strings.ToLower(s)); m {
	case Text, Vector, Hybrid:
		return m, nil
	}
	return "", fmt.Errorf("%q is not a mode: text, vector or hybrid", s)
}

// Result of a search. Its hits are chunks: a document that answers in several
// places is there several times.
type Result struct {
	TookMS float64     `json:"took_ms"`
	Mode   Mode        `json:"mode"`
	Hits   []*leat.Hit `json:"hits"` // best first
}

// Searcher searches a text and a vector index. Safe for concurrent use.
type Searcher struct {
	text    leat.TextIndex
	vectors leat.VectorIndex
	model   leat.Embedder

	mu       sync.Mutex
	measured bool
	baseline float64 // cosine of unrelated texts
}

// New makes a Searcher. vectors and model may be nil where only [Text] is searched.
func New(text leat.TextIndex, vectors leat.VectorIndex, model leat.Embedder) *Searcher {
	return &Searcher{text: text, vectors: vectors, model: model}
}

// depth is how many matches of each side are fused, at least: past 30 more did
// not change the results measured (bench/search).
const depth = 50

// spare is how many matches beyond the limit are looked at, so that those whose
// document is gone since leave no gap.
const spare = 5

// Search returns the best limit chunks for a query.
func (s *Searcher) Search(ctx context.Context, query string, mode Mode, limit int) (Result, error) {
	start := time.Now()
	r := Result{Mode: mode, Hits: []*leat.Hit{}}
	if mode != Text && (s.vectors == nil || s.model == nil) {
		return r, errors.New("search: no vector index")
	}
	var matches []leat.Match
	var err error
	switch mode {
	case Text:
		matches, err = s.text.SearchText(ctx, query, limit+spare)
	case Vector:
		matches, err = s.byVector(ctx, query, limit+spare)
	case Hybrid:
		matches, err = s.byBoth(ctx, query, max(depth, limit+spare))
	default:
		_, err = ParseMode(string(mode))
	}
	if err == nil {
		r.Hits, err = s.hits(ctx, matches, limit)
	}
	r.TookMS = float64(time.Since(start).Microseconds()) / 1000
	if err != nil {
		return r, fmt.Errorf("search: %w", err)
	}
	return r, nil
}

func (s *Searcher) byVector(ctx context.Context, query string, limit int) ([]leat.Match, error) {
	v, err := s.model.Embed(ctx, leat.Query, []string{query})
	if err != nil {
		return nil, err
	}
	return s.vectors.SearchVector(ctx, v[0], limit)
}

func (s *Searcher) byBoth(ctx context.Context, query string, limit int) ([]leat.Match, error) {
	var text, vector []leat.Match
	var baseline float64
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		text, err = s.text.SearchText(gctx, query, limit)
		return err
	})
	g.Go(func() (err error) {
		if baseline, err = s.unrelated(gctx); err != nil {
			return err
		}
		vector, err = s.byVector(gctx, query, limit)
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return fuse(text, vector, baseline), nil
}

// hits reads what the matches show, in one call: no result shows two versions
// of a document. Matches of a chunk that was replaced may meet in one hit.
func (s *Searcher) hits(ctx context.Context, matches []leat.Match, limit int) ([]*leat.Hit, error) {
	for n := limit + spare; ; n = len(matches) {
		n = min(n, len(matches))
		all, err := s.text.Hits(ctx, matches[:n])
		if err != nil {
			return nil, err
		}
		type place struct{ document, chunk string }
		seen := map[place]bool{}
		hits := make([]*leat.Hit, 0, limit)
		for _, h := range all {
			if h == nil || len(hits) == limit || seen[place{h.Document, h.Chunk}] {
				continue
			}
			seen[place{h.Document, h.Chunk}] = true
			hits = append(hits, h)
		}
		if len(hits) == limit || n == len(matches) {
			return hits, nil
		}
	}
}

// vectorWeight is the vector's share of a fused score. bench/search measures it.
const vectorWeight = 0.65

// fuse joins both sides' matches, best first, by a weighted sum of normalised
// scores: 0 is what a chunk that has nothing to do with the query gets.
//
// BM25 begins at 0 and has no meaning across queries: it is divided by the
// query's best. A cosine means the same for every query, so its differences
// must not be stretched to fill a range: the model's own bounds are used, from
// the cosine of unrelated texts (0.75 for multilingual-e5) to 1. A chunk that
// one side did not find gets, on that side, 0 (text: few or none of the words)
// or the worst found (vector: it is at most that near).
func fuse(text, vector []leat.Match, baseline float64) []leat.Match {
	type key struct{ document, chunk string }
	at := map[key]int{}
	var all []leat.Match
	var worst float64
	for i, m := range vector {
		m.Score = vectorWeight * (m.Score - baseline) / (1 - baseline)
		if i == 0 || m.Score < worst {
			worst = m.Score
		}
		at[key{m.Document, m.Chunk}] = len(all)
		all = append(all, m)
	}
	for _, m := range text {
		score := 0.0
		if top := text[0].Score; top > 0 {
			score = (1 - vectorWeight) * m.Score / top
		}
		if i, ok := at[key{m.Document, m.Chunk}]; ok {
			all[i].Score += score
			continue
		}
		m.Score = worst + score
		all = append(all, m)
	}
	slices.SortStableFunc(all, func(a, b leat.Match) int {
		return cmp.Or(cmp.Compare(b.Score, a.Score), cmp.Compare(a.Document, b.Document), cmp.Compare(a.Start, b.Start))
	})
	return all
}

// Texts of four subjects that have nothing to do with each other, in the order
// question and answer.
var (
	questions = []string{
		"how long does bread dough rise",
		"which planet has the most moons",
		"退货需要多长时间",
		"how to reset a router",
	}
	answers = []string{
		"Leave the dough in a warm place for an hour, until it has doubled in size.",
		"Saturn has more known moons than any other planet of the solar system.",
		"收到退回的商品后，我们会在七个工作日内退款。",
		"Hold the button at the back of the router for ten seconds until the light blinks.",
	}
)

// unrelated measures, once, the model's cosine of texts that have nothing to
// do with each other: the mean over each question and every other's answer.
func (s *Searcher) unrelated(ctx context.Context) (float64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.measured {
		return s.baseline, nil
	}
	q, err := s.model.Embed(ctx, leat.Query, questions)
	if err != nil {
		return 0, err
	}
	a, err := s.model.Embed(ctx, leat.Passage, answers)
	if err != nil {
		return 0, err
	}
	var sum float64
	for i := range q {
		for j := range a {
			if i == j {
				continue
			}
			for k := range q[i] {
				sum += float64(q[i][k]) * float64(a[j][k])
			}
		}
	}
	// Well below 1 even for a model, such as one of a test, that tells nothing apart.
	s.baseline = min(sum/float64(len(q)*(len(q)-1)), 0.95)
	s.measured = true
	return s.baseline, nil
}
