// Package sinktest is the conformance suite of sinks: every implementation of
// [leat.TextIndex] and [leat.VectorIndex] passes it.
//
// Its checks name the invariants of package leat that they try to break.
package sinktest

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"leat"

	"github.com/google/go-cmp/cmp"
)

// Dimension of the vectors that [RunVector] applies.
const Dimension = 16

// OpenText opens the text index that belongs to dir, an existing directory:
// an empty one for a new directory, another handle on the same one for one
// that was opened before, in this process or another. It registers its close
// with t.Cleanup and fails the test on an error.
type OpenText func(t testing.TB, dir string) leat.TextIndex

// OpenVector is the same for a vector index of vectors of [Dimension].
type OpenVector func(t testing.TB, dir string) leat.VectorIndex

// refresher is a sink whose searches see a durable change a little later, or at
// once after Refresh.
type refresher interface {
	Refresh(ctx context.Context) error
}

// RunText checks a text index.
func RunText(t *testing.T, open OpenText) {
	runCore(t, func(t testing.TB, dir string) index {
		x := open(t, dir)
		return index{Sink: x, texts: true, find: func(ctx context.Context, _, text string, limit int) ([]leat.Match, error) {
			return x.SearchText(ctx, text, limit)
		}}
	})
	runText(t, open)
}

// RunVector checks a vector index.
func RunVector(t *testing.T, open OpenVector) {
	runCore(t, func(t testing.TB, dir string) index {
		x := open(t, dir)
		return index{Sink: x, find: func(ctx context.Context, title, text string, limit int) ([]leat.Match, error) {
			return x.SearchVector(ctx, vector(title, text), limit)
		}}
	})
	runVector(t, open)
}

// index is either kind, as the shared checks see it.
type index struct {
	leat.Sink
	texts bool // Chunks returns texts; else vectors
	find  func(ctx context.Context, title, text string, limit int) ([]leat.Match, error)
}

// tester is what the checks need of *testing.T and *rapid.T.
type tester interface {
	Helper()
	Fatalf(format string, args ...any)
	Context() context.Context
}

type opener func(t testing.TB, dir string) index

// revision makes a document of one version whose chunks have the given texts.
func revision(id string, version uint64, texts ...string) leat.Revision {
	r := leat.Revision{
		Document: id, Version: version, Source: "test:one", Time: time.Unix(1700000000, 0).UTC(),
		Tag: fmt.Sprint("tag-", version), Title: "", Last: true,
		Metadata: map[string]any{"version": fmt.Sprint(version)},
	}
	seen := map[string]int{}
	var at int64
	for i, text := range texts {
		r.Chunks = append(r.Chunks, leat.Chunk{
			ID: leat.ChunkID(id, text, seen[text]), Ordinal: i, Start: at, End: at + int64(len(text)),
			Tokens: len(strings.Fields(text)), Heading: []string{"Part", fmt.Sprint(i / 2)}, Page: 1 + i/3,
			Text: text, Vector: vector("", text),
		})
		seen[text]++
		at += int64(len(text)) + 1
	}
	return r
}

// titled gives a revision a title, which is embedded with every chunk.
func titled(r leat.Revision, title string) leat.Revision {
	r.Title, r.Chunks = title, slices.Clone(r.Chunks)
	for i := range r.Chunks {
		r.Chunks[i].Vector = vector(title, r.Chunks[i].Text)
	}
	return r
}

func tombstone(id string, version uint64) leat.Revision {
	return leat.Revision{Document: id, Version: version, Source: "test:one", Deleted: true, Last: true}
}

// parts cuts a revision into parts of n chunks.
func parts(r leat.Revision, n int) []leat.Revision {
	var out []leat.Revision
	for chunks := range slices.Chunk(r.Chunks, n) {
		p := r
		p.Part, p.Chunks, p.Last = len(out), chunks, false
		out = append(out, p)
	}
	out[len(out)-1].Last = true
	return out
}

// vector is a unit vector that depends on the text alone: equal texts have
// cosine 1, others hardly any.
func vector(title, text string) []float32 {
	h := fnv.New64a()
	h.Write([]byte(leat.Embeddable(title, text)))
	rnd := rand.New(rand.NewPCG(h.Sum64(), 1))
	v := make([]float32, Dimension)
	var norm float64
	for i := range v {
		v[i] = float32(rnd.NormFloat64())
		norm += float64(v[i]) * float64(v[i])
	}
	for i := range v {
		v[i] /= float32(math.Sqrt(norm))
	}
	return v
}

// settle has searches see all that was applied.
func (x index) settle(t tester) {
	t.Helper()
	if r, ok := x.Sink.(refresher); ok {
		if err := r.Refresh(t.Context()); err != nil {
			t.Fatalf("Refresh: %v", err)
		}
	}
}

// apply applies a batch, checks its outcomes and settles.
func (x index) apply(t tester, want leat.Outcome, revisions ...leat.Revision) {
	t.Helper()
	out, err := x.Apply(t.Context(), revisions)
	if err != nil {
		t.Fatalf("Apply: %v", err)
	}
	if len(out) != len(revisions) {
		t.Fatalf("Apply returned %d outcomes for %d revisions", len(out), len(revisions))
	}
	for i, o := range out {
		if o != want {
			t.Fatalf("outcome of %s version %d part %d is %d, not %d",
				revisions[i].Document, revisions[i].Version, revisions[i].Part, o, want)
		}
	}
	x.settle(t)
}

// contents is all that a sink holds, by document; tombstones are not seen.
type contents map[string]held

type held struct {
	Version uint64
	Tag     string
	Title   string
	Chunks  []leat.Chunk
}

// want is what a sink holds after the revision.
func want(r leat.Revision, texts bool) held {
	h := held{Version: r.Version, Tag: r.Tag, Title: r.Title}
	for _, ch := range r.Chunks {
		h.Chunks = append(h.Chunks, visible(ch, texts))
	}
	return h
}

// visible is the part of a chunk that every implementation returns.
func visible(ch leat.Chunk, texts bool) leat.Chunk {
	if texts {
		ch.Vector = nil
	} else {
		ch.Text, ch.Vector = "", nil
	}
	return ch
}

func (x index) contents(t tester, prefix string) contents {
	t.Helper()
	all := contents{}
	last := ""
	for d, err := range x.Documents(t.Context(), prefix) {
		if err != nil {
			t.Fatalf("Documents: %v", err)
		}
		if d.ID <= last {
			t.Fatalf("Documents gave %q after %q", d.ID, last)
		}
		last = d.ID
		if d.Deleted || d.Applied.IsZero() {
			t.Fatalf("Documents gave %+v", d)
		}
		chunks, err := x.Chunks(t.Context(), d.ID)
		if err != nil {
			t.Fatalf("Chunks: %v", err)
		}
		if len(chunks) != d.Chunks {
			t.Fatalf("%s has %d chunks, its state says %d", d.ID, len(chunks), d.Chunks)
		}
		h := held{Version: d.Version, Tag: d.Tag, Title: d.Title}
		for _, ch := range chunks {
			h.Chunks = append(h.Chunks, visible(ch, x.texts))
		}
		all[d.ID] = h
	}
	return all
}

// holds checks that the sink holds these revisions and nothing else: by
// listing, by counting and by searching for every chunk.
func (x index) holds(t tester, revisions ...leat.Revision) {
	t.Helper()
	x.settle(t)
	all, chunks := contents{}, 0
	for _, r := range revisions {
		all[r.Document] = want(r, x.texts)
		chunks += len(r.Chunks)
	}
	if diff := cmp.Diff(all, x.contents(t, "")); diff != "" {
		t.Fatalf("the index differs (-want +got):\n%s", diff)
	}
	st, err := x.Stats(t.Context())
	if err != nil {
		t.Fatalf("Stats: %v", err)
	}
	if diff := cmp.Diff(leat.Stats{Documents: int64(len(all)), Chunks: int64(chunks)}, st); diff != "" {
		t.Fatalf("Stats differ (-want +got):\n%s", diff)
	}
	for _, r := range revisions {
		for _, ch := range r.Chunks {
			x.found(t, r, ch)
		}
	}
}

// found checks that a search for the chunk's text finds it at this version.
func (x index) found(t tester, r leat.Revision, ch leat.Chunk) {
	t.Helper()
	matches, err := x.find(t.Context(), r.Title, ch.Text, 50)
	if err != nil {
		t.Fatalf("search for %q: %v", ch.Text, err)
	}
	for _, m := range matches {
		if m.Document == r.Document && m.Version == r.Version && m.Chunk == ch.ID && m.Start == ch.Start {
			return
		}
	}
	t.Fatalf("a search for %q of %s version %d does not find it: %+v", ch.Text, r.Document, r.Version, matches)
}

// stale checks that no search finds a chunk of the document other than those
// of the given versions.
func (x index) stale(t tester, id, text string, versions ...uint64) {
	t.Helper()
	matches, err := x.find(t.Context(), "", text, 50)
	if err != nil {
		t.Fatalf("search for %q: %v", text, err)
	}
	for _, m := range matches {
		if m.Document == id && !slices.Contains(versions, m.Version) {
			t.Fatalf("a search for %q finds %+v, not of version %v", text, m, versions)
		}
	}
}

// clone copies a revision by way of what the topics carry.
func clone(t testing.TB, r leat.Revision) leat.Revision {
	t.Helper()
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var out leat.Revision
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	for i := range out.Chunks {
		out.Chunks[i].Vector = slices.Clone(r.Chunks[i].Vector)
	}
	return out
}
