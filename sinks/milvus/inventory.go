package milvus

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"

	"leat"
)

// auditTries bounds how often a document is read that changes meanwhile.
const auditTries = 5

// Inventory implements [leat.Sink]. It may run while others write: where it
// finds something wrong it reads again, until it finds the same twice. Rows of a
// version above the one that is held are under way.
func (x *Index) Inventory(ctx context.Context, prefix string) iter.Seq2[leat.Holding, error] {
	return func(yield func(leat.Holding, error) bool) {
		ts, err := x.db.now(ctx)
		if err != nil {
			yield(leat.Holding{}, err)
			return
		}
		var docs []*audit
		n := 0
		give := func() bool {
			if err := x.inspect(ctx, docs, ts); err != nil {
				yield(leat.Holding{}, err)
				return false
			}
			for _, d := range docs {
				if d.held() && !yield(leat.Holding{DocumentState: d.DocumentState, Digest: d.found, Damage: d.damage()}, nil) {
					return false
				}
			}
			docs, n = nil, 0
			return true
		}
		for d, err := range x.standings(ctx, prefix, stateFields) {
			if err != nil {
				yield(leat.Holding{}, err)
				return
			}
			if _, hash := digest(d.ID); !d.held() || d.hash != hash {
				continue // searches do not find it either
			}
			if (more(n+d.Chunks, pageRows) || len(docs) == batchDocuments) && !give() { // one answer has them all
				return
			}
			docs = append(docs, &audit{standing: d})
			n += d.Chunks
		}
		if !give() || prefix != "" {
			return
		}
		for stray, err := range x.strays(ctx) {
			if !yield(leat.Holding{Stray: stray}, err) {
				return
			}
		}
	}
}

// audit compares the rows of one document with its states.
type audit struct {
	standing
	n, next int // chunks that were seen, and the place of the next
	found   leat.ChunkDigest
	stale   int      // rows of versions before the held one
	wrong   []string // the first of what is
	rest    int
	before  string // what was found at the last try
}

func (a *audit) find(format string, args ...any) {
	if len(a.wrong) < 3 {
		a.wrong = append(a.wrong, fmt.Sprintf(format, args...))
	} else {
		a.rest++
	}
}

// upTo has all chunks from the next to before the one at n missing. Where some
// places are empty it is not known which.
func (a *audit) upTo(n int) {
	if missing := n - a.next; a.end == a.Chunks && missing == 1 {
		a.find("chunk %d is missing", a.next)
	} else if a.end == a.Chunks && missing > 1 {
		a.find("chunks %d to %d are missing", a.next, n-1)
	}
	a.next = max(a.next, n)
}

// see takes the next row of the document in the order of keys: by version and
// place.
func (a *audit) see(row chunkRow, version uint64, ordinal int) {
	if version > a.Version {
		return
	}
	if version < a.Version {
		a.stale++
		return
	}
	a.upTo(min(ordinal, a.end))
	switch {
	case ordinal >= a.end:
		a.find("chunk %d is past the last", ordinal)
	case row.checksum() != row.sum:
		a.find("chunk %d is altered", ordinal)
	}
	a.n, a.next, a.found = a.n+1, ordinal+1, a.found.Add(row.chunk)
}

func (a *audit) finish() {
	a.upTo(a.end)
	switch {
	case a.end > a.Chunks && a.n < a.Chunks:
		a.find("%d chunks are missing", a.Chunks-a.n)
	case len(a.wrong) == 0 && a.found != a.digest:
		a.find("its chunks are not those that were written")
	}
	if a.stale > 0 {
		a.find("%d chunks of older versions are left", a.stale)
	}
	if a.older > 0 {
		a.find("%d states of older versions are left", a.older)
	}
}

func (a *audit) damage() string {
	all := strings.Join(a.wrong, "; ")
	if a.rest > 0 {
		all += fmt.Sprintf("; %d more", a.rest)
	}
	return all
}

// settled reports whether the document is sound, gone, or found as it was the
// last time.
func (a *audit) settled() bool {
	now := fmt.Sprint(a.key, " ", a.Applied.UnixMilli(), " ", a.damage())
	settled := !a.held() || len(a.wrong) == 0 || now == a.before
	a.before = now
	return settled
}

// inspect audits documents as of ts, and as of now where something is wrong.
func (x *Index) inspect(ctx context.Context, docs []*audit, ts uint64) error {
	for try := 0; len(docs) > 0 && try < auditTries; try++ {
		if try > 0 {
			var err error
			if ts, err = x.db.now(ctx); err == nil {
				err = x.reread(ctx, docs, ts)
			}
			if err != nil {
				return err
			}
		}
		if err := x.audit(ctx, docs, ts); err != nil {
			return err
		}
		docs = slices.DeleteFunc(slices.Clone(docs), (*audit).settled)
	}
	return nil
}

// reread begins the audits anew.
func (x *Index) reread(ctx context.Context, docs []*audit, ts uint64) error {
	hashes := make([]int64, len(docs))
	for i, d := range docs {
		_, hashes[i] = digest(d.ID)
	}
	states, err := x.states(ctx, hashes, ts, stateFields)
	if err != nil {
		return err
	}
	now := standingsOf(states)
	for _, d := range docs {
		*d = audit{standing: now[d.ID], before: d.before}
	}
	return nil
}

func (x *Index) audit(ctx context.Context, docs []*audit, ts uint64) error {
	hashes, byName, longest := make([]int64, len(docs)), map[string]*audit{}, 0
	for i, d := range docs {
		name, hash := digest(d.ID)
		hashes[i], byName[name], longest = hash, d, max(longest, len(d.key))
	}
	for row, err := range x.chunkRows(ctx, in(hashes), longest, ts) {
		if err != nil {
			return err
		}
		name, version, ordinal, err := parseChunkKey(row.key)
		if d := byName[name]; err == nil && d != nil && d.held() {
			d.see(row, version, ordinal)
		}
	}
	for _, d := range docs {
		if d.held() {
			d.finish()
		}
	}
	return nil
}

// strays lists the chunks that belong to no document, by collection and key. It
// reads all keys there are.
func (x *Index) strays(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		ts, err := x.db.now(ctx)
		if err != nil {
			yield("", err)
			return
		}
		for after := ""; ; {
			r, err := x.db.query(ctx, x.names.chunks, keyField+" > "+strconv.Quote(after), ts, maxTopK, keyField, hashField)
			if err == nil && r.n == 0 {
				return
			}
			var found []string
			if err == nil {
				after = r.text(keyField, r.n-1)
				if found, err = x.stray(ctx, r, ts); err == nil {
					found, err = x.stillStray(ctx, found) // a document may have come in between
				}
			}
			if err != nil {
				yield("", err)
				return
			}
			for _, key := range found {
				if !yield(x.names.chunks+" "+key, nil) {
					return
				}
			}
		}
	}
}

// stray returns the keys of those rows of chunks that belong to no document as
// of ts, and to no version under way.
func (x *Index) stray(ctx context.Context, r rows, ts uint64) (found []string, err error) {
	hashes := map[int64]bool{}
	for i := range r.n {
		hashes[r.number(hashField, i)] = true
	}
	type owner struct {
		hash    int64
		deleted bool
		version uint64
	}
	owners := map[string]owner{} // by name
	for part := range slices.Chunk(slices.Collect(maps.Keys(hashes)), batchDocuments) {
		states, err := x.states(ctx, part, ts, briefFields)
		if err != nil {
			return nil, err
		}
		for id, d := range standingsOf(states) {
			name, hash := digest(id)
			owners[name] = owner{hash, d.Deleted, d.Version}
		}
	}
	for i := range r.n {
		key := r.text(keyField, i)
		name, version, _, err := parseChunkKey(key)
		o, there := owners[name]
		if err != nil || !there || o.hash != r.number(hashField, i) || o.deleted && version <= o.version {
			found = append(found, key)
		}
	}
	return found, nil
}

// stillStray returns those of the keys that are there and stray by now.
func (x *Index) stillStray(ctx context.Context, keys []string) (found []string, err error) {
	if len(keys) == 0 {
		return nil, nil
	}
	ts, err := x.db.now(ctx)
	if err != nil {
		return nil, err
	}
	for filter := range keysIn(keys) {
		r, err := x.db.query(ctx, x.names.chunks, filter, ts, 0, keyField, hashField)
		if err != nil {
			return nil, err
		}
		part, err := x.stray(ctx, r, ts)
		if err != nil {
			return nil, err
		}
		found = append(found, part...)
	}
	slices.Sort(found)
	return found, nil
}

// Discard implements [leat.Sink]. It leaves what belongs to a document by now.
// A writer that is held up between a first version's chunks and its state, from
// before the Inventory until after the Discard, loses these chunks: the next
// Inventory tells.
func (x *Index) Discard(ctx context.Context, strays []string) error {
	if err := x.writable(); err != nil {
		return err
	}
	keys := make([]string, len(strays))
	for i, s := range strays {
		var ours bool
		if keys[i], ours = strings.CutPrefix(s, x.names.chunks+" "); !ours {
			return leat.Permanent(fmt.Errorf("%s: %q is not of the collection %s", x.db.at, s, x.names.chunks))
		}
	}
	found, err := x.stillStray(ctx, keys)
	if err != nil {
		return err
	}
	return x.db.remove(ctx, x.names.chunks, found)
}
