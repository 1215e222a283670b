package milvus

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"leat"
)

// Bounds of one call (I8). The server takes 64 MiB.
const (
	batchRows      = 1000
	batchBytes     = 8 << 20 // of rows
	batchKeyBytes  = 1 << 20 // of keys in an expression
	batchDocuments = 500     // in an expression
	writers        = 2       // calls of one kind under way at once
)

// Apply implements [leat.Sink]. It writes the rows of new versions, then their
// states, which make them searchable and all older ones not, and then removes
// what is superseded. After a crash at any point the same batch brings all of
// it to its end.
//
// Two processes may apply versions of one document at the same time: whatever
// the order of their writes, the highest state decides (I2). What the slower
// one has left then is found when it looks at its documents again, which it
// does with its next batch.
func (x *Index) Apply(ctx context.Context, revisions []leat.Revision) ([]leat.Outcome, error) {
	if x.reader {
		return nil, fmt.Errorf("%s is open for reading only", x.db.at)
	}
	again := x.takeRecheck()
	out, written, err := x.apply(ctx, revisions, again)
	if err != nil {
		x.doubtful.Store(true)
		x.addRecheck(again)
		return nil, err
	}
	if len(revisions) > 0 {
		x.doubtful.Store(false)
	}
	x.addRecheck(written)
	return out, nil
}

func (x *Index) takeRecheck() []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	taken := x.recheck
	x.recheck = nil
	return taken
}

func (x *Index) addRecheck(ids []string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.recheck = append(x.recheck, ids...)
}

// apply returns the ids of the documents it wrote, too.
//
// To know for sure what the store holds takes a wait for the server's clock.
// It is passed with writing, on the ground of what can be read without: a
// state that turns out to be superseded is never the highest, so it does no
// harm for the moment it is there.
func (x *Index) apply(ctx context.Context, revisions []leat.Revision, again []string) (out []leat.Outcome, written []string, err error) {
	if len(revisions) == 0 && len(again) == 0 {
		return nil, nil, ctx.Err()
	}
	ts, err := x.db.now(ctx)
	if err != nil {
		return nil, nil, err
	}
	first := x.newBatch(revisions)
	known := uint64(asItIs)
	if x.doubtful.Load() {
		known = ts
	}
	if err := first.read(ctx, known); err != nil {
		return nil, nil, err
	}
	if _, err = first.plan(revisions); err != nil && known != ts { // a part may be missing only there
		first = x.newBatch(revisions)
		if err := first.read(ctx, ts); err != nil {
			return nil, nil, err
		}
		_, err = first.plan(revisions)
	}
	if err != nil {
		return nil, nil, err // nothing is written of a batch with one that is refused
	}
	rows, states := first.toWrite()
	if err := x.write(ctx, rows, states); err != nil {
		return nil, nil, err
	}

	// What these states supersede goes while the wait lasts.
	sure, gone := x.newBatch(revisions), map[string]bool{}
	for _, id := range again {
		sure.document(id)
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return first.tidy(gctx, gone) })
	g.Go(func() error { return sure.readStates(gctx, ts, states) })
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	if out, err = sure.plan(revisions); err != nil {
		return nil, nil, err
	}
	for d := range first.documents() {
		sure.document(d.id).listed = d.listed
	}
	for _, s := range states {
		d := sure.document(s.ID)
		d.states = append(d.states, s)
		written = append(written, s.ID)
	}
	return out, written, sure.tidy(ctx, gone)
}

// read fills in what the store holds of the documents, as of ts.
func (b *batch) read(ctx context.Context, ts uint64) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return b.readStates(ctx, ts, nil) })
	g.Go(func() error { return b.listChunks(ctx, ts) })
	return g.Wait()
}

// readStates leaves out what this batch has written itself: its outcomes are
// those of one revision after the other.
func (b *batch) readStates(ctx context.Context, ts uint64, own []state) error {
	written := map[string]bool{}
	for _, s := range own {
		written[s.key] = true
	}
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
			if d.id == s.ID && !written[s.key] {
				d.states = append(d.states, s)
				d.hold(s)
			}
		}
	}
	return nil
}

// listChunks finds the keys of chunks of versions that are to be superseded.
// Most of them are known from their states. The others are what a crash has
// left, in this process or, seconds ago, in another: without a doubt it is not
// worth to wait until the server has taken in all that was written before.
func (b *batch) listChunks(ctx context.Context, ts uint64) error {
	var docs []*document
	for d := range b.documents() {
		if d.until > 0 {
			docs = append(docs, d)
		}
	}
	for part := range slices.Chunk(docs, batchDocuments) {
		hashes, byName, newest := make([]int64, len(part)), map[string]*document{}, uint64(0)
		for i, d := range part {
			hashes[i], byName[d.name], newest = d.hash, d, max(newest, d.until)
		}
		for after, n := "", maxTopK; n == maxTopK; {
			filter := fmt.Sprintf("%s && version < %d && %s > %q", in(hashes), newest, keyField, after)
			found, err := b.db.query(ctx, b.names.chunks, filter, ts, maxTopK, keyField)
			if err != nil {
				return err
			}
			n = found.n
			for i := range n {
				after = found.text(keyField, i)
				name, version, _, err := parseChunkKey(after)
				if err != nil {
					return fmt.Errorf("%s: collection %s: %w", b.db.at, b.names.chunks, err)
				}
				if d := byName[name]; d != nil && version < d.until {
					d.listed = append(d.listed, after)
				}
			}
		}
	}
	return nil
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

// write makes rows durable, chunks before the states that make them searchable (I4).
func (x *Index) write(ctx context.Context, rows []chunkRow, states []state) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(writers)
	for part := range bounded(rows, chunkRow.size) {
		g.Go(func() error { return x.db.upsert(gctx, x.names.chunks, chunkColumns(part, x.model.Dimension)) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for part := range bounded(states, state.size) {
		if err := x.db.upsert(ctx, x.names.documents, stateColumns(part)); err != nil {
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

// tidy removes what the held versions supersede: the chunks of versions that
// have a state, and those that were listed. States go last: they tell what
// there may be. It leaves out the keys that are gone, and adds those that it
// removes.
func (b *batch) tidy(ctx context.Context, gone map[string]bool) error {
	var states, chunks []string
	for d := range b.documents() {
		if !d.known {
			continue
		}
		stale := map[uint64]int{} // how many chunks each superseded version has, numbered from 0
		for _, s := range d.states {
			if gone[s.key] {
				continue
			}
			if s.Version < d.held {
				stale[s.Version] = max(stale[s.Version], s.Chunks)
			}
			if s.Version < d.held || s.Version == d.held && s.part >= 0 {
				states = append(states, s.key)
			}
		}
		for version, n := range stale {
			for ordinal := range n {
				chunks = append(chunks, chunkKey(d.name, version, ordinal))
			}
		}
		for _, key := range d.listed {
			if _, version, ordinal, _ := parseChunkKey(key); version < d.held && ordinal >= stale[version] && !gone[key] {
				chunks = append(chunks, key)
			}
		}
	}
	for _, key := range slices.Concat(chunks, states) {
		gone[key] = true
	}
	if err := b.db.remove(ctx, b.names.chunks, chunks); err != nil {
		return err
	}
	return b.db.remove(ctx, b.names.documents, states)
}
