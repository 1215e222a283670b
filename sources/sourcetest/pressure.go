package sourcetest

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"time"

	"leat"
)

// What the two tests of back-pressure write, and how much of it a source may
// hold while Emit blocks.
const (
	pressureDocuments = 250
	pressureBody      = 240 << 10
	pressureLimit     = 40 << 20
)

func testBackPressureSnapshot(w *world) {
	bodies := pressure()
	for key, body := range bodies {
		w.putBody(key, body)
	}
	w.backPressure(func() {})
	runtime.KeepAlive(bodies)
}

func testBackPressureLive(w *world) {
	w.put(1)
	w.once()
	bodies := pressure()
	w.backPressure(func() {
		for key, body := range bodies {
			w.putBody(key, body)
		}
	})
	runtime.KeepAlive(bodies)
}

func pressure() map[int]string {
	body := strings.Repeat("0123456789", pressureBody/10)
	bodies := map[int]string{}
	for key := 1; key <= pressureDocuments; key++ {
		bodies[key] = fmt.Sprintf("%d %s", key, body)
	}
	return bodies
}

// backPressure runs the source with an Emit that blocks at the first event,
// writes, and measures how the heap has grown.
func (w *world) backPressure(write func()) {
	blocked, release := make(chan struct{}, 1), make(chan struct{})
	w.rec.Hook = func(ctx context.Context, b leat.Batch) error {
		if len(b.Events) == 0 {
			return nil
		}
		select {
		case blocked <- struct{}{}:
		default:
		}
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	before := heap()
	run := w.rec.Start(w.T, w.open())
	write()
	select {
	case <-blocked:
	case <-time.After(limit):
		w.Fatal("no event came")
	}
	// A source without a bound reads on meanwhile. One with a bound waits: for
	// it the length of this pause decides nothing.
	time.Sleep(2 * time.Second)
	if after := heap(); after > before+pressureLimit {
		w.Errorf("the heap grew by %d MiB while Emit blocked", (after-before)>>20)
	}
	close(release)
	w.rec.Wait(w.T, "all documents", func() bool { return len(w.rec.Index()) >= len(w.want) })
	w.caughtUp("all documents")
	run.Stop()
	for _, b := range w.rec.Batches() {
		if n := inline(b); n > pressureLimit/2 {
			w.Errorf("a batch has %d MiB", n>>20)
		}
	}
}

// testListMemory measures how the heap has grown in the middle of a list.
func testListMemory(w *world) {
	bodies := pressure()
	for key, body := range bodies {
		w.putBody(key, body)
	}
	before, n := heap(), 0
	for _, err := range w.open().List(w.Context()) {
		if err != nil {
			w.Fatal(err)
		}
		if n++; n%(pressureDocuments/4) != 0 {
			continue
		}
		if after := heap(); after > before+pressureLimit {
			w.Errorf("the heap grew by %d MiB in %d documents", (after-before)>>20, n)
		}
	}
	if n != pressureDocuments {
		w.Errorf("%d documents of %d", n, pressureDocuments)
	}
	runtime.KeepAlive(bodies)
}

func inline(b leat.Batch) (n int) {
	for _, e := range b.Events {
		if e.Document != nil {
			n += len(e.Document.Body)
		}
	}
	return n
}

// heap is what is alive on it.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
