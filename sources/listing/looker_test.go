package listing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"leat"
)

// origin is items with tags, and a session that tells of them.
type origin struct {
	mu     sync.Mutex
	tags   map[string]string
	began  chan struct{} // if not nil, a look of the session says that it has begun …
	goOn   chan struct{} // … and waits for this
	events []leat.Event
	gone   error
}

func (o *origin) looker(wait bool) Looker {
	return Looker{
		Source: "test:o", Parallel: 4,
		Name: func(id string) (string, bool) { return id, id != "none" },
		Gone: func(context.Context) error { return o.gone },
		Look: func(ctx context.Context, name string) (*leat.Document, time.Time, error) {
			if wait && o.began != nil {
				o.began <- struct{}{}
				<-o.goOn
			}
			o.mu.Lock()
			defer o.mu.Unlock()
			switch tag := o.tags[name]; tag {
			case "":
				return nil, time.Time{}, nil
			case "broken":
				return nil, time.Time{}, errors.New("it is broken")
			default:
				return &leat.Document{Ref: &leat.Ref{Name: name, Tag: tag}}, time.Unix(1, 0), ctx.Err()
			}
		},
	}
}

func (o *origin) put(name, tag string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tags[name] = tag
}

func (o *origin) teller(epoch uint64) *Teller {
	t := NewTeller(o.looker(true), leat.Session{Epoch: epoch, Emit: func(_ context.Context, b leat.Batch) error {
		o.events = append(o.events, b.Events...)
		return nil
	}})
	t.Failed = func(_ string, err error) error { return err }
	t.Position = func() (json.RawMessage, error) { return nil, nil }
	return t
}

func (o *origin) answer(t *testing.T, epoch, above uint64, ids ...string) []leat.Event {
	t.Helper()
	l := leat.Look{Epoch: epoch, IDs: ids}
	for range ids {
		l.Above = append(l.Above, above)
	}
	looker := o.looker(false)
	events, err := looker.Answer(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	return events
}

// TestAnswerBesideLook: while a look of the session takes its time, another is
// answered and the item changes; what the session saw then is newer (I2).
func TestAnswerBesideLook(t *testing.T) {
	o := &origin{tags: map[string]string{"a": "old"}, began: make(chan struct{}), goOn: make(chan struct{})}
	teller := o.teller(3)
	for i := range 50 {
		told := make(chan error)
		go func() { told <- teller.Tell(t.Context(), []Hint{{ID: "a", Name: "a"}}) }()
		<-o.began
		time.Sleep(2 * time.Millisecond)
		was := o.tags["a"]
		answer := o.answer(t, 3, 0, "a")[0]
		o.put("a", fmt.Sprint(i))
		o.goOn <- struct{}{}
		if err := <-told; err != nil {
			t.Fatal(err)
		}
		if e := o.events[i]; answer.Document.Ref.Tag != was || e.Document.Ref.Tag != fmt.Sprint(i) || e.Version <= answer.Version {
			t.Fatalf("the session saw %s at %d, the answer was %s at %d", e.Document.Ref.Tag, e.Version, answer.Document.Ref.Tag, answer.Version)
		}
	}
}

// TestAnswerRoom: above versions that are ahead of the time there is room
// before the next.
func TestAnswerRoom(t *testing.T) {
	o := &origin{tags: map[string]string{}}
	teller := o.teller(3)
	teller.clock.above(at(3, time.Now().Add(time.Hour))) // as after many looks in a moment
	o.put("a", "old")
	hints := []Hint{{ID: "a", Name: "a"}}
	if err := teller.Tell(t.Context(), hints); err != nil {
		t.Fatal(err)
	}
	above := o.events[0].Version
	for range room / 2 {
		above = o.answer(t, 3, above, "a")[0].Version
	}
	o.put("a", "new")
	if err := teller.Tell(t.Context(), hints); err != nil {
		t.Fatal(err)
	}
	if e := o.events[1]; e.Document.Ref.Tag != "new" || e.Version <= above {
		t.Errorf("%s at %d, after answers up to %d", e.Document.Ref.Tag, e.Version, above)
	}
}

// TestAnswerApart: an answer that begins when the time has come to where the
// session's clock was ahead has a version of its own.
func TestAnswerApart(t *testing.T) {
	o := &origin{tags: map[string]string{"a": "old"}}
	teller := o.teller(3)
	teller.clock.above(at(3, time.Now().Add(100*time.Millisecond)))
	if err := teller.Tell(t.Context(), []Hint{{ID: "a", Name: "a"}}); err != nil {
		t.Fatal(err)
	}
	o.put("a", "new")
	told := o.events[0]
	for answer := (leat.Event{}); answer.Version < told.Version; {
		if answer = o.answer(t, 3, 0, "a")[0]; answer.Version == told.Version {
			t.Fatalf("%s and %s are both version %d", told.Document.Ref.Tag, answer.Document.Ref.Tag, told.Version)
		}
	}
}

func TestAnswer(t *testing.T) {
	o := &origin{tags: map[string]string{"a": "1", "b": "2"}}
	epoch := at(4, time.Now())
	for i, e := range o.answer(t, 4, 7, "b", "none", "a", "b", "c") {
		want := []string{"2", "", "1", "2", ""}[i]
		if (e.Document == nil) != (want == "") || want != "" && e.Document.Ref.Tag != want || e.Source != "test:o" || e.Time.IsZero() || e.Version < epoch {
			t.Errorf("%d: %+v", i, e)
		}
	}
	if e := o.answer(t, 4, epoch+1<<40, "a")[0]; e.Version != epoch+1<<40+2 {
		t.Errorf("version %d", e.Version)
	}
	if events := o.answer(t, 4, 0); len(events) != 0 {
		t.Errorf("%+v", events)
	}

	o.gone = errors.New("the origin is gone")
	looker := o.looker(false)
	if events, err := looker.Answer(t.Context(), leat.Look{IDs: []string{"a", "c"}, Above: []uint64{0, 0}}); !errors.Is(err, o.gone) {
		t.Errorf("%+v, %v", events, err)
	}
	o.answer(t, 4, 0, "a") // which deletes nothing
	o.put("b", "broken")
	if events, err := looker.Answer(t.Context(), leat.Look{IDs: []string{"a", "b"}, Above: []uint64{0, 0}}); err == nil {
		t.Errorf("%+v", events)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := looker.Answer(ctx, leat.Look{IDs: []string{"a"}, Above: []uint64{0}}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
