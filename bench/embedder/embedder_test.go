// Package embedder measures the built-in model beside its reference engine,
// the tokenizer and the cache.
//
//	scripts/model/reference.sh DIR       # once: builds the engine from its pinned package
//	LEAT_REFERENCE=DIR LEAT_BENCH_DATA=FOLDER go test -v -timeout 30m ./bench/embedder
//
// LEAT_BENCH_DATA holds drcd_dev.json (DRCD, github.com/DRCKnowledgeTeam/DRCD)
// and xquad.en.json (github.com/google-deepmind/xquad). Without it a few
// sentences of this repository's own are measured. Without LEAT_REFERENCE the
// comparison is left out.
package embedder

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"leat"
	"leat/embedder/builtin"
	"leat/embedder/embeddertest"
)

// texts returns passages and questions, Chinese and English in turn, the
// passages at most 256 tokens long with prefix and special tokens.
func texts(t testing.TB, tok *builtin.Tokenizer, limit int) (passages, questions []string) {
	t.Helper()
	dir := os.Getenv("LEAT_BENCH_DATA")
	if dir == "" {
		t.Skip("set LEAT_BENCH_DATA to a folder with drcd_dev.json and xquad.en.json")
	}
	var ps, qs [2][]string
	for k, name := range []string{"drcd_dev.json", "xquad.en.json"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Skipf("LEAT_BENCH_DATA: %v", err)
		}
		var set struct {
			Data []struct {
				Paragraphs []struct {
					Context string
					QAs     []struct{ Question string }
				}
			}
		}
		if err := json.Unmarshal(b, &set); err != nil {
			t.Fatal(err)
		}
		for _, d := range set.Data {
			for _, p := range d.Paragraphs {
				if tok.Count("passage: "+p.Context)+2 <= 256 {
					ps[k] = append(ps[k], p.Context)
				}
				for _, q := range p.QAs {
					qs[k] = append(qs[k], q.Question)
				}
			}
		}
	}
	for i := range limit / 2 {
		for k := range ps {
			passages = append(passages, ps[k][i%len(ps[k])])
			questions = append(questions, qs[k][i*7%len(qs[k])])
		}
	}
	return passages, questions
}

func load(t testing.TB, threads int) *builtin.Embedder {
	t.Helper()
	start := time.Now()
	e, err := builtin.New(builtin.Config{Threads: threads})
	if err != nil {
		t.Skipf("%v (%s)", err, leat.HintOf(err))
	}
	t.Logf("loaded in %v, %s", time.Since(start).Round(time.Millisecond), memory())
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// TestModel reports tokens/s on one core and on all, the reference engine's on
// one core with short turns of both so that the machine's other work meets
// both alike, and the cosine between their vectors.
func TestModel(t *testing.T) {
	e := load(t, 1)
	passages, _ := texts(t, e.Tokenizer(), 240)
	var ref *embeddertest.Reference
	if dir := os.Getenv("LEAT_REFERENCE"); dir != "" {
		var err error
		if ref, err = embeddertest.StartReference(dir); err != nil {
			t.Fatal(err)
		}
		defer ref.Close()
	}
	var tokens, refTokens int
	var took, refTook time.Duration
	var cosines, rates []float64
	for i, batch := range slices.Collect(slices.Chunk(passages, 12)) {
		n := 0
		for _, text := range batch {
			n += e.Tokenizer().Count("passage: "+text) + 2
		}
		start := time.Now()
		vectors, err := e.Embed(context.Background(), leat.Passage, batch)
		if err != nil {
			t.Fatal(err)
		}
		d := time.Since(start)
		if i == 0 {
			continue // the first touches the weights
		}
		tokens, took = tokens+n, took+d
		rates = append(rates, float64(n)/d.Seconds())
		if ref == nil {
			continue
		}
		for k, text := range batch {
			_, v, d, err := ref.Embed(leat.Passage, text)
			if err != nil {
				t.Fatal(err)
			}
			refTokens, refTook = refTokens+e.Tokenizer().Count("passage: "+text)+2, refTook+d
			cosines = append(cosines, dot(v, vectors[k]))
		}
	}
	slices.Sort(rates)
	rate := float64(tokens) / took.Seconds()
	t.Logf("built-in model, 1 core: %.0f tokens/s (best tenth of batches %.0f), %d tokens in passages of up to 256, %s",
		rate, rates[len(rates)*9/10], tokens, memory())
	if ref == nil {
		t.Log("reference engine: left out (LEAT_REFERENCE is not set)")
	} else {
		slices.Sort(cosines)
		var mean float64
		for _, c := range cosines {
			mean += c / float64(len(cosines))
		}
		refRate := float64(refTokens) / refTook.Seconds()
		t.Logf("reference engine, 1 core: %.0f tokens/s; built-in is %.1f times as fast", refRate, rate/refRate)
		t.Logf("cosine with the reference engine over %d passages: mean %.5f, min %.5f", len(cosines), mean, cosines[0])
	}
	all := load(t, runtime.GOMAXPROCS(0))
	start, n := time.Now(), 0
	if _, err := all.Embed(context.Background(), leat.Passage, passages); err != nil {
		t.Fatal(err)
	}
	d := time.Since(start)
	for _, text := range passages {
		n += e.Tokenizer().Count("passage: "+text) + 2
	}
	t.Logf("built-in model, %d cores: %.0f tokens/s", runtime.GOMAXPROCS(0), float64(n)/d.Seconds())
}

// TestQuery reports how long a query of 10 to 20 tokens takes, on an idle
// model and beside passages that keep every thread busy.
func TestQuery(t *testing.T) {
	e := load(t, 0)
	passages, questions := texts(t, e.Tokenizer(), 400)
	questions = slices.DeleteFunc(questions, func(q string) bool {
		n := e.Tokenizer().Count("query: "+q) + 2
		return n < 10 || n > 20
	})
	measure := func(what string, times int) {
		var ms []float64
		for i := range times {
			start := time.Now()
			if _, err := e.Embed(context.Background(), leat.Query, questions[i%len(questions):][:1]); err != nil {
				t.Fatal(err)
			}
			ms = append(ms, time.Since(start).Seconds()*1e3)
		}
		slices.Sort(ms)
		t.Logf("query of 10-20 tokens, %s: p50 %.1f ms, p99 %.1f ms", what, ms[len(ms)/2], ms[len(ms)*99/100])
	}
	measure("idle", 500)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			_, _ = e.Embed(ctx, leat.Passage, passages)
		}
	}()
	time.Sleep(200 * time.Millisecond)
	measure(fmt.Sprintf("beside passages on %d threads", runtime.GOMAXPROCS(0)), 200)
	cancel()
	<-done
}

// TestTokenizer reports texts/s of about 1,000 characters.
func TestTokenizer(t *testing.T) {
	start := time.Now()
	tok, err := builtin.NewTokenizer(builtin.Config{})
	if err != nil {
		t.Skipf("%v (%s)", err, leat.HintOf(err))
	}
	t.Logf("tokenizer loaded in %v", time.Since(start).Round(time.Millisecond))
	passages, _ := texts(t, tok, 400)
	for k, language := range []string{"Chinese", "English"} {
		var all []rune
		for i := k; i < len(passages); i += 2 {
			all = append(all, []rune(passages[i])...)
		}
		var pieces []string
		for p := range slices.Chunk(all, 1000) {
			pieces = append(pieces, string(p))
		}
		n := 0
		for start = time.Now(); time.Since(start) < 2*time.Second; n++ {
			tok.Count(pieces[n%len(pieces)])
		}
		t.Logf("tokenizer, %s: %.0f texts/s of 1,000 characters on one core", language, float64(n)/time.Since(start).Seconds())
	}
}

func dot(a, b []float32) (s float64) {
	for i := range a {
		s += float64(a[i]) * float64(b[i])
	}
	return s
}

// memory is the resident memory of this process, where the system tells.
func memory() string {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return "memory unknown"
	}
	for _, line := range strings.Split(string(b), "\n") {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmRSS:" {
			kb, _ := strconv.Atoi(f[1])
			return fmt.Sprintf("%d MB resident", kb>>10)
		}
	}
	return "memory unknown"
}
