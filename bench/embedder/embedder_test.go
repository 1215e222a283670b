// Package embedder measures the built-in model beside its reference engine,
// the tokenizer and the cache. Rates are of processor time too, since a machine
// that does other work shows less by the clock.
//
//	scripts/model/reference.sh DIR       # once: builds the engine from its pinned package
//	LEAT_REFERENCE=DIR LEAT_BENCH_DATA=FOLDER go test -count=1 -v -timeout 30m ./bench/embedder
//
// LEAT_BENCH_DATA holds drcd_dev.json (DRCD, github.com/DRCKnowledgeTeam/DRCD)
// and xquad.en.json (github.com/google-deepmind/xquad). What lacks its data,
// the model or the engine is left out, with a line that says so.
package embedder

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"leat"
	leatembedder "leat/embedder"
	"leat/embedder/builtin"
	"leat/embedder/embeddertest"
	"leat/embedder/openai"
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
				if tok.Count((*builtin.Embedder)(nil).Prefix(leat.Passage)+p.Context)+2 <= 256 {
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
// one core in turns with it, so that the machine's other work meets both
// alike, and the cosine between their vectors.
func TestModel(t *testing.T) {
	e := load(t, 1)
	passages, _ := texts(t, e.Tokenizer(), 120)
	var ref *embeddertest.Reference
	if dir := os.Getenv("LEAT_REFERENCE"); dir != "" {
		var err error
		if ref, err = embeddertest.StartReference(dir); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := ref.Close(); err != nil {
				t.Error(err)
			}
		}()
	} else {
		t.Log("LEAT_REFERENCE is not set: the reference engine is left out")
	}
	count := func(texts []string) (n int) {
		for _, text := range texts {
			n += e.Tokenizer().Count(e.Prefix(leat.Passage)+text) + 2
		}
		return n
	}
	embed := func(e *builtin.Embedder, texts []string) [][]float32 {
		vectors, err := e.Embed(t.Context(), leat.Passage, texts)
		if err != nil {
			t.Fatal(err)
		}
		return vectors
	}
	embed(e, passages[:4]) // touches the weights

	var own, reference spent
	var tokens int
	var cosines []float64
	for batch := range slices.Chunk(passages, 12) {
		tokens += count(batch)
		start := now()
		vectors := embed(e, batch)
		own.add(start.since())
		for k, text := range batch {
			if ref == nil {
				break
			}
			_, v, wall, cpu, err := ref.Embed(leat.Passage, text)
			if err != nil {
				t.Fatal(err)
			}
			reference.add(spent{wall, cpu})
			cosines = append(cosines, dot(v, vectors[k]))
		}
	}
	t.Logf("built-in model on 1 core, passages of up to 256 tokens: %s, %s", own.rate(tokens, "tokens"), memory())
	if ref != nil {
		slices.Sort(cosines)
		var mean float64
		for _, c := range cosines {
			mean += c / float64(len(cosines))
		}
		t.Logf("reference engine on 1 core: %s; the built-in model is %.1f times as fast",
			reference.rate(tokens, "tokens"), reference.cpu.Seconds()/own.cpu.Seconds())
		t.Logf("cosine with the reference engine over %d passages: mean %.5f, min %.5f", len(cosines), mean, cosines[0])
	}
	all := load(t, 0)
	start := now()
	embed(all, passages)
	t.Logf("built-in model on %d cores: %s", runtime.GOMAXPROCS(0), start.since().rate(tokens, "tokens"))
}

// TestQuery reports how long a query of 10 to 20 tokens takes, on an idle
// model and beside passages that keep every thread busy.
func TestQuery(t *testing.T) {
	e := load(t, 0)
	passages, questions := texts(t, e.Tokenizer(), 400)
	questions = slices.DeleteFunc(questions, func(q string) bool {
		n := e.Tokenizer().Count(e.Prefix(leat.Query)+q) + 2
		return n < 10 || n > 20
	})
	measure := func(what string, times int) {
		var ms []float64
		begin := now()
		for i := range times {
			start := time.Now()
			if _, err := e.Embed(t.Context(), leat.Query, questions[i%len(questions):][:1]); err != nil {
				t.Fatal(err)
			}
			ms = append(ms, time.Since(start).Seconds()*1e3)
		}
		cpu := begin.since().cpu.Seconds() * 1e3 / float64(times)
		slices.Sort(ms)
		t.Logf("query of 10-20 tokens, %s: p50 %.1f ms, p99 %.1f ms (processor time of the process for each: %.1f ms)",
			what, ms[len(ms)/2], ms[len(ms)*99/100], cpu)
	}
	measure("idle model", 400)
	ctx, cancel := context.WithCancel(t.Context())
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
		const n = 10_000
		start := now()
		for i := range n {
			tok.Count(pieces[i%len(pieces)])
		}
		t.Logf("tokenizer, %s: %s of 1,000 characters", language, start.since().rate(n, "texts"))
	}
}

// TestCache reports how fast vectors of known texts come from the disk.
func TestCache(t *testing.T) {
	model := embeddertest.Start(384)
	defer model.Close()
	cfg := leatembedder.Config{OpenAI: &openai.Config{URL: model.BaseURL, Model: "stand-in", Dimension: 384}}
	e, _, err := leatembedder.New(cfg, t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}()
	known := make([]string, 20_000)
	for i := range known {
		known[i] = fmt.Sprintf("chunk %d of some document", i)
	}
	embed := func(texts []string) {
		if _, err := e.Embed(t.Context(), leat.Passage, texts); err != nil {
			t.Fatal(err)
		}
	}
	embed(known)
	asked := model.Texts()
	for _, size := range []int{1, 100, 1000} {
		n := 0
		start := now()
		for batch := range slices.Chunk(known[:min(len(known), size*2000)], size) {
			embed(batch)
			n += len(batch)
		}
		t.Logf("cache, %d texts a call: %s", size, start.since().rate(n, "look-ups"))
	}
	if model.Texts() != asked {
		t.Errorf("%d known texts were embedded again", model.Texts()-asked)
	}
}

// spent is time by the clock and of the processor.
type spent struct{ wall, cpu time.Duration }

func (s *spent) add(o spent) { s.wall, s.cpu = s.wall+o.wall, s.cpu+o.cpu }

func (s spent) rate(n int, what string) string {
	return fmt.Sprintf("%.0f %s a second of processor time, %.0f by the clock", float64(n)/s.cpu.Seconds(), what, float64(n)/s.wall.Seconds())
}

type instant struct {
	wall time.Time
	cpu  time.Duration
}

func now() instant {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		panic(err) // it does not fail with these arguments
	}
	return instant{time.Now(), time.Duration(r.Utime.Nano() + r.Stime.Nano())}
}

func (i instant) since() spent {
	n := now()
	return spent{n.wall.Sub(i.wall), n.cpu - i.cpu}
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
