package elastic

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"time"

	"leat"
)

// window is the most hits of one search (index.max_result_window).
const window = 10_000

// get reads by id, as of now, and calls each with what it found; nil: nothing.
func get[T any](ctx context.Context, x *Index, ids []address, fields string, each func(i int, source *T)) error {
	const atOnce = 1000
	for from := 0; from < len(ids); from += atOnce {
		part := ids[from:min(from+atOnce, len(ids))]
		var answer struct {
			Docs []struct {
				Source *T `json:"_source"`
				Error  struct{ Type, Reason string }
			}
		}
		err := x.call(ctx, http.MethodPost, path(x.target, "_mget")+"?_source_includes="+fields, map[string]any{"docs": part}, &answer)
		if err != nil {
			return err
		}
		if len(answer.Docs) != len(part) {
			return fmt.Errorf("%d answers to %d ids", len(answer.Docs), len(part))
		}
		for i, d := range answer.Docs {
			if d.Error.Type != "" {
				return x.explain(&refusal{http.StatusServiceUnavailable, d.Error.Type, d.Error.Reason})
			}
			each(from+i, d.Source)
		}
	}
	return nil
}

// found is a hit of a search.
type found struct {
	ID     string          `json:"_id"`
	Score  float64         `json:"_score"`
	Source json.RawMessage `json:"_source"`
	Fields fields
}

// fields are values that a search returns without reading the source.
type fields struct {
	Document []string
	Version  []uint64
	Deleted  []bool
	Chunk    []string
	Start    []int64
}

// search returns the hits of a search of all shards: one that misses some is an error.
func (x *Index) search(ctx context.Context, at string, body map[string]any) ([]found, error) {
	var answer struct{ Hits struct{ Hits []found } }
	body["track_total_hits"] = false
	if at += "/_search?allow_partial_search_results=false"; body["pit"] == nil {
		at += "&preference=" + x.session
	}
	err := x.call(ctx, http.MethodPost, at, body, &answer)
	return answer.Hits.Hits, err
}

func term(field string, value any) any {
	return map[string]any{"term": map[string]any{field: value}}
}

// all matches what every clause does, without a score.
func all(clauses ...any) any {
	return map[string]any{"bool": map[string]any{"filter": clauses}}
}

// some matches what any clause does, without a score.
func some(clauses ...any) any {
	return all(map[string]any{"bool": map[string]any{"should": clauses}})
}

func (s *stateSource) state() leat.DocumentState {
	return leat.DocumentState{ID: decodeID(s.Document), Version: s.Version, Deleted: s.Deleted, Tag: s.State.Tag, Title: s.State.Title,
		Chunks: s.Chunks, Applied: time.UnixMilli(s.State.Applied).UTC()}
}

// Document implements [leat.Sink].
func (x *Index) Document(ctx context.Context, id string) (d leat.DocumentState, err error) {
	known := false
	err = get(ctx, x, []address{{ID: hash(id), Routing: hash(id)}}, "*", func(_ int, s *stateSource) {
		if s != nil {
			d, known = s.state(), true
		}
	})
	if err == nil && !known {
		err = leat.ErrNotFound
	}
	if err != nil {
		return leat.DocumentState{}, fmt.Errorf("%s: %w", id, err)
	}
	return d, nil
}

// Documents implements [leat.Sink]. It sees all that is durable when it begins.
func (x *Index) Documents(ctx context.Context, prefix string) iter.Seq2[leat.DocumentState, error] {
	const page = 1000
	return func(yield func(leat.DocumentState, error) bool) {
		fail := func(err error) {
			yield(leat.DocumentState{}, fmt.Errorf("elasticsearch index %s: list: %w", x.target, err))
		}
		if err := x.Refresh(ctx); err != nil {
			fail(err)
			return
		}
		query := term("deleted", false)
		if prefix != "" {
			query = all(query, map[string]any{"prefix": map[string]any{"document": encodeID(prefix)}})
		}
		body := map[string]any{"query": query, "size": page, "sort": []string{"document"}, "_source": true}
		for {
			hits, err := x.search(ctx, path(x.target), body)
			if err != nil {
				fail(err)
				return
			}
			for _, h := range hits {
				var s stateSource
				if err := json.Unmarshal(h.Source, &s); err != nil {
					fail(err)
					return
				}
				if !yield(s.state(), nil) {
					return
				}
				body["search_after"] = []string{s.Document}
			}
			if len(hits) < page {
				return
			}
		}
	}
}

// errMoved: the document changed while its chunks were read.
var errMoved = errors.New("the document changes faster than it can be read")

// Chunks implements [leat.Sink].
func (x *Index) Chunks(ctx context.Context, id string) (chunks []leat.Chunk, err error) {
	// The chunks of a version are removed once a newer one is held: read again then.
	for range 100 {
		d, err := x.Document(ctx, id)
		if errors.Is(err, leat.ErrNotFound) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		h := hash(id)
		ids := make([]address, d.Chunks)
		for i := range ids {
			ids[i] = address{ID: chunkID(h, d.Version, i), Routing: h}
		}
		chunks = make([]leat.Chunk, 0, d.Chunks)
		err = get(ctx, x, ids, "*", func(_ int, s *chunkSource) {
			if s != nil {
				chunks = append(chunks, s.chunk())
			}
		})
		if err != nil || len(chunks) == d.Chunks {
			return chunks, err
		}
	}
	return nil, fmt.Errorf("%s: %w", id, errMoved)
}

func (s *chunkSource) chunk() leat.Chunk {
	words := s.words()
	return leat.Chunk{ID: s.Chunk, Ordinal: s.Place.Ordinal, Start: s.Start, End: s.Place.End, Tokens: s.Place.Tokens,
		Heading: words.Heading, Page: s.Place.Page, Text: words.Text}
}

// Stats implements [leat.Sink].
func (x *Index) Stats(ctx context.Context) (leat.Stats, error) {
	if err := x.Refresh(ctx); err != nil {
		return leat.Stats{}, err
	}
	var answer struct {
		Hits         struct{ Total struct{ Value int64 } }
		Aggregations struct{ Chunks struct{ Value float64 } }
	}
	err := x.call(ctx, http.MethodPost, path(x.target)+"/_search?allow_partial_search_results=false", map[string]any{
		"query": term("deleted", false), "size": 0, "track_total_hits": true,
		"aggs": map[string]any{"chunks": map[string]any{"sum": map[string]any{"field": "chunks"}}},
	}, &answer)
	return leat.Stats{Documents: answer.Hits.Total.Value, Chunks: int64(answer.Aggregations.Chunks.Value)}, err
}
