package listing

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"leat"
)

// Batch is how many items are looked at in one step.
const Batch = 128

// Hint is a document that may have changed.
type Hint struct {
	ID   string
	Name string    // of its item, as the source calls it; "" if no item can have this id
	Time time.Time // when the change was made; zero in a scan
	scan uint64    // the number of the scan that found it, or 0
}

// Teller turns looks at items into events, one batch after another. Safe for
// concurrent use.
type Teller struct {
	Source  string // Event.Source, such as "folder:notes"
	Session leat.Session
	// Look returns what an item is now and when it was modified; nil if it is
	// no document, or no longer.
	Look     func(ctx context.Context, h Hint) (*leat.Document, time.Time, error)
	Parallel int // looks at a time; where it is above 1, Look must be safe for that
	// Failed is told of errors of Look. Where it returns nil, what the index
	// holds of the item is left alone.
	Failed func(name string, err error) error
	// Gone is asked before events are emitted that delete documents; an error
	// keeps them back.
	Gone func(ctx context.Context) error
	// Position is asked with every batch: everywhere is a place to resume at, as
	// the next session's scan starts from what the index holds.
	Position func() (json.RawMessage, error)

	mu     sync.Mutex
	clock  clock
	scan   uint64 // the number of the newest scan
	recent memory // of what this session has said of an id: its state, or ""
}

// NewTeller makes the teller of a session; set its functions before use.
func NewTeller(source string, s leat.Session) *Teller {
	return &Teller{Source: source, Session: s, clock: newClock(s.Epoch), recent: newMemory()}
}

// look is one that was made.
type look struct {
	hint     Hint
	version  uint64
	document *leat.Document
	modified time.Time
	failed   bool
}

// Tell emits an event for each of the items whose state is not the one that the
// session emitted last. The lock makes version, look and event one step, so
// that the events of a document are in the order of what they report (I3).
//
// A scan that finds in the index something else than the session has said, and
// said before the scan began, gets it said once more: the item may have been
// away for the moment in which it was to be opened. What is still not in the
// index then is in deadletters.
func (t *Teller) Tell(ctx context.Context, hints []Hint) error {
	if len(hints) == 0 {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	looks, err := t.looks(ctx, hints)
	if err != nil {
		return err
	}
	var batch leat.Batch
	said := make(map[string]saying, len(hints))
	deletes := false
	for _, l := range looks {
		if l.failed {
			continue
		}
		state := ""
		if d := l.document; d != nil {
			state = d.MediaType + " " + d.Ref.Tag
		}
		now := saying{state: t.recent.hash(state), scan: t.scan}
		if before, ok := t.recent.get(l.hint.ID); ok && before.state == now.state {
			if now.again = l.hint.scan > before.scan && !before.again; !now.again {
				continue
			}
		}
		said[l.hint.ID] = now
		e := leat.Event{ID: l.hint.ID, Version: l.version, Source: t.Source, Time: l.hint.Time, Document: l.document}
		if e.Time.IsZero() {
			e.Time = l.modified
		}
		if e.Time.IsZero() {
			e.Time = time.Now()
		}
		deletes = deletes || l.document == nil
		batch.Events = append(batch.Events, e)
	}
	if len(batch.Events) == 0 {
		return nil
	}
	if deletes {
		if err := t.Gone(ctx); err != nil {
			return err
		}
	}
	if batch.Position, err = t.Position(); err != nil {
		return err
	}
	if err := t.Session.Emit(ctx, batch); err != nil {
		return err
	}
	for id, now := range said {
		t.recent.put(id, now)
	}
	return nil
}

// looks makes one look for each document.
func (t *Teller) looks(ctx context.Context, hints []Hint) ([]look, error) {
	looks := make([]look, 0, len(hints))
	seen := make(map[string]struct{}, len(hints))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(t.Parallel, 1))
	for _, h := range hints {
		if _, ok := seen[h.ID]; ok {
			continue // one look is as good for both
		}
		seen[h.ID] = struct{}{}
		looks = append(looks, look{hint: h, version: t.clock.next()}) // before the look (I2)
		l := &looks[len(looks)-1]
		if t.Parallel <= 1 {
			if err := t.look(ctx, l); err != nil {
				return nil, err
			}
			continue
		}
		g.Go(func() error { return t.look(gctx, l) })
	}
	if err := g.Wait(); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, err
	}
	return looks, nil
}

func (t *Teller) look(ctx context.Context, l *look) error {
	var err error
	if l.document, l.modified, err = t.Look(ctx, l.hint); err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	l.failed = true
	return t.Failed(l.hint.Name, err)
}
