package sinktest

import (
	"context"
	"fmt"
	"math"
	"testing"

	"leat"

	"github.com/google/go-cmp/cmp"
)

// DamageHarness damages a store behind leat's back, by the store's own client.
// What its functions did is seen by every handle when they return.
type DamageHarness struct {
	// Open is as [OpenText] or, for Vectors, [OpenVector].
	Open func(t testing.TB, dir string) leat.Sink
	// Delete removes the searchable chunk of that ordinal.
	Delete func(t testing.TB, dir, document string, ordinal int)
	// Alter changes its text or its vector; a vector stays of unit length.
	Alter func(t testing.TB, dir, document string, ordinal int)
	// Add puts a further chunk beside those of the version that is held.
	Add func(t testing.TB, dir, document string)
	// Stray adds a chunk of a document that the store does not know; nil where
	// it cannot hold one.
	Stray func(t testing.TB, dir string)
	// Vectors says that Open opens a [leat.VectorIndex], not a [leat.TextIndex].
	Vectors bool
}

// RunDamage checks that Inventory finds what is damaged in a store, and that
// revisions marked Again mend it.
func RunDamage(t *testing.T, h DamageHarness) {
	t.Run("DeleteFirst", func(t *testing.T) {
		h.run(t, func(t testing.TB, dir, document string) { h.Delete(t, dir, document, 0) })
	})
	t.Run("DeleteMiddle", func(t *testing.T) {
		h.run(t, func(t testing.TB, dir, document string) { h.Delete(t, dir, document, 2) })
	})
	t.Run("DeleteLast", func(t *testing.T) {
		h.run(t, func(t testing.TB, dir, document string) { h.Delete(t, dir, document, 4) })
	})
	t.Run("DeleteAll", func(t *testing.T) {
		h.run(t, func(t testing.TB, dir, document string) {
			for i := range 5 {
				h.Delete(t, dir, document, i)
			}
		})
	})
	t.Run("Alter", func(t *testing.T) {
		h.run(t, func(t testing.TB, dir, document string) { h.Alter(t, dir, document, 1) })
	})
	t.Run("Add", func(t *testing.T) { h.run(t, h.Add) })
	t.Run("AllAtOnce", func(t *testing.T) {
		h.run(t, func(t testing.TB, dir, document string) {
			h.Alter(t, dir, document, 3)
			h.Delete(t, dir, document, 1)
			h.Add(t, dir, document)
		})
	})
	if h.Stray != nil {
		t.Run("Stray", h.stray)
	}
}

func (h DamageHarness) open(t testing.TB, dir string) index {
	x := h.Open(t, dir)
	in := index{Sink: x, texts: !h.Vectors}
	if h.Vectors {
		in.find = func(ctx context.Context, title, text string, limit int) ([]leat.Match, error) {
			return x.(leat.VectorIndex).SearchVector(ctx, vector(title, text), limit)
		}
	} else {
		in.find = func(ctx context.Context, _, text string, limit int) ([]leat.Match, error) {
			return x.(leat.TextIndex).SearchText(ctx, text, limit)
		}
	}
	return in
}

// run damages a document and mends it, in each way that a repair may.
func (h DamageHarness) run(t *testing.T, damage func(t testing.TB, dir, document string)) {
	dir := t.TempDir()
	x := h.open(t, dir)
	before, after := revision("c", 1, "before it"), revision("e", 1, "after it", "and more")
	at := func(version uint64) leat.Revision {
		return titled(revision("d", version, append(numbered("word", 4), "word0")...), "Title")
	}
	x.apply(t, leat.Applied, before, at(1), after)
	version := uint64(1)
	for _, mend := range []struct {
		name string
		with func() []leat.Revision
	}{
		{"the same version", func() []leat.Revision { return []leat.Revision{at(version)} }},
		{"the same version in parts", func() []leat.Revision { return parts(at(version), 2) }},
		{"a higher version", func() []leat.Revision { version++; return []leat.Revision{at(version)} }},
		{"a higher version in parts", func() []leat.Revision { version++; return parts(at(version), 2) }},
	} {
		t.Logf("mended by %s", mend.name)
		damage(t, dir, "d")
		x.damaged(t, "d")
		x.apply(t, leat.Applied, at(version)) // without the mark: not written
		x.damaged(t, "d")
		x.apply(t, leat.Applied, marked(mend.with()...)...)
		x.mended(t, before, at(version), after)
	}
	damage(t, dir, "d")
	x.apply(t, leat.Applied, marked(tombstone("d", version+1))...)
	x.mended(t, before, after)
	x.apply(t, leat.Applied, at(version+2))
	x.mended(t, before, at(version+2), after)
}

// damaged checks that Inventory calls this document damaged, and it alone.
func (x index) damaged(t tester, id string) {
	t.Helper()
	x.settle(t)
	got, strays := x.inventory(t, "")
	if len(strays) > 0 {
		t.Fatalf("Inventory gave strays: %q", strays)
	}
	var ids []string
	for d, err := range x.Documents(t.Context(), "") {
		if err != nil {
			t.Fatalf("Documents: %v", err)
		}
		ids = append(ids, d.ID)
	}
	var gave []string
	for _, h := range got {
		gave = append(gave, h.ID)
		if (h.Damage != "") != (h.ID == id) {
			t.Fatalf("damage of %s: %q", h.ID, h.Damage)
		}
	}
	if diff := cmp.Diff(ids, gave); diff != "" {
		t.Fatalf("Inventory gave other documents (-Documents +Inventory):\n%s", diff)
	}
}

// mended checks that the index is as if nothing had ever been damaged.
func (x index) mended(t tester, revisions ...leat.Revision) {
	t.Helper()
	x.holds(t, revisions...)
	x.sound(t, "")
	if x.texts {
		return
	}
	for _, r := range revisions { // holds compares no vectors
		chunks, err := x.Chunks(t.Context(), r.Document)
		if err != nil {
			t.Fatalf("Chunks: %v", err)
		}
		for i, ch := range chunks {
			if c := cosine(ch.Vector, r.Chunks[i].Vector); math.Abs(c-1) > 1e-3 {
				t.Fatalf("the vector of chunk %d of %s is another one (cosine %g)", i, r.Document, c)
			}
			if err := x.nearest(t.Context(), r, ch.ID, i); err != nil {
				t.Fatalf("%v", err)
			}
		}
	}
}

// nearest checks that a search by the vector of chunk i scores it 1.
func (x index) nearest(ctx context.Context, r leat.Revision, id string, i int) error {
	matches, err := x.find(ctx, r.Title, r.Chunks[i].Text, 50)
	if err != nil {
		return err
	}
	for _, m := range matches {
		if m.Document == r.Document && m.Chunk == id && math.Abs(m.Score-1) < 1e-3 {
			return nil
		}
	}
	return fmt.Errorf("a search by the vector of chunk %d of %s does not find it: %+v", i, r.Document, matches)
}

func (h DamageHarness) stray(t *testing.T) {
	dir := t.TempDir()
	x := h.open(t, dir)
	one, other := revision("d", 1, numbered("word", 3)...), revision("e", 1, "other")
	x.apply(t, leat.Applied, one, other, tombstone("gone", 1))
	h.Stray(t, dir)
	x.settle(t)
	got, strays := x.inventory(t, "")
	if len(strays) == 0 {
		t.Fatal("Inventory gave no stray")
	}
	if diff := cmp.Diff(x.listed(t, ""), got); diff != "" {
		t.Fatalf("beside a stray Inventory differs (-Documents +Inventory):\n%s", diff)
	}
	for _, prefix := range []string{"d", "z"} {
		if _, strays := x.inventory(t, prefix); len(strays) > 0 {
			t.Fatalf("Inventory with the prefix %q gave strays: %q", prefix, strays)
		}
	}
	if err := x.Discard(t.Context(), strays); err != nil {
		t.Fatalf("Discard: %v", err)
	}
	x.mended(t, one, other)
	if err := x.Discard(t.Context(), strays); err != nil { // they are gone already
		t.Fatalf("Discard once more: %v", err)
	}
	x.mended(t, one, other)
	x.apply(t, leat.Applied, tombstone("d", 2))
	x.mended(t, other)
}
