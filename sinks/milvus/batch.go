package milvus

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"
	"time"

	"github.com/milvus-io/milvus/client/v2/column"

	"leat"
)

// batch is what is known of the documents of one Apply at one time, and what
// is to be done.
type batch struct {
	*Index
	now  time.Time
	docs map[int64][]*document // by hash: two ids may share one
}

// document is one document of a batch.
type document struct {
	id, escaped, name string
	hash              int64
	until             uint64 // the highest version of which the batch has the last part

	held   uint64                 // the highest version that has a state, or gets one
	known  bool                   // there is one
	states []state                // all that the store has
	parts  map[uint64]map[int]int // how many chunks a version has up to the end of a part, by version and part
	listed []string               // keys of chunks in the store of versions before until

	rows     map[uint64]map[string]chunkRow // planned, by version and key
	newState map[uint64]map[string]state    // planned, by version and key
}

// chunkRow is a row of the chunks collection.
type chunkRow struct {
	doc     *document
	version uint64
	chunk   *leat.Chunk
	heading string
}

const maxChunkID = 64

func (x *Index) newBatch(revisions []leat.Revision) *batch {
	b := &batch{Index: x, docs: map[int64][]*document{}, now: time.Now()}
	for i := range revisions {
		if d := b.document(revisions[i].Document); revisions[i].Last {
			d.until = max(d.until, min(revisions[i].Version, math.MaxInt64))
		}
	}
	return b
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

func (b *batch) documents() iter.Seq[*document] {
	return func(yield func(*document) bool) {
		for _, same := range b.docs {
			for _, d := range same {
				if !yield(d) {
					return
				}
			}
		}
	}
}

// hold takes a state into account, one that is there or is to be written.
func (d *document) hold(s state) {
	switch {
	case s.part < 0 && (!d.known || s.Version > d.held):
		d.held, d.known = s.Version, true
	case s.part >= 0 && d.parts[s.Version] == nil:
		d.parts[s.Version] = map[int]int{s.part: s.Chunks}
	case s.part >= 0:
		d.parts[s.Version][s.part] = s.Chunks
	}
}

// plan decides what becomes of each revision.
func (b *batch) plan(revisions []leat.Revision) ([]leat.Outcome, error) {
	out := make([]leat.Outcome, len(revisions))
	for i := range revisions {
		r := &revisions[i]
		var err error
		if out[i], err = b.planOne(r); err != nil {
			return nil, fmt.Errorf("%s: %s version %d: %w", b.db.at, r.Document, r.Version, err)
		}
	}
	return out, nil
}

func (b *batch) planOne(r *leat.Revision) (leat.Outcome, error) {
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
	before := 0
	if r.Part > 0 {
		var ok bool
		if before, ok = d.parts[r.Version][r.Part-1]; !ok {
			return 0, leat.Permanent(leat.Hint(fmt.Errorf("part %d came without the one before it", r.Part),
				"the store was replaced while parts were under way: touch the document at its source or run `leat reindex`"))
		}
	}
	if err := b.planChunks(d, r); err != nil {
		return 0, err
	}
	s := state{hash: d.hash, part: -1, key: stateKey(d.escaped, r.Version), DocumentState: leat.DocumentState{
		ID: r.Document, Version: r.Version, Deleted: r.Deleted, Tag: r.Tag, Title: r.Title,
		Chunks: before + len(r.Chunks), Applied: b.now,
	}}
	if !r.Last {
		s.part, s.key = r.Part, partKey(d.escaped, r.Version, r.Part)
	}
	if d.newState[r.Version] == nil {
		d.newState[r.Version] = map[string]state{}
	}
	d.newState[r.Version][s.key] = s
	d.hold(s)
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

// toWrite returns what was planned and is not superseded in the batch itself.
func (b *batch) toWrite() (rows []chunkRow, states []state) {
	for d := range b.documents() {
		for version, planned := range d.rows {
			if d.known && version < d.held {
				continue
			}
			for _, row := range planned {
				rows = append(rows, row)
			}
		}
		for version, planned := range d.newState {
			for _, s := range planned {
				if !d.known || version > d.held || version == d.held && s.part < 0 {
					states = append(states, s)
				}
			}
		}
	}
	return rows, states
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
