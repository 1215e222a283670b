package milvus

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/milvus-io/milvus/client/v2/column"
	"golang.org/x/sync/errgroup"

	"leat"
)

// state is a row of the documents collection: that a document was at a version
// (part is -1), or that a part of a version that waits for its last is there.
type state struct {
	key   string
	hash  int64
	part  int
	again bool // the part is of a version that was held already
	leat.DocumentState
	end    int              // the places of its chunks end before; there may be fewer chunks
	digest leat.ChunkDigest // of them
}

func (s *state) size() int { return len(s.key) + len(s.Tag) + len(s.Title) + 100 }

// A collection must have a vector in each row.
var noVector = []float32{0, 0}

func stateColumns(states []state) []column.Column {
	n := len(states)
	keys, tags, titles := make([]string, n), make([]string, n), make([]string, n)
	hashes, versions, chunks, applied := make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n)
	ends, digests := make([]int64, n), make([]int64, n)
	deleted := make([]bool, n)
	for i, s := range states {
		keys[i], tags[i], titles[i] = s.key, cut(s.Tag), cut(s.Title)
		hashes[i], versions[i], chunks[i], applied[i] = s.hash, int64(s.Version), int64(s.Chunks), s.Applied.UnixMilli()
		deleted[i], ends[i], digests[i] = s.Deleted, int64(s.end), int64(s.digest)
	}
	return []column.Column{
		column.NewColumnVarChar(keyField, keys), column.NewColumnInt64(hashField, hashes), column.NewColumnInt64("version", versions),
		column.NewColumnBool("deleted", deleted), column.NewColumnVarChar("tag", tags), column.NewColumnVarChar("title", titles),
		column.NewColumnInt64("chunks", chunks), column.NewColumnInt64("end", ends), column.NewColumnInt64("digest", digests),
		column.NewColumnInt64("applied", applied),
		column.NewColumnFloatVector(vectorField, len(noVector), slices.Repeat([][]float32{noVector}, n)),
	}
}

// What of a state is read: what tells of its chunks, or all.
var (
	briefFields = []string{keyField, hashField, "deleted", "chunks", "end", "digest"}
	stateFields = append(slices.Clone(briefFields), "tag", "title", "applied")
)

func (x *Index) parseState(r rows, i int) (state, error) {
	s, err := parseStateKey(r.text(keyField, i))
	if err != nil {
		return s, fmt.Errorf("%s: collection %s: %w", x.db.at, x.names.documents, err)
	}
	s.hash, s.Deleted, s.Chunks = r.number(hashField, i), r.flag("deleted", i), int(r.number("chunks", i))
	s.end, s.digest = int(r.number("end", i)), leat.ChunkDigest(r.number("digest", i))
	if _, all := r.fields["title"]; all {
		s.Tag, s.Title, s.Applied = r.text("tag", i), r.text("title", i), time.UnixMilli(r.number("applied", i)).UTC()
	}
	return s, nil
}

// states returns all states of documents with one of the hashes, as of ts.
func (x *Index) states(ctx context.Context, hashes []int64, ts uint64, fields []string) ([]state, error) {
	parts := slices.Collect(slices.Chunk(hashes, batchDocuments))
	answers := make([]rows, len(parts))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for i, part := range parts {
		g.Go(func() (err error) {
			answers[i], err = x.db.query(gctx, x.names.documents, in(part), ts, 0, fields...)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var all []state
	for _, r := range answers {
		for i := range r.n {
			s, err := x.parseState(r, i)
			if err != nil {
				return nil, err
			}
			all = append(all, s)
		}
	}
	return all, nil
}

// held returns the states of the held versions of documents, by id, as of ts.
func (x *Index) held(ctx context.Context, ids []string, ts uint64, fields []string) (map[string]state, error) {
	hashes := make([]int64, len(ids))
	for i, id := range ids {
		_, hashes[i] = digest(id)
	}
	states, err := x.states(ctx, hashes, ts, fields)
	if err != nil {
		return nil, err
	}
	held := map[string]state{}
	for _, s := range states {
		if h, ok := held[s.ID]; s.part < 0 && (!ok || s.Version > h.Version) && slices.Contains(ids, s.ID) {
			held[s.ID] = s
		}
	}
	return held, nil
}

// Document implements [leat.Sink].
func (x *Index) Document(ctx context.Context, id string) (leat.DocumentState, error) {
	ts, err := x.db.now(ctx)
	if err != nil {
		return leat.DocumentState{}, err
	}
	held, err := x.held(ctx, []string{id}, ts, stateFields)
	if err != nil {
		return leat.DocumentState{}, err
	}
	s, ok := held[id]
	if !ok {
		return leat.DocumentState{}, fmt.Errorf("%s: %w", id, leat.ErrNotFound)
	}
	return s.DocumentState, nil
}

// page is how many states a listing reads at once (I8).
const page = 2000

// Documents implements [leat.Sink].
func (x *Index) Documents(ctx context.Context, prefix string) iter.Seq2[leat.DocumentState, error] {
	return x.documents(ctx, prefix, stateFields)
}

func (x *Index) documents(ctx context.Context, prefix string, fields []string) iter.Seq2[leat.DocumentState, error] {
	return func(yield func(leat.DocumentState, error) bool) {
		for d, err := range x.standings(ctx, prefix, fields) {
			if err != nil || d.held() {
				if !yield(d.DocumentState, err) {
					return
				}
			}
		}
	}
}

// standing is what the states of a document say together.
type standing struct {
	state      // of the held version
	known bool // there is one
	older int  // states of versions before it, and of their parts
	parts int  // states of parts of other versions
}

// add takes a further state of the document into account, in the order of keys.
func (d *standing) add(s state) {
	switch {
	case s.part >= 0:
		d.parts++
		d.ID = s.ID
		return
	case d.known:
		d.older++
	}
	d.older, d.parts = d.older+d.parts, 0
	d.state, d.known = s, true
}

// held reports whether the document is there and not deleted.
func (d *standing) held() bool { return d.known && !d.Deleted }

// standingsOf states of documents, all of each, by id.
func standingsOf(states []state) map[string]standing {
	slices.SortFunc(states, func(a, b state) int { return strings.Compare(a.key, b.key) })
	all := map[string]standing{}
	for _, s := range states {
		d := all[s.ID]
		d.add(s)
		all[s.ID] = d
	}
	return all
}

// standings lists documents page by page in the order of the states' keys: by
// id, and the versions of one by age.
func (x *Index) standings(ctx context.Context, prefix string, fields []string) iter.Seq2[standing, error] {
	return func(yield func(standing, error) bool) {
		ts, err := x.db.now(ctx)
		if err != nil {
			yield(standing{}, err)
			return
		}
		var last standing // of a document that may have further states
		give := func() bool { return last.ID == "" && !last.known && last.parts == 0 || yield(last, nil) }
		// Keys with the prefix lie between it and what is above all escapes.
		from, until := keyField+fmt.Sprintf(` >= "%s"`, escape(prefix)), keyField+fmt.Sprintf(` < "%s~~"`, escape(prefix))
		for {
			r, err := x.db.query(ctx, x.names.documents, from+" && "+until, ts, page, fields...)
			if err != nil {
				yield(standing{}, err)
				return
			}
			if r.n == 0 {
				give()
				return
			}
			for i := range r.n {
				s, err := x.parseState(r, i)
				if err != nil {
					yield(standing{}, err)
					return
				}
				from = keyField + fmt.Sprintf(` > "%s"`, s.key)
				if s.ID != last.ID {
					if !give() {
						return
					}
					last = standing{}
				}
				last.add(s)
			}
		}
	}
}

// Stats implements [leat.Sink]. It reads the states of all documents: counting
// rows in the server would count what waits for its last part or its removal.
func (x *Index) Stats(ctx context.Context) (st leat.Stats, err error) {
	for d, err := range x.documents(ctx, "", briefFields) {
		if err != nil {
			return leat.Stats{}, err
		}
		st.Documents++
		st.Chunks += int64(d.Chunks)
	}
	return st, nil
}

// Chunks implements [leat.Sink]. They carry their vectors and no text.
func (x *Index) Chunks(ctx context.Context, id string) ([]leat.Chunk, error) {
	ts, err := x.db.now(ctx)
	if err != nil {
		return nil, err
	}
	seen := state{part: -2}
	for {
		held, err := x.held(ctx, []string{id}, ts, briefFields)
		if err != nil {
			return nil, err
		}
		s, ok := held[id]
		if !ok || s.Chunks == 0 {
			return nil, nil
		}
		chunks, err := x.chunksAt(ctx, id, s.Version, ts)
		// Where a newer version came in between, its chunks are read instead.
		if err != nil || len(chunks) == s.Chunks || seen.key == s.key {
			return chunks, err
		}
		seen = s
		if ts, err = x.db.now(ctx); err != nil {
			return nil, err
		}
	}
}

// chunksAt lists the chunks of one version.
func (x *Index) chunksAt(ctx context.Context, id string, version uint64, ts uint64) (chunks []leat.Chunk, err error) {
	name, hash := digest(id)
	filter := fmt.Sprintf("%s && version == %d", in([]int64{hash}), version)
	for row, err := range x.chunkRows(ctx, filter, len(id), ts) {
		if err != nil {
			return nil, err
		}
		if !strings.HasPrefix(row.key, name) {
			continue // of another document with the same hash
		}
		if row.heading != "" {
			if err := json.Unmarshal([]byte(row.heading), &row.chunk.Heading); err != nil {
				return nil, fmt.Errorf("%s: collection %s: headings of %s: %w", x.db.at, x.names.chunks, row.key, err)
			}
		}
		chunks = append(chunks, *row.chunk)
	}
	return chunks, nil
}
