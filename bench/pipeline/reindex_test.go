package pipeline

import (
	"errors"
	"io/fs"
	"math"
	"testing"
	"time"

	"leat"
	"leat/bench/program"
	"leat/embedder/embeddertest"
	"leat/internal/testenv"
)

// BenchmarkFreshnessBesideReindex measures freshness as BenchmarkFreshness does,
// once over an index at rest and once more while `leat reindex` builds another
// generation of it with smaller chunks, in the same process.
func BenchmarkFreshnessBesideReindex(b *testing.B) {
	db := testenv.MySQL(b)
	null := embeddertest.Start(dimension)
	b.Cleanup(null.Close)
	bin := program.Build(b)
	for _, m := range []struct {
		name, embedder             string
		rate, documents, sentences int // documents are enough to outlast the measurement
	}{
		{"null/200/rows", program.Null(null.BaseURL, dimension), 200, 150_000, 1},
		{"null/200/long", program.Null(null.BaseURL, dimension), 200, 15_000, 40}, // of some twenty chunks each
		{"builtin/40", builtin, 40, 500, 8},                                       // and the model has to embed all of them
	} {
		b.Run(m.name, func(b *testing.B) {
			dir, documents := b.TempDir(), program.Documents(b, m.documents)
			n := notes{b, db, program.CreateNotes(b, db)}
			program.AddNotes(b, db, n.table, 0, documents, m.sentences)
			program.Configure(b, dir, db, n.table, m.embedder)
			program.Start(b, bin, dir, "run")
			store := openWhenThere(b, program.Store(dir), n.document(0))
			defer store.Close()
			await(b, "the first index", func() bool {
				return indexed(b, store.text) == documents && indexed(b, store.vectors) == documents
			})
			alone := n.latencies(store, documents, m.rate)

			program.Configure(b, dir, db, n.table, m.embedder+"\n"+smaller)
			program.StartEndless(b, bin, dir, "reindex")
			await(b, "generation 2", func() bool { return second(b, store) > 0 })
			before, began := second(b, store), time.Now()
			beside := n.latencies(store, documents+m.rate*seconds, m.rate)
			after, took := second(b, store), time.Since(began)
			if live, err := store.Generations().Live(b.Context()); live != 1 || err != nil {
				b.Fatalf("generation 2 was complete before the measurement was: it needs more than %d documents (LEAT_BENCH_DOCUMENTS): %v", documents, err)
			}
			besides(b, "", alone, beside)
			b.ReportMetric(float64(after-before)/took.Seconds(), "reindexed/s")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// smaller chunks are other texts.
const smaller = "chunker: {target_tokens: 90, max_tokens: 140}"

// besides reports the percentiles of latencies alone and beside a re-index.
func besides(b *testing.B, prefix string, alone, beside []time.Duration) {
	report(b, prefix+"alone-", alone)
	report(b, prefix+"reindex-", beside)
	b.ReportMetric(float64(percentile(beside, 99))/float64(percentile(alone, 99)), prefix+"p99-ratio")
}

// indexed is how many documents an index holds.
func indexed(b *testing.B, x leat.Sink) int {
	s, err := x.Stats(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	return int(s.Documents)
}

// second is how many documents have passed all stages of generation 2.
func second(b *testing.B, store *reader) int {
	n := math.MaxInt
	model, err := store.Model(b.Context(), 2)
	if err == nil {
		for _, open := range []func() (leat.Sink, error){
			func() (leat.Sink, error) { return store.Text(2) },
			func() (leat.Sink, error) { return store.Vectors(2, model) },
		} {
			var x leat.Sink
			if x, err = open(); err != nil {
				break
			}
			n = min(n, indexed(b, x))
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// await waits for what takes minutes at most.
func await(b *testing.B, what string, there func() bool) {
	b.Helper()
	for deadline := time.Now().Add(20 * time.Minute); !there(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.Fatalf("%s: not there within 20 minutes", what)
		}
	}
}
