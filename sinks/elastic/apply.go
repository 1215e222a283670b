package elastic

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"leat"
)

// Apply implements [leat.Sink]. Each step is taken once all of the one before
// it is durable: the new chunks are written beside those that are held; the
// states, one conditional write each, make them the ones held (I4); then those
// that were are removed. A version that comes Again is written over itself, and
// stays searchable. A batch that fails or is cut short at any point is applied
// again, which ends in the same (I7): a chunk's id is made of document, version
// and ordinal.
func (x *Index) Apply(ctx context.Context, revisions []leat.Revision) (outcomes []leat.Outcome, err error) {
	if !x.writable {
		return nil, fmt.Errorf("elasticsearch index %s is open for reading only", x.target)
	}
	defer func() {
		if err != nil {
			x.suspect()
			err = fmt.Errorf("elasticsearch index %s: %w", x.target, err)
		}
	}()
	if err := validate(revisions); err != nil {
		return nil, err
	}
	plans := group(revisions)
	if err := x.load(ctx, plans, revisions); err != nil {
		return nil, err
	}
	// All of the batch is made before any of it is sent: what can never be
	// written fails it with nothing changed.
	outcomes = make([]leat.Outcome, len(revisions))
	var chunks, states []*item
	certain := x.suspected()
	for _, p := range plans {
		if err := p.make(revisions, outcomes); err != nil {
			return nil, err
		}
		if chunks, states, err = p.items(chunks, states, time.Now()); err != nil {
			return nil, err
		}
		certain = certain || p.repeated
	}

	var stale []*item
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return x.bulk(gctx, chunks) })
	g.Go(func() (err error) {
		var surplus []*item
		if stale, surplus, err = x.besides(gctx, plans); err != nil {
			return err
		}
		return x.bulk(gctx, surplus)
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if err := x.bulk(ctx, states); err != nil {
		return nil, err
	}
	if err := x.settle(ctx, plans, revisions, outcomes); err != nil {
		return nil, err
	}
	for _, p := range plans {
		stale = append(stale, p.stale()...)
	}
	if err := x.bulk(ctx, stale); err != nil {
		return nil, err
	}
	// Only now: searches see a document with the chunks of one version, where they can.
	shown := certain || len(states) > 0 && x.show()
	if shown {
		if err := x.Refresh(ctx); err != nil {
			return nil, err
		}
	}
	return outcomes, x.removeLeftovers(ctx, plans, shown)
}

// settle sees to the states that the server refused. Where another process has
// written a newer one since they were read, that one stays (I2).
func (x *Index) settle(ctx context.Context, plans []*plan, revisions []leat.Revision, outcomes []leat.Outcome) error {
	var refused []*plan
	for _, p := range plans {
		if p.flip != nil && p.flip.conflict {
			p.held = nil
			refused = append(refused, p)
		}
	}
	if len(refused) == 0 {
		return nil
	}
	if err := x.load(ctx, refused, nil); err != nil {
		return err
	}
	var items []*item
	for _, p := range refused {
		if p.held != nil && (p.held.version > p.final.Version || p.held.version == p.final.Version && !p.final.Again) {
			for _, i := range p.revisions {
				if revisions[i].Version < p.held.version {
					outcomes[i] = leat.Superseded
				}
			}
			continue
		}
		// Someone else than leat has removed the state or written over it, which
		// Elasticsearch counts as versions of its own: what was read just now is
		// replaced whatever its number, unless it changes meanwhile.
		to := address{ID: p.hash, OpType: "create"}
		if p.held != nil {
			to = address{ID: p.hash, SeqNo: &p.held.seqNo, PrimaryTerm: &p.held.primaryTerm}
		}
		it, err := newItem(p.id, to, p.state)
		if err != nil {
			return err
		}
		p.held = &held{version: p.final.Version, chunks: p.chunks}
		items = append(items, it)
	}
	if err := x.bulk(ctx, items); err != nil {
		return err
	}
	for _, it := range items {
		if it.conflict {
			return leat.Hint(fmt.Errorf("%s: its state changed while it was written", it.document),
				"it is tried again; if this goes on, find out what else writes to the index")
		}
	}
	return nil
}

// load reads the states of the documents and the marks of versions of which
// revisions bring parts. Elasticsearch answers it from what is durable, not
// from what searches see.
func (x *Index) load(ctx context.Context, plans []*plan, revisions []leat.Revision) error {
	type entry struct {
		p    *plan
		mark uint64
	}
	var ids []address
	var entries []entry
	for _, p := range plans {
		ids, entries = append(ids, address{ID: p.hash, Routing: p.hash}), append(entries, entry{p: p})
		asked := map[uint64]bool{}
		for _, i := range p.revisions {
			if len(revisions) == 0 {
				break
			}
			if r := &revisions[i]; (r.Part > 0 || !r.Last) && !asked[r.Version] {
				asked[r.Version] = true
				ids = append(ids, address{ID: markID(p.hash, r.Version), Routing: p.hash})
				entries = append(entries, entry{p, r.Version})
			}
		}
	}
	return get(ctx, x, ids, "version,chunks,mark", func(i int, r *row[struct {
		Version uint64
		Chunks  int
		Mark    mark
	}]) {
		e := entries[i]
		switch {
		case r.Source == nil:
		case ids[i].ID == e.p.hash:
			e.p.held = &held{version: r.Source.Version, chunks: r.Source.Chunks, seqNo: r.SeqNo, primaryTerm: r.PrimaryTerm}
		default:
			e.p.marks[e.mark] = r.Source.Mark
		}
	})
}

// besides finds what there is of documents that come Again besides what is
// written now. What stands beside the version that is held is surplus and goes at
// once, since from the state that is written next no one could tell that it is
// there. Searches see what is durable a little later, so they are made to see it
// first.
func (x *Index) besides(ctx context.Context, plans []*plan) (stale, surplus []*item, err error) {
	again := map[string]*plan{} // by hash
	for _, p := range plans {
		if p.held != nil && p.final != nil && p.final.Again {
			again[p.hash] = p
		}
	}
	if len(again) == 0 {
		return nil, nil, nil
	}
	if err := x.Refresh(ctx); err != nil {
		return nil, nil, err
	}
	for hashes := range slices.Chunk(slices.Collect(maps.Keys(again)), documentsAtOnce) {
		var clauses []any
		for _, h := range hashes {
			clauses = append(clauses, versions(h, "lte", again[h].held.version))
		}
		for hits, err := range x.scan(ctx, some(clauses...)) {
			if err != nil {
				return nil, nil, err
			}
			for _, h := range hits {
				p, it := again[h.Routing], deletion(address{ID: h.ID, Routing: h.Routing})
				of, version, ordinal, ok := parseID(h.ID)
				switch {
				case ok && of == p.hash && version == p.final.Version && ordinal >= 0 && ordinal < p.chunks:
				case p.was != nil && p.was.version == p.final.Version && (!ok || ordinal >= 0): // a mark is needed until then
					surplus = append(surplus, it)
				default:
					stale = append(stale, it)
				}
			}
		}
	}
	return stale, surplus, nil
}

// documentsAtOnce are those of a search: Elasticsearch bounds its clauses.
const documentsAtOnce = 250

// versions matches the chunks and marks of a document by their version.
func versions(hash, bound string, version uint64) any {
	return all(term("_routing", hash), map[string]any{"range": map[string]any{"version": map[string]any{bound: version}}})
}
