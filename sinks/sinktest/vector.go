package sinktest

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"leat"
)

func runVector(t *testing.T, open OpenVector) {
	t.Run("Nearest", func(t *testing.T) { vectorNearest(t, open(t, t.TempDir())) })
	t.Run("Limit", func(t *testing.T) { vectorLimit(t, open(t, t.TempDir())) })
	t.Run("BadVectors", func(t *testing.T) { vectorBad(t, open(t, t.TempDir())) })
	t.Run("Refused", func(t *testing.T) { vectorRefused(t, open(t, t.TempDir())) })
}

// vectorNearest compares with a scan of its own, while documents come and go.
func vectorNearest(t *testing.T, x leat.VectorIndex) {
	in := index{Sink: x}
	alive := map[string]leat.Revision{}
	for round := range uint64(6) {
		var batch []leat.Revision
		for i := range 120 {
			id := fmt.Sprintf("d%d", i)
			switch (uint64(i) + round) % 4 {
			case 0:
				delete(alive, id)
				batch = append(batch, tombstone(id, round))
			case 1:
				alive[id] = revision(id, round, fmt.Sprintf("%s at %d", id, round), id, "three "+id)
				batch = append(batch, alive[id])
			}
		}
		in.apply(t, leat.Applied, batch...)
		query := vector("", fmt.Sprint("query ", round))
		var want []float64
		for _, r := range alive {
			for _, ch := range r.Chunks {
				want = append(want, cosine(query, ch.Vector))
			}
		}
		slices.Sort(want)
		slices.Reverse(want)
		got, err := x.SearchVector(t.Context(), query, 10)
		if err != nil {
			t.Fatal(err)
		}
		for i := range min(10, len(want)) {
			m := got[i]
			if math.Abs(m.Score-want[i]) > 1e-4 {
				t.Fatalf("round %d: match %d has score %g, not %g", round, i, m.Score, want[i])
			}
			r := alive[m.Document]
			j := slices.IndexFunc(r.Chunks, func(ch leat.Chunk) bool { return ch.ID == m.Chunk })
			if j < 0 || m.Version != r.Version || m.Start != r.Chunks[j].Start || math.Abs(cosine(query, r.Chunks[j].Vector)-m.Score) > 1e-4 {
				t.Fatalf("round %d: match %+v is not of %+v", round, m, r)
			}
		}
	}
}

func cosine(a, b []float32) (s float64) {
	for i := range a {
		s += float64(a[i]) * float64(b[i])
	}
	return s
}

func vectorLimit(t *testing.T, x leat.VectorIndex) {
	in := index{Sink: x}
	for i := range 20 {
		in.apply(t, leat.Applied, revision(string(rune('a'+i)), 1, "same text"))
	}
	in.apply(t, leat.Applied, parts(revision("z", 1, slices.Repeat([]string{"same text"}, 300)...), 299)[0])
	for _, limit := range []int{0, 1, 7, 20, 100} {
		m, err := x.SearchVector(t.Context(), vector("", "same text"), limit)
		if err != nil || len(m) != min(limit, 20) {
			t.Fatalf("limit %d: %d matches, %v", limit, len(m), err)
		}
	}
}

func vectorBad(t *testing.T, x leat.VectorIndex) {
	in := index{Sink: x}
	one := revision("d", 1, "one")
	in.apply(t, leat.Applied, one)
	nan := slices.Repeat([]float32{float32(math.NaN())}, Dimension)
	for name, v := range map[string][]float32{
		"none": nil, "short": {1}, "long": make([]float32, Dimension+1), "zero": make([]float32, Dimension),
		"not a number": nan, "not of unit length": slices.Repeat([]float32{1}, Dimension),
	} {
		two := revision("d", 2, "two")
		two.Chunks[0].Vector = v
		if _, err := x.Apply(t.Context(), []leat.Revision{revision("e", 1, "e"), two}); err == nil {
			t.Errorf("a vector that is %s was applied", name)
		}
		if got := in.contents(t, ""); len(got) != 1 || got["d"].Version != 1 {
			t.Errorf("after a vector that is %s the index holds %+v", name, got)
		}
	}
	for _, n := range []int{0, 1, Dimension - 1, Dimension + 1} {
		if _, err := x.SearchVector(t.Context(), make([]float32, n), 1); err == nil {
			t.Errorf("a query of %d dimensions was answered", n)
		}
	}
}

// vectorRefused leaves out chunks that a model refused: nothing is missing.
func vectorRefused(t *testing.T, x leat.VectorIndex) {
	in := index{Sink: x}
	r := revision("d", 1, numbered("word", 6)...)
	r.Chunks = slices.Delete(r.Chunks, 5, 6)
	r.Chunks = slices.Delete(r.Chunks, 0, 2)
	none := revision("none", 1, "refused")
	none.Chunks = nil
	in.apply(t, leat.Applied, r, none)
	in.sound(t, "", "d", "none")
	in.apply(t, leat.Applied, marked(parts(r, 2)...)...)
	in.sound(t, "", "d", "none")
}
