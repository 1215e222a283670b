package milvus

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"leat"
	"leat/internal/testenv"
)

// TestViewsDisagree gives what a search found at one moment to states that were
// read at another: an index is at version 2 of a document while chunks are found
// as they are before, amid and after a change.
func TestViewsDisagree(t *testing.T) {
	p := newPool(t, testenv.Milvus(t).Addr(), 1)
	x := p.open(t, t.TempDir()).(*Index)
	two, four := revision("changed", 2, 2), revision("changed", 4, 2)
	if _, err := x.Apply(t.Context(), []leat.Revision{two, deletion("deleted", 2), revision("other", 1, 1)}); err != nil {
		t.Fatal(err)
	}
	// The chunks of a version whose state is still to come.
	b := x.newBatch([]leat.Revision{four})
	if err := b.plan([]leat.Revision{four}); err != nil {
		t.Fatal(err)
	}
	rows, _ := b.toWrite()
	if err := x.write(t.Context(), rows, nil); err != nil {
		t.Fatal(err)
	}
	ts, err := x.db.now(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	at := func(document string, version uint64) leat.Match {
		return leat.Match{Document: document, Version: version, Chunk: fmt.Sprint(document, " at ", version), Score: 0.5}
	}
	other := at("other", 1)
	held := func(document string, version uint64) string { return fmt.Sprint(document, " at ", version) }
	for _, c := range []struct {
		name  string
		found []leat.Match
		want  []string // distinct
	}{
		{"before the change", []leat.Match{at("changed", 1), other}, []string{held("changed", 2), held("other", 1)}},
		{"amid the change", []leat.Match{at("changed", 1), at("changed", 2), other}, []string{held("changed", 2), held("other", 1)}},
		{"after it", []leat.Match{at("changed", 2)}, []string{held("changed", 2)}},
		{"amid the next", []leat.Match{at("changed", 2), at("changed", 4)}, []string{held("changed", 2)}},
		{"at the next", []leat.Match{at("changed", 4)}, []string{held("changed", 2)}},
		{"before the document was deleted", []leat.Match{at("deleted", 1), other}, []string{held("other", 1)}},
		{"before it is there", []leat.Match{at("new", 1)}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			matches, err := x.current(t.Context(), two.Chunks[0].Vector, 10, c.found, ts)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			seen := map[string]bool{}
			for _, m := range matches {
				if v := held(m.Document, m.Version); !seen[v] {
					seen[v] = true
					got = append(got, v)
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestSearchesCatchUp searches an index that another process writes: soon each
// version is found, and at once where that is asked for.
func TestSearchesCatchUp(t *testing.T) {
	p := newPool(t, testenv.Milvus(t).Addr(), 1)
	dir := t.TempDir()
	w, r := p.open(t, dir), p.open(t, dir)
	for version := uint64(1); version <= 20; version++ {
		d := revision("d", version, 1)
		if _, err := w.Apply(t.Context(), []leat.Revision{d}); err != nil {
			t.Fatal(err)
		}
		atOnce := version%2 == 0
		if atOnce {
			refresh(t, r)
		}
		for began := time.Now(); ; {
			m, err := r.SearchVector(t.Context(), d.Chunks[0].Vector, 1)
			if err != nil || version > 1 && len(m) != 1 {
				t.Fatalf("version %d: %+v, %v", version, m, err)
			}
			if len(m) == 1 && m[0].Version == version {
				break
			}
			if atOnce || time.Since(began) > time.Minute {
				t.Fatalf("version %d is not found: %+v", version, m)
			}
		}
	}
}
