package builtin

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"leat"
	"leat/embedder/embeddertest"
)

var update = flag.Bool("update", false, "write testdata/golden.json anew, with the reference engine in LEAT_REFERENCE (scripts/model/reference.sh)")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var _ leat.Embedder = (*Embedder)(nil)
var _ leat.Tokenizer = (*Tokenizer)(nil)

// needModel skips under -short and fails where the model is missing.
func needModel(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("left out under -short: needs the built-in model (make model)")
	}
	if _, err := openFolder(Config{}); err != nil {
		t.Fatalf("%v (%s)", err, leat.HintOf(err))
	}
}

var shared struct {
	sync.Once
	e   *Embedder
	err error
}

// model is one embedder for all tests, as it takes a moment to load; nothing of
// it runs in the background.
func model(t testing.TB) *Embedder {
	t.Helper()
	needModel(t)
	shared.Do(func() { shared.e, shared.err = New(Config{Threads: 2}) })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.e
}

// golden is what the reference engine gives for a text.
type golden struct {
	Text   string    `json:"text"`
	Kind   leat.Kind `json:"kind"`
	IDs    []int32   `json:"ids"`
	Vector []float32 `json:"vector,omitempty"`
}

const goldenFile = "testdata/golden.json"

func readGolden(t testing.TB) []golden {
	t.Helper()
	b, err := os.ReadFile(goldenFile)
	if err != nil {
		t.Fatal(err)
	}
	var g []golden
	if err := json.Unmarshal(b, &g); err != nil {
		t.Fatal(err)
	}
	if len(g) < 50 {
		t.Fatalf("%d golden texts: the file is not whole", len(g))
	}
	return g
}

func TestUpdateGolden(t *testing.T) {
	if !*update {
		t.Skip("run with -update to write " + goldenFile + " anew")
	}
	ref, err := embeddertest.StartReference(os.Getenv("LEAT_REFERENCE"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile("testdata/texts.txt")
	if err != nil {
		t.Fatal(err)
	}
	texts := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	for i := range texts {
		texts[i] = strings.NewReplacer(`\n`, "\n", `\t`, "\t", `\r`, "\r").Replace(texts[i])
	}
	long := strings.Join(texts[:40], "\n")
	texts = append(texts, "", " ", "\u3000\u00a0 x", strings.Repeat("a", 300), strings.Repeat("=-", 200), long)
	var all []golden
	for i, text := range texts {
		g := golden{Text: text, Kind: leat.Passage}
		if i%2 == 1 {
			g.Kind = leat.Query
		}
		var v []float32
		if g.IDs, v, _, _, err = ref.Embed(g.Kind, text); err != nil {
			t.Fatal(err)
		}
		if i%3 == 0 || text == long {
			for j := range v {
				v[j] = float32(math.Round(float64(v[j])*1e5) / 1e5)
			}
			g.Vector = v
		}
		all = append(all, g)
	}
	if err := ref.Close(); err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(goldenFile)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	for i, g := range all { // a line a text
		b, err := json.Marshal(g)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(out, "%s%s", map[bool]string{true: "[\n", false: ",\n"}[i == 0], b)
	}
	fmt.Fprintln(out, "\n]")
}

func TestVectorsAgreeWithReference(t *testing.T) {
	e := model(t)
	var sum float64
	n := 0
	for _, g := range readGolden(t) {
		if g.Vector == nil {
			continue
		}
		v, err := e.Embed(t.Context(), g.Kind, []string{g.Text})
		if err != nil {
			t.Fatal(err)
		}
		if l := dot(v[0], v[0]); math.Abs(l-1) > 1e-5 {
			t.Errorf("%.30q: squared length %v, want 1", g.Text, l)
		}
		c := dot(v[0], g.Vector)
		if c < 0.998 {
			t.Errorf("%.30q: cosine with the reference engine %.5f, want at least 0.998", g.Text, c)
		}
		sum += c
		n++
	}
	if n < 15 {
		t.Fatalf("%d golden vectors", n)
	}
	t.Logf("mean cosine with the reference engine %.5f over %d texts", sum/float64(n), n)
	if sum/float64(n) < 0.999 {
		t.Errorf("mean cosine with the reference engine %.5f, want at least 0.999", sum/float64(n))
	}
}

// A text's vector does not depend on what is embedded beside it.
func TestBatchesAndConcurrency(t *testing.T) {
	e := model(t)
	var texts []string
	for i, g := range readGolden(t) {
		if i%4 == 0 {
			texts = append(texts, g.Text)
		}
	}
	texts = append(texts, texts[:3]...) // windows of one length
	want := map[leat.Kind][][]float32{}
	for _, kind := range []leat.Kind{leat.Passage, leat.Query} {
		for _, text := range texts {
			v, err := e.Embed(t.Context(), kind, []string{text})
			if err != nil {
				t.Fatal(err)
			}
			want[kind] = append(want[kind], v[0])
		}
	}
	if dot(want[leat.Passage][0], want[leat.Query][0]) > 0.9999 {
		t.Error("a query and a passage of one text are embedded alike: the prefix is missing")
	}
	var g errgroup.Group
	for range 2 {
		for kind, want := range want {
			g.Go(func() error {
				got, err := e.Embed(t.Context(), kind, texts)
				if err != nil {
					return err
				}
				for i := range got {
					if c := dot(got[i], want[i]); c < 0.9999 {
						t.Errorf("%s %.30q: cosine %.6f between alone and in a batch", kind, texts[i], c)
					}
				}
				return nil
			})
		}
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if v, err := e.Embed(t.Context(), leat.Passage, nil); err != nil || len(v) != 0 {
		t.Errorf("no texts: %v, %v", v, err)
	}
	if _, err := e.Embed(t.Context(), "", texts[:1]); err == nil {
		t.Error("an unknown kind was embedded")
	}
}

// MaxTokens is exact: so many tokens fill one window, one more needs two.
func TestMaxTokens(t *testing.T) {
	e := model(t)
	m := e.Model()
	if diff := cmp.Diff(leat.Model{Name: Name, Dimension: 384, MaxTokens: 507}, m); diff != "" {
		t.Error(diff)
	}
	text := strings.TrimSpace(strings.Repeat("the ", m.MaxTokens))
	if n := e.tokenizer.Count(text); n != m.MaxTokens {
		t.Fatalf("the test's text has %d tokens, want %d", n, m.MaxTokens)
	}
	longest := 0
	for _, kind := range []leat.Kind{leat.Passage, leat.Query} {
		longest = max(longest, e.tokenizer.Count(e.Prefix(kind)+text)+2)
	}
	if longest != positions {
		t.Errorf("%d tokens with prefix and special tokens, want %d", longest, positions)
	}
}

// A query does not wait for the passages before it: it ends while they go on.
func TestQueriesGoAhead(t *testing.T) {
	e := model(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		texts := make([]string, 4000)
		for i := range texts {
			texts[i] = strings.Repeat("a long passage about nothing in particular ", 30)
		}
		_, err := e.Embed(ctx, leat.Passage, texts)
		done <- err
	}()
	for range 5 {
		if _, err := e.Embed(t.Context(), leat.Query, []string{"what is it about?"}); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case err := <-done:
		t.Fatalf("the passages ended before the queries: %v", err)
	default:
	}
	cancel()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("a cancelled call goes on")
	}
}

func TestClose(t *testing.T) {
	needModel(t)
	e, err := New(Config{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	var g errgroup.Group
	started := make(chan struct{})
	g.Go(func() error {
		close(started)
		for {
			if _, err := e.Embed(context.Background(), leat.Passage, []string{"one", "two two", "three three three"}); err != nil {
				return err
			}
		}
	})
	<-started
	for range 2 { // closing twice is no error
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.Wait(); !errors.Is(err, errClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestMissingOrDamaged(t *testing.T) {
	needModel(t)
	src, err := DefaultDir()
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name  string
		spoil func(t *testing.T, dir string)
		want  string
	}{
		{"no folder", func(t *testing.T, dir string) { must(t, os.RemoveAll(dir)) }, "is not in"},
		{"no manifest", func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, manifestFile))) }, "is not in"},
		{"empty manifest", func(t *testing.T, dir string) { replace(t, filepath.Join(dir, manifestFile), nil) }, "does not name"},
		{"no weights", func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, weightsFile))) }, "is not in"},
		{"short weights", func(t *testing.T, dir string) { replace(t, filepath.Join(dir, weightsFile), make([]byte, 1000)) }, "cannot be loaded"},
		{"damaged graph", func(t *testing.T, dir string) { replace(t, filepath.Join(dir, graphFile), []byte("x")) }, "is damaged"},
		{"damaged tokenizer", func(t *testing.T, dir string) { replace(t, filepath.Join(dir, tokenizerFile), []byte("E5T2")) }, "is damaged"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, f := range []string{manifestFile, graphFile, weightsFile, tokenizerFile, libraryFile} {
				must(t, os.Symlink(filepath.Join(src, f), filepath.Join(dir, f)))
			}
			tc.spoil(t, dir)
			e, err := New(Config{Dir: dir})
			if err == nil {
				must(t, e.Close())
				t.Fatal("loaded")
			}
			if !strings.Contains(err.Error(), tc.want) || !strings.Contains(leat.HintOf(err), "make model") {
				t.Errorf("error %q, hint %q: want %q and what to run", err, leat.HintOf(err), tc.want)
			}
		})
	}
}

func TestValidate(t *testing.T) {
	if err := (Config{}).Validate(); err != nil {
		t.Error(err)
	}
	var f *leat.FieldError
	if err := (Config{Threads: -1}).Validate(); !errors.As(err, &f) || f.Field != "threads" {
		t.Errorf("threads -1: %v", err)
	}
}

func dot(a, b []float32) (s float64) {
	for i := range a {
		s += float64(a[i]) * float64(b[i])
	}
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// replace puts a file in place of a link.
func replace(t *testing.T, path string, content []byte) {
	t.Helper()
	must(t, os.Remove(path))
	must(t, os.WriteFile(path, content, 0o644))
}
