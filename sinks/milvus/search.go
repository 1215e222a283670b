package milvus

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"leat"
)

// SearchVector implements [leat.VectorIndex].
//
// The server finds chunks of all versions that have rows; those of held
// versions are kept. Where a document was found at an older or newer version
// only, a change came in between, and its chunks at the held version are
// searched: a document never disappears and never shows two versions (I4).
func (x *Index) SearchVector(ctx context.Context, vector []float32, limit int) ([]leat.Match, error) {
	if len(vector) != x.model.Dimension {
		return nil, fmt.Errorf("a query of %d dimensions for an index of %d: %w", len(vector), x.model.Dimension, leat.ErrMismatch)
	}
	if limit <= 0 {
		return nil, nil
	}
	ts, err := x.db.now(ctx)
	if err != nil {
		return nil, err
	}
	// Rows that are left out leave room: look further where that is too little.
	for n := limit + limit/4 + 8; ; n *= 4 {
		n = min(n, maxTopK)
		found, err := x.find(ctx, vector, n, "", ts)
		if err != nil {
			return nil, err
		}
		matches, err := x.current(ctx, vector, limit, found, ts)
		if err != nil {
			return nil, err
		}
		if all := len(found) < n; !all {
			// Nothing is known of rows that are further away than the last.
			worst := found[len(found)-1].Score
			matches = slices.DeleteFunc(matches, func(m leat.Match) bool { return m.Score < worst })
			if len(matches) < limit && n < maxTopK {
				continue
			}
		}
		return matches[:min(limit, len(matches))], nil
	}
}

func (x *Index) find(ctx context.Context, vector []float32, n int, filter string, ts uint64) ([]leat.Match, error) {
	r, err := x.db.nearest(ctx, x.names.chunks, vector, n, filter, ts, "document", "version", "chunk", "start")
	if err != nil {
		return nil, err
	}
	found := make([]leat.Match, r.n)
	for i := range found {
		found[i] = leat.Match{
			Document: unescape(r.text("document", i)), Version: uint64(r.number("version", i)),
			Chunk: r.text("chunk", i), Start: r.number("start", i), Score: float64(r.scores[i]),
		}
	}
	return found, nil
}

// current returns the matches of held versions, best first: of what was found,
// and of documents that were found at other versions only.
func (x *Index) current(ctx context.Context, vector []float32, limit int, found []leat.Match, ts uint64) ([]leat.Match, error) {
	ids := map[string]bool{}
	for _, m := range found {
		ids[m.Document] = true
	}
	held, err := x.held(ctx, keys(ids), ts, briefFields)
	if err != nil {
		return nil, err
	}
	var matches []leat.Match
	take := func(found []leat.Match) {
		for _, m := range found {
			if s, ok := held[m.Document]; ok && s.Version == m.Version {
				matches = append(matches, m)
				delete(ids, m.Document)
			}
		}
	}
	take(found)
	// The held version was held at a moment of this search: no more is needed
	// than its chunks. Only where these are gone by now, a still newer version
	// having come, the state is read again.
	for {
		var hashes []int64
		var versions []string
		for id := range ids {
			if s, ok := held[id]; ok && s.Chunks > 0 {
				hashes = append(hashes, s.hash)
				versions = append(versions, fmt.Sprint(s.Version))
			} else {
				delete(ids, id)
			}
		}
		if len(ids) == 0 {
			break
		}
		filter := fmt.Sprintf("%s && version in [%s]", in(hashes), strings.Join(versions, ","))
		again, err := x.find(ctx, vector, min(limit*len(ids), maxTopK), filter, ts)
		if err != nil {
			return nil, err
		}
		take(again)
		if len(ids) == 0 {
			break
		}
		if ts, err = x.db.now(ctx); err != nil {
			return nil, err
		}
		newer, err := x.held(ctx, keys(ids), ts, briefFields)
		if err != nil {
			return nil, err
		}
		for id := range ids {
			if newer[id].key == held[id].key {
				delete(ids, id) // rows are missing that nothing here removes
			}
			held[id] = newer[id]
		}
	}
	slices.SortStableFunc(matches, func(a, b leat.Match) int { return cmp.Compare(b.Score, a.Score) })
	return matches, nil
}

func keys(set map[string]bool) []string {
	out := make([]string, 0, len(set))
	for k := range set {
		out = append(out, k)
	}
	return out
}
