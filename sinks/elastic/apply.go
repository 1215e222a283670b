package elastic

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"leat"
)

// Apply implements [leat.Sink]. Each step is taken once all of the one before
// it is durable: the new chunks are written beside those that are held; the
// states, one conditional write each, make them the ones held (I4); then those
// that were are removed. A batch that fails or is cut short at any point is
// applied again, which ends in the same (I7): a chunk's id is made of document,
// version and ordinal.
func (x *Index) Apply(ctx context.Context, revisions []leat.Revision) (outcomes []leat.Outcome, err error) {
	if !x.writable {
		return nil, fmt.Errorf("elasticsearch index %s is open for reading only", x.target)
	}
	defer func() {
		if err != nil {
			x.suspect.Store(true)
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
	var unusual bool
	for _, p := range plans {
		if err := p.make(revisions, outcomes); err != nil {
			return nil, err
		}
		if chunks, states, err = p.items(chunks, states, time.Now()); err != nil {
			return nil, err
		}
		unusual = unusual || p.repeated
	}

	var stale []*item
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return x.bulk(gctx, chunks, false) })
	g.Go(func() (err error) {
		stale, err = x.leftovers(gctx, plans, unusual)
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if err := x.bulk(ctx, states, x.show()); err != nil {
		return nil, err
	}
	if err := x.outrun(ctx, plans, revisions, outcomes); err != nil {
		return nil, err
	}
	for _, p := range plans {
		stale = append(stale, p.stale()...)
	}
	if err := x.bulk(ctx, stale, false); err != nil {
		return nil, err
	}
	return outcomes, nil
}

// outrun settles what another process has written a newer version of since the
// states were read: that one stays (I2).
func (x *Index) outrun(ctx context.Context, plans []*plan, revisions []leat.Revision, outcomes []leat.Outcome) error {
	var lost []*plan
	for _, p := range plans {
		if p.flip != nil && p.flip.conflict {
			lost = append(lost, p)
		}
	}
	if len(lost) == 0 {
		return nil
	}
	if err := x.load(ctx, lost, nil); err != nil {
		return err
	}
	for _, p := range lost {
		for _, i := range p.revisions {
			if revisions[i].Version < p.held.version {
				outcomes[i] = leat.Superseded
			}
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
	return get(ctx, x, ids, "version,chunks,mark", func(i int, source *struct {
		Version uint64
		Chunks  int
		Mark    mark
	}) {
		e := entries[i]
		switch {
		case source == nil:
		case ids[i].ID == e.p.hash:
			e.p.held = &held{source.Version, source.Chunks}
		default:
			e.p.marks[e.mark] = source.Mark
		}
	})
}

// leftovers finds chunks and marks of older versions that no one will remove:
// of a process that ended, or was outrun, between two steps. Searches see what
// is durable a little later, so that where there is reason to think of such
// they are made to see all of it first.
func (x *Index) leftovers(ctx context.Context, plans []*plan, unusual bool) (stale []*item, err error) {
	if x.suspect.Swap(false) || unusual {
		if err := x.Refresh(ctx); err != nil {
			x.suspect.Store(true)
			return nil, err
		}
	}
	const atOnce = 250 // documents of a search: Elasticsearch bounds its clauses
	for from := 0; from < len(plans); from += atOnce {
		var older []any
		for _, p := range plans[from:min(from+atOnce, len(plans))] {
			if p.held == nil {
				continue
			}
			clauses := []any{term("_routing", p.hash), map[string]any{"range": map[string]any{"version": map[string]any{"lt": p.held.version}}}}
			if p.was != nil { // whose chunks are known
				clauses = append(clauses, map[string]any{"bool": map[string]any{"must_not": term("version", p.was.version)}})
			}
			older = append(older, all(clauses...))
		}
		if older == nil {
			continue
		}
		hits, err := x.search(ctx, path(x.target), map[string]any{"query": some(older...), "size": window, "_source": false, "sort": []string{"_doc"}})
		if err != nil {
			return nil, err
		}
		for _, h := range hits {
			docHash, _, err := parseID(h.ID)
			if err != nil {
				return nil, err
			}
			stale = append(stale, deletion(docHash, h.ID))
		}
		// What is past the window stays until the documents change again.
	}
	return stale, nil
}
