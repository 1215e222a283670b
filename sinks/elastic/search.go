package elastic

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"leat"
)

// maxQuery is how much of a query is read, in bytes: each word is a clause, and
// Elasticsearch bounds those of a query to 1,024 on the smallest node.
const maxQuery = 1024

// SearchText implements [leat.TextIndex]. A query is plain text: any of its
// words may match, the more and the rarer the better (BM25).
//
// A match is shown exactly where its version is the state's (I4). Chunks are
// searched first and their states read then, on the same copy of the index. A
// version found above the state's was not held a moment ago either. One found
// below it may have been: then both are read once more, in one snapshot.
func (x *Index) SearchText(ctx context.Context, query string, limit int) (matches []leat.Match, err error) {
	query = strings.ToValidUTF8(query[:min(len(query), maxQuery)], " ")
	if strings.TrimSpace(query) == "" || limit <= 0 {
		return nil, nil
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("elasticsearch index %s: search text: %w", x.target, err)
		}
	}()
	matches, moved, err := x.matching(ctx, nil, query, limit)
	if err != nil || !moved {
		return matches, err
	}
	snapshot, err := x.freeze(ctx)
	if err != nil {
		return nil, err
	}
	defer x.forget(ctx, snapshot)
	matches, _, err = x.matching(ctx, snapshot, query, limit)
	return matches, err
}

// matching returns the matches of held versions. Without a snapshot it may
// return instead that it needs one: documents may have moved on.
//
// In a snapshot a document's state and chunks agree: new chunks were durable
// before the state that shows them, and those that it replaced were removed
// after it.
func (x *Index) matching(ctx context.Context, snapshot *snapshot, query string, limit int) (matches []leat.Match, moved bool, err error) {
	type version struct {
		of      string
		version uint64
	}
	// Versions that are not the one held are found as well: those that wait for
	// their last part, and leftovers. They are left out in a second search, as
	// what others have put there.
	var not, only []any
	left := map[version]bool{}
	for {
		hits, err := x.values(ctx, snapshot, min(limit+limit/4+8, window),
			map[string]any{"bool": map[string]any{"must": x.words(query), "must_not": not, "filter": only}}, "of", "version", "chunk", "start")
		if err != nil {
			return nil, false, err
		}
		states, err := x.states(ctx, snapshot, hits)
		if err != nil {
			return nil, false, err
		}
		matches = matches[:0]
		again := false
		for _, h := range hits {
			f := h.Fields
			if !f.chunk() {
				if only == nil {
					again, only = true, []any{exists("of"), exists("version"), exists("chunk"), exists("start")}
				}
				continue
			}
			v, s := version{f.Of[0], f.Version[0]}, states[f.Of[0]]
			switch {
			case s != nil && s.Version[0] == v.version:
				matches = append(matches, leat.Match{Document: decodeID(s.Document[0]), Version: v.version, Chunk: f.Chunk[0], Start: f.Start[0], Score: h.Score})
			case s != nil && s.Version[0] > v.version && snapshot == nil:
				return nil, true, nil
			case !left[v]:
				left[v], again = true, true
				not = append(not, all(term("_routing", v.of), term("version", v.version)))
			}
		}
		if len(matches) >= limit || !again {
			return matches[:min(limit, len(matches))], false, nil
		}
		if snapshot == nil {
			return nil, true, nil
		}
	}
}

// chunk reports whether f has all that a search asks of a chunk.
func (f *fields) chunk() bool {
	return len(f.Of) == 1 && len(f.Version) == 1 && len(f.Chunk) == 1 && len(f.Start) == 1
}

// smartcnWeight is the share of the plugin's words beside characters and pairs
// (docs/adr/004-elasticsearch.md).
const smartcnWeight = 0.5

// words matches the words of a query. Characters and pairs are asked for apart:
// of words at one place in the query Elasticsearch makes synonyms, which finds
// much less.
func (x *Index) words(query string) any {
	match := func(field, analyzer string, weight float64) any {
		return map[string]any{"match": map[string]any{field: map[string]any{"query": query, "analyzer": analyzer, "boost": weight}}}
	}
	clauses := []any{match("words", "leat_pairs", 1)}
	if x.analysis != standard {
		clauses = append(clauses, match("words", "leat_singles", 1))
	}
	if x.analysis == smartcn && hasHan(query) {
		clauses = append(clauses, match("chinese", "smartcn", smartcnWeight))
	}
	return map[string]any{"bool": map[string]any{"should": clauses}}
}

// states returns what is held of the documents that were found, by hash.
func (x *Index) states(ctx context.Context, snapshot *snapshot, hits []found) (map[string]*fields, error) {
	states := map[string]*fields{}
	var ids []string
	for _, h := range hits {
		if !h.Fields.chunk() {
			continue
		}
		of := h.Fields.Of[0]
		if _, asked := states[of]; !asked {
			states[of] = nil
			ids = append(ids, of)
		}
	}
	if ids == nil {
		return nil, nil
	}
	held, err := x.values(ctx, snapshot, len(ids), all(map[string]any{"ids": map[string]any{"values": ids}}), "document", "version")
	for _, h := range held {
		if f := &h.Fields; len(f.Document) == 1 && len(f.Version) == 1 {
			states[hash(decodeID(f.Document[0]))] = f
		}
	}
	return states, err
}

// Hits implements [leat.TextIndex].
func (x *Index) Hits(ctx context.Context, matches []leat.Match) ([]*leat.Hit, error) {
	hits := make([]*leat.Hit, len(matches))
	if len(matches) == 0 {
		return hits, nil
	}
	// A document's state and chunks lie in one shard, so that one search sees
	// both in one snapshot: no result shows two versions of a document.
	for range 100 {
		done, err := x.hits(ctx, matches, hits)
		if err != nil {
			return nil, fmt.Errorf("elasticsearch index %s: read hits: %w", x.target, err)
		}
		if done {
			return hits, nil
		}
	}
	return nil, errMoved
}

// hits reads what the matches show; false where a document changed meanwhile.
func (x *Index) hits(ctx context.Context, matches []leat.Match, hits []*leat.Hit) (bool, error) {
	var ids []string
	var clauses []any
	asked := map[string]bool{}
	for _, m := range matches {
		h := hash(m.Document)
		if !asked[h] {
			asked[h] = true
			ids = append(ids, h)
		}
		clauses = append(clauses, all(term("_routing", h), term("chunk", m.Chunk)))
	}
	clauses = append(clauses, map[string]any{"ids": map[string]any{"values": ids}})
	states := map[string]*stateSource{}
	type place struct {
		hash    string
		version uint64
		chunk   string
	}
	chunks := map[place]*chunkSource{}
	for size := min(window, len(ids)+4*len(matches)); ; size = window {
		all, err := x.search(ctx, path(x.target), map[string]any{"query": some(clauses...), "size": size, "_source": true, "sort": []string{"_doc"}})
		if err != nil {
			return false, err
		}
		if len(all) == size && size < window {
			continue
		}
		for _, f := range all {
			if !strings.Contains(f.ID, ".") {
				s := &stateSource{}
				if err := json.Unmarshal(f.Source, s); err != nil {
					return false, err
				}
				states[f.ID] = s
				continue
			}
			h, version, _, ok := parseID(f.ID)
			if !ok {
				continue
			}
			ch := &chunkSource{}
			if err := json.Unmarshal(f.Source, ch); err != nil {
				return false, err
			}
			chunks[place{h, version, ch.Chunk}] = ch
		}
		break
	}
	var replaced []int
	for i, m := range matches {
		h := hash(m.Document)
		s := states[h]
		if s == nil || s.Deleted || s.Chunks == 0 {
			hits[i] = nil
			continue
		}
		if ch := chunks[place{h, s.Version, m.Chunk}]; ch != nil {
			var err error
			if hits[i], err = hit(s, ch, m.Score); err != nil {
				return false, err
			}
			continue
		}
		replaced = append(replaced, i)
	}
	if len(replaced) == 0 {
		return true, nil
	}
	return x.standing(ctx, matches, hits, replaced, states)
}

// standing reads, for matches whose chunk was replaced, the chunk that stands
// at its place now: the last that starts at or before it, or the first.
func (x *Index) standing(ctx context.Context, matches []leat.Match, hits []*leat.Hit, replaced []int, states map[string]*stateSource) (_ bool, err error) {
	var body bytes.Buffer
	e := json.NewEncoder(&body)
	for _, i := range replaced {
		h := hash(matches[i].Document)
		version, start := term("version", states[h].Version), matches[i].Start
		for _, side := range []struct{ bound, order string }{{"lte", "desc"}, {"gt", "asc"}} {
			err := errors.Join(
				e.Encode(map[string]any{"allow_partial_search_results": false, "routing": h}),
				e.Encode(map[string]any{
					"query": all(term("_routing", h), version, map[string]any{"range": map[string]any{"start": map[string]any{side.bound: start}}}),
					"sort":  []any{map[string]any{"start": side.order}}, "size": 1, "track_total_hits": false,
				}))
			if err != nil {
				return false, err
			}
		}
	}
	var answer struct {
		Responses []struct {
			Hits  struct{ Hits []found }
			Error struct{ Type, Reason string }
		}
	}
	if err := x.call(ctx, http.MethodPost, path(x.target, "_msearch"), body.Bytes(), &answer); err != nil {
		return false, err
	}
	if len(answer.Responses) != 2*len(replaced) {
		return false, fmt.Errorf("%d answers to %d searches", len(answer.Responses), 2*len(replaced))
	}
	for n, i := range replaced {
		var near []found
		for _, r := range answer.Responses[2*n : 2*n+2] {
			if r.Error.Type != "" {
				return false, x.explain(&refusal{http.StatusServiceUnavailable, r.Error.Type, r.Error.Reason})
			}
			near = append(near, r.Hits.Hits...)
		}
		if near == nil { // the version is gone since
			return false, nil
		}
		ch := &chunkSource{}
		if err := json.Unmarshal(near[0].Source, ch); err != nil {
			return false, err
		}
		if hits[i], err = hit(states[hash(matches[i].Document)], ch, matches[i].Score); err != nil {
			return false, err
		}
	}
	return true, nil
}

func hit(s *stateSource, ch *chunkSource, score float64) (*leat.Hit, error) {
	words := ch.words()
	h := &leat.Hit{Document: decodeID(s.Document), Version: s.Version, Chunk: ch.Chunk, Score: score, Title: s.State.Title, Text: words.Text,
		Location: leat.Location{Page: ch.Place.Page, Heading: words.Heading, Start: ch.Start, End: ch.Place.End}}
	// Both are there in a result, if empty: [] and {}.
	if h.Location.Heading == nil {
		h.Location.Heading = []string{}
	}
	h.Metadata = map[string]any{}
	if s.State.Metadata != "" {
		d := json.NewDecoder(strings.NewReader(s.State.Metadata))
		d.UseNumber() // numbers past 1<<53 keep their digits
		if err := d.Decode(&h.Metadata); err != nil {
			return nil, fmt.Errorf("%s: metadata: %w", h.Document, err)
		}
	}
	return h, nil
}
