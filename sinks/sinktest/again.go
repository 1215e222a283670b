package sinktest

import (
	"fmt"
	"testing"

	"leat"

	"github.com/google/go-cmp/cmp"
)

// marked is a revision, or its parts, to be applied even where it is held.
func marked(revisions ...leat.Revision) []leat.Revision {
	out := make([]leat.Revision, len(revisions))
	for i, r := range revisions {
		r.Again = true
		out[i] = r
	}
	return out
}

func again(t *testing.T, open opener) {
	other := revision("e", 1, "beside it")
	t.Run("Whole", func(t *testing.T) {
		x := open(t, t.TempDir())
		one := titled(revision("d", 5, "apples", "bananas", "apples"), "Fruit")
		x.apply(t, leat.Applied, one, other)
		x.apply(t, leat.Applied, marked(one)...)
		x.holds(t, one, other)
		x.apply(t, leat.Applied, marked(one, one)...)
		x.holds(t, one, other)

		// Without the mark the version that is held is not written.
		x.apply(t, leat.Applied, titled(revision("d", 5, "something else"), "Else"))
		x.holds(t, one, other)

		x.apply(t, leat.Superseded, marked(revision("d", 4, "old"), tombstone("d", 3))...) // I2
		x.holds(t, one, other)
		two := revision("d", 6, "cherries", "apples")
		x.apply(t, leat.Applied, marked(two)...)
		x.holds(t, two, other)
		x.stale(t, "d", "bananas", 6) // I4
		fresh := revision("f", 1, "not known before")
		x.apply(t, leat.Applied, marked(fresh)...)
		x.holds(t, two, other, fresh)
		x.sound(t, "")
	})
	t.Run("Empty", func(t *testing.T) {
		x := open(t, t.TempDir())
		empty := revision("d", 1)
		x.apply(t, leat.Applied, empty, other)
		x.apply(t, leat.Applied, marked(empty)...)
		x.holds(t, empty, other)
	})
	t.Run("Tombstone", func(t *testing.T) {
		x := open(t, t.TempDir())
		gone := tombstone("d", 2)
		x.apply(t, leat.Applied, revision("d", 1, "text"), gone, other)
		x.apply(t, leat.Applied, marked(gone)...)
		x.apply(t, leat.Superseded, revision("d", 1, "text"))
		x.apply(t, leat.Superseded, marked(revision("d", 1, "text"))...)
		x.holds(t, other)
		if d, err := x.Document(t.Context(), "d"); err != nil || !d.Deleted || d.Version != 2 {
			t.Fatalf("state of a document that was deleted again: %+v, %v", d, err)
		}
		x.sound(t, "")
	})
	made := func(id string) leat.Revision {
		return titled(revision(id, 5, append(numbered("word", 9), "both", "both")...), "Title")
	}
	t.Run("Parts", func(t *testing.T) {
		dir := t.TempDir()
		for n, order := range [][]int{
			{0, 1, 0, 1, 2, 3},
			{0, 1, 1, 2, 2, 3},
			{0, 1, 2, 3, 0, 1, 2, 3},
			{0, 1, 2, 3, 2, 3}, // the end of what is done already comes once more
		} {
			whole := made(fmt.Sprint("d", n))
			cut := parts(whole, 3) // 0 1 2 3
			open(t, dir).apply(t, leat.Applied, append([]leat.Revision{other}, cut...)...)
			for _, i := range order {
				x := open(t, dir)
				x.apply(t, leat.Applied, marked(cut[i])...)
				x.holds(t, whole, other) // all the while
				x.sound(t, "")
			}
			open(t, dir).apply(t, leat.Applied, tombstone(whole.Document, 6))
		}
	})
	whole := made("d")
	cut := parts(whole, 3)
	t.Run("CutOtherwise", func(t *testing.T) {
		x := open(t, t.TempDir())
		x.apply(t, leat.Applied, whole, other)
		x.apply(t, leat.Applied, marked(parts(whole, 2)...)...)
		x.holds(t, whole, other)
		x.apply(t, leat.Applied, marked(cut[:2]...)...)
		x.apply(t, leat.Applied, marked(parts(whole, 5)...)...)
		x.holds(t, whole, other)
		x.apply(t, leat.Applied, marked(cut[:2]...)...)
		x.apply(t, leat.Applied, marked(whole)...)
		x.holds(t, whole, other)
		x.sound(t, "")
	})
	t.Run("Interrupted", func(t *testing.T) {
		x := open(t, t.TempDir())
		x.apply(t, leat.Applied, whole, other)
		x.apply(t, leat.Applied, marked(cut[:2]...)...)
		next := revision("d", 6, append(numbered("next", 6), "both")...)
		ends := parts(next, 3)
		x.apply(t, leat.Applied, ends[0])
		x.apply(t, leat.Applied, marked(cut[2:]...)...)
		x.holds(t, whole, other)
		x.apply(t, leat.Applied, ends[1:]...)
		x.holds(t, next, other)
		x.apply(t, leat.Superseded, marked(cut[3])...)
		x.holds(t, next, other)
		x.apply(t, leat.Applied, marked(ends[0])...)
		x.apply(t, leat.Applied, tombstone("d", 7))
		x.holds(t, other)
		x.sound(t, "")
	})
}

func inventory(t *testing.T, open opener) {
	x := open(t, t.TempDir())
	x.sound(t, "") // of an empty index
	large := revision("p/large", 2, numbered("large", 10)...)
	cut := parts(large, 3)
	x.apply(t, leat.Applied,
		titled(revision("a", 3, "one", "two", "one"), "Alpha"), revision("p", 1, "not below p/"),
		revision("p/1", 1, "below it"), revision("p/empty", 1), tombstone("p/gone", 4),
		revision("p/large", 1, "small once"), revision("q", 1, "后面"), revision("a", 4, "two", "three"),
	)
	x.apply(t, leat.Applied, cut...)
	check := func() {
		t.Helper()
		x.sound(t, "", "a", "p", "p/1", "p/empty", "p/large", "q")
		x.sound(t, "p/", "p/1", "p/empty", "p/large")
		x.sound(t, "none")
	}
	check()
	// What waits for its last part is neither damage nor stray: of a document
	// not known before, of a newer version, of the one that is held.
	x.apply(t, leat.Applied, parts(revision("p/new", 1, numbered("new", 4)...), 2)[0])
	check()
	next := parts(revision("p/large", 5, append(numbered("next", 3), "large1")...), 2)
	x.apply(t, leat.Applied, next[0])
	check()
	x.apply(t, leat.Applied, marked(cut[:2]...)...)
	check()
	x.apply(t, leat.Applied, parts(revision("p/gone", 5, numbered("back", 3)...), 2)[0])
	check()
	x.apply(t, leat.Applied, next[1], tombstone("p/new", 2))
	check()
	if err := x.Discard(t.Context(), nil); err != nil {
		t.Fatalf("Discard of nothing: %v", err)
	}
	check()
}

// inventory lists Inventory: the documents and the strays.
func (x index) inventory(t tester, prefix string) (documents []leat.Holding, strays []string) {
	t.Helper()
	for h, err := range x.Inventory(t.Context(), prefix) {
		switch {
		case err != nil:
			t.Fatalf("Inventory: %v", err)
		case h.Stray == "":
			documents = append(documents, h)
		case h != (leat.Holding{Stray: h.Stray}):
			t.Fatalf("Inventory gave a stray with more than its name: %+v", h)
		default:
			strays = append(strays, h.Stray)
		}
	}
	return documents, strays
}

// listed is what Inventory gives while nothing is damaged or stray, as the
// other methods tell it.
func (x index) listed(t tester, prefix string) (all []leat.Holding) {
	t.Helper()
	for d, err := range x.Documents(t.Context(), prefix) {
		if err != nil {
			t.Fatalf("Documents: %v", err)
		}
		chunks, err := x.Chunks(t.Context(), d.ID)
		if err != nil {
			t.Fatalf("Chunks: %v", err)
		}
		h := leat.Holding{DocumentState: d}
		for i := range chunks {
			h.Digest = h.Digest.Add(&chunks[i])
		}
		all = append(all, h)
	}
	return all
}

// sound checks that Inventory finds nothing wrong and gives what Documents and
// Chunks do; where ids are named, of these documents.
func (x index) sound(t tester, prefix string, ids ...string) {
	t.Helper()
	got, strays := x.inventory(t, prefix)
	if len(strays) > 0 {
		t.Fatalf("Inventory gave strays: %q", strays)
	}
	if diff := cmp.Diff(x.listed(t, prefix), got); diff != "" {
		t.Fatalf("Inventory differs (-Documents +Inventory):\n%s", diff)
	}
	if ids == nil {
		return
	}
	var gave []string
	for _, h := range got {
		gave = append(gave, h.ID)
	}
	if diff := cmp.Diff(ids, gave); diff != "" {
		t.Fatalf("Inventory gave other documents (-want +got):\n%s", diff)
	}
}
