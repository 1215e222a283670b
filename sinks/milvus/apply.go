package milvus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/milvus-io/milvus/client/v2/column"
	"golang.org/x/sync/errgroup"

	"leat"
)

// Bounds of one call (I8). The server takes 64 MiB.
const (
	batchRows      = 1000
	batchBytes     = 8 << 20 // of rows
	batchKeyBytes  = 1 << 20 // of keys in an expression
	batchDocuments = 500     // in an expression
	writers        = 2       // batches of chunks under way at once
	maxChunkID     = 64
)

// Apply implements [leat.Sink]. It writes the rows of new versions, then their
// states, which make them searchable and all older ones not, and then removes
// what is superseded. After a crash at any point the same batch brings all of
// it to its end.
//
// Two processes may apply versions of one document at the same time: whatever
// the order of their writes, the highest state decides (I2). What the slower
// one has left then is found when it looks at its documents again, which it
// does with its next batch: that needs no further wait for the server's clock.
func (x *Index) Apply(ctx context.Context, revisions []leat.Revision) ([]leat.Outcome, error) {
	if x.reader {
		return nil, fmt.Errorf("%s is open for reading only", x.db.at)
	}
	b := batch{Index: x, docs: map[int64][]*document{}, now: time.Now()}
	for i := range revisions {
		b.add(&revisions[i])
	}
	written := x.takeRecheck()
	for id := range written {
		b.document(id)
	}
	out, err := b.apply(ctx, revisions)
	if err != nil {
		x.addRecheck(written) // for the batch comes again, and they do not
		return nil, err
	}
	x.addRecheck(b.written)
	return out, nil
}

func (x *Index) takeRecheck() map[string]bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	taken := x.recheck
	x.recheck = map[string]bool{}
	return taken
}

func (x *Index) addRecheck(ids map[string]bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for id := range ids {
		x.recheck[id] = true
	}
}

// batch is what one Apply knows and does.
type batch struct {
	*Index
	now     time.Time
	docs    map[int64][]*document // by hash: two ids may share one
	written map[string]bool
}

// document is one document of a batch: what the store holds of it and what is
// to be written.
type document struct {
	id, escaped, name string
	hash              int64
	ends              bool // the batch has a last part of it

	held   uint64                 // the highest version with a state, of the store or to be written
	known  bool                   // there is one
	states []string               // keys of all of its states in the store
	parts  map[uint64]map[int]int // chunks of each part that is there, by version and part

	rows     map[uint64]map[string]chunkRow // to write, by version and key
	newState map[uint64]map[string]state    // to write, by version and key
}

type chunkRow struct {
	doc     *document
	version uint64
	chunk   *leat.Chunk
	heading string
}

func (b *batch) document(id string) *document {
	name, hash := digest(id)
	for _, d := range b.docs[hash] {
		if d.id == id {
			return d
		}
	}
	d := &document{
		id: id, escaped: escape(id), name: name, hash: hash, parts: map[uint64]map[int]int{},
		rows: map[uint64]map[string]chunkRow{}, newState: map[uint64]map[string]state{},
	}
	b.docs[hash] = append(b.docs[hash], d)
	return d
}

func (b *batch) add(r *leat.Revision) {
	d := b.document(r.Document)
	d.ends = d.ends || r.Last
}

func (b *batch) apply(ctx context.Context, revisions []leat.Revision) ([]leat.Outcome, error) {
	if len(b.docs) == 0 {
		return nil, ctx.Err()
	}
	ts, err := b.db.now(ctx)
	if err != nil {
		return nil, err
	}
	if err := b.read(ctx, ts); err != nil {
		return nil, err
	}
	out := make([]leat.Outcome, len(revisions))
	for i := range revisions {
		r := &revisions[i]
		if out[i], err = b.plan(r); err != nil {
			return nil, fmt.Errorf("%s: %s version %d: %w", b.db.at, r.Document, r.Version, err)
		}
	}
	// A chunk is durable before its state, and a state before what it
	// supersedes goes (I4).
	if err := b.write(ctx); err != nil {
		return nil, err
	}
	if err := b.tidy(ctx, ts); err != nil {
		return nil, err
	}
	return out, nil
}

// read fills in what the store holds of the documents.
func (b *batch) read(ctx context.Context, ts uint64) error {
	hashes := make([]int64, 0, len(b.docs))
	for h := range b.docs {
		hashes = append(hashes, h)
	}
	states, err := b.states(ctx, hashes, ts)
	if err != nil {
		return err
	}
	for _, s := range states {
		for _, d := range b.docs[s.hash] {
			if d.id != s.ID {
				continue
			}
			d.states = append(d.states, s.key)
			if s.part >= 0 {
				d.setPart(s.Version, s.part, s.Chunks)
			} else if !d.known || s.Version > d.held {
				d.held, d.known = s.Version, true
			}
		}
	}
	return nil
}

func (d *document) setPart(version uint64, part, chunks int) {
	if d.parts[version] == nil {
		d.parts[version] = map[int]int{}
	}
	d.parts[version][part] = chunks
}

// in is the filter for rows of documents.
func in(hashes []int64) string {
	var f strings.Builder
	f.WriteString(hashField + " in [")
	for i, h := range hashes {
		if i > 0 {
			f.WriteByte(',')
		}
		fmt.Fprint(&f, h)
	}
	f.WriteByte(']')
	return f.String()
}

// plan decides what becomes of one revision. Nothing is written yet, so that a
// batch with one that is refused leaves nothing.
func (b *batch) plan(r *leat.Revision) (leat.Outcome, error) {
	d := b.document(r.Document)
	switch {
	case r.Version > math.MaxInt64:
		return 0, leat.Permanent(errors.New("the version is past 1<<63-1"))
	case len(d.escaped)+longestStateTail > maxVarChar:
		return 0, leat.Permanent(leat.Hint(fmt.Errorf("an id of %d bytes, escaped: %w", len(d.escaped), leat.ErrTooLarge),
			"Milvus holds ids of up to %d bytes: shorten the key or path", maxVarChar-longestStateTail))
	case len(r.Tag) > maxVarChar:
		return 0, leat.Permanent(fmt.Errorf("a tag of %d bytes: %w", len(r.Tag), leat.ErrTooLarge))
	case d.known && d.held > r.Version:
		return leat.Superseded, nil // I2
	case d.known && d.held == r.Version:
		return leat.Applied, nil // a replay: versions are never used twice
	}
	parts, before := 0, 0
	for ; parts < r.Part; parts++ {
		n, ok := d.parts[r.Version][parts]
		if !ok {
			return 0, leat.Permanent(leat.Hint(fmt.Errorf("part %d came without part %d", r.Part, parts),
				"the store was replaced while parts were under way: touch the document at its source or run `leat reindex`"))
		}
		before += n
	}
	if err := b.planChunks(d, r); err != nil {
		return 0, err
	}
	s := state{hash: d.hash, part: -1, key: stateKey(d.escaped, r.Version), DocumentState: leat.DocumentState{
		ID: r.Document, Version: r.Version, Deleted: r.Deleted, Tag: r.Tag, Title: r.Title,
		Chunks: before + len(r.Chunks), Applied: b.now,
	}}
	if r.Last {
		d.held, d.known = r.Version, true
	} else {
		s.part, s.key, s.Chunks = r.Part, partKey(d.escaped, r.Version, r.Part), len(r.Chunks)
		d.setPart(r.Version, r.Part, len(r.Chunks))
	}
	if d.newState[r.Version] == nil {
		d.newState[r.Version] = map[string]state{}
	}
	d.newState[r.Version][s.key] = s
	return leat.Applied, nil
}

func (b *batch) planChunks(d *document, r *leat.Revision) error {
	if d.rows[r.Version] == nil {
		d.rows[r.Version] = map[string]chunkRow{}
	}
	for i := range r.Chunks {
		ch := &r.Chunks[i]
		if err := b.checkChunk(ch); err != nil {
			return fmt.Errorf("chunk %d: %w", ch.Ordinal, err)
		}
		row := chunkRow{doc: d, version: r.Version, chunk: ch}
		if len(ch.Heading) > 0 {
			h, err := headings(ch.Heading)
			if err != nil {
				return err
			}
			row.heading = h
		}
		d.rows[r.Version][chunkKey(d.name, r.Version, ch.Ordinal)] = row
	}
	return nil
}

func (b *batch) checkChunk(ch *leat.Chunk) error {
	if len(ch.Vector) != b.model.Dimension {
		return leat.Hint(fmt.Errorf("a vector of %d dimensions, not of %d: %w", len(ch.Vector), b.model.Dimension, leat.ErrMismatch),
			"run `leat reindex` to embed everything with one model")
	}
	var norm float64
	for _, v := range ch.Vector {
		norm += float64(v) * float64(v)
	}
	switch {
	case !(math.Abs(norm-1) < 0.01): // NaN too
		return leat.Permanent(fmt.Errorf("a vector of length %g, not 1", math.Sqrt(norm)))
	case len(ch.ID) > maxChunkID:
		return leat.Permanent(fmt.Errorf("an id of %d bytes: %w", len(ch.ID), leat.ErrTooLarge))
	case ch.Ordinal < 0 || ch.Ordinal > math.MaxInt32:
		return leat.Permanent(errors.New("its number is not between 0 and 1<<31-1"))
	}
	return nil
}

// headings as JSON. Where they are longer than a field holds, the outermost
// are left out: they only tell people where a chunk stands.
func headings(h []string) (string, error) {
	for ; ; h = h[1:] {
		j, err := json.Marshal(h)
		if err != nil || len(j) <= maxVarChar {
			return string(j), err
		}
	}
}

// write makes the new rows durable, chunks first.
func (b *batch) write(ctx context.Context) error {
	var rows []chunkRow
	var states []state
	b.written = map[string]bool{}
	for _, same := range b.docs {
		for _, d := range same {
			for version, planned := range d.rows {
				if d.known && version < d.held {
					continue // superseded in this batch
				}
				for _, row := range planned {
					rows = append(rows, row)
				}
			}
			for version, planned := range d.newState {
				for _, s := range planned {
					if !d.known || version > d.held || version == d.held && s.part < 0 {
						states = append(states, s)
						b.written[d.id] = true
					}
				}
			}
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(writers)
	for part := range bounded(rows, chunkRow.size) {
		g.Go(func() error { return b.db.upsert(gctx, b.names.chunks, chunkColumns(part, b.model.Dimension)) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for part := range bounded(states, state.size) {
		if err := b.db.upsert(ctx, b.names.documents, stateColumns(part)); err != nil {
			return err
		}
	}
	return nil
}

// bounded cuts rows into batches that one call may carry.
func bounded[R any](rows []R, size func(R) int) func(func([]R) bool) {
	return func(yield func([]R) bool) {
		for len(rows) > 0 {
			n, bytes := 0, 0
			for n < len(rows) && n < batchRows && (n == 0 || bytes+size(rows[n]) <= batchBytes) {
				bytes += size(rows[n])
				n++
			}
			if !yield(rows[:n]) {
				return
			}
			rows = rows[n:]
		}
	}
}

func (r chunkRow) size() int {
	return 4*len(r.chunk.Vector) + len(r.doc.escaped) + len(r.heading) + 200
}

func chunkColumns(rows []chunkRow, dimension int) []column.Column {
	n := len(rows)
	numbers := func(of func(chunkRow) int64) []int64 {
		out := make([]int64, n)
		for i, r := range rows {
			out[i] = of(r)
		}
		return out
	}
	texts := func(of func(chunkRow) string) []string {
		out := make([]string, n)
		for i, r := range rows {
			out[i] = of(r)
		}
		return out
	}
	vectors := make([][]float32, n)
	for i, r := range rows {
		vectors[i] = r.chunk.Vector
	}
	return []column.Column{
		column.NewColumnVarChar(keyField, texts(func(r chunkRow) string { return chunkKey(r.doc.name, r.version, r.chunk.Ordinal) })),
		column.NewColumnInt64(hashField, numbers(func(r chunkRow) int64 { return r.doc.hash })),
		column.NewColumnVarChar("document", texts(func(r chunkRow) string { return r.doc.escaped })),
		column.NewColumnInt64("version", numbers(func(r chunkRow) int64 { return int64(r.version) })),
		column.NewColumnInt64("ordinal", numbers(func(r chunkRow) int64 { return int64(r.chunk.Ordinal) })),
		column.NewColumnVarChar("chunk", texts(func(r chunkRow) string { return r.chunk.ID })),
		column.NewColumnInt64("start", numbers(func(r chunkRow) int64 { return r.chunk.Start })),
		column.NewColumnInt64("end", numbers(func(r chunkRow) int64 { return r.chunk.End })),
		column.NewColumnInt64("tokens", numbers(func(r chunkRow) int64 { return int64(r.chunk.Tokens) })),
		column.NewColumnInt64("page", numbers(func(r chunkRow) int64 { return int64(r.chunk.Page) })),
		column.NewColumnVarChar("heading", texts(func(r chunkRow) string { return r.heading })),
		column.NewColumnFloatVector(vectorField, dimension, vectors),
	}
}

// tidy removes what the held versions supersede, and what a crash cut short
// before its state was written: chunks first, so that a state is there as long
// as a row of its version may be.
func (b *batch) tidy(ctx context.Context, ts uint64) error {
	var docs []*document
	var states []string
	for _, same := range b.docs {
		for _, d := range same {
			if !d.known {
				continue
			}
			n := len(states)
			for _, key := range d.states {
				_, version, part, err := parseStateKey(key)
				if err != nil {
					return err
				}
				if version < d.held || version == d.held && part >= 0 {
					states = append(states, key)
				}
			}
			if d.ends || len(states) > n {
				docs = append(docs, d)
			}
		}
	}
	for part := range slices.Chunk(docs, batchDocuments) {
		if err := b.tidyChunks(ctx, part, ts); err != nil {
			return err
		}
	}
	return b.db.remove(ctx, b.names.documents, states)
}

// tidyChunks reads as of a time before the batch was written, so that it need
// not wait again.
func (b *batch) tidyChunks(ctx context.Context, docs []*document, ts uint64) error {
	hashes, byName, newest := make([]int64, len(docs)), map[string]*document{}, uint64(0)
	for i, d := range docs {
		hashes[i], byName[d.name], newest = d.hash, d, max(newest, d.held)
	}
	filter := fmt.Sprintf("%s && version < %d", in(hashes), newest)
	for after := ""; ; {
		found, err := b.db.query(ctx, b.names.chunks, fmt.Sprintf("%s && %s > %q", filter, keyField, after), ts, maxTopK, keyField)
		if err != nil {
			return err
		}
		var stale []string
		for i := range found.n {
			after = found.text(keyField, i)
			name, version, err := parseChunkKey(after)
			if err != nil {
				return fmt.Errorf("%s: collection %s: %w", b.db.at, b.names.chunks, err)
			}
			if d := byName[name]; d != nil && version < d.held {
				stale = append(stale, after)
			}
		}
		if err := b.db.remove(ctx, b.names.chunks, stale); err != nil || found.n < maxTopK {
			return err
		}
	}
}
