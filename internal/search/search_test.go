package search_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"leat"
	"leat/internal/search"
	"leat/sinks/sqlite"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// subjects embeds a text by the subjects it speaks of, in whatever words.
type subjects struct{ err error }

var about = [][]string{{"car", "automobile", "汽车"}, {"money", "price", "cost"}, {"bread", "loaf"}}

func (subjects) Model() leat.Model { return leat.Model{Name: "subjects", Dimension: len(about) + 1} }
func (subjects) Close() error      { return nil }

func (s subjects) Embed(_ context.Context, _ leat.Kind, texts []string) ([][]float32, error) {
	var out [][]float32
	for _, t := range texts {
		v := make([]float32, len(about)+1)
		v[len(about)] = 1
		for i, words := range about {
			for _, w := range words {
				if strings.Contains(strings.ToLower(t), w) {
					v[i] = 2
				}
			}
		}
		var norm float64
		for _, x := range v {
			norm += float64(x * x)
		}
		for i := range v {
			v[i] /= float32(math.Sqrt(norm))
		}
		out = append(out, v)
	}
	return out, s.err
}

func revision(id string, version uint64, texts ...string) leat.Revision {
	r := leat.Revision{Document: id, Version: version, Last: true, Title: "About " + id, Metadata: map[string]any{"of": id}}
	vectors, _ := subjects{}.Embed(context.Background(), leat.Passage, texts)
	var at int64
	for i, t := range texts {
		r.Chunks = append(r.Chunks, leat.Chunk{ID: leat.ChunkID(id, t, 0), Ordinal: i, Start: at, End: at + int64(len(t)), Text: t, Vector: vectors[i]})
		at += int64(len(t)) + 1
	}
	return r
}

func open(t *testing.T) (*sqlite.TextIndex, *sqlite.VectorIndex) {
	t.Helper()
	s, err := sqlite.Open(filepath.Join(t.TempDir(), "store.db"), sqlite.Config{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	text, err := s.Text(1)
	if err != nil {
		t.Fatal(err)
	}
	v, err := s.Vectors(1, subjects{}.Model())
	if err != nil {
		t.Fatal(err)
	}
	return text, v
}

func apply(t *testing.T, x leat.Sink, r ...leat.Revision) {
	t.Helper()
	if _, err := x.Apply(t.Context(), r); err != nil {
		t.Fatal(err)
	}
}

func found(t *testing.T, s *search.Searcher, query string, mode search.Mode, limit int) []string {
	t.Helper()
	r, err := s.Search(t.Context(), query, mode, limit)
	if err != nil {
		t.Fatal(err)
	}
	if r.Mode != mode || r.TookMS <= 0 {
		t.Errorf("result %+v", r)
	}
	var texts []string
	for i, h := range r.Hits {
		if i > 0 && h.Score > r.Hits[i-1].Score {
			t.Errorf("scores rise at %d of %q", i, query)
		}
		texts = append(texts, h.Text)
	}
	return texts
}

func TestModes(t *testing.T) {
	text, vectors := open(t)
	all := []leat.Revision{
		revision("a", 1, "An automobile was sold", "Unlike other days, it rained"),
		revision("b", 1, "My car is red", "The loaf came out well"),
		revision("c", 1, "What it will cost"),
	}
	apply(t, text, all...)
	apply(t, vectors, all...)
	s := search.New(text, vectors, subjects{})
	first := func(texts []string) string { return append(texts, "nothing")[0] }
	for _, c := range []struct {
		query string
		mode  search.Mode
		want  string
	}{
		{"red car", search.Text, "My car is red"},
		{"bread", search.Text, "nothing"},
		{"bread", search.Vector, "The loaf came out well"},
		{"bread", search.Hybrid, "The loaf came out well"},
		{"automobile", search.Hybrid, "An automobile was sold"}, // both speak of cars: the word decides
		{"car", search.Hybrid, "My car is red"},
		{"汽车 red", search.Hybrid, "My car is red"},
		{"rained", search.Hybrid, "Unlike other days, it rained"},
	} {
		if got := first(found(t, s, c.query, c.mode, 3)); got != c.want {
			t.Errorf("%s search for %q finds %q first, not %q", c.mode, c.query, got, c.want)
		}
	}
	for _, limit := range []int{1, 2, 5, 100} {
		if got := found(t, s, "car", search.Hybrid, limit); len(got) != min(limit, 5) {
			t.Errorf("limit %d: %d hits", limit, len(got))
		}
	}
	// By words alone no model is needed.
	if got := found(t, search.New(text, nil, nil), "loaf", search.Text, 3); len(got) != 1 {
		t.Errorf("without a model: %q", got)
	}
	if _, err := search.New(text, nil, nil).Search(t.Context(), "loaf", search.Hybrid, 3); err == nil {
		t.Error("a hybrid search without a model succeeds")
	}
	broken := errors.New("no model today")
	if _, err := search.New(text, vectors, subjects{broken}).Search(t.Context(), "loaf", search.Hybrid, 3); !errors.Is(err, broken) {
		t.Error(err)
	}
}

// TestBetweenVersions searches while one index is ahead of the other: a result
// shows what the text index holds, each chunk once, and nothing that is gone.
func TestBetweenVersions(t *testing.T) {
	text, vectors := open(t)
	old := []leat.Revision{revision("a", 1, "my car", "your car", "their car"), revision("gone", 1, "a car too")}
	apply(t, vectors, old...)
	apply(t, text, revision("a", 2, "our car"), leat.Revision{Document: "gone", Version: 2, Deleted: true, Last: true})
	s := search.New(text, vectors, subjects{})
	for _, mode := range []search.Mode{search.Vector, search.Hybrid} {
		for _, limit := range []int{1, 10} {
			if diff := cmp.Diff([]string{"our car"}, found(t, s, "car", mode, limit)); diff != "" {
				t.Errorf("%s: %s", mode, diff)
			}
		}
	}
	apply(t, vectors, revision("a", 2, "our car"))
	if diff := cmp.Diff([]string{"our car"}, found(t, s, "car", search.Hybrid, 10)); diff != "" {
		t.Error(diff)
	}
}

func TestResultJSON(t *testing.T) {
	text, vectors := open(t)
	s := search.New(text, vectors, subjects{})
	r, err := s.Search(t.Context(), "nothing there", search.Hybrid, 5)
	if err != nil {
		t.Fatal(err)
	}
	r.TookMS = 1.5
	if b, err := json.Marshal(r); err != nil || string(b) != `{"took_ms":1.5,"mode":"hybrid","hits":[]}` {
		t.Errorf("%s, %v", b, err)
	}
	apply(t, text, revision("a", 7, "my car"))
	if r, err = s.Search(t.Context(), "car", search.Text, 5); err != nil {
		t.Fatal(err)
	}
	r.TookMS, r.Hits[0].Score = 1.5, 2
	want := `{"took_ms":1.5,"mode":"text","hits":[{"document":"a","version":7,"chunk":"` + leat.ChunkID("a", "my car", 0) +
		`","score":2,"title":"About a","text":"my car","location":{"page":0,"heading":[],"start":0,"end":6},"metadata":{"of":"a"}}]}`
	if b, err := json.Marshal(r); err != nil || string(b) != want {
		t.Errorf("%s, %v", b, err)
	}
}

func TestParseMode(t *testing.T) {
	for _, m := range []search.Mode{search.Text, search.Vector, search.Hybrid} {
		if got, err := search.ParseMode(strings.ToUpper(string(m))); err != nil || got != m {
			t.Errorf("%s: %s, %v", m, got, err)
		}
	}
	if _, err := search.ParseMode("semantic"); err == nil || !strings.Contains(err.Error(), "hybrid") {
		t.Error(err)
	}
}
