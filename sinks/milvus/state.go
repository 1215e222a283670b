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
	key  string
	hash int64
	part int
	leat.DocumentState
}

func (s state) size() int { return len(s.key) + len(s.Tag) + len(s.Title) + 100 }

// A collection must have a vector in each row.
var noVector = []float32{0, 0}

func stateColumns(states []state) []column.Column {
	n := len(states)
	keys, tags, titles := make([]string, n), make([]string, n), make([]string, n)
	hashes, versions, chunks, applied := make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n)
	deleted := make([]bool, n)
	for i, s := range states {
		keys[i], tags[i], titles[i] = s.key, cut(s.Tag), cut(s.Title)
		hashes[i], versions[i], chunks[i], applied[i] = s.hash, int64(s.Version), int64(s.Chunks), s.Applied.UnixMilli()
		deleted[i] = s.Deleted
	}
	return []column.Column{
		column.NewColumnVarChar(keyField, keys), column.NewColumnInt64(hashField, hashes), column.NewColumnInt64("version", versions),
		column.NewColumnBool("deleted", deleted), column.NewColumnVarChar("tag", tags), column.NewColumnVarChar("title", titles),
		column.NewColumnInt64("chunks", chunks), column.NewColumnInt64("applied", applied),
		column.NewColumnFloatVector(vectorField, len(noVector), slices.Repeat([][]float32{noVector}, n)),
	}
}

// What of a state is read: whether it is there and how large it is, or all.
var (
	briefFields = []string{keyField, hashField, "deleted", "chunks"}
	stateFields = append(slices.Clone(briefFields), "tag", "title", "applied")
)

func (x *Index) parseState(r rows, i int) (s state, err error) {
	s.key, s.hash = r.text(keyField, i), r.number(hashField, i)
	var escaped string
	if escaped, s.Version, s.part, err = parseStateKey(s.key); err != nil {
		return s, fmt.Errorf("%s: collection %s: %w", x.db.at, x.names.documents, err)
	}
	s.ID, s.Deleted, s.Chunks = unescape(escaped), r.flag("deleted", i), int(r.number("chunks", i))
	if _, all := r.fields["title"]; all {
		s.Tag, s.Title, s.Applied = r.text("tag", i), r.text("title", i), time.UnixMilli(r.number("applied", i)).UTC()
	}
	return s, nil
}

// states returns all states of documents with one of the hashes, as of ts.
func (x *Index) states(ctx context.Context, hashes []int64, ts uint64) ([]state, error) {
	var answers []rows
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for part := range slices.Chunk(hashes, batchDocuments) {
		i := len(answers)
		answers = append(answers, rows{})
		g.Go(func() (err error) {
			r, err := x.db.query(gctx, x.names.documents, in(part), ts, 0, stateFields...)
			answers[i] = r
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
func (x *Index) held(ctx context.Context, ids []string, ts uint64) (map[string]state, error) {
	hashes := make([]int64, len(ids))
	for i, id := range ids {
		_, hashes[i] = digest(id)
	}
	states, err := x.states(ctx, hashes, ts)
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
	held, err := x.held(ctx, []string{id}, ts)
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

// documents lists held versions page by page in the order of the states' keys:
// by id, and the versions of one by age.
func (x *Index) documents(ctx context.Context, prefix string, fields []string) iter.Seq2[leat.DocumentState, error] {
	return func(yield func(leat.DocumentState, error) bool) {
		ts, err := x.db.now(ctx)
		if err != nil {
			yield(leat.DocumentState{}, err)
			return
		}
		var last *leat.DocumentState // the newest state of a document that may have a newer one
		give := func() bool { return last == nil || last.Deleted || yield(*last, nil) }
		// Keys with the prefix lie between it and what is above all escapes.
		from, until := keyField+fmt.Sprintf(` >= "%s"`, escape(prefix)), keyField+fmt.Sprintf(` < "%s~~"`, escape(prefix))
		for {
			r, err := x.db.query(ctx, x.names.documents, from+" && "+until, ts, page, fields...)
			if err != nil {
				yield(leat.DocumentState{}, err)
				return
			}
			if r.n == 0 {
				give()
				return
			}
			for i := range r.n {
				s, err := x.parseState(r, i)
				if err != nil {
					yield(leat.DocumentState{}, err)
					return
				}
				from = keyField + fmt.Sprintf(` > "%s"`, s.key)
				if s.part >= 0 {
					continue
				}
				if last != nil && last.ID != s.ID && !give() {
					return
				}
				last = &s.DocumentState
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

// Chunks implements [leat.Sink]. They carry neither text nor vector.
func (x *Index) Chunks(ctx context.Context, id string) ([]leat.Chunk, error) {
	ts, err := x.db.now(ctx)
	if err != nil {
		return nil, err
	}
	seen := state{part: -2}
	for {
		held, err := x.held(ctx, []string{id}, ts)
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
	after := chunkKey(name, version, 0)
	for q := ">="; ; q = ">" {
		// The keys of this version lie before those of the next.
		filter := fmt.Sprintf(`%s && version == %d && %s %s "%s"`, in([]int64{hash}), version, keyField, q, after)
		r, err := x.db.query(ctx, x.names.chunks, filter, ts, page, keyField, "ordinal", "chunk", "start", "end", "tokens", "page", "heading")
		if err != nil {
			return nil, err
		}
		for i := range r.n {
			after = r.text(keyField, i)
			if !strings.HasPrefix(after, name) {
				continue // of another document with the same hash
			}
			ch := leat.Chunk{
				ID: r.text("chunk", i), Ordinal: int(r.number("ordinal", i)), Start: r.number("start", i), End: r.number("end", i),
				Tokens: int(r.number("tokens", i)), Page: int(r.number("page", i)),
			}
			if h := r.text("heading", i); h != "" {
				if err := json.Unmarshal([]byte(h), &ch.Heading); err != nil {
					return nil, fmt.Errorf("%s: collection %s: headings of %s: %w", x.db.at, x.names.chunks, after, err)
				}
			}
			chunks = append(chunks, ch)
		}
		if r.n < page {
			return chunks, nil
		}
	}
}
