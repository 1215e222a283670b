// Package sourcetest is the conformance suite of every [leat.Source]. A source
// brings an [Origin], the suite changes documents there and compares what the
// source says with what it did.
//
// What it holds a source to: the events of a document come in order with
// strictly rising versions (I2, I3); whatever the moment of a crash, a session
// from the saved position, or from an older one, leads to the origin's state,
// with nothing lost and nothing brought back (I1, I7); a position is given only
// where a session can resume; what changed while nobody looked is found at the
// next start; Open never passes off other content than the event's; errors of
// Emit come back; the end of the context ends Run promptly and leaves no
// goroutine; while Emit blocks, memory does not grow (I8); a list is the origin,
// in the words of the events; what is looked at beside a session is above what
// was emitted and below what changes later (I2).
package sourcetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"leat"
)

// Harness connects the suite with a kind of source.
type Harness struct {
	// Source is what Event.Source is, such as "folder:notes".
	Source string
	// New makes an empty origin, a fresh table or folder, that is gone when
	// the test ends.
	New func(t *testing.T) Origin
}

// Origin is a place where documents are written. Documents are told apart by
// keys from 1 to 9999, which it maps to rows, paths or object keys.
type Origin interface {
	// Open makes a source over the origin as a starting process does. The suite
	// closes it, and opens another one for the next session.
	Open(t *testing.T) leat.Source
	// Put makes the document of a key, or changes its whole text. body is any
	// UTF-8 text, "" included, up to 64 KiB; it must come back unchanged as the
	// event's body or the content of its reference.
	Put(t *testing.T, key int, body string)
	// Delete removes an existing document.
	Delete(t *testing.T, key int)
	// Rename gives an existing document another key that is free: an update of
	// the primary key, a file renamed, an object copied and deleted.
	Rename(t *testing.T, from, to int)
	// ID is the document id of a key.
	ID(key int) string
}

// Run tests a source.
func Run(t *testing.T, h Harness) {
	for _, test := range []struct {
		name string
		run  func(*world)
	}{
		{"Empty", testEmpty},
		{"Snapshot", testSnapshot},
		{"Live", testLive},
		{"Restart", testRestart},
		{"ChangedWhileDown", testChangedWhileDown},
		{"Crash", testCrash},
		{"OldPosition", testOldPosition},
		{"Churn", testChurn},
		{"EmitError", testEmitError},
		{"Cancel", testCancel},
		{"Open", testOpen},
		{"BackPressureSnapshot", testBackPressureSnapshot},
		{"BackPressureLive", testBackPressureLive},
		{"List", testList},
		{"ListEnds", testListEnds},
		{"ListMemory", testListMemory},
		{"Look", testLook},
		{"LookFirst", testLookFirst},
		{"LookBeside", testLookBeside},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := goleak.IgnoreCurrent()
			t.Cleanup(func() { // after the cleanups of the origin
				if !t.Failed() {
					goleak.VerifyNone(t, before)
				}
			})
			w := &world{T: t, h: h, origin: h.New(t), rec: NewRecorder(h.Source), want: map[int]string{}}
			test.run(w)
			w.close()
			if err := w.rec.Err(); err != nil {
				t.Error(err)
			}
		})
	}
}

// world is an origin and what must be there.
type world struct {
	*testing.T
	h      Harness
	origin Origin
	rec    *Recorder
	src    leat.Source
	want   map[int]string
	writes int
}

func (w *world) open() leat.Source {
	w.Helper()
	w.close()
	w.src = w.origin.Open(w.T)
	return w.src
}

func (w *world) close() {
	w.Helper()
	if w.src == nil {
		return
	}
	if err := w.src.Close(); err != nil {
		w.Errorf("Close: %v", err)
	}
	w.src = nil
}

// once opens the source anew and runs it until it has caught up.
func (w *world) once() {
	w.Helper()
	w.rec.Once(w.T, w.open())
}

// put writes a text that differs from all before, every second of them of the
// same length as the one before it.
func (w *world) put(key int) {
	w.Helper()
	w.writes++
	body := fmt.Sprintf("Document %04d, 第%06d次写入 😀.\nIt ends here.\n", key, w.writes)
	if w.writes%2 == 0 {
		body += strings.Repeat("更多的字。", w.writes%7)
	}
	w.putBody(key, body)
}

func (w *world) putBody(key int, body string) {
	w.Helper()
	w.origin.Put(w.T, key, body)
	w.want[key] = body
}

func (w *world) delete(key int) {
	w.Helper()
	w.origin.Delete(w.T, key)
	delete(w.want, key)
}

func (w *world) rename(from, to int) {
	w.Helper()
	w.origin.Rename(w.T, from, to)
	w.want[to] = w.want[from]
	delete(w.want, from)
}

// random makes one random change among keys documents.
func (w *world) random(rnd *rand.Rand, keys int) {
	w.Helper()
	key := 1 + rnd.IntN(keys)
	_, exists := w.want[key]
	switch n := rnd.IntN(10); {
	case !exists || n < 5:
		w.put(key)
	case n < 8:
		w.delete(key)
	default:
		to := 1 + rnd.IntN(keys)
		if _, taken := w.want[to]; taken {
			w.put(key)
			return
		}
		w.rename(key, to)
	}
}

// text is what an event says its document is.
func (w *world) text(e leat.Event) (string, error) {
	if e.Document.Ref == nil {
		return e.Document.Body, nil
	}
	return open(w.Context(), w.src, *e.Document.Ref)
}

func open(ctx context.Context, src leat.Source, ref leat.Ref) (string, error) {
	r, err := src.Open(ctx, ref)
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(r)
	return string(body), errors.Join(err, r.Close())
}

// differs compares what events lead to with the origin.
func (w *world) differs(events map[string]leat.Event) string {
	want, got := map[string]string{}, map[string]string{}
	for key, body := range w.want {
		want[w.origin.ID(key)] = body
	}
	for id, e := range events {
		if e.Document == nil {
			continue
		}
		body, err := w.text(e)
		if err != nil {
			body = "error: " + err.Error()
		}
		got[id] = body
	}
	return cmp.Diff(want, got)
}

// equal fails the test unless all that was emitted leads to the origin's
// state, by version and by order.
func (w *world) equal(when string) {
	w.Helper()
	if diff := w.differs(w.rec.Index()); diff != "" {
		w.Fatalf("%s: the highest versions (+) are not the origin (-):\n%s", when, diff)
	}
}

// inOrder is equal for sessions without a crash: there the last event of each
// document in order of arrival is also the one with the highest version.
func (w *world) inOrder(when string) {
	w.Helper()
	w.equal(when)
	w.lastIsHighest(when)
}

func (w *world) lastIsHighest(when string) {
	w.Helper()
	last := w.rec.Last()
	same := func(a, b leat.Event) bool { return a.Version == b.Version }
	if maps.EqualFunc(last, w.rec.Index(), same) {
		return // and was compared with the origin
	}
	if diff := w.differs(last); diff != "" {
		w.Fatalf("%s: the last events (+) are not the origin (-):\n%s", when, diff)
	}
}

// caughtUp waits until what was emitted is the origin's state.
func (w *world) caughtUp(what string) {
	w.Helper()
	w.rec.Wait(w.T, what+" to arrive", func() bool { return w.differs(w.rec.Index()) == "" })
	w.lastIsHighest(what)
}

func testEmpty(w *world) {
	w.once()
	if n := len(w.rec.Events()); n != 0 {
		w.Errorf("%d events from an empty origin", n)
	}
	w.put(1)
	w.once()
	w.inOrder("after the first document")
}

func testSnapshot(w *world) {
	for key := 1; key <= 40; key++ {
		w.put(key)
	}
	w.putBody(41, "")
	w.putBody(42, strings.Repeat("长", 64<<10/3))
	w.once()
	w.inOrder("after the snapshot")
	if n := len(w.rec.Events()); n != len(w.want) {
		w.Errorf("%d events for %d documents", n, len(w.want))
	}
	if w.rec.Progress().Phase == "" {
		w.Error("no progress was reported")
	}
}

func testLive(w *world) {
	for key := 1; key <= 5; key++ {
		w.put(key)
	}
	run := w.rec.Start(w.T, w.open())
	w.caughtUp("the snapshot")
	w.put(6)
	w.caughtUp("an insert")
	w.put(3)
	w.caughtUp("an update")
	w.delete(2)
	w.caughtUp("a delete")
	w.rename(1, 7)
	w.caughtUp("a key change")
	if e := w.rec.Index()[w.origin.ID(1)]; e.Document != nil {
		w.Error("the old key of a renamed document is still there")
	}
	w.put(1)
	w.caughtUp("an insert where a document was renamed away")
	w.delete(1)
	w.put(1)
	w.caughtUp("a delete and an insert")
	run.Stop()
}

func testRestart(w *world) {
	for key := 1; key <= 10; key++ {
		w.put(key)
	}
	w.once()
	first := len(w.rec.Events())
	w.once()
	w.inOrder("after a restart")
	if n := len(w.rec.Events()) - first; n != 0 {
		w.Errorf("%d events although nothing had changed", n)
	}
}

func testChangedWhileDown(w *world) {
	for key := 1; key <= 10; key++ {
		w.put(key)
	}
	run := w.rec.Start(w.T, w.open())
	w.caughtUp("the snapshot")
	run.Stop()
	w.put(11)
	w.put(3)
	w.delete(5)
	w.rename(7, 12)
	w.delete(8)
	w.put(8)
	w.once()
	w.inOrder("after changes while it was down")
}

// history makes a recorder's history of snapshot, live changes and restarts.
func (w *world) history(rnd *rand.Rand) {
	for key := 1; key <= 12; key++ {
		w.put(key)
	}
	run := w.rec.Start(w.T, w.open())
	w.caughtUp("the snapshot")
	for i := range 40 {
		w.random(rnd, 20)
		if i%8 == 7 {
			w.caughtUp("changes")
		}
	}
	run.Stop()
	w.once()
	w.inOrder("the history")
}

func (w *world) rand() *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	w.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// testCrash tries crashes at many places: all batches before it are durable
// and their last position saved; of the later ones any events may be.
func testCrash(w *world) {
	rnd := w.rand()
	w.history(rnd)
	for range 8 {
		batches := len(w.rec.Batches())
		saved := rnd.IntN(batches + 1)
		share := rnd.IntN(3) // nothing, half, or all of what came later had arrived
		w.Logf("crash after %d of %d batches, %d/2 of the later events are durable", saved, batches, share)
		w.rec.Crash(saved, func(leat.Event) bool { return rnd.IntN(2) < share })
		if rnd.IntN(2) == 0 {
			w.random(rnd, 20)
		}
		w.once()
		w.equal("after a crash")
	}
}

// testOldPosition resumes at older and older positions with the index as it
// is: events may come again, but never a newer version with older content.
func testOldPosition(w *world) {
	w.history(w.rand())
	batches := len(w.rec.Batches())
	for saved := batches; saved >= 0; saved -= 1 + batches/6 {
		w.rec.Crash(saved, func(leat.Event) bool { return true })
		w.once()
		w.equal(fmt.Sprintf("from the position after %d of %d batches", saved, batches))
	}
}

// testChurn changes documents while the source runs and is stopped and started.
func testChurn(w *world) {
	rnd := w.rand()
	for range 6 {
		for range 20 {
			w.random(rnd, 15)
		}
		run := w.rec.Start(w.T, w.open())
		for range 40 {
			w.random(rnd, 15)
			if rnd.IntN(10) == 0 {
				time.Sleep(time.Duration(rnd.IntN(100)) * time.Millisecond)
			}
		}
		if rnd.IntN(2) == 0 {
			w.caughtUp("changes")
		}
		run.Stop()
	}
	w.once()
	w.inOrder("after the churn")
}

func testEmitError(w *world) {
	for key := 1; key <= 10; key++ {
		w.put(key)
	}
	refused := errors.New("refused by the test")
	w.rec.Hook = func(context.Context, leat.Batch) error { return refused }
	if err := w.rec.Start(w.T, w.open()).Wait(); !errors.Is(err, refused) {
		w.Fatalf("during the snapshot Run returned %v, not the error of Emit", err)
	}
	w.rec.Hook = nil
	run := w.rec.Start(w.T, w.open())
	w.caughtUp("the snapshot")
	run.Stop()

	fail := make(chan struct{})
	w.rec.Hook = func(context.Context, leat.Batch) error {
		select {
		case <-fail:
			return refused
		default:
			return nil
		}
	}
	run = w.rec.Start(w.T, w.open())
	w.put(11)
	w.caughtUp("an insert")
	close(fail)
	w.put(12)
	w.delete(3)
	if err := run.Wait(); !errors.Is(err, refused) {
		w.Fatalf("during live changes Run returned %v, not the error of Emit", err)
	}
	w.rec.Hook = nil
	w.once()
	w.inOrder("after errors of Emit")
}

func testCancel(w *world) {
	for key := 1; key <= 10; key++ {
		w.put(key)
	}
	w.Run("AtOnce", func(t *testing.T) {
		src := w.origin.Open(t)
		w.rec.Start(t, src).Stop()
		if err := src.Close(); err != nil {
			t.Error(err)
		}
	})
	w.Run("WhileEmitBlocks", func(t *testing.T) {
		blocked := make(chan struct{}, 1)
		rec := NewRecorder(w.h.Source)
		rec.Hook = func(ctx context.Context, _ leat.Batch) error {
			select {
			case blocked <- struct{}{}:
			default:
			}
			<-ctx.Done()
			return ctx.Err()
		}
		src := w.origin.Open(t)
		run := rec.Start(t, src)
		select {
		case <-blocked:
		case <-time.After(limit):
			t.Fatal("no event came")
		}
		run.Stop()
		if err := src.Close(); err != nil {
			t.Error(err)
		}
	})
	w.Run("Idle", func(t *testing.T) {
		run := w.rec.Start(t, w.open())
		w.caughtUp("the snapshot")
		run.Stop()
	})
}

// testOpen holds references to what their events spoke of.
func testOpen(w *world) {
	w.put(1)
	w.put(2)
	w.once()
	first, second := w.rec.Index()[w.origin.ID(1)], w.rec.Index()[w.origin.ID(2)]
	if first.Document == nil || second.Document == nil {
		w.Fatal("no event for a document")
	}
	if first.Document.Ref == nil {
		w.Skip("documents of this source travel inline: nothing to open")
	}
	body := strings.Map(func(r rune) rune { // of the same length
		if r == 'D' {
			return 'd'
		}
		return r
	}, w.want[1])
	w.putBody(1, body)
	if _, err := open(w.Context(), w.src, *first.Document.Ref); !errors.Is(err, leat.ErrChanged) {
		w.Errorf("Open of an overwritten document: %v, not ErrChanged", err)
	}
	w.delete(2)
	if _, err := open(w.Context(), w.src, *second.Document.Ref); !errors.Is(err, leat.ErrNotFound) {
		w.Errorf("Open of a deleted document: %v, not ErrNotFound", err)
	}
	w.once()
	w.inOrder("after both")
}
