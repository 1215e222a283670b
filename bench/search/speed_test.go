package search

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"leat"
	"leat/bench/program"
	"leat/internal/search"
	"leat/internal/testenv"
	"leat/sinks/sqlite"
)

const (
	chunks = 20_000
	batch  = 200 // revisions a transaction
)

// BenchmarkLatency asks both sets' questions of 20,000 chunks. It reports the
// first search of a process, which loads the vectors, apart.
func BenchmarkLatency(b *testing.B) {
	m := model(b)
	dir := b.TempDir()
	text, vectors := stores(b, dir, m.Model())
	latency(b, m, text, vectors, map[string]int{"cpu-ms": os.Getpid()}, func(b *testing.B) (leat.TextIndex, leat.VectorIndex) {
		store, err := sqlite.OpenReader(filepath.Join(dir, "store.db"), sqlite.Config{}, slog.New(slog.DiscardHandler))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { store.Close() })
		t, err := store.Text(1)
		if err != nil {
			b.Fatal(err)
		}
		v, err := store.Vectors(1, m.Model())
		if err != nil {
			b.Fatal(err)
		}
		return t, v
	})
}

// BenchmarkLatencyOnServers is the same over Elasticsearch and Milvus, and
// reports what each of them has used of the processors.
func BenchmarkLatencyOnServers(b *testing.B) {
	m := model(b)
	es, mv := testenv.Elasticsearch(b), testenv.Milvus(b, testenv.Flags("proxy.timeTickInterval=200")) // as shipped
	text, vectors := onServers(b, es, mv, "bench", m.Model())
	processes := map[string]int{"cpu-ms": os.Getpid(), "elastic-cpu-ms": es.PID(), "milvus-cpu-ms": mv.PID()}
	latency(b, m, text, vectors, processes, func(*testing.B) (leat.TextIndex, leat.VectorIndex) { return text, vectors })
}

// latency fills two indexes and asks them again and again, the model as it is,
// not what it answered before. It reports what processes, by metric, use of the processors.
func latency(b *testing.B, m *remembering, text leat.TextIndex, vectors leat.VectorIndex, processes map[string]int,
	open func(b *testing.B) (leat.TextIndex, leat.VectorIndex)) {
	sets := both(b)
	ctx := context.Background()
	for part := range slices.Chunk(many(sets, chunks, m.Model().Dimension), batch) {
		for _, x := range []leat.Sink{text, vectors} {
			if _, err := x.Apply(ctx, part); err != nil {
				b.Fatal(err)
			}
		}
	}
	for _, mode := range []search.Mode{search.Text, search.Vector, search.Hybrid} {
		for _, s := range sets {
			b.Run(fmt.Sprintf("%s/%s", mode, s.name), func(b *testing.B) {
				before := heap()
				t, v := open(b)
				searcher := search.New(t, v, m.Embedder)
				var took []time.Duration
				ask := func(i int) {
					start := time.Now()
					if _, err := searcher.Search(ctx, s.questions[i%len(s.questions)].text, mode, 10); err != nil {
						b.Fatal(err)
					}
					took = append(took, time.Since(start))
				}
				ask(0)
				busy := map[string]time.Duration{}
				for name, pid := range processes {
					busy[name] = program.CPU(b, pid)
				}
				for i := range b.N {
					ask(i + 1)
				}
				ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
				for name, pid := range processes {
					b.ReportMetric(ms(program.CPU(b, pid)-busy[name])/float64(b.N), name)
				}
				first := took[0]
				took = took[1:]
				slices.Sort(took)
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(ms(first), "first-ms")
				b.ReportMetric(ms(took[len(took)/2]), "p50-ms")
				b.ReportMetric(ms(took[len(took)*99/100]), "p99-ms")
				b.ReportMetric(float64(heap()-before)/(1<<20), "heap-MiB")
				runtime.KeepAlive(searcher)
			})
		}
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// BenchmarkApply writes 20,000 revisions of one chunk, in transactions of 200,
// and beside that the same rows by plain INSERTs into one table.
func BenchmarkApply(b *testing.B) {
	sets := both(b)
	all := many(sets, chunks, 384)
	rate := func(b *testing.B, prepare func(b *testing.B) func([]leat.Revision)) {
		var spent time.Duration
		for range b.N {
			apply := prepare(b)
			start := time.Now()
			for part := range slices.Chunk(all, batch) {
				apply(part)
			}
			spent += time.Since(start)
		}
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(float64(len(all)*b.N)/spent.Seconds(), "revisions/s")
	}
	m := leat.Model{Name: "random", Dimension: 384}
	sink := func(pick func(*sqlite.TextIndex, *sqlite.VectorIndex) leat.Sink) func(*testing.B) func([]leat.Revision) {
		return func(b *testing.B) func([]leat.Revision) {
			x := pick(stores(b, b.TempDir(), m))
			return func(part []leat.Revision) {
				if _, err := x.Apply(context.Background(), part); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	b.Run("text", func(b *testing.B) {
		rate(b, sink(func(t *sqlite.TextIndex, _ *sqlite.VectorIndex) leat.Sink { return t }))
	})
	b.Run("vectors", func(b *testing.B) {
		rate(b, sink(func(_ *sqlite.TextIndex, v *sqlite.VectorIndex) leat.Sink { return v }))
	})
	b.Run("plain", func(b *testing.B) { rate(b, plain) })
}

// plain inserts id, version and text into a table, in the same transactions.
func plain(b *testing.B) func([]leat.Revision) {
	db, err := sql.Open("sqlite", filepath.Join(b.TempDir(), "plain.db")+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	if _, err := db.Exec("CREATE TABLE t (id TEXT PRIMARY KEY, version INTEGER, text TEXT)"); err != nil {
		b.Fatal(err)
	}
	return func(part []leat.Revision) {
		tx, err := db.Begin()
		if err != nil {
			b.Fatal(err)
		}
		stmt, err := tx.Prepare("INSERT INTO t VALUES (?, ?, ?)")
		if err != nil {
			b.Fatal(err)
		}
		for _, r := range part {
			if _, err := stmt.Exec(r.Document, r.Version, r.Chunks[0].Text); err != nil {
				b.Fatal(err)
			}
		}
		if err := tx.Commit(); err != nil {
			b.Fatal(err)
		}
	}
}
