package sourcetest

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/google/go-cmp/cmp"

	"leat"
)

// content identifies a document's content: by its reference or by all of it.
func (w *world) content(e leat.Event) string {
	w.Helper()
	var what any = e.Document
	if e.Document.Ref != nil {
		what = e.Document.Ref
	}
	said, err := json.Marshal(what)
	if err != nil {
		w.Fatalf("%s: %v", e.ID, err)
	}
	return string(said)
}

// list is what src lists, by id.
func (w *world) list(src leat.Source) map[string]leat.Event {
	w.Helper()
	events := map[string]leat.Event{}
	for e, err := range src.List(w.Context()) {
		if err != nil {
			w.Fatalf("List: %v (hint: %s)", err, leat.HintOf(err))
		}
		if _, twice := events[e.ID]; twice {
			w.Errorf("%s was listed twice", e.ID)
		}
		if e.Document == nil || e.Version != 0 || e.Source != w.h.Source || e.Time.IsZero() {
			w.Errorf("List gave %+v", e)
			continue
		}
		events[e.ID] = e
	}
	return events
}

// lists fails the test unless the list is the origin's state.
func (w *world) lists(when string) {
	w.Helper()
	if diff := w.differs(w.list(w.src)); diff != "" {
		w.Fatalf("%s: the list (+) is not the origin (-):\n%s", when, diff)
	}
}

// listsEvents fails the test unless the list says of each document what the
// event with its highest version says.
func (w *world) listsEvents(when string) {
	w.Helper()
	want, got := map[string]string{}, map[string]string{}
	for id, e := range w.rec.Index() {
		if e.Document != nil {
			want[id] = w.content(e)
		}
	}
	for id, e := range w.list(w.src) {
		got[id] = w.content(e)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		w.Fatalf("%s: the list (+) is not what was emitted (-):\n%s", when, diff)
	}
}

func testList(w *world) {
	w.open()
	w.lists("of an empty origin")
	for key := 1; key <= 40; key++ {
		w.put(key)
	}
	w.putBody(41, "")
	w.putBody(42, "长\n")
	w.lists("before any session")
	w.once()
	w.listsEvents("after the snapshot")
	run := w.rec.Start(w.T, w.open())
	for key := 1; key <= 10; key++ {
		w.put(key)
	}
	w.delete(11)
	w.rename(12, 43)
	w.caughtUp("changes")
	w.listsEvents("beside a session")
	w.put(13)
	w.caughtUp("a change after the list")
	run.Stop()
	w.delete(14)
	w.put(15)
	w.rename(16, 44)
	w.lists("after changes while it was down")
	w.once()
	w.listsEvents("after a second session")
}

// testListEnds: a list that is broken off leaves nothing behind, and one that is
// cancelled does not pass for a whole one.
func testListEnds(w *world) {
	for key := 1; key <= 30; key++ {
		w.put(key)
	}
	src := w.open()
	for range src.List(w.Context()) {
		break
	}
	for _, early := range []bool{true, false} {
		ctx, cancel := context.WithCancel(w.Context())
		if early {
			cancel()
		}
		n, failed := 0, false
		began := time.Now()
		for _, err := range src.List(ctx) {
			cancel()
			if err != nil {
				failed = true
				if !errors.Is(err, context.Canceled) {
					w.Errorf("a cancelled List: %v", err)
				}
				continue
			}
			n++
		}
		cancel()
		if took := time.Since(began); took > 10*time.Second {
			w.Errorf("a cancelled List took %s", took)
		}
		if !failed && (early || n != len(w.want)) {
			w.Errorf("a cancelled List gave %d documents of %d and no error", n, len(w.want))
		}
	}
	w.lists("after lists that were broken off")

	ctx, cancel := context.WithCancel(w.Context())
	cancel()
	if _, err := src.Look(ctx, w.rec.Asks(w.origin.ID(1))); !errors.Is(err, context.Canceled) {
		w.Errorf("a cancelled Look: %v", err)
	}
}

// looks asks about keys, takes the answer into the index and compares it with
// the origin.
func (w *world) looks(when string, keys ...int) {
	w.Helper()
	ids := make([]string, len(keys))
	for i, key := range keys {
		ids[i] = w.origin.ID(key)
	}
	asked := w.rec.Asks(ids...)
	events, err := w.src.Look(w.Context(), asked)
	if err != nil {
		w.Fatalf("%s: Look: %v (hint: %s)", when, err, leat.HintOf(err))
	}
	w.rec.Answer(asked, events)
	if err := w.rec.Err(); err != nil {
		w.Fatalf("%s: %v", when, err)
	}
	for i, key := range keys {
		want, there := w.want[key]
		e := events[i]
		if (e.Document != nil) != there {
			w.Fatalf("%s: document %d is there: %v, Look gave %+v", when, key, there, e)
		}
		if !there {
			continue
		}
		if got, err := w.text(e); err != nil || got != want {
			w.Fatalf("%s: document %d is %q, Look gave %q, %v", when, key, want, got, err)
		}
	}
}

func testLook(w *world) {
	all := []int{9, 1, 2, 3, 4, 5, 6, 7, 8, 10}
	for key := 1; key <= 6; key++ {
		w.put(key)
	}
	w.once()
	w.put(2)
	w.delete(3)
	w.rename(4, 7)
	w.put(8)
	w.looks("after changes while it was down", all...)
	w.equal("after a look at all that changed")
	w.once()
	w.equal("after a session that finds nothing newer")
	for range 3 {
		w.looks("again", all...)
	}
	w.equal("after looks again")
	w.listsEvents("after looks again")
	w.looks("at nothing")

	before := w.rec.Index()
	w.put(1)
	w.delete(2)
	w.put(3)
	w.rename(7, 4)
	w.put(10)
	w.delete(5)
	w.put(5)
	w.once()
	w.equal("after changes since the looks")
	for _, key := range []int{1, 2, 3, 4, 5, 7, 10} {
		id := w.origin.ID(key)
		if now := w.rec.Index()[id].Version; now <= before[id].Version {
			w.Errorf("document %d changed at version %d, after a look at %d", key, now, before[id].Version)
		}
	}
}

// testLookFirst looks before the first session.
func testLookFirst(w *world) {
	w.put(1)
	w.put(2)
	w.open()
	w.looks("before any session", 1, 2, 3)
	w.equal("before any session")
	w.put(2)
	w.put(3)
	w.delete(1)
	w.once()
	w.equal("after the first session")
}

// testLookBeside looks and lists while documents change and a session runs.
func testLookBeside(w *world) {
	const keys = 15
	rnd := w.rand()
	for range keys {
		w.random(rnd, keys)
	}
	var ids []string
	for key := 1; key <= keys; key++ {
		ids = append(ids, w.origin.ID(key))
	}
	run := w.rec.Start(w.T, w.open())
	ctx, cancel := context.WithCancel(w.Context())
	var beside sync.WaitGroup
	looks := 0
	do := func(f func(src leat.Source) error) {
		src := w.origin.Open(w.T)
		beside.Go(func() {
			defer src.Close()
			for ctx.Err() == nil {
				if err := f(src); err != nil && ctx.Err() == nil {
					w.Errorf("beside a session: %v (hint: %s)", err, leat.HintOf(err))
					return
				}
			}
		})
	}
	changed := make(chan struct{}, 1) // there is not room for any number of looks at one state
	do(func(src leat.Source) error {
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
		asked := w.rec.Asks(ids...)
		events, err := src.Look(ctx, asked)
		if err == nil {
			w.rec.Answer(asked, events)
			looks++
		}
		return err
	})
	do(func(src leat.Source) error {
		for _, err := range src.List(ctx) {
			if err != nil {
				return err
			}
		}
		return nil
	})
	arrive := func(what string) { // of what a look has told before it, a session may say nothing
		w.rec.Wait(w.T, what, func() bool { return w.differs(w.rec.Index()) == "" })
	}
	for i := range 120 {
		w.random(rnd, keys)
		select {
		case changed <- struct{}{}:
		default:
		}
		if i%15 == 14 {
			arrive("changes")
		}
		time.Sleep(time.Duration(rnd.IntN(30)) * time.Millisecond)
	}
	cancel()
	beside.Wait()
	w.Logf("%d looks", looks)
	arrive("all changes")
	run.Stop()
	w.listsEvents("after the session")
}
