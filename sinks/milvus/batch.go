package milvus

import (
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"time"

	"leat"
)

// batch is what is known of the documents of one Apply at one time, and what
// is to be done.
type batch struct {
	*Index
	now   time.Time
	again bool                  // a revision of it is
	docs  map[int64][]*document // by hash: two ids may share one
	of    []*document           // by revision
}

// document is one document of a batch.
type document struct {
	id, escaped, name string
	hash              int64
	until             uint64 // the highest version of which the batch has the last part
	again             bool   // to be written again, or a part of it

	held        uint64                // the highest version that has a state, or gets one
	known       bool                  // there is one
	heldBefore  uint64                // without this batch
	knownBefore bool                  // the same of known
	states      []state               // all that the store has
	parts       map[run]map[int]state // by number
	listed      []string              // keys of chunks in the store of versions before until; all where again

	rows      map[uint64]map[string]chunkRow // planned, by version and key
	newState  map[uint64]map[string]state    // planned, by version and key
	rewritten map[uint64][]span              // places of versions that are written again
}

// run is a version in parts. Where it is held and is written again that is
// another run, for it may be cut in another way.
type run struct {
	version uint64
	again   bool
}

// span is places of chunks, from one up to below another; the last has no end.
type span struct{ from, to int }

func (x *Index) newBatch(revisions []leat.Revision) *batch {
	b := &batch{Index: x, docs: map[int64][]*document{}, now: time.Now(), of: make([]*document, len(revisions))}
	for i := range revisions {
		r := &revisions[i]
		d := b.document(r.Document)
		b.of[i] = d
		if r.Last {
			d.until = max(d.until, min(r.Version, math.MaxInt64))
		}
		d.again = d.again || r.Again
		b.again = b.again || r.Again
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
		id: id, escaped: escape(id), name: name, hash: hash, parts: map[run]map[int]state{},
		rows: map[uint64]map[string]chunkRow{}, newState: map[uint64]map[string]state{}, rewritten: map[uint64][]span{},
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
	if s.part < 0 {
		d.raise(s.Version)
		return
	}
	of := run{s.Version, s.again}
	if d.parts[of] == nil {
		d.parts[of] = map[int]state{}
	}
	d.parts[of][s.part] = s
}

func (d *document) raise(version uint64) {
	if !d.known || version > d.held {
		d.held, d.known = version, true
	}
}

// plan decides what is to be written of each revision.
func (b *batch) plan(revisions []leat.Revision) error {
	for d := range b.documents() {
		d.heldBefore, d.knownBefore = d.held, d.known
	}
	for i := range revisions {
		r := &revisions[i]
		if err := b.planOne(b.of[i], r); err != nil {
			return fmt.Errorf("%s: %s version %d: %w", b.db.at, r.Document, r.Version, err)
		}
	}
	return nil
}

func (b *batch) planOne(d *document, r *leat.Revision) error {
	switch {
	case r.Version > math.MaxInt64:
		return leat.Permanent(errors.New("the version is past 1<<63-1"))
	case len(d.escaped)+longestStateTail > maxVarChar:
		return leat.Permanent(leat.Hint(fmt.Errorf("an id of %d bytes, escaped: %w", len(d.escaped), leat.ErrTooLarge),
			"Milvus holds ids of up to %d bytes: shorten the key or path", maxVarChar-longestStateTail))
	case len(r.Tag) > maxVarChar:
		return leat.Permanent(fmt.Errorf("a tag of %d bytes: %w", len(r.Tag), leat.ErrTooLarge))
	case d.known && d.held > r.Version:
		return nil // I2
	case d.known && d.held == r.Version && !r.Again:
		return nil // a replay: versions are never used twice
	}
	again := r.Again && d.known && d.held == r.Version
	var before state
	if r.Part > 0 {
		var ok bool
		before, ok = d.parts[run{r.Version, again}][r.Part-1]
		switch {
		case !ok && again:
			return nil // a replay: it has been written again to its end
		case !ok:
			return leat.Permanent(leat.Hint(fmt.Errorf("part %d came without the one before it", r.Part),
				"the store was replaced while parts were under way: touch the document at its source or run `leat reindex`"))
		}
	}
	s := state{hash: d.hash, part: -1, key: stateKey(d.escaped, r.Version), end: before.end, digest: before.digest, DocumentState: leat.DocumentState{
		ID: r.Document, Version: r.Version, Deleted: r.Deleted, Tag: r.Tag, Title: r.Title,
		Chunks: before.Chunks + len(r.Chunks), Applied: b.now,
	}}
	if !r.Last {
		s.part, s.again, s.key = r.Part, again, partKey(d.escaped, r.Version, r.Part, again)
	}
	for i := range r.Chunks {
		s.end = max(s.end, r.Chunks[i].Ordinal+1)
		s.digest = s.digest.Add(&r.Chunks[i])
	}
	if r.Again {
		d.rewrite(r, before.end, s.end)
	}
	if err := b.planChunks(d, r); err != nil {
		return err
	}
	if d.newState[r.Version] == nil {
		d.newState[r.Version] = map[string]state{}
	}
	d.newState[r.Version][s.key] = s
	d.hold(s)
	return nil
}

// rewrite has nothing remain at the places from one to below another but what
// the revision brings.
func (d *document) rewrite(r *leat.Revision, from, to int) {
	if r.Last {
		to = math.MaxInt
	}
	d.rewritten[r.Version] = append(d.rewritten[r.Version], span{from, to})
	for key, row := range d.rows[r.Version] { // of this batch
		if o := row.chunk.Ordinal; from <= o && o < to {
			delete(d.rows[r.Version], key)
		}
	}
}

// surplus reports whether the chunk stands where its version is written again,
// and is not part of that.
func (d *document) surplus(key string, version uint64, ordinal int) bool {
	_, planned := d.rows[version][key]
	return !planned && slices.ContainsFunc(d.rewritten[version], func(s span) bool { return s.from <= ordinal && ordinal < s.to })
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
		h, err := headings(ch.Heading)
		if err != nil {
			return err
		}
		key := chunkKey(d.name, r.Version, ch.Ordinal)
		d.rows[r.Version][key] = chunkRow{key: key, hash: d.hash, document: d.escaped, version: r.Version, chunk: ch, heading: h}
	}
	return nil
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
				if !d.known || version > d.held || version == d.held && (s.part < 0 || d.waits(s)) {
					states = append(states, s)
				}
			}
		}
	}
	return rows, states
}

// waits reports whether a part of the held version waits for the last one that
// is written again.
func (d *document) waits(part state) bool {
	return part.again && !slices.ContainsFunc(d.rewritten[part.Version], func(s span) bool { return s.to == math.MaxInt })
}

// outcomes of the revisions where the store holds what it does without them.
func (b *batch) outcomes(revisions []leat.Revision) []leat.Outcome {
	out := make([]leat.Outcome, len(revisions))
	for i, d := range b.of {
		switch r := &revisions[i]; {
		case d.known && d.held > r.Version:
			out[i] = leat.Superseded // I2
		case r.Last:
			d.raise(r.Version)
		}
	}
	return out
}

// removal is what is to be removed from the store, by key.
type removal struct{ chunks, states []string }

// superseded is what the held versions supersede: the chunks of versions that
// have a state, those that were listed, and further ones of a version that was
// written again. It leaves out the keys that are gone, and adds its own to them.
func (b *batch) superseded(gone map[string]bool) (r removal) {
	for d := range b.documents() {
		if !d.known {
			continue
		}
		stale := map[uint64]int{} // the places of each superseded version's chunks end before
		for _, s := range d.states {
			if gone[s.key] {
				continue
			}
			if s.Version < d.held {
				stale[s.Version] = max(stale[s.Version], s.end)
			}
			if s.Version < d.held || s.Version == d.held && s.part >= 0 && !d.waits(s) {
				r.states = append(r.states, s.key)
			}
		}
		for version, n := range stale {
			for ordinal := range n {
				r.chunks = append(r.chunks, chunkKey(d.name, version, ordinal))
			}
		}
		for _, key := range d.listed {
			_, version, ordinal, _ := parseChunkKey(key)
			if gone[key] {
				continue
			}
			if version < d.held && ordinal >= stale[version] || version == d.held && d.surplus(key, version, ordinal) {
				r.chunks = append(r.chunks, key)
			}
		}
	}
	for _, keys := range [][]string{r.chunks, r.states} {
		for _, key := range keys {
			gone[key] = true
		}
	}
	return r
}
