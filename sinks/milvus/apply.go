package milvus

import (
	"context"
	"fmt"
	"slices"
	"strconv"
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
// it to its end. Of a version that is written again the rows are replaced where
// they stand.
//
// Two processes may apply versions of one document at the same time: whatever
// the order of their writes, the highest state decides (I2). What the slower
// one has left then is found when it looks at its documents again, which it
// does with its next batch.
func (x *Index) Apply(ctx context.Context, revisions []leat.Revision) ([]leat.Outcome, error) {
	if err := x.writable(); err != nil {
		return nil, err
	}
	recheck := x.takeRecheck()
	out, written, err := x.apply(ctx, revisions, recheck)
	if err != nil {
		x.doubtful.Store(true)
		x.addRecheck(recheck)
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
func (x *Index) apply(ctx context.Context, revisions []leat.Revision, recheck []string) (out []leat.Outcome, written []string, err error) {
	if len(revisions) == 0 && len(recheck) == 0 {
		return nil, nil, ctx.Err()
	}
	ts, err := x.db.now(ctx)
	if err != nil {
		return nil, nil, err
	}
	b := x.newBatch(revisions)
	known := uint64(asItIs)
	if x.doubtful.Load() || b.again {
		known = ts
	}
	if err := b.read(ctx, known); err != nil {
		return nil, nil, err
	}
	if err = b.plan(revisions); err != nil && known != ts { // a part may be missing only there
		b = x.newBatch(revisions)
		if err := b.read(ctx, ts); err != nil {
			return nil, nil, err
		}
		err = b.plan(revisions)
	}
	if err != nil {
		return nil, nil, err // nothing is written of a batch with one that is refused
	}
	rows, states := b.toWrite()
	if err := x.write(ctx, rows, states); err != nil {
		return nil, nil, err
	}

	// What these states supersede goes while the wait lasts.
	gone := map[string]bool{}
	first := b.superseded(gone)
	b.forget()
	for _, id := range recheck {
		b.document(id)
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return x.removeAll(gctx, first) })
	g.Go(func() error { return b.readStates(gctx, ts, states) })
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	out = b.outcomes(revisions)
	for _, s := range states {
		d := b.document(s.ID)
		d.states = append(d.states, s)
		written = append(written, s.ID)
	}
	return out, written, x.removeAll(ctx, b.superseded(gone))
}

// read fills in what the store holds of the documents, as of ts.
func (b *batch) read(ctx context.Context, ts uint64) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return b.readStates(ctx, ts, nil) })
	g.Go(func() error { return b.listChunks(ctx, ts) })
	return g.Wait()
}

// forget what was planned and read, to read it again, but for what was held.
func (b *batch) forget() {
	for d := range b.documents() {
		d.held, d.known, d.states = d.heldBefore, d.knownBefore, nil
	}
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
	states, err := b.states(ctx, hashes, ts, briefFields)
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
// worth to wait until the server has taken in all that was written before. Of a
// document that is written again it finds all, whatever has become of them.
func (b *batch) listChunks(ctx context.Context, ts uint64) error {
	var docs, again []*document
	for d := range b.documents() {
		if d.again {
			again = append(again, d)
		} else if d.until > 0 {
			docs = append(docs, d)
		}
	}
	for part := range slices.Chunk(again, batchDocuments) {
		if err := b.list(ctx, part, "", ts); err != nil {
			return err
		}
	}
	for part := range slices.Chunk(docs, batchDocuments) {
		newest := uint64(0)
		for _, d := range part {
			newest = max(newest, d.until)
		}
		if err := b.list(ctx, part, fmt.Sprintf(" && version < %d", newest), ts); err != nil {
			return err
		}
	}
	return nil
}

func (b *batch) list(ctx context.Context, docs []*document, filter string, ts uint64) error {
	hashes, byName := make([]int64, len(docs)), map[string]*document{}
	for i, d := range docs {
		hashes[i], byName[d.name] = d.hash, d
	}
	filter = in(hashes) + filter
	for after, n := "", maxTopK; more(n, maxTopK); {
		found, err := b.db.query(ctx, b.names.chunks, fmt.Sprintf("%s && %s > %s", filter, keyField, strconv.Quote(after)), ts, maxTopK, keyField)
		if err != nil {
			return err
		}
		n = found.n
		for i := range n {
			after = found.text(keyField, i)
			name, version, _, err := parseChunkKey(after)
			if d := byName[name]; err == nil && d != nil && (d.again || version < d.until) {
				d.listed = append(d.listed, after)
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
	for part := range bounded(rows, (*chunkRow).size) {
		g.Go(func() error { return x.db.upsert(gctx, x.names.chunks, chunkColumns(part, x.model.Dimension)) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for part := range bounded(states, (*state).size) {
		if err := x.db.upsert(ctx, x.names.documents, stateColumns(part)); err != nil {
			return err
		}
	}
	return nil
}

// bounded cuts rows into batches that one call may carry.
func bounded[R any](rows []R, size func(*R) int) func(func([]R) bool) {
	return func(yield func([]R) bool) {
		for len(rows) > 0 {
			n, bytes := 0, 0
			for n < len(rows) && n < batchRows && (n == 0 || bytes+size(&rows[n]) <= batchBytes) {
				bytes += size(&rows[n])
				n++
			}
			if !yield(rows[:n]) {
				return
			}
			rows = rows[n:]
		}
	}
}

// removeAll removes states last: they tell what there may be.
func (x *Index) removeAll(ctx context.Context, r removal) error {
	if err := x.db.remove(ctx, x.names.chunks, r.chunks); err != nil {
		return err
	}
	return x.db.remove(ctx, x.names.documents, r.states)
}
