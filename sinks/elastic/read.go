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

// page is how many Elasticsearch documents are read by one request.
const page = 1000

// row is what is found by id.
type row[T any] struct {
	Source      *T     `json:"_source"` // nil: nothing
	Routing     string `json:"_routing"`
	SeqNo       int64  `json:"_seq_no"` // with PrimaryTerm: of its last change
	PrimaryTerm int64  `json:"_primary_term"`
	Error       struct{ Type, Reason string }
}

// get reads by id, as of now, and calls each with what it found.
func get[T any](ctx context.Context, x *Index, ids []address, fields string, each func(i int, r *row[T])) error {
	for from := 0; from < len(ids); from += page {
		part := ids[from:min(from+page, len(ids))]
		var answer struct{ Docs []row[T] }
		err := x.call(ctx, http.MethodPost, path(x.target, "_mget")+"?_source_includes="+fields, map[string]any{"docs": part}, &answer)
		if err != nil {
			return err
		}
		if len(answer.Docs) != len(part) {
			return fmt.Errorf("%d answers to %d ids", len(answer.Docs), len(part))
		}
		for i := range answer.Docs {
			d := &answer.Docs[i]
			if d.Error.Type != "" {
				return x.explain(&refusal{http.StatusServiceUnavailable, d.Error.Type, d.Error.Reason})
			}
			each(from+i, d)
		}
	}
	return nil
}

// found is a hit of a search.
type found struct {
	ID          string          `json:"_id"`
	Routing     string          `json:"_routing"`
	Score       float64         `json:"_score"`
	Source      json.RawMessage `json:"_source"`
	Sort        json.RawMessage
	SeqNo       int64 `json:"_seq_no"` // if asked for, as PrimaryTerm
	PrimaryTerm int64 `json:"_primary_term"`
	Fields      fields
}

// fields are values that a search returns without reading the source.
type fields struct {
	Document []string
	Of       []string
	Version  []uint64
	Deleted  []bool
	Chunk    []string
	Start    []int64
}

// search returns the hits of a search of all shards: one that misses some is an error.
func (x *Index) search(ctx context.Context, at string, body map[string]any) ([]found, error) {
	var answer struct {
		PIT  string `json:"pit_id"`
		Hits struct{ Hits []found }
	}
	body["track_total_hits"] = false
	frozen, _ := body["pit"].(*snapshot)
	if at += "/_search?allow_partial_search_results=false"; frozen == nil {
		at += "&preference=" + x.session
	}
	err := x.call(ctx, http.MethodPost, at, body, &answer)
	if frozen != nil && answer.PIT != "" { // it may change with each search
		frozen.ID = answer.PIT
	}
	return answer.Hits.Hits, err
}

// values is a search for no more than fields that have doc values, of a snapshot
// unless that is nil.
func (x *Index) values(ctx context.Context, s *snapshot, size int, query any, fields ...string) ([]found, error) {
	at, body := path(x.target), map[string]any{"query": query, "size": size, "stored_fields": "_none_", "docvalue_fields": fields}
	if s != nil {
		at, body["pit"] = "", s
	}
	return x.search(ctx, at, body)
}

// snapshot is a point in time of the index.
type snapshot struct {
	ID    string `json:"id"`
	Alive string `json:"keep_alive"` // from the last search on
}

// freeze makes a snapshot of what searches see now.
func (x *Index) freeze(ctx context.Context) (*snapshot, error) {
	s := &snapshot{Alive: "5m"}
	return s, x.call(ctx, http.MethodPost, path(x.target, "_pit")+"?keep_alive="+s.Alive+"&preference="+x.session, nil, s)
}

// forget removes a snapshot, which is kept for minutes otherwise.
func (x *Index) forget(ctx context.Context, s *snapshot) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	_ = x.call(ctx, http.MethodDelete, "/_pit", map[string]string{"id": s.ID}, nil)
}

// scan gives all that a query matches in one snapshot, without sources, a page
// at a time.
func (x *Index) scan(ctx context.Context, query any) iter.Seq2[[]found, error] {
	return func(yield func([]found, error) bool) {
		s, err := x.freeze(ctx)
		if err != nil {
			yield(nil, err)
			return
		}
		defer x.forget(ctx, s)
		body := map[string]any{"pit": s, "query": query, "size": page, "sort": []string{"_shard_doc"}, "_source": false,
			"docvalue_fields": []string{"document", "deleted"}, "seq_no_primary_term": true}
		for {
			hits, err := x.search(ctx, "", body)
			if err != nil {
				yield(nil, err)
				return
			}
			if len(hits) > 0 {
				body["search_after"] = hits[len(hits)-1].Sort
				if !yield(hits, nil) {
					return
				}
			}
			if len(hits) < page {
				return
			}
		}
	}
}

// count is how many Elasticsearch documents a query matches.
func (x *Index) count(ctx context.Context, query any) (int, error) {
	var answer struct {
		Hits struct{ Total struct{ Value int } }
	}
	err := x.call(ctx, http.MethodPost, path(x.target)+"/_search?allow_partial_search_results=false&preference="+x.session,
		map[string]any{"query": query, "size": 0, "track_total_hits": true}, &answer)
	return answer.Hits.Total.Value, err
}

func term(field string, value any) any {
	return map[string]any{"term": map[string]any{field: value}}
}

// exists matches what has a value in the field.
func exists(field string) any { return map[string]any{"exists": map[string]any{"field": field}} }

// all matches what every clause does, without a score.
func all(clauses ...any) any {
	return map[string]any{"bool": map[string]any{"filter": clauses}}
}

// none matches what no clause does, without a score.
func none(clauses ...any) any {
	return map[string]any{"bool": map[string]any{"must_not": clauses}}
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
	err = get(ctx, x, []address{{ID: hash(id), Routing: hash(id)}}, "*", func(_ int, r *row[stateSource]) {
		if r.Source != nil {
			d, known = r.Source.state(), true
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
	return func(yield func(leat.DocumentState, error) bool) {
		for states, err := range x.pages(ctx, prefix) {
			if err != nil {
				yield(leat.DocumentState{}, fmt.Errorf("elasticsearch index %s: list: %w", x.target, err))
				return
			}
			for i := range states {
				if !yield(states[i].state(), nil) {
					return
				}
			}
		}
	}
}

// listed is a state that a search found.
type listed struct {
	found
	stateSource
}

// pages lists the states that [Index.Documents] does.
func (x *Index) pages(ctx context.Context, prefix string) iter.Seq2[[]listed, error] {
	return func(yield func([]listed, error) bool) {
		if err := x.Refresh(ctx); err != nil {
			yield(nil, err)
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
				yield(nil, err)
				return
			}
			states := make([]listed, len(hits))
			for i, h := range hits {
				states[i].found = h
				// What something else has written there is told by Inventory.
				var altered *json.UnmarshalTypeError
				if err := json.Unmarshal(h.Source, &states[i].stateSource); err != nil && !errors.As(err, &altered) {
					yield(nil, err)
					return
				}
				body["search_after"] = h.Sort
			}
			if len(hits) > 0 && !yield(states, nil) || len(hits) < page {
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
		err = get(ctx, x, ids, "*", func(_ int, r *row[chunkSource]) {
			if r.Source != nil {
				chunks = append(chunks, r.Source.chunk())
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
