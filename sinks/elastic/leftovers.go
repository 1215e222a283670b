package elastic

import (
	"context"
	"maps"
	"slices"
	"sync"
)

// written are documents whose states were written, by hash, until searches see what
// was durable before that. Safe for concurrent use.
type written struct {
	mu   sync.Mutex
	docs map[string]replaced
}

// replaced is the version that a document holds, and the one that it held, whose
// chunks are known and removed without a search; nil: it held none.
type replaced struct {
	version uint64
	was     *held
}

// replacedBy are the documents of plans but for those that come Again, of which
// besides finds all.
func replacedBy(plans []*plan) map[string]replaced {
	docs := map[string]replaced{}
	for _, p := range plans {
		if p.held != nil && (p.final == nil || !p.final.Again) {
			docs[p.hash] = replaced{p.held.version, p.was}
		}
	}
	return docs
}

func (w *written) add(docs map[string]replaced) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.docs == nil {
		w.docs = map[string]replaced{}
	}
	merge(w.docs, docs)
}

// move puts all that there are to others.
func (w *written) move(to map[string]replaced) {
	w.mu.Lock()
	defer w.mu.Unlock()
	merge(to, w.docs)
	w.docs = nil
}

// merge keeps the newest of each.
func merge(to, docs map[string]replaced) {
	for h, d := range docs {
		if d.version >= to[h].version {
			to[h] = d
		}
	}
}

// removeLeftovers removes chunks and marks of older versions that no one else
// will: of a process that ended, or was outrun, between two steps, and of a
// version that never became whole. It comes after the states are written; where
// searches do not see yet what was durable before that, the documents are looked
// at once more when they do.
func (x *Index) removeLeftovers(ctx context.Context, plans []*plan, shown bool) (err error) {
	docs := replacedBy(plans)
	if shown {
		x.written.move(docs)
	}
	defer func() {
		if err != nil || !shown {
			x.written.add(docs)
		}
	}()
	var stale []*item
	for hashes := range slices.Chunk(slices.Collect(maps.Keys(docs)), documentsAtOnce) {
		var older []any
		for _, h := range hashes {
			d, clause := docs[h], versions(h, "lt", docs[h].version)
			if d.was != nil {
				known := all(term("version", d.was.version), exists("chunk"))
				clause = all(clause, none(known))
			}
			older = append(older, clause)
		}
		hits, err := x.search(ctx, path(x.target), map[string]any{"query": some(older...), "size": window, "_source": false, "sort": []string{"_doc"}})
		if err != nil {
			return err
		}
		for _, h := range hits {
			stale = append(stale, deletion(address{ID: h.ID, Routing: h.Routing}))
		}
		// What is past the window stays until the documents change again.
	}
	return x.bulk(ctx, stale)
}
