package listing

import (
	"context"
	"encoding/json"
	"sync"
	"time"

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
	Looker
	Session leat.Session
	// Failed is told of errors of Look. Where it returns nil, what the index
	// holds of the item is left alone.
	Failed func(name string, err error) error
	// Position is asked with every batch: everywhere is a place to resume at, as
	// the next session's scan starts from what the index holds.
	Position func() (json.RawMessage, error)

	mu     sync.Mutex
	clock  clock
	again  bool   // everything is to be told of, and was not yet
	scan   uint64 // the number of the newest scan
	recent memory // of what this session has said of an id: its state, or ""
}

// NewTeller makes the teller of a session; set its functions before use.
func NewTeller(l Looker, s leat.Session) *Teller {
	return &Teller{Looker: l, Session: s, clock: clock{epoch: s.Epoch}, again: s.Again, recent: newMemory()}
}

// Complete says that a scan of everything has ended. Only then a session that was
// to tell of everything gives a position.
func (t *Teller) Complete(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.again {
		return nil
	}
	t.again = false
	position, err := t.Position()
	if err != nil {
		return err
	}
	return t.Session.Emit(ctx, leat.Batch{Position: position})
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
	seen := make(map[string]struct{}, len(hints))
	looks := make([]look, 0, len(hints))
	for _, h := range hints {
		if _, ok := seen[h.ID]; ok {
			continue // one look is as good for both
		}
		seen[h.ID] = struct{}{}
		looks = append(looks, look{name: h.Name, hint: h})
	}
	if err := t.looks(ctx, looks, t.Failed); err != nil {
		return err
	}
	t.clock.last += room
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
		e := l.event(t.Source, l.hint.ID, t.clock.next()) // after the look, see doc.go (I2)
		if !l.hint.Time.IsZero() {
			e.Time = l.hint.Time
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
	if !t.again {
		var err error
		if batch.Position, err = t.Position(); err != nil {
			return err
		}
	}
	if err := t.Session.Emit(ctx, batch); err != nil {
		return err
	}
	for id, now := range said {
		t.recent.put(id, now)
	}
	return nil
}
