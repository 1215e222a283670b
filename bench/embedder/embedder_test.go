// Package embedder measures the built-in model beside its reference engine,
// the tokenizer and the cache. Rates are of processor time too, since a machine
// that does other work shows less by the clock.
//
//	scripts/model/reference.sh DIR       # once: builds the engine from its pinned package
//	LEAT_REFERENCE=DIR LEAT_BENCH_DATA=FOLDER go test -run '^$' -bench . ./bench/embedder
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
func texts(b testing.TB, tok *builtin.Tokenizer, limit int) (passages, questions []string) {
	b.Helper()
	dir := os.Getenv("LEAT_BENCH_DATA")
	if dir == "" {
		b.Skip("set LEAT_BENCH_DATA to a folder with drcd_dev.json and xquad.en.json")
	}
	var ps, qs [2][]string
	for k, name := range []string{"drcd_dev.json", "xquad.en.json"} {
		raw, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			b.Skipf("LEAT_BENCH_DATA: %v", err)
		}
		var set struct {
			Data []struct {
				Paragraphs []struct {
					Context string
					QAs     []struct{ Question string }
				}
			}
		}
		if err := json.Unmarshal(raw, &set); err != nil {
			b.Fatal(err)
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

func load(b *testing.B, threads int) *builtin.Embedder {
	b.Helper()
	e, err := builtin.New(builtin.Config{Threads: threads})
	if err != nil {
		b.Skipf("%v (%s)", err, leat.HintOf(err))
	}
	b.Cleanup(func() {
		if err := e.Close(); err != nil {
			b.Error(err)
		}
	})
	return e
}

// BenchmarkModel embeds 120 passages an operation on one core and, where it is
// there, with the reference engine, twelve each in turn, so that the machine's
// other work meets both alike.
func BenchmarkModel(b *testing.B) {
	e := load(b, 1)
	passages, _ := texts(b, e.Tokenizer(), 120)
	var ref *embeddertest.Reference
	if dir := os.Getenv("LEAT_REFERENCE"); dir != "" {
		var err error
		if ref, err = embeddertest.StartReference(dir); err != nil {
			b.Fatal(err)
		}
		defer func() {
			if err := ref.Close(); err != nil {
				b.Error(err)
			}
		}()
	} else {
		b.Log("LEAT_REFERENCE is not set: the reference engine is left out")
	}
	embed(b, e, leat.Passage, passages[:4]) // touches the weights
	var own, reference spent
	var cosines []float64
	tokens := 0
	turn := func(batch []string) {
		tokens += count(e, batch)
		start := now()
		vectors := embed(b, e, leat.Passage, batch)
		own.add(start.since())
		if ref == nil {
			return
		}
		for k, text := range batch {
			_, v, wall, cpu, err := ref.Embed(leat.Passage, text)
			if err != nil {
				b.Fatal(err)
			}
			reference.add(spent{wall, cpu})
			cosines = append(cosines, dot(v, vectors[k]))
		}
	}
	for b.Loop() {
		for batch := range slices.Chunk(passages, 12) {
			turn(batch)
		}
	}
	own.report(b, tokens, "tokens")
	b.ReportMetric(resident(), "resident-MB")
	if ref != nil {
		b.ReportMetric(float64(tokens)/reference.cpu.Seconds(), "reference-tokens/cpu-s")
		b.ReportMetric(slices.Min(cosines), "cosine-min")
		var sum float64
		for _, c := range cosines {
			sum += c
		}
		b.ReportMetric(sum/float64(len(cosines)), "cosine-mean")
	}
}

// BenchmarkModelAllCores embeds 120 passages an operation.
func BenchmarkModelAllCores(b *testing.B) {
	e := load(b, 0)
	passages, _ := texts(b, e.Tokenizer(), 120)
	tokens := 0
	start := now()
	for b.Loop() {
		embed(b, e, leat.Passage, passages)
		tokens += count(e, passages)
	}
	start.since().report(b, tokens, "tokens")
}

// BenchmarkQuery embeds a query of 10 to 20 tokens an operation, on an idle
// model and beside passages that keep every thread busy.
func BenchmarkQuery(b *testing.B) {
	e := load(b, 0)
	passages, questions := texts(b, e.Tokenizer(), 400)
	questions = slices.DeleteFunc(questions, func(q string) bool {
		n := e.Tokenizer().Count(e.Prefix(leat.Query)+q) + 2
		return n < 10 || n > 20
	})
	measure := func(b *testing.B) {
		var ms []float64
		for b.Loop() {
			start := time.Now()
			embed(b, e, leat.Query, questions[len(ms)%len(questions):][:1])
			ms = append(ms, time.Since(start).Seconds()*1e3)
		}
		slices.Sort(ms)
		b.ReportMetric(ms[len(ms)/2], "p50-ms")
		b.ReportMetric(ms[len(ms)*99/100], "p99-ms")
	}
	b.Run("idle", measure)
	b.Run("beside-passages", func(b *testing.B) {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			for ctx.Err() == nil {
				_, _ = e.Embed(ctx, leat.Passage, passages)
			}
		}()
		time.Sleep(200 * time.Millisecond)
		measure(b)
		cancel()
		<-done
	})
}

// BenchmarkTokenizer counts the tokens of a text of 1,000 characters an
// operation.
func BenchmarkTokenizer(b *testing.B) {
	tok, err := builtin.NewTokenizer(builtin.Config{})
	if err != nil {
		b.Skipf("%v (%s)", err, leat.HintOf(err))
	}
	passages, _ := texts(b, tok, 400)
	for k, language := range []string{"Chinese", "English"} {
		var all []rune
		for i := k; i < len(passages); i += 2 {
			all = append(all, []rune(passages[i])...)
		}
		var pieces []string
		for p := range slices.Chunk(all, 1000) {
			pieces = append(pieces, string(p))
		}
		b.Run(language, func(b *testing.B) {
			n := 0
			start := now()
			for b.Loop() {
				tok.Count(pieces[n%len(pieces)])
				n++
			}
			start.since().report(b, n, "texts")
		})
	}
}

// BenchmarkCache looks up the vectors of 20,000 known texts, so many an
// operation as the name says.
func BenchmarkCache(b *testing.B) {
	model := embeddertest.Start(builtin.Dimension)
	defer model.Close()
	cfg := leatembedder.Config{OpenAI: &openai.Config{URL: model.BaseURL, Model: "stand-in", Dimension: builtin.Dimension}}
	e, _, err := leatembedder.New(cfg, b.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := e.Close(); err != nil {
			b.Error(err)
		}
	}()
	known := make([]string, 20_000)
	for i := range known {
		known[i] = fmt.Sprintf("chunk %d of some document", i)
	}
	embed(b, e, leat.Passage, known)
	asked := model.Texts()
	for _, size := range []int{1, 100, 1000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			batches := slices.Collect(slices.Chunk(known, size))
			n := 0
			start := now()
			for b.Loop() {
				embed(b, e, leat.Passage, batches[n/size%len(batches)])
				n += size
			}
			start.since().report(b, n, "look-ups")
		})
	}
	if model.Texts() != asked {
		b.Errorf("%d known texts were embedded again", model.Texts()-asked)
	}
}

func embed(b *testing.B, e leat.Embedder, kind leat.Kind, texts []string) [][]float32 {
	vectors, err := e.Embed(context.Background(), kind, texts)
	if err != nil {
		b.Fatal(err)
	}
	return vectors
}

// count is the number of tokens that the model reads of passages.
func count(e *builtin.Embedder, passages []string) (n int) {
	for _, text := range passages {
		n += e.Tokenizer().Count(e.Prefix(leat.Passage)+text) + 2
	}
	return n
}

func dot(a, b []float32) (s float64) {
	for i := range a {
		s += float64(a[i]) * float64(b[i])
	}
	return s
}

// spent is time by the clock and of the processor.
type spent struct{ wall, cpu time.Duration }

func (s *spent) add(o spent) { s.wall, s.cpu = s.wall+o.wall, s.cpu+o.cpu }

// report reports how many of what there were in a second by the clock (/s) and
// in a second of processor time (/cpu-s).
func (s spent) report(b *testing.B, n int, what string) {
	b.ReportMetric(float64(n)/s.wall.Seconds(), what+"/s")
	b.ReportMetric(float64(n)/s.cpu.Seconds(), what+"/cpu-s")
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

// resident is the resident memory of this process in MB, or 0 where the system
// does not tell.
func resident() float64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmRSS:" {
			kb, _ := strconv.Atoi(f[1])
			return float64(kb >> 10)
		}
	}
	return 0
}
