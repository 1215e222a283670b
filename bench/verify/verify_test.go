// Package verify measures what it costs to prove that an index is right: `leat
// verify` as a process of its own, on the embedded broker and store, over a real
// MySQL server.
//
//	go test -run '^$' -bench . -timeout 60m ./bench/verify
package verify

import (
	"context"
	"database/sql"
	"encoding/json"
	"testing"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"leat/bench/program"
	"leat/embedder/embeddertest"
	"leat/internal/testenv"
)

const dimension = 16

// BenchmarkVerify compares a table with its index. The baseline is what any
// comparison has to do at least: it reads the rows and, of both indexes, what
// they hold of each document, by plain SQL in the order of keys.
func BenchmarkVerify(b *testing.B) {
	db := testenv.MySQL(b)
	null := embeddertest.Start(dimension)
	b.Cleanup(null.Close)
	bin := program.Build(b)
	for _, rows := range []struct {
		name                 string
		documents, sentences int
	}{
		{"150B", program.Documents(b, 1_000_000), 1},
		{"28kB", program.Documents(b, 1_000_000) / 250, 200},
	} {
		b.Run(rows.name, func(b *testing.B) {
			verify(b, db, bin, program.Null(null.BaseURL, dimension), rows.documents, rows.sentences)
		})
	}
}

func verify(b *testing.B, db *testenv.DB, bin, embedder string, n, sentences int) {
	dir, table := b.TempDir(), program.CreateNotes(b, db)
	program.AddNotes(b, db, table, 0, n, sentences)
	program.Configure(b, dir, db, table, embedder)
	indexed := program.Run(b, bin, dir, "run", "--once")
	b.Logf("%d documents indexed in %s", n, indexed.Took.Round(time.Second))

	var took, plain time.Duration
	peak := 0.0
	for b.Loop() {
		r := program.Run(b, bin, dir, "verify", "--output", "json")
		var verdict struct {
			OK      bool
			Checked int
		}
		if err := json.Unmarshal(r.Output, &verdict); err != nil || !verdict.OK || verdict.Checked != n {
			b.Fatalf("%d documents are not found right: %s (%v)", n, r.Output, err)
		}
		took, peak = took+r.Took, max(peak, r.PeakMB)
		plain += baseline(b, db, table, program.Store(dir), n)
	}
	b.ReportMetric(float64(n*b.N)/took.Seconds(), "documents/s")
	b.ReportMetric(float64(n*b.N)/plain.Seconds(), "baseline-documents/s")
	b.ReportMetric(plain.Seconds()/took.Seconds(), "of-baseline")
	b.ReportMetric(peak, "peak-MB")
	b.ReportMetric(0, "ns/op")
}

func baseline(b *testing.B, db *testenv.DB, table, store string, n int) time.Duration {
	began := time.Now()
	index, err := sql.Open("sqlite", store)
	if err != nil {
		b.Fatal(err)
	}
	defer index.Close()
	for _, q := range []struct {
		db   *sql.DB
		text string
	}{
		{db.Root(), "SELECT id, title, body FROM " + table + " ORDER BY id"},
		{index, "SELECT id, version, tag FROM text1_documents ORDER BY id"},
		{index, "SELECT id, version, tag FROM vectors1_documents ORDER BY id"},
	} {
		if read := count(b, q.db, q.text); read != n {
			b.Fatalf("%s: %d rows, not %d", q.text, read, n)
		}
	}
	return time.Since(began)
}

func count(b *testing.B, db *sql.DB, query string) (n int) {
	rows, err := db.QueryContext(context.Background(), query)
	if err != nil {
		b.Fatal(err)
	}
	defer rows.Close()
	var columns [3]sql.RawBytes
	for ; rows.Next(); n++ {
		if err := rows.Scan(&columns[0], &columns[1], &columns[2]); err != nil {
			b.Fatal(err)
		}
	}
	if err := rows.Err(); err != nil {
		b.Fatal(err)
	}
	return n
}
