package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"leat"
	"leat/sinks/sinktest"

	"github.com/google/go-cmp/cmp"
)

func textRevision(id string, version uint64, texts ...string) leat.Revision {
	r := leat.Revision{Document: id, Version: version, Last: true}
	var at int64
	for i, t := range texts {
		r.Chunks = append(r.Chunks, leat.Chunk{ID: leat.ChunkID(id, t, 0), Ordinal: i, Start: at, End: at + int64(len(t)), Text: t})
		at += int64(len(t))
	}
	return r
}

func randomVector(rnd *rand.Rand, n int) []float32 {
	v := make([]float32, n)
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

func mustApply(t testing.TB, x leat.Sink, r ...leat.Revision) {
	t.Helper()
	if _, err := x.Apply(t.Context(), r); err != nil {
		t.Fatal(err)
	}
}

var discard = slog.New(slog.DiscardHandler)

func TestReader(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "odd name?mode=rwc&x=%20#é.db")
	if _, err := OpenReader(path, Config{}, discard); !errors.Is(err, fs.ErrNotExist) || leat.HintOf(err) == "" {
		t.Fatalf("a store that is not there: %v", err)
	}
	w, err := Open(path, Config{}, discard)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	mustApply(t, mustText(t, w), textRevision("d", 1, "before"))
	r, err := OpenReader(path, Config{}, discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	found := func(s *Store, query string) int {
		t.Helper()
		m, err := mustText(t, s).SearchText(t.Context(), query, 5)
		if err != nil {
			t.Fatal(err)
		}
		return len(m)
	}
	if found(r, "before") != 1 {
		t.Error("a reader does not see what was there")
	}
	mustApply(t, mustText(t, w), textRevision("d", 2, "after"))
	if found(r, "before") != 0 || found(r, "after") != 1 {
		t.Error("a reader does not see a change")
	}
	if _, err := mustText(t, r).Apply(t.Context(), nil); err == nil {
		t.Error("a reader writes")
	}
	// A reader may change nothing, whatever is asked of it.
	err = r.read.tx(t.Context(), "text1", func(c *conn) error { return c.exec("DELETE FROM $_documents") })
	if err == nil {
		t.Error("a reader's connection writes")
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if found(r, "after") != 1 { // without a writer
		t.Error("a reader does not see what was there")
	}
	alone, err := OpenReader(path, Config{}, discard)
	if err != nil {
		t.Fatal(err)
	}
	if found(alone, "after") != 1 {
		t.Error("a reader alone does not see what was there")
	}
	if err := alone.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := alone.Text(1); err == nil {
		t.Error("a closed store answers")
	}
}

func TestOtherFormat(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	err := s.write.tx(t.Context(), "", func(c *conn) error { return c.exec("PRAGMA user_version = 99") })
	if err != nil {
		t.Fatal(err)
	}
	for name, open := range map[string]func(string, Config, *slog.Logger) (*Store, error){"Open": Open, "OpenReader": OpenReader} {
		if _, err := open(filepath.Join(dir, "store.db"), Config{}, discard); !errors.Is(err, leat.ErrMismatch) || leat.HintOf(err) == "" {
			t.Errorf("%s of another format: %v", name, err)
		}
	}
	junk := filepath.Join(dir, "junk.db")
	if err := os.WriteFile(junk, []byte(strings.Repeat("no database ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(junk, Config{}, discard); err == nil || !strings.Contains(err.Error(), junk) {
		t.Errorf("a file that is no database: %v", err)
	}
}

func TestModelMismatch(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	if _, err := s.Vectors(1, testModel); err != nil {
		t.Fatal(err)
	}
	for _, m := range []leat.Model{
		{Name: "test", Dimension: sinktest.Dimension + 1},
		{Name: "other", Dimension: sinktest.Dimension},
	} {
		_, err := s.Vectors(1, m)
		if !errors.Is(err, leat.ErrMismatch) || !strings.Contains(leat.HintOf(err), "leat reindex") {
			t.Errorf("%+v: %v", m, err)
		}
	}
	if _, err := s.Vectors(1, leat.Model{Name: "none"}); err == nil {
		t.Error("a model without a dimension is taken")
	}
}

// TestVectorMemory searches an index that is larger than the memory it may
// use, and finds the same as one that is not (I8).
func TestVectorMemory(t *testing.T) {
	const dimension, documents = 384, 3000 // 4.6 MB
	dir := t.TempDir()
	rnd := rand.New(rand.NewPCG(1, 1))
	model := leat.Model{Name: "m", Dimension: dimension}
	large, err := openStore(t, dir).Vectors(1, model)
	if err != nil {
		t.Fatal(err)
	}
	small, err := OpenReader(filepath.Join(dir, "store.db"), Config{VectorMemoryMB: 1}, discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { small.Close() })
	bounded, err := small.Vectors(1, model)
	if err != nil {
		t.Fatal(err)
	}
	same := func() {
		t.Helper()
		q := randomVector(rnd, dimension)
		want, err := large.SearchVector(t.Context(), q, 20)
		if err != nil {
			t.Fatal(err)
		}
		got, err := bounded.SearchVector(t.Context(), q, 20)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
	}
	kept := func(v *VectorIndex) (rows int64) { return v.matrix.view.rows }
	one := func(i int, version uint64) leat.Revision {
		r := textRevision(fmt.Sprint(i), version, fmt.Sprint("text", i, version))
		r.Chunks[0].Vector = randomVector(rnd, dimension)
		return r
	}
	var batch []leat.Revision
	for i := range documents {
		if batch = append(batch, one(i, 1)); i == 100 {
			mustApply(t, large, batch...)
			batch = nil
			if same(); kept(bounded) != 101 {
				t.Errorf("%d vectors are kept while they fit, not 101", kept(bounded))
			}
		}
	}
	mustApply(t, large, batch...)
	if same(); kept(bounded) != 0 || kept(large) != documents {
		t.Errorf("%d vectors are kept, and %d where they fit", kept(bounded), kept(large))
	}
	// Vectors that are replaced again and again do not pile up.
	for version := uint64(2); version < 8; version++ {
		batch = nil
		for i := range documents / 2 {
			batch = append(batch, one(i, version))
		}
		mustApply(t, large, batch...)
		if same(); kept(large) > documents*7/4 {
			t.Errorf("%d vectors are kept of %d", kept(large), documents)
		}
	}
}

// TestLargeDocument replaces a document of 20,000 chunks in parts (I8).
func TestLargeDocument(t *testing.T) {
	if testing.Short() {
		t.Skip("left out: a document of 20,000 chunks takes a while")
	}
	x := mustText(t, openStore(t, t.TempDir()))
	const parts, each = 20, 1000
	var peak uint64
	for version := uint64(1); version <= 2; version++ {
		for p := range parts {
			r := leat.Revision{Document: "large", Version: version, Part: p, Last: p == parts-1}
			for i := range each {
				n := p*each + i
				text := fmt.Sprintf("paragraph %d of version %d has some words", n, version)
				if n%2 == 0 {
					text = fmt.Sprintf("paragraph %d stays as it is", n)
				}
				r.Chunks = append(r.Chunks, leat.Chunk{ID: leat.ChunkID("large", text, 0), Ordinal: n, Start: int64(n) * 100, End: int64(n)*100 + int64(len(text)), Text: text})
			}
			mustApply(t, x, r)
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapInuse)
		}
		st, err := x.Stats(t.Context())
		if err != nil || st != (leat.Stats{Documents: 1, Chunks: parts * each}) {
			t.Fatal(st, err)
		}
	}
	if peak > 100<<20 {
		t.Errorf("%d MiB of heap were used", peak>>20)
	}
	if m, err := x.SearchText(t.Context(), "19999", 5); err != nil || len(m) != 1 || m[0].Version != 2 {
		t.Error(m, err)
	}
}

func TestCheck(t *testing.T) {
	var _ leat.Checker = (*Store)(nil)
	dir := t.TempDir()
	s := openStore(t, dir)
	if err := s.Check(t.Context()); err != nil {
		t.Error(err)
	}
	mustApply(t, mustText(t, s), textRevision("d", 1, strings.Repeat("many words ", 5000)))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "store.db")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := len(b) / 2; i < len(b)/2+8192 && i < len(b); i++ {
		b[i] = 0xa5
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := OpenReader(path, Config{}, discard)
	if err == nil {
		t.Cleanup(func() { r.Close() })
		err = r.Check(t.Context())
	}
	if err == nil {
		t.Error("a damaged file passes")
	}
}

func TestConfig(t *testing.T) {
	if err := (Config{}).Validate(); err != nil {
		t.Error(err)
	}
	var f *leat.FieldError
	if err := (Config{VectorMemoryMB: -1}).Validate(); !errors.As(err, &f) || f.Field != "vector_memory_mb" {
		t.Error(err)
	}
}

func TestWords(t *testing.T) {
	for text, want := range map[string]string{
		"":                           "",
		"The Foxes, jumping!":        "the fox jump",
		"Crème BRÛLÉE straße":        "creme brule straße",
		"ＭｙＳＱＬ８ ﬁne":                 "mysql8 fine",
		"台北捷運":                       "台 台北 北 北捷 捷 捷運 運",
		"把MySQL 8的binlog打开":          "把 mysql 8 的 binlog 打 打开 开",
		"が ガ ｶﾞ":                     "が ガ ガ",
		"한국어 문서":                     "한국어 문서",
		"naïve_x-ray a'b \"c\" 12.5": "naiv x ray a b c 12 5",
		"👩‍👩‍👧 \x00 \xff":            "",
	} {
		if got := strings.Join(words(text), " "); got != want {
			t.Errorf("words of %q: %q, not %q", text, got, want)
		}
	}
}

func FuzzWords(f *testing.F) {
	f.Add("台北 Crème \"quoted\" AND (x* OR -y) ﷺ Ⅷ")
	x := mustText(f, openStore(f, f.TempDir()))
	f.Fuzz(func(t *testing.T, text string) {
		for _, w := range words(text) {
			if w == "" || strings.ContainsAny(w, "\" \x00") {
				t.Fatalf("%q is a word of %q", w, text)
			}
		}
		if _, err := x.SearchText(t.Context(), text, 1); err != nil {
			t.Fatal(err)
		}
	})
}
