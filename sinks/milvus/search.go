package milvus

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"leat"
)

// SearchVector implements [leat.VectorIndex].
//
// The server finds chunks of all versions that have rows; those of held
// versions are kept. It does not wait until it has applied all that was written
// before, which would take most of a search's time: chunks and states are those
// of two moments of the last staleness. Where they disagree on a document, or a
// change came in between, its state and its chunks are read again as of now: a
// document never disappears and never shows two versions (I4).
func (x *Index) SearchVector(ctx context.Context, vector []float32, limit int) ([]leat.Match, error) {
	if len(vector) != x.model.Dimension {
		return nil, fmt.Errorf("a query of %d dimensions for an index of %d: %w", len(vector), x.model.Dimension, leat.ErrMismatch)
	}
	if limit <= 0 {
		return nil, nil
	}
	ts, err := x.recently(ctx)
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

// staleness is how much of what was written last a search may miss. The server
// lags behind by its proxy.timeTickInterval (200 ms by default) and a little.
const staleness = 500 * time.Millisecond

// Refresh has searches see all that was written before it, as the first one does
// of what was written before the index was opened.
func (x *Index) Refresh(ctx context.Context) error {
	now, err := x.db.now(ctx)
	if err == nil {
		x.seen.Store(now)
	}
	return err
}

// recently is the time as of which, or later, a search reads.
func (x *Index) recently(ctx context.Context) (uint64, error) {
	now, err := x.db.now(ctx)
	return max(x.seen.Load(), now-uint64(staleness.Milliseconds())<<logicalBits), err
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
// and of documents that were found at other versions, too.
func (x *Index) current(ctx context.Context, vector []float32, limit int, found []leat.Match, ts uint64) ([]leat.Match, error) {
	newest := map[string]uint64{} // version that was found, of documents to be told of
	for _, m := range found {
		newest[m.Document] = max(newest[m.Document], m.Version)
	}
	held, err := x.held(ctx, slices.Collect(maps.Keys(newest)), ts, briefFields)
	if err != nil {
		return nil, err
	}
	// A version above the held one may have superseded that already, and have
	// some of its chunks removed.
	matches := matching(found, held, func(id string) bool { return newest[id] <= held[id].Version })
	settled(matches, newest)
	for id := range newest {
		// Without a state it is not there yet; what is deleted stays so, unless a
		// version above is found.
		if s, ok := held[id]; !ok || s.Chunks == 0 && newest[id] <= s.Version {
			delete(newest, id)
		}
	}
	// The version that is held now is held at a moment of this search: no more is
	// needed than its chunks. Only where these are gone by then, a still newer
	// version having come, the state is read again.
	var last map[string]state
	for len(newest) > 0 {
		if ts, err = x.db.now(ctx); err != nil {
			return nil, err
		}
		if held, err = x.held(ctx, slices.Collect(maps.Keys(newest)), ts, briefFields); err != nil {
			return nil, err
		}
		var hashes []int64
		var versions []string
		for id := range newest {
			s, ok := held[id]
			if !ok || s.Chunks == 0 || s.key == last[id].key {
				delete(newest, id) // it is gone, or rows are missing that nothing here removes
				continue
			}
			hashes, versions = append(hashes, s.hash), append(versions, fmt.Sprint(s.Version))
		}
		if len(newest) == 0 {
			break
		}
		filter := fmt.Sprintf("%s && version in [%s]", in(hashes), strings.Join(versions, ","))
		again, err := x.find(ctx, vector, min(limit*len(newest), maxTopK), filter, ts)
		if err != nil {
			return nil, err
		}
		more := matching(again, held, func(id string) bool { _, asked := newest[id]; return asked })
		settled(more, newest)
		matches, last = append(matches, more...), held
	}
	slices.SortStableFunc(matches, func(a, b leat.Match) int { return cmp.Compare(b.Score, a.Score) })
	return matches, nil
}

// matching are those of the held versions of documents that are chosen.
func matching(found []leat.Match, held map[string]state, chosen func(id string) bool) (matches []leat.Match) {
	for _, m := range found {
		if s, ok := held[m.Document]; ok && s.Version == m.Version && chosen(m.Document) {
			matches = append(matches, m)
		}
	}
	return matches
}

// settled strikes documents off that have matches.
func settled(matches []leat.Match, open map[string]uint64) {
	for _, m := range matches {
		delete(open, m.Document)
	}
}
