package elastic

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"leat"
)

// underWay is how long chunks may be there before the state or mark that they
// belong to, by the clocks of who writes and who compares: some requests lie in
// between, of a minute each at most.
const underWay = 10 * time.Minute

// Inventory implements [leat.Sink]. It sees all that is durable when it begins,
// and reads the states page by page, each with its chunks. A second pass, over
// the ids of all chunks and marks, finds the strays.
func (x *Index) Inventory(ctx context.Context, prefix string) iter.Seq2[leat.Holding, error] {
	return func(yield func(leat.Holding, error) bool) {
		fail := func(err error) {
			yield(leat.Holding{}, fmt.Errorf("elasticsearch index %s: inventory: %w", x.target, err))
		}
		stray := func(f found) bool { return prefix != "" || yield(leat.Holding{Stray: f.name()}, nil) }
		for states, err := range x.pages(ctx, prefix) {
			if err != nil {
				fail(err)
				return
			}
			var own []listed
			for _, s := range states {
				if s.ID == hash(decodeID(s.Document)) {
					own = append(own, s)
				} else if !stray(s.found) {
					return
				}
			}
			if own == nil {
				continue
			}
			holdings, err := x.survey(ctx, own)
			if err != nil {
				fail(err)
				return
			}
			for _, h := range holdings {
				if !yield(h, nil) {
					return
				}
			}
		}
		if prefix != "" {
			return
		}
		for rows, err := range x.scan(ctx, none(exists("deleted"))) {
			if err == nil {
				rows, err = x.strays(ctx, rows)
			}
			if err != nil {
				fail(err)
				return
			}
			for _, r := range rows {
				if !stray(r) {
					return
				}
			}
		}
	}
}

// survey reads the chunks of documents and compares them with what was written.
func (x *Index) survey(ctx context.Context, states []listed) ([]leat.Holding, error) {
	holdings, wrong := make([]leat.Holding, len(states)), make([]int, len(states))
	damage := func(i int, format string, ordinal int) {
		if wrong[i]++; wrong[i] == 1 {
			holdings[i].Damage = fmt.Sprintf(format, ordinal)
		}
	}
	of := map[string]int{} // by hash
	var ids []address
	var at []struct{ document, ordinal int }
	present := 0 // chunks that searches see as the documents'
	read := func() error {
		err := get(ctx, x, ids, "*", func(n int, r *row[json.RawMessage]) {
			i, ordinal, id := at[n].document, at[n].ordinal, ids[n]
			if r.Source == nil {
				damage(i, "chunk %d is missing", ordinal)
				return
			}
			var s chunkSource
			err := json.Unmarshal(*r.Source, &s)
			if err != nil || s.Place.Sum != s.sum(id.ID) || r.Routing != id.Routing {
				damage(i, "chunk %d is altered", ordinal)
			}
			if r.Routing == id.Routing {
				present++
			}
			ch := s.chunk()
			holdings[i].Digest = holdings[i].Digest.Add(&ch)
		})
		ids, at = ids[:0], at[:0]
		return err
	}
	for i := range states {
		s := &states[i]
		holdings[i].DocumentState, of[s.ID] = s.state(), i
		if s.State.Sum != s.sum() {
			wrong[i], holdings[i].Damage = 1, "its state is altered"
			continue
		}
		for n := range s.Chunks {
			ids = append(ids, address{ID: chunkID(s.ID, s.Version, n), Routing: s.ID})
			at = append(at, struct{ document, ordinal int }{i, n})
			if len(ids) == page {
				if err := read(); err != nil {
					return nil, err
				}
			}
		}
	}
	if err := read(); err != nil {
		return nil, err
	}

	// What is there beside them is looked for where anything is.
	rows := map[string]any{"terms": map[string]any{"_routing": slices.Collect(maps.Keys(of))}}
	n, err := x.count(ctx, rows)
	if err != nil {
		return nil, err
	}
	if n != present {
		for rows, err := range x.scan(ctx, rows) {
			if err != nil {
				return nil, err
			}
			for _, r := range rows {
				hash, version, ordinal, ok := parseID(r.ID)
				i, known := of[hash]
				if ok && known && version == states[i].Version && ordinal >= states[i].Chunks {
					damage(i, "chunk %d is one too many", ordinal)
				}
			}
		}
	}
	for i, n := range wrong {
		if n > 1 {
			holdings[i].Damage += fmt.Sprintf(" (and %d more)", n-1)
		}
	}
	return holdings, nil
}

// strays returns those of rows that belong to no document, and to no version
// that is under way. Chunks of a version that is held are not: see survey.
func (x *Index) strays(ctx context.Context, rows []found) (strays []found, err error) {
	type state struct {
		Version uint64
		Deleted bool
	}
	states := map[string]*state{} // by hash
	var ids []address
	for _, r := range rows {
		if of, _, _, ok := parseID(r.ID); ok && states[of] == nil {
			states[of] = &state{}
			ids = append(ids, address{ID: of, Routing: of})
		}
	}
	err = get(ctx, x, ids, "version,deleted", func(i int, r *row[state]) { states[ids[i].ID] = r.Source })
	if err != nil {
		return nil, err
	}
	type candidate struct {
		found
		mark string // of a version that may be under way; "": it is not
	}
	var candidates []candidate
	for _, r := range rows {
		of, version, ordinal, ok := parseID(r.ID)
		s := states[of]
		switch {
		case len(r.Fields.Deleted) > 0: // a state
			if len(r.Fields.Document) == 0 || r.ID != hash(decodeID(r.Fields.Document[0])) {
				candidates = append(candidates, candidate{found: r})
			}
		case !ok || r.Routing != of || s != nil && version < s.Version:
			candidates = append(candidates, candidate{found: r})
		case (s == nil || s.Deleted && version == s.Version) && ordinal >= 0:
			candidates = append(candidates, candidate{r, markID(of, version)})
		}
	}

	// Rows may have gone since they were found, with the version that they were of.
	ids = ids[:0]
	for _, c := range candidates {
		ids = append(ids, address{ID: c.ID, Routing: c.Routing})
	}
	var marks []address
	var waiting []found
	err = get(ctx, x, ids, "place.written", func(i int, r *row[json.RawMessage]) {
		var s chunkSource
		switch c := candidates[i]; {
		case r.Source == nil:
		case c.mark == "":
			strays = append(strays, c.found)
		case json.Unmarshal(*r.Source, &s) != nil || time.Since(time.Unix(s.Place.Written, 0)) > underWay:
			marks, waiting = append(marks, address{ID: c.mark, Routing: c.Routing}), append(waiting, c.found)
		}
	})
	if err != nil {
		return nil, err
	}
	err = get(ctx, x, marks, "version", func(i int, r *row[struct{}]) {
		if r.Source == nil {
			strays = append(strays, waiting[i])
		}
	})
	return strays, err
}

// name is where a row is found below INDEX/_doc/.
func (f *found) name() string {
	s := url.PathEscape(f.ID)
	if f.Routing != "" {
		s += "?routing=" + url.QueryEscape(f.Routing)
	}
	return s
}

// Discard implements [leat.Sink]. What has come to belong to a document since
// Inventory named it, and what changes meanwhile, stays.
func (x *Index) Discard(ctx context.Context, strays []string) (err error) {
	if !x.writable {
		return fmt.Errorf("elasticsearch index %s is open for reading only", x.target)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("elasticsearch index %s: discard: %w", x.target, err)
		}
	}()
	if len(strays) == 0 {
		return nil
	}
	if err := x.Refresh(ctx); err != nil {
		return err
	}
	for names := range slices.Chunk(strays, page) {
		ids := make([]string, len(names))
		for i, name := range names {
			id, _, _ := strings.Cut(name, "?")
			if ids[i], err = url.PathUnescape(id); err != nil {
				return err
			}
		}
		var items []*item
		for rows, err := range x.scan(ctx, map[string]any{"ids": map[string]any{"values": ids}}) {
			if err == nil {
				rows, err = x.strays(ctx, rows)
			}
			if err != nil {
				return err
			}
			for _, r := range rows {
				if slices.Contains(names, r.name()) {
					items = append(items, deletion(address{ID: r.ID, Routing: r.Routing, SeqNo: &r.SeqNo, PrimaryTerm: &r.PrimaryTerm}))
				}
			}
		}
		if err := x.bulk(ctx, items); err != nil {
			return err
		}
	}
	return x.Refresh(ctx)
}
