// Package reindex measures how fast an index is built anew, beside how fast it
// was built: `leat run --once` and `leat reindex` as processes of their own, on the
// embedded broker and store, over a real MySQL server.
//
//	go test -run '^$' -bench . -timeout 60m ./bench/reindex
package reindex

import (
	"encoding/json"
	"testing"

	"leat/bench/program"
	"leat/embedder/builtin"
	"leat/embedder/embeddertest"
	"leat/internal/testenv"
)

const (
	dimension = 384
	sentences = 8 // of a row, which make two chunks
)

// BenchmarkReindex indexes a table of rows of about a kilobyte, then builds the
// index anew as it is, where the cache holds every vector, and then with smaller
// chunks, where it holds none. Each counts from the start of the process to its
// end; what stays beside a generation is dropped before the next one.
func BenchmarkReindex(b *testing.B) {
	db := testenv.MySQL(b)
	null := embeddertest.Start(dimension)
	b.Cleanup(null.Close)
	bin := program.Build(b)
	b.Run("null", func(b *testing.B) {
		measure(b, db, bin, program.Null(null.BaseURL, dimension), program.Documents(b, 50_000))
	})
	b.Run("builtin", func(b *testing.B) {
		m, err := builtin.New(builtin.Config{})
		if err != nil {
			b.Skipf("the built-in model is absent (`make model` gets it): %v", err)
		}
		if err := m.Close(); err != nil {
			b.Fatal(err)
		}
		measure(b, db, bin, "embedder: {builtin: {}}", program.Documents(b, 600))
	})
}

func measure(b *testing.B, db *testenv.DB, bin, embedder string, n int) {
	dir, table := b.TempDir(), program.CreateNotes(b, db)
	program.AddNotes(b, db, table, 0, n, sentences)
	program.Configure(b, dir, db, table, embedder)
	rate := func(args ...string) float64 {
		return float64(n) / program.Run(b, bin, dir, args...).Took.Seconds()
	}
	reindex := func(generation int) float64 {
		r := program.Run(b, bin, dir, "reindex", "--output", "json")
		var made struct{ Generation int }
		if err := json.Unmarshal(r.Output, &made); err != nil || made.Generation != generation {
			b.Fatalf("%s (%v), not generation %d", r.Output, err, generation)
		}
		return float64(n) / r.Took.Seconds()
	}
	first := rate("run", "--once")
	same := reindex(2)
	program.Run(b, bin, dir, "reindex", "drop", "1")
	program.Configure(b, dir, db, table, embedder+"\nchunker: {target_tokens: 90, max_tokens: 140}")
	smaller := reindex(3)

	b.ReportMetric(first, "first-documents/s")
	b.ReportMetric(same, "same-documents/s")
	b.ReportMetric(same/first, "same-of-first")
	b.ReportMetric(smaller, "smaller-documents/s")
	b.ReportMetric(smaller/first, "smaller-of-first")
	b.ReportMetric(0, "ns/op")
}
