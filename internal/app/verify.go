package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"strings"
	"time"

	"leat"
	"leat/internal/codec"
	"leat/sources/listing"
)

// Verdict of a comparison of the sources with the live generation's indexes, by
// ids of documents.
type Verdict struct {
	OK        bool     `json:"ok"`
	Checked   int64    `json:"checked"`   // documents
	Missing   []string `json:"missing"`   // at the source, not in both indexes
	Stale     []string `json:"stale"`     // of other content than at the source
	Orphaned  []string `json:"orphaned"`  // in an index, not at the source; also what an index holds for no document
	Differing []string `json:"differing"` // not the same chunks in both indexes, or not those that were written
	// Reasons says more of some of them, by id.
	Reasons  map[string]string `json:"reasons,omitempty"`
	Repaired int               `json:"repaired,omitempty"` // documents that were sent again, and what was removed

	strays map[bool][]string // by whether they are in the vector index
}

func newVerdict() *Verdict {
	return &Verdict{
		Missing: []string{}, Stale: []string{}, Orphaned: []string{}, Differing: []string{},
		Reasons: map[string]string{}, strays: map[bool][]string{},
	}
}

// wrong lists the ids of all documents that are not right.
func (v *Verdict) wrong() []string {
	return slices.Concat(v.Missing, v.Stale, v.Orphaned, v.Differing)
}

// Verify compares every document of every source with the live generation's
// indexes, and those with each other, in constant memory. Documents that change
// meanwhile are compared again before they are reported. report is told how many
// were compared.
func (a *App) Verify(ctx context.Context, report func(checked int64)) (v *Verdict, err error) {
	x, err := a.openVerifier(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, x.close()) }()
	return x.verify(ctx, report)
}

// verifier is what a comparison holds open.
type verifier struct {
	*App
	sources map[string]source // by the prefix of their documents' ids
	stores  *stores
	text    leat.TextIndex
	vectors leat.VectorIndex
}

func (a *App) openVerifier(ctx context.Context) (_ *verifier, err error) {
	x := &verifier{App: a, sources: map[string]source{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, x.close())
		}
	}()
	live, err := a.live(ctx)
	if err != nil {
		return nil, err
	}
	x.stores = &stores{app: a, generation: live}
	if live == 0 {
		return nil, leat.Hint(fmt.Errorf("no index: %w", fs.ErrNotExist), "nothing has been indexed here yet: start `leat run` first")
	}
	if x.text, err = x.stores.Text(ctx); err != nil {
		return nil, err
	}
	if x.vectors, err = x.stores.Vectors(ctx, leat.Model{}); err != nil {
		return nil, err
	}
	all, err := a.sources()
	for _, s := range all {
		kind, name, _ := strings.Cut(s.name, ":")
		x.sources[leat.DocumentID(kind, name)+"/"] = s
	}
	return x, err
}

func (x *verifier) close() error {
	var err error
	for _, s := range x.sources {
		err = errors.Join(err, s.Close())
	}
	if x.stores != nil {
		err = errors.Join(err, x.stores.Close())
	}
	return err
}

// sourceOf a document; false where pipeline.yaml has none: whoever publishes it
// is not asked.
func (x *verifier) sourceOf(id string) (source, bool) {
	if i := strings.IndexByte(id, '/'); i >= 0 {
		s, ok := x.sources[id[:i+1]]
		return s, ok
	}
	return source{}, false
}

// fault is what is wrong with a document.
type fault int

const (
	sound fault = iota
	missing
	stale
	orphaned
	differing
)

// judge compares what the source and the indexes hold of a document: at the
// source (nil: not there), text and vectors.
func (x *verifier) judge(id string, at []*leat.Holding) (f fault, reason string) {
	from, text, vectors := at[0], at[1], at[2]
	if _, asked := x.sourceOf(id); asked {
		switch {
		case from == nil:
			return orphaned, ""
		case text == nil && vectors == nil:
			return missing, ""
		case text == nil:
			return missing, "not in the text index"
		case vectors == nil:
			return missing, "not in the vector index"
		case text.Tag != from.Tag && vectors.Tag != from.Tag:
			return stale, ""
		case text.Tag != from.Tag:
			return stale, "in the text index"
		case vectors.Tag != from.Tag:
			return stale, "in the vector index"
		}
	}
	switch {
	case text == nil:
		return differing, "not in the text index"
	case vectors == nil:
		return differing, "not in the vector index"
	case text.Damage != "":
		return differing, "text index: " + text.Damage
	case vectors.Damage != "":
		return differing, "vector index: " + vectors.Damage
	case text.Version != vectors.Version:
		return differing, fmt.Sprintf("version %d in the text index, %d in the vector index", text.Version, vectors.Version)
	case text.Digest != vectors.Digest:
		return differing, fmt.Sprintf("%d chunks in the text index, %d other ones in the vector index", text.Chunks, vectors.Chunks)
	}
	return sound, ""
}

func (v *Verdict) add(id string, f fault, reason string) {
	list := map[fault]*[]string{missing: &v.Missing, stale: &v.Stale, orphaned: &v.Orphaned, differing: &v.Differing}[f]
	*list = append(*list, id)
	if reason != "" {
		v.Reasons[id] = reason
	}
}

// progressEvery is after how many documents progress is told.
const progressEvery = 1000

func (x *verifier) verify(ctx context.Context, report func(checked int64)) (*Verdict, error) {
	v := newVerdict()
	sorter := listing.NewSorter()
	defer sorter.Close()
	for _, s := range x.sources {
		for e, err := range s.List(ctx) {
			if err != nil {
				return nil, fmt.Errorf("list source %s: %w", s.name, err)
			}
			tag, err := tagOf(e)
			if err != nil {
				return nil, err
			}
			// An id may be part of a string that holds the whole document (I8).
			if err := sorter.Add(listing.Item{ID: strings.Clone(e.ID), Tag: tag}); err != nil {
				return nil, err
			}
		}
	}
	held := func(vectors bool, seq iter.Seq2[leat.Holding, error]) iter.Seq2[leat.Holding, error] {
		return func(yield func(leat.Holding, error) bool) {
			for h, err := range seq {
				if h.Stray != "" {
					v.strays[vectors] = append(v.strays[vectors], h.Stray)
				} else if !yield(h, err) {
					return
				}
			}
		}
	}
	streams := []iter.Seq2[leat.Holding, error]{
		listed(sorter), held(false, x.text.Inventory(ctx, "")), held(true, x.vectors.Inventory(ctx, "")),
	}
	suspects := listing.NewSorter() // on disk where they are many
	defer suspects.Close()
	err := listing.Merge(streams, func(h *leat.Holding) string { return h.ID }, func(id string, at []*leat.Holding) error {
		if v.Checked++; v.Checked%progressEvery == 0 {
			report(v.Checked)
		}
		if f, _ := x.judge(id, at); f != sound {
			return suspects.Add(listing.Item{ID: id})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := x.again(ctx, suspects, v); err != nil {
		return nil, err
	}
	for vectors, strays := range v.strays {
		for _, s := range strays {
			v.add(s, orphaned, "belongs to no document in the "+indexName(vectors))
		}
	}
	v.OK = len(v.wrong()) == 0
	report(v.Checked)
	return v, nil
}

func indexName(vectors bool) string {
	if vectors {
		return "vector index"
	}
	return "text index"
}

// listed is what the sources hold, as the indexes should.
func listed(s *listing.Sorter) iter.Seq2[leat.Holding, error] {
	return func(yield func(leat.Holding, error) bool) {
		for item, err := range s.Sorted() {
			if !yield(leat.Holding{DocumentState: leat.DocumentState{ID: item.ID, Tag: item.Tag}}, err) {
				return
			}
		}
	}
}

// tagOf is the tag that the indexes hold of the document of a source's event.
func tagOf(e leat.Event) (string, error) {
	if e.Document.Ref != nil {
		return e.Document.Ref.Tag, nil
	}
	r, err := codec.EncodeEvent("", e)
	if err != nil {
		return "", err
	}
	return codec.ContentTag(e.Document, r), nil
}

const (
	suspectsAtOnce = 4096
	// A document that stays as it is for so long, while no stage has anything to
	// do, is not changing.
	steadyFor = 3 * time.Second
	// Stages with a backlog are waited for so long.
	backlogFor = time.Minute
	rounds     = 10
)

// again compares suspects once more, and those that are found changing as often
// as they change, and reports what stays wrong.
func (x *verifier) again(ctx context.Context, suspects *listing.Sorter, v *Verdict) error {
	var ids []string
	var conn *connection
	flush := func() error {
		if len(ids) == 0 {
			return nil
		}
		if conn == nil {
			c, err := x.open(ctx)
			if err != nil {
				return err
			}
			conn = &c
		}
		err := x.compareAgain(ctx, *conn, ids, v)
		ids = ids[:0]
		return err
	}
	err := func() error {
		for item, err := range suspects.Sorted() {
			if err != nil {
				return err
			}
			if ids = append(ids, item.ID); len(ids) == suspectsAtOnce {
				if err := flush(); err != nil {
					return err
				}
			}
		}
		return flush()
	}()
	if conn != nil {
		err = errors.Join(err, conn.Close())
	}
	return err
}

func (x *verifier) compareAgain(ctx context.Context, conn connection, ids []string, v *Verdict) error {
	type finding struct {
		fault
		reason, seen string
	}
	before := map[string]finding{}
	var set map[string]string // the reasons of dead letters, by document
	for round := 0; len(ids) > 0; round++ {
		if err := x.settle(ctx, conn); err != nil {
			return err
		}
		from, err := x.look(ctx, conn, ids, make([]uint64, len(ids)))
		if err != nil {
			return err
		}
		var still []string
		for i, id := range ids {
			at := make([]*leat.Holding, 3)
			if e := from[i]; e != nil && e.Document != nil {
				tag, err := tagOf(*e)
				if err != nil {
					return err
				}
				at[0] = &leat.Holding{DocumentState: leat.DocumentState{ID: id, Tag: tag}}
			}
			for j, sink := range []leat.Sink{x.text, x.vectors} {
				if at[1+j], err = holding(ctx, sink, id); err != nil {
					return err
				}
			}
			if at[0] == nil && at[1] == nil && at[2] == nil {
				continue // it was deleted meanwhile
			}
			f, reason := x.judge(id, at)
			if f == sound {
				continue
			}
			seen := fmt.Sprintf("%d %+v %+v %+v", f, at[0], at[1], at[2])
			if last, ok := before[id]; ok && last.seen == seen || round == rounds {
				if set == nil {
					if set, err = x.setAside(ctx, conn); err != nil {
						return err
					}
				}
				if why := set[id]; why != "" {
					reason = "in deadletters: " + why
				}
				v.add(id, f, reason)
				continue
			}
			before[id] = finding{f, reason, seen}
			still = append(still, id)
		}
		ids = still
	}
	return nil
}

// setAside gives the reasons of the dead letters that stand, by document.
func (x *verifier) setAside(ctx context.Context, conn connection) (map[string]string, error) {
	letters, err := x.deadLetters(ctx, conn)
	of := make(map[string]string, len(letters))
	for _, l := range letters {
		if n := l.Generation(); n == 0 || n == x.stores.generation {
			of[l.Document] = l.Reason
		}
	}
	return of, err
}

// settle lets what is on its way reach the indexes.
func (x *verifier) settle(ctx context.Context, conn connection) error {
	s, err := x.state(ctx, conn)
	if err != nil {
		return err
	}
	members, err := x.readRunning(ctx, conn, s)
	if err != nil {
		return err
	}
	running := false
	for _, processes := range members {
		running = running || len(processes) > 0
	}
	if !running { // then nothing is on its way that anyone carries on
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(steadyFor):
	}
	wctx, cancel := context.WithTimeout(ctx, backlogFor)
	defer cancel()
	if _, err := x.waitFor(wctx, conn, s.Live); err != nil && wctx.Err() == nil {
		return err
	}
	return ctx.Err()
}

// holding is what an index holds of one document; nil: nothing.
func holding(ctx context.Context, sink leat.Sink, id string) (*leat.Holding, error) {
	for h, err := range sink.Inventory(ctx, id) {
		if err != nil {
			return nil, err
		}
		if h.ID == id {
			return &h, nil
		}
		break // ids that go on after it
	}
	return nil, nil
}

// look asks the sources of documents for them, by place in ids; nil where
// pipeline.yaml has no such source.
func (x *verifier) look(ctx context.Context, conn connection, ids []string, above []uint64) ([]*leat.Event, error) {
	places := map[string][]int{} // by source
	byName := map[string]source{}
	for i, id := range ids {
		if s, ok := x.sourceOf(id); ok {
			places[s.name], byName[s.name] = append(places[s.name], i), s
		}
	}
	out := make([]*leat.Event, len(ids))
	for name, at := range places {
		position, err := loadPosition(ctx, conn, x.topics().Positions, name)
		if err != nil {
			return nil, err
		}
		for some := range slices.Chunk(at, listing.Batch) {
			l := leat.Look{Position: position.Position, Epoch: position.Epoch}
			for _, i := range some {
				l.IDs, l.Above = append(l.IDs, ids[i]), append(l.Above, above[i])
			}
			events, err := byName[name].Look(ctx, l)
			if err != nil {
				return nil, fmt.Errorf("look at documents of source %s: %w", name, err)
			}
			for j, i := range some {
				out[i] = &events[j]
			}
		}
	}
	return out, nil
}
