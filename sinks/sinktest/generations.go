package sinktest

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"leat"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
)

// GenerationsHarness opens the indexes that belong to dir, an existing
// directory: each call is another handle, which is closed by t.Cleanup.
type GenerationsHarness struct {
	Generations func(t testing.TB, dir string) leat.Generations
	// Index opens the index of a generation for writing and creates it where it
	// is missing. It fails the test on an error.
	Index func(t testing.TB, dir string, generation int) leat.Sink
	// Reader opens it for reading; an error wraps fs.ErrNotExist where it is
	// not there.
	Reader func(t testing.TB, dir string, generation int) (leat.Sink, error)
}

// RunGenerations checks a store's generations and its alias.
func RunGenerations(t *testing.T, h GenerationsHarness) {
	t.Run("Switch", h.change)
	t.Run("SideBySide", h.sideBySide)
	t.Run("Drop", h.drop)
	t.Run("Races", h.races)
}

func (h GenerationsHarness) index(t testing.TB, dir string, generation int) index {
	return index{Sink: h.Index(t, dir, generation)}
}

// live checks which generation the alias leads to, for a new handle too.
func (h GenerationsHarness) live(t testing.TB, dir string, g leat.Generations, want int) {
	t.Helper()
	for _, g := range []leat.Generations{g, h.Generations(t, dir)} {
		if n, err := g.Live(t.Context()); err != nil || n != want {
			t.Fatalf("generation %d is live, not %d: %v", n, want, err)
		}
	}
}

func (h GenerationsHarness) change(t *testing.T) {
	dir := t.TempDir()
	g := h.Generations(t, dir)
	h.live(t, dir, g, 0)
	if err := g.Switch(t.Context(), 1); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("a switch to a generation that is not there: %v", err)
	}
	h.live(t, dir, g, 0)
	h.Index(t, dir, 1)
	h.live(t, dir, g, 0) // to open is not to switch
	for _, n := range []int{1, 1} {
		h.move(t, dir, g, n)
	}
	h.Index(t, dir, 2)
	h.Index(t, dir, 1)
	h.live(t, dir, g, 1)
	for _, n := range []int{2, 1, 2, 2, 1} {
		h.move(t, dir, g, n)
	}
	if err := g.Switch(t.Context(), 3); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("a switch to a generation that is not there: %v", err)
	}
	h.live(t, dir, g, 1)
}

func (h GenerationsHarness) move(t testing.TB, dir string, g leat.Generations, n int) {
	t.Helper()
	if err := g.Switch(t.Context(), n); err != nil {
		t.Fatalf("switch to %d: %v", n, err)
	}
	h.live(t, dir, g, n)
}

// list lists the documents of an index, tombstones left out.
func list(t testing.TB, x leat.Sink) (ids []string) {
	t.Helper()
	for d, err := range x.Documents(t.Context(), "") {
		if err != nil {
			t.Fatalf("Documents: %v", err)
		}
		ids = append(ids, fmt.Sprint(d.ID, " ", d.Version))
	}
	return ids
}

// shows checks what a generation holds, for a reader.
func (h GenerationsHarness) shows(t testing.TB, dir string, generation int, want ...string) {
	t.Helper()
	r, err := h.Reader(t, dir, generation)
	if err != nil {
		t.Fatalf("open generation %d for reading: %v", generation, err)
	}
	if diff := cmp.Diff(want, list(t, r)); diff != "" {
		t.Fatalf("generation %d differs (-want +got):\n%s", generation, diff)
	}
}

func (h GenerationsHarness) missing(t testing.TB, dir string, generation int) {
	t.Helper()
	if _, err := h.Reader(t, dir, generation); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("generation %d, which is not there, opened for reading: %v", generation, err)
	}
}

func (h GenerationsHarness) sideBySide(t *testing.T) {
	dir := t.TempDir()
	g := h.Generations(t, dir)
	one := h.index(t, dir, 1)
	one.apply(t, leat.Applied, revision("a", 3, "alpha"), revision("b", 1, "beta"), tombstone("c", 9))
	h.missing(t, dir, 2)
	two := h.index(t, dir, 2)
	h.shows(t, dir, 2)
	two.apply(t, leat.Applied, revision("a", 1, "an older one"), revision("c", 2, "gamma")) // versions of its own
	h.shows(t, dir, 1, "a 3", "b 1")
	h.shows(t, dir, 2, "a 1", "c 2")
	h.move(t, dir, g, 1)
	one.apply(t, leat.Applied, tombstone("b", 2))
	two.apply(t, leat.Applied, revision("a", 2, "newer"))
	h.move(t, dir, g, 2)
	h.shows(t, dir, 1, "a 3")
	h.shows(t, dir, 2, "a 2", "c 2")
	one.apply(t, leat.Applied, revision("d", 1, "delta")) // what is not live goes on
	h.shows(t, dir, 1, "a 3", "d 1")
	h.shows(t, dir, 2, "a 2", "c 2")
	one.sound(t, "")
	two.sound(t, "")
}

func (h GenerationsHarness) drop(t *testing.T) {
	dir := t.TempDir()
	g := h.Generations(t, dir)
	one, two := h.index(t, dir, 1), h.index(t, dir, 2)
	one.apply(t, leat.Applied, revision("a", 1, "alpha"))
	two.apply(t, leat.Applied, revision("a", 2, "alpha"), tombstone("b", 7), parts(revision("c", 1, numbered("c", 4)...), 2)[0])
	h.move(t, dir, g, 2)
	if err := g.Drop(t.Context(), 2); err == nil || leat.HintOf(err) == "" {
		t.Fatalf("the live generation is dropped: %v", err)
	}
	h.live(t, dir, g, 2)
	h.shows(t, dir, 1, "a 1")
	h.shows(t, dir, 2, "a 2")

	h.move(t, dir, g, 1)
	if err := g.Drop(t.Context(), 2); err != nil {
		t.Fatalf("Drop: %v", err)
	}
	h.missing(t, dir, 2)
	for _, n := range []int{2, 3} {
		if err := g.Drop(t.Context(), n); err != nil {
			t.Fatalf("Drop of generation %d, which is not there: %v", n, err)
		}
	}
	if err := g.Switch(t.Context(), 2); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("a switch to a generation that was dropped: %v", err)
	}
	h.live(t, dir, g, 1)
	h.shows(t, dir, 1, "a 1")
	one.apply(t, leat.Applied, revision("a", 5, "goes on"))

	// The number may be used again, and nothing of before is there.
	two = h.index(t, dir, 2)
	h.shows(t, dir, 2)
	two.apply(t, leat.Applied, revision("b", 1, "older than the tombstone was"), revision("c", 1, "one"))
	h.shows(t, dir, 2, "b 1", "c 1")
	two.sound(t, "")
	h.move(t, dir, g, 2)
	h.shows(t, dir, 1, "a 5")
}

// races has processes switch and drop at the same time, as when several of a
// fleet find that a generation is ready, beside one that reads the alias.
func (h GenerationsHarness) races(t *testing.T) {
	dir := t.TempDir()
	h.Index(t, dir, 1)
	h.Index(t, dir, 2)
	h.Index(t, dir, 3)
	watcher := h.Generations(t, dir)
	handles := []leat.Generations{h.Generations(t, dir), h.Generations(t, dir), h.Generations(t, dir)}
	h.move(t, dir, watcher, 1)
	for round := range 3 {
		to := []int{2, 1, 2}[round]
		var g errgroup.Group
		done := make(chan struct{})
		g.Go(func() error { // searches never see a gap
			for {
				n, err := watcher.Live(t.Context())
				if err != nil {
					return err
				}
				if n != 1 && n != 2 {
					return fmt.Errorf("during a switch generation %d is live", n)
				}
				select {
				case <-done:
					return nil
				default:
				}
			}
		})
		var switches errgroup.Group
		for _, x := range handles {
			switches.Go(func() error { return x.Switch(t.Context(), to) })
		}
		err := switches.Wait()
		close(done)
		if err := errors.Join(err, g.Wait()); err != nil {
			t.Fatal(err)
		}
		h.live(t, dir, watcher, to)
	}
	var drops errgroup.Group
	for _, x := range handles {
		drops.Go(func() error { return x.Drop(t.Context(), 3) })
	}
	if err := drops.Wait(); err != nil {
		t.Fatalf("Drop by several: %v", err)
	}
	h.missing(t, dir, 3)
	h.shows(t, dir, 1)
	h.shows(t, dir, 2)
}
