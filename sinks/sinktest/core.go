package sinktest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"leat"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
)

func runCore(t *testing.T, open opener) {
	for _, c := range []struct {
		name string
		test func(*testing.T, opener)
	}{
		{"InsertUpdateDelete", insertUpdateDelete},
		{"OlderIsSuperseded", olderIsSuperseded},
		{"TombstonesOutlive", tombstonesOutlive},
		{"ReplayIsIdempotent", replayIsIdempotent},
		{"UnchangedChunks", unchangedChunks},
		{"TitleChange", titleChange},
		{"Parts", partsBecomeVisibleTogether},
		{"PartsReplayed", partsReplayed},
		{"PartsInterrupted", partsInterrupted},
		{"PartMissing", partMissing},
		{"ReaderDuringChange", readerDuringChange},
		{"RacingWriters", racingWriters},
		{"OddIDs", oddIDs},
		{"EmptyDocument", emptyDocument},
		{"DocumentsInOrder", documentsInOrder},
		{"Again", again},
		{"Inventory", inventory},
		{"FailedBatch", failedBatch},
		{"CancelledContext", cancelledContext},
		{"AnySequence", anySequence},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open) })
	}
}

func insertUpdateDelete(t *testing.T, open opener) {
	x := open(t, t.TempDir())
	x.holds(t)
	if _, err := x.Document(t.Context(), "d"); !errors.Is(err, leat.ErrNotFound) {
		t.Fatalf("state of an unknown document: %v", err)
	}
	one, other := revision("d", 1, "apples", "bananas"), revision("e", 1, "dates")
	x.apply(t, leat.Applied, one, other)
	x.holds(t, one, other)

	two := revision("d", 2, "cherries")
	x.apply(t, leat.Applied, two)
	x.holds(t, two, other)
	x.stale(t, "d", "apples", 2) // I4

	x.apply(t, leat.Applied, tombstone("d", 3))
	x.holds(t, other)
	x.stale(t, "d", "cherries")
	d, err := x.Document(t.Context(), "d")
	if err != nil {
		t.Fatal(err)
	}
	if d.ID != "d" || d.Version != 3 || !d.Deleted || d.Chunks != 0 {
		t.Fatalf("state of a deleted document: %+v", d)
	}
	again := revision("d", 4, "elderberries")
	x.apply(t, leat.Applied, again)
	x.holds(t, again, other)
}

func olderIsSuperseded(t *testing.T, open opener) { // I2
	x := open(t, t.TempDir())
	new := revision("d", 10, "new")
	x.apply(t, leat.Applied, new)
	x.apply(t, leat.Superseded, revision("d", 9, "old"), tombstone("d", 8))
	x.holds(t, new)
	// In one batch, and a delete of something never seen.
	out, err := x.Apply(t.Context(), []leat.Revision{
		revision("e", 2, "two"), revision("e", 1, "one"), tombstone("f", 5), revision("f", 4, "four"), tombstone("d", 11), new,
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []leat.Outcome{leat.Applied, leat.Superseded, leat.Applied, leat.Superseded, leat.Applied, leat.Superseded}
	if diff := cmp.Diff(want, out); diff != "" {
		t.Fatal(diff)
	}
	x.holds(t, revision("e", 2, "two"))
}

func tombstonesOutlive(t *testing.T, open opener) { // I2, I7
	dir := t.TempDir()
	x := open(t, dir)
	x.apply(t, leat.Applied, revision("d", 1, "text"), tombstone("d", 7), tombstone("never", 7))
	x = open(t, dir)
	x.apply(t, leat.Superseded, revision("d", 6, "back"), revision("never", 6, "back"))
	x.holds(t)
}

func replayIsIdempotent(t *testing.T, open opener) {
	x := open(t, t.TempDir())
	batch := []leat.Revision{revision("d", 1, "a", "b"), revision("e", 1, "c"), tombstone("g", 2)}
	for range 3 {
		x.apply(t, leat.Applied, batch...)
		x.holds(t, batch[0], batch[1])
	}
	x.apply(t, leat.Applied, clone(t, batch[0]), batch[0])
	x.holds(t, batch[0], batch[1])
}

func unchangedChunks(t *testing.T, open opener) {
	x := open(t, t.TempDir())
	one := revision("d", 1, "first", "same", "same", "last")
	two := revision("d", 2, "begun anew", "same", "same", "last", "same")
	x.apply(t, leat.Applied, one)
	x.apply(t, leat.Applied, two)
	x.holds(t, two) // at their new places
	if one.Chunks[1].ID != two.Chunks[1].ID || one.Chunks[1].ID == one.Chunks[2].ID {
		t.Fatal("chunk ids are not what this test builds on")
	}
	x.stale(t, "d", "first", 2)
}

func titleChange(t *testing.T, open opener) {
	x := open(t, t.TempDir())
	one := titled(revision("d", 1, "one text", "another"), "Alpha")
	two := titled(revision("d", 2, "one text", "another"), "Omega") // same chunk ids, other vectors
	x.apply(t, leat.Applied, one)
	x.holds(t, one)
	x.apply(t, leat.Applied, two)
	x.holds(t, two)
}

// numbered makes n texts with a word of their own each.
func numbered(word string, n int) []string {
	texts := make([]string, n)
	for i := range texts {
		texts[i] = fmt.Sprintf("%s%d", word, i)
	}
	return texts
}

func partsBecomeVisibleTogether(t *testing.T, open opener) { // I4
	x := open(t, t.TempDir())
	old := revision("d", 1, append(numbered("old", 5), "both")...)
	new := revision("d", 2, append(numbered("new", 9), "both")...)
	cut := parts(new, 3)
	for _, p := range parts(old, 4) { // of a document not known before
		x.holds(t)
		x.apply(t, leat.Applied, p)
	}
	for _, p := range cut {
		x.holds(t, old)
		x.stale(t, "d", "new0", 1)
		x.apply(t, leat.Applied, p)
	}
	x.holds(t, new)
	x.stale(t, "d", "old0", 2)
	x.apply(t, leat.Applied, cut...) // all of it again, in one batch
	x.holds(t, new)
	end := revision("d", 3, numbered("end", 4)...)
	last := parts(end, 4)[0] // an empty part may carry the mark
	first := last
	first.Last, last.Part, last.Chunks = false, 1, nil
	x.apply(t, leat.Applied, first, last)
	x.holds(t, end)
}

func partsReplayed(t *testing.T, open opener) { // I7
	dir := t.TempDir()
	for n, order := range [][]int{
		{0, 0, 1, 1, 2, 3},
		{0, 1, 0, 1, 2, 3},
		{0, 1, 2, 1, 2, 3},
		{0, 1, 2, 0, 3},
		{0, 1, 2, 3, 0, 1, 2, 3},
		{0, 1, 2, 3, 2},
	} {
		r := revision(fmt.Sprint("d", n), 5, numbered("word", 10)...)
		cut := parts(r, 3) // 0 1 2 3
		for _, i := range order {
			open(t, dir).apply(t, leat.Applied, cut[i])
		}
		x := open(t, dir)
		x.holds(t, r)
		x.apply(t, leat.Applied, tombstone(r.Document, 6))
	}
	// A replay may cut the document in another way.
	r := revision("d", 5, numbered("word", 10)...)
	x := open(t, t.TempDir())
	x.apply(t, leat.Applied, parts(r, 2)[:4]...)
	x.apply(t, leat.Applied, parts(r, 6)...)
	x.holds(t, r)
	x = open(t, t.TempDir())
	x.apply(t, leat.Applied, parts(r, 2)[:4]...)
	x.apply(t, leat.Applied, r)
	x.holds(t, r)
}

func partsInterrupted(t *testing.T, open opener) {
	one := revision("d", 1, "one")
	two := revision("d", 2, append(numbered("two", 6), "shared")...)
	three := revision("d", 3, append(numbered("three", 6), "shared")...)
	cut2, cut3 := parts(two, 2), parts(three, 2)
	t.Run("NewerWhole", func(t *testing.T) {
		x := open(t, t.TempDir())
		x.apply(t, leat.Applied, one)
		x.apply(t, leat.Applied, cut2[:3]...)
		x.apply(t, leat.Applied, three)
		x.holds(t, three)
		x.apply(t, leat.Superseded, cut2[3])
		x.apply(t, leat.Superseded, cut2[0])
		x.holds(t, three)
	})
	t.Run("NewerInParts", func(t *testing.T) {
		x := open(t, t.TempDir())
		x.apply(t, leat.Applied, one)
		x.apply(t, leat.Applied, cut2[0], cut3[0], cut2[1], cut3[1])
		x.holds(t, one)
		x.apply(t, leat.Applied, cut3[2:]...)
		x.holds(t, three)
	})
	t.Run("OlderEndsWhileNewerIsUnderWay", func(t *testing.T) {
		x := open(t, t.TempDir())
		x.apply(t, leat.Applied, cut3[0], cut3[1])
		x.apply(t, leat.Applied, cut2...)
		x.holds(t, two)
		x.apply(t, leat.Applied, cut3[2:]...)
		x.holds(t, three)
	})
	t.Run("Deleted", func(t *testing.T) {
		x := open(t, t.TempDir())
		x.apply(t, leat.Applied, cut2[:2]...)
		x.apply(t, leat.Applied, tombstone("d", 3))
		x.holds(t)
		x.apply(t, leat.Superseded, cut2[2])
		x.holds(t)
	})
}

func partMissing(t *testing.T, open opener) {
	x := open(t, t.TempDir())
	one := revision("d", 1, "one")
	cut := parts(revision("d", 2, numbered("two", 6)...), 2)
	x.apply(t, leat.Applied, one, cut[0])
	_, err := x.Apply(t.Context(), []leat.Revision{cut[2]})
	if !leat.IsPermanent(err) || leat.HintOf(err) == "" {
		t.Fatalf("a part that came without the one before it: %v", err)
	}
	x.holds(t, one)
	x.apply(t, leat.Applied, cut...)
	x.holds(t, revision("d", 2, numbered("two", 6)...))
}

// readerDuringChange searches beside a writer that replaces a document again
// and again: every search must find the document, at exactly one version (I4).
func readerDuringChange(t *testing.T, open opener) {
	dir := t.TempDir()
	w, r := open(t, dir), open(t, dir)
	texts := func(v uint64) []string {
		return append(numbered(fmt.Sprintf("v%dn", v), 3), "constant")
	}
	w.apply(t, leat.Applied, revision("d", 1, texts(1)...))
	r.settle(t)
	const last = 40
	g, ctx := errgroup.WithContext(t.Context())
	done := make(chan struct{})
	g.Go(func() error {
		defer close(done)
		for v := uint64(2); v <= last; v++ {
			batch := []leat.Revision{revision("d", v, texts(v)...)}
			if v%2 == 0 {
				batch = parts(batch[0], 1)
			}
			for _, p := range batch {
				if _, err := w.Apply(ctx, []leat.Revision{p}); err != nil {
					return err
				}
			}
		}
		return nil
	})
	g.Go(func() error {
		newest := uint64(0)
		for {
			select {
			case <-done:
				return nil
			default:
			}
			matches, err := r.find(ctx, "", "constant", 10)
			if err != nil {
				return err
			}
			seen := map[uint64]bool{}
			for _, m := range matches {
				seen[m.Version] = true
				if m.Version < newest {
					return fmt.Errorf("version %d was found after version %d", m.Version, newest)
				}
				newest = m.Version
			}
			if len(seen) != 1 {
				return fmt.Errorf("a search found the versions %v: %+v", seen, matches)
			}
			chunks, err := r.Chunks(ctx, "d")
			if err != nil {
				return err
			}
			if len(chunks) != 4 {
				return fmt.Errorf("%d chunks, not 4", len(chunks))
			}
		}
	})
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	w.holds(t, revision("d", last, texts(last)...))
	r.holds(t, revision("d", last, texts(last)...))
}

// racingWriters has two processes apply the same versions at the same time, as
// when a consumer group hands a partition over (I2).
func racingWriters(t *testing.T, open opener) {
	dir := t.TempDir()
	a, b := open(t, dir), open(t, dir)
	const documents, versions = 5, 12
	var newest []leat.Revision
	g, ctx := errgroup.WithContext(t.Context())
	run := func(x index, from uint64) func() error {
		return func() error {
			for v := from; v <= versions; v++ {
				var batch []leat.Revision
				for d := range documents {
					batch = append(batch, revision(fmt.Sprint("d", d), v, fmt.Sprintf("w%d", v), "same"))
				}
				if _, err := x.Apply(ctx, batch); err != nil {
					return err
				}
			}
			return nil
		}
	}
	for d := range documents {
		newest = append(newest, revision(fmt.Sprint("d", d), versions, fmt.Sprintf("w%d", versions), "same"))
	}
	g.Go(run(a, 1))
	g.Go(run(b, 3))
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	a.holds(t, newest...)
	b.holds(t, newest...)
}

func oddIDs(t *testing.T, open opener) {
	x := open(t, t.TempDir())
	var all []leat.Revision
	for i, id := range []string{
		"folder:notes/%E4%B8%AD%E6%96%87.md", "folder:笔记/中文.md", "it's", `say "yes"`, "a%b_c", `back\slash`,
		"new\nline", "tab\t", "nul\x00nul", "𝕌nicode 👩‍👩‍👧", "$_documents", "?1", " leading", "trailing ", "*", "-", "e\u0301", "\u00e9",
		"mysql:shop/store.products/42", "mysql:shop/store.products/42/7", strings.Repeat("long", 1024), strings.Repeat("long", 1024) + "er",
	} {
		all = append(all, revision(id, uint64(i+1), fmt.Sprintf("text%d", i)))
	}
	x.apply(t, leat.Applied, all...)
	x.holds(t, all...)
	for i := range all {
		d, err := x.Document(t.Context(), all[i].Document)
		if err != nil || d.ID != all[i].Document || d.Version != all[i].Version {
			t.Fatalf("state of %q: %+v, %v", all[i].Document, d, err)
		}
		all[i].Version += 100
	}
	x.apply(t, leat.Applied, all...)
	x.holds(t, all...)
	for i, r := range all {
		x.apply(t, leat.Applied, tombstone(r.Document, r.Version+1))
		x.holds(t, all[i+1:]...)
	}
}

func emptyDocument(t *testing.T, open opener) {
	x := open(t, t.TempDir())
	empty := revision("d", 1)
	x.apply(t, leat.Applied, empty)
	x.holds(t, empty)
	full := revision("d", 2, "text")
	x.apply(t, leat.Applied, full)
	x.holds(t, full)
	empty = revision("d", 3)
	x.apply(t, leat.Applied, empty)
	x.holds(t, empty)
	x.stale(t, "d", "text", 3)
}

func documentsInOrder(t *testing.T, open opener) {
	x := open(t, t.TempDir())
	var batch []leat.Revision
	var under []string
	for i := range 1300 {
		id := fmt.Sprintf("p%d/%d", i%2, i)
		if i%2 == 1 {
			under = append(under, id)
		}
		batch = append(batch, revision(id, 1))
	}
	batch = append(batch, revision("p1", 1), revision("p2", 1), revision("p1\xf4", 1), tombstone("p1/deleted", 1))
	x.apply(t, leat.Applied, batch...)
	slices.Sort(under)
	list := func(prefix string, most int) (ids []string) {
		for d, err := range x.Documents(t.Context(), prefix) {
			if err != nil {
				t.Fatal(err)
			}
			if ids = append(ids, d.ID); len(ids) == most {
				break
			}
		}
		return ids
	}
	if diff := cmp.Diff(under, list("p1/", -1)); diff != "" {
		t.Fatal(diff)
	}
	if diff := cmp.Diff(under[:3], list("p1/", 3)); diff != "" {
		t.Fatal(diff)
	}
	take := func(prefix string, most int) (ids []string) {
		for h, err := range x.Inventory(t.Context(), prefix) {
			if err != nil || h.Damage != "" || h.Stray != "" {
				t.Fatal(h, err)
			}
			if ids = append(ids, h.ID); len(ids) == most {
				break
			}
		}
		return ids
	}
	if diff := cmp.Diff(under, take("p1/", -1)); diff != "" {
		t.Fatal(diff)
	}
	if diff := cmp.Diff(under[:3], take("p1/", 3)); diff != "" {
		t.Fatal(diff)
	}
	if diff := cmp.Diff(list("", -1), take("", -1)); diff != "" {
		t.Fatal(diff)
	}
	if all := list("", -1); len(all) != len(batch)-1 || !slices.IsSorted(all) {
		t.Fatalf("%d documents, sorted: %v", len(all), slices.IsSorted(all))
	}
	if none := list("p3", -1); none != nil {
		t.Fatal(none)
	}
}

func failedBatch(t *testing.T, open opener) {
	x := open(t, t.TempDir())
	one := revision("d", 1, "one")
	x.apply(t, leat.Applied, one)
	_, err := x.Apply(t.Context(), []leat.Revision{
		revision("d", 2, "two"), revision("new", 1, "new"), tombstone("d", 3), revision("e", 1<<63, "impossible"),
	})
	if !leat.IsPermanent(err) {
		t.Fatalf("a version past 1<<63-1: %v", err)
	}
	x.holds(t, one)
	two := revision("d", 2, "two")
	x.apply(t, leat.Applied, two, revision("d", 1<<63-1, "last"))
	x.holds(t, revision("d", 1<<63-1, "last"))
}

func cancelledContext(t *testing.T, open opener) {
	x := open(t, t.TempDir())
	one := revision("d", 1, "one")
	x.apply(t, leat.Applied, one)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := x.Apply(ctx, []leat.Revision{revision("d", 2, "two")}); !errors.Is(err, context.Canceled) {
		t.Fatalf("Apply with a cancelled context: %v", err)
	}
	x.holds(t, one)
	for _, err := range x.Documents(ctx, "") {
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("Documents with a cancelled context: %v", err)
		}
	}
	for _, err := range x.Inventory(ctx, "") {
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("Inventory with a cancelled context: %v", err)
		}
	}
}
