package embedder

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"leat"
	"leat/embedder/embeddertest"
)

// TestMain is also the child of TestKill.
func TestMain(m *testing.M) {
	if path := os.Getenv("LEAT_TEST_CACHE"); path != "" {
		fmt.Fprintln(os.Stderr, embedUntilKilled(path))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

var quiet = slog.New(slog.DiscardHandler)

const testDimension = 16

func newTestCache(t *testing.T, path string) (*cache, *embeddertest.Embedder) {
	t.Helper()
	m := &embeddertest.Embedder{Dimension: testDimension}
	c := newCache(m, path, 1<<30, quiet)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c, m
}

func embed(t *testing.T, e leat.Embedder, texts ...string) {
	t.Helper()
	got, err := e.Embed(t.Context(), leat.Passage, texts)
	if err != nil {
		t.Fatal(err)
	}
	var want [][]float32
	for _, text := range texts {
		want = append(want, embeddertest.Vector(text, testDimension))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("(-want +got)\n%s", diff)
	}
}

func numbered(from, to int) []string {
	var out []string
	for i := from; i < to; i++ {
		out = append(out, fmt.Sprintf("text number %d", i))
	}
	return out
}

func TestEmbedsOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a folder? #1%20", "vectors.sqlite")
	c, m := newTestCache(t, path)
	embed(t, c, numbered(0, 500)...)
	embed(t, c, numbered(100, 300)...)
	if m.Texts() != 500 {
		t.Errorf("%d texts embedded, want 500", m.Texts())
	}
	embed(t, c, "x", "y", "x", "text number 3", "x") // equal texts of one call
	if m.Texts() != 502 {
		t.Errorf("%d texts embedded, want 502", m.Texts())
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
	again, m := newTestCache(t, path)
	embed(t, again, numbered(0, 500)...)
	if m.Texts() != 0 {
		t.Errorf("%d texts embedded again after a restart", m.Texts())
	}
	for range 2 {
		if _, err := again.Embed(t.Context(), leat.Query, []string{"text number 1"}); err != nil {
			t.Fatal(err)
		}
	}
	if m.Texts() != 2 {
		t.Errorf("%d queries embedded, want 2: they are not kept", m.Texts())
	}
}

// prefixed is another model: its name, prefix and dimension tell it apart.
type prefixed struct {
	*embeddertest.Embedder
	name, prefix string
}

func (p prefixed) Prefix(leat.Kind) string { return p.prefix }
func (p prefixed) Model() leat.Model {
	return leat.Model{Name: p.name, Dimension: p.Dimension, MaxTokens: 512}
}

func TestOtherModelsShareNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vectors.sqlite")
	for _, tc := range []struct {
		name, prefix string
		dimension    int
		want         int
	}{
		{"a", "", 8, 1}, {"a", "", 8, 0}, {"b", "", 8, 1}, {"a", "passage: ", 8, 1}, {"a", "", 9, 1}, {"b", "", 8, 0},
	} {
		m := &embeddertest.Embedder{Dimension: tc.dimension}
		c := newCache(prefixed{m, tc.name, tc.prefix}, path, 1<<30, quiet)
		v, err := c.Embed(t.Context(), leat.Passage, []string{"the same text"})
		if err != nil || len(v[0]) != tc.dimension {
			t.Fatal(v, err)
		}
		if m.Texts() != tc.want {
			t.Errorf("%v: %d texts embedded", tc, m.Texts())
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// refusing fails for some texts.
type refusing struct {
	*embeddertest.Embedder
	err error
}

func (r refusing) Embed(ctx context.Context, kind leat.Kind, texts []string) ([][]float32, error) {
	out, err := r.Embedder.Embed(ctx, kind, texts)
	if err != nil {
		return nil, err
	}
	for i, text := range texts {
		if strings.Contains(text, "poison") {
			out[i], err = nil, r.err
		}
	}
	return out, err
}

// A refused text costs its neighbours nothing: they are kept.
func TestRefusedText(t *testing.T) {
	m := &embeddertest.Embedder{Dimension: testDimension}
	c := newCache(refusing{m, leat.Permanent(errors.New("refused"))}, filepath.Join(t.TempDir(), "v"), 1<<30, quiet)
	defer c.Close()
	in := numbered(0, 300)
	in[7], in[250] = "poison", "more poison"
	got, err := c.Embed(t.Context(), leat.Passage, in)
	if !leat.IsPermanent(err) {
		t.Fatalf("got %v", err)
	}
	for i := range in {
		if (got[i] == nil) != (i == 7 || i == 250) {
			t.Errorf("text %d has a vector: %t", i, got[i] != nil)
		}
	}
	before := m.Texts()
	for i, text := range in {
		if i != 7 && i != 250 {
			embed(t, c, text)
		}
	}
	if m.Texts() != before {
		t.Errorf("%d neighbours embedded again", m.Texts()-before)
	}

	other := newCache(refusing{m, errors.New("the server is down")}, filepath.Join(t.TempDir(), "v"), 1<<30, quiet)
	defer other.Close()
	if got, err := other.Embed(t.Context(), leat.Passage, in); err == nil || leat.IsPermanent(err) || got != nil {
		t.Errorf("server down: %v", err)
	}
}

func TestConcurrentCalls(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vectors.sqlite")
	a, _ := newTestCache(t, path)
	b, _ := newTestCache(t, path) // as a process beside would
	var g errgroup.Group
	for n, c := range []*cache{a, b, a, b} {
		g.Go(func() error {
			for i := range 10 {
				texts := numbered(n*50+i*20, n*50+i*20+100)
				got, err := c.Embed(t.Context(), leat.Passage, texts)
				if err != nil {
					return err
				}
				for i := range got {
					if !cmp.Equal(got[i], embeddertest.Vector(texts[i], testDimension)) {
						return fmt.Errorf("%s has another text's vector", texts[i])
					}
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	c, m := newTestCache(t, path)
	embed(t, c, numbered(0, 430)...)
	if m.Texts() != 0 {
		t.Errorf("%d of 430 texts were not kept", m.Texts())
	}
}

func TestBoundedSize(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vectors.sqlite")
	m := &embeddertest.Embedder{Dimension: 256}
	const limit = 512 << 10 // some 400 vectors
	c := newCache(m, path, limit, quiet)
	defer c.Close()
	day := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	c.now = func() time.Time { return day }
	ask := func(texts []string) {
		t.Helper()
		if _, err := c.Embed(t.Context(), leat.Passage, texts); err != nil {
			t.Fatal(err)
		}
	}
	favourites := numbered(0, 50)
	for i := range 12 {
		ask(favourites)
		ask(numbered(1000+i*100, 1100+i*100))
		day = day.Add(24 * time.Hour)
	}
	if info, err := os.Stat(path); err != nil || info.Size() > limit*5/4 {
		t.Errorf("the file has %d bytes, want at most about %d (%v)", info.Size(), limit, err)
	}
	before := m.Texts()
	ask(favourites)
	if m.Texts() != before {
		t.Errorf("%d texts in daily use were removed", m.Texts()-before)
	}
	ask(numbered(1000, 1100))
	if m.Texts() != before+100 {
		t.Errorf("%d texts unused for 12 days are still there", before+100-m.Texts())
	}
}

func TestDamagedFile(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spoil func(b []byte) []byte
	}{
		{"not a database", func([]byte) []byte { return []byte(strings.Repeat("garbage ", 1000)) }},
		{"empty", func([]byte) []byte { return nil }},
		{"torn", func(b []byte) []byte { return b[:len(b)/2+100] }},
		{"overwritten", func(b []byte) []byte {
			r := rand.New(rand.NewPCG(1, 2))
			for i := 4096; i < len(b); i++ {
				b[i] = byte(r.Uint32())
			}
			return b
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "vectors.sqlite")
			c, _ := newTestCache(t, path)
			embed(t, c, numbered(0, 500)...)
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, tc.spoil(b), 0o644); err != nil {
				t.Fatal(err)
			}
			c, _ = newTestCache(t, path)
			for range 3 { // it may be found damaged late
				embed(t, c, numbered(0, 500)...)
			}
			c, m := newTestCache(t, path)
			embed(t, c, numbered(0, 500)...)
			if m.Texts() != 0 {
				t.Errorf("it did not begin anew: %d texts embedded again", m.Texts())
			}
		})
	}
}

func TestWithoutAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	c, m := newTestCache(t, filepath.Join(file, "vectors.sqlite")) // a file is no folder
	embed(t, c, "one", "two")
	embed(t, c, "one", "two")
	if m.Texts() != 4 {
		t.Errorf("%d texts embedded, want 4", m.Texts())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Embed(ctx, leat.Passage, []string{"one"}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// embedUntilKilled embeds ever more texts and tells how far it is.
func embedUntilKilled(path string) error {
	c := newCache(&embeddertest.Embedder{Dimension: testDimension}, path, 1<<30, quiet)
	for i := 0; ; i += 50 {
		if _, err := c.Embed(context.Background(), leat.Passage, numbered(i, i+50)); err != nil {
			return err
		}
		fmt.Println(i + 50)
	}
}

// What Embed has returned survives SIGKILL at any moment.
func TestKill(t *testing.T) { // I7
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "vectors.sqlite")
	for round := range 5 {
		child := exec.Command(self)
		child.Env = append(os.Environ(), "LEAT_TEST_CACHE="+path)
		child.Stderr = os.Stderr
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(out)
		done := 0
		for done < 300*(round+1) {
			if _, err := fmt.Fscanln(r, &done); err != nil {
				t.Fatal(err)
			}
		}
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for { // what it said before it was killed
			if _, err := fmt.Fscanln(r, &done); err != nil {
				break
			}
		}
		_, _ = io.Copy(io.Discard, out)
		_ = child.Wait() // killed
		c, m := newTestCache(t, path)
		embed(t, c, numbered(0, done)...)
		if m.Texts() != 0 {
			t.Fatalf("round %d: %d of %d texts lost", round, m.Texts(), done)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
