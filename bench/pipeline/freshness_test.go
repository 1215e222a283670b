// Package pipeline measures the whole program: `leat run` as a process of its
// own on the embedded broker and store, over a real MySQL server.
package pipeline

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"testing"
	"time"

	"leat"
	"leat/bench/program"
	"leat/embedder/embeddertest"
	"leat/internal/testenv"
	"leat/sinks/sqlite"
)

const (
	seconds   = 20
	dimension = 384
	sample    = 4 // every so many rows is watched until it is searchable
)

// BenchmarkFreshness commits rows one by one at a steady rate and measures, for
// a sample, the time from the commit's return to the moment when a reader in
// another process finds the document in both the text and the vector index.
// The null model answers at once; what is left is leat's own part.
func BenchmarkFreshness(b *testing.B) {
	db := testenv.MySQL(b)
	null := embeddertest.Start(dimension)
	b.Cleanup(null.Close)
	bin := program.Build(b)
	for _, m := range []struct {
		name, embedder string
		rate           int // rows a second
	}{
		{"null/200", program.Null(null.BaseURL, dimension), 200},
		{"builtin/200", builtin, 200}, // more than two cores embed on most machines: shows the backlog
		{"builtin/40", builtin, 40},
	} {
		b.Run(m.name, func(b *testing.B) {
			dir := b.TempDir()
			n := notes{b, db, program.CreateNotes(b, db)}
			program.Configure(b, dir, db, n.table, m.embedder)
			run := program.Start(b, bin, dir, "run")
			n.insert(0)
			store := openWhenThere(b, program.Store(dir), n.document(0))
			defer store.Close()
			l := n.latencies(store, 1, m.rate)
			report(b, "", l)
			b.ReportMetric(float64(l[len(l)-1].Microseconds())/1e3, "max-ms")
			b.ReportMetric(program.ResidentMB(b, run.Pid), "RSS-MB")
			b.ReportMetric(0, "ns/op")
		})
	}
}

const builtin = "embedder: {builtin: {}}"

// notes is the table whose rows are the documents.
type notes struct {
	*testing.B
	db    *testenv.DB
	table string
}

// insert returns when the row was committed.
func (n notes) insert(id int) time.Time {
	title, body := program.Note(id, 1)
	if _, err := n.db.Root().Exec("INSERT INTO "+n.table+" VALUES (?, ?, ?)", id, title, body); err != nil {
		n.Fatal(err)
	}
	return time.Now()
}

func (n notes) document(id int) string {
	return leat.DocumentID("mysql", "bench", n.table, strconv.Itoa(id))
}

// latencies inserts rows, from id first on, at a rate a second and returns how
// long each of the sample took to be searchable.
func (n notes) latencies(store *reader, first, rate int) []time.Duration {
	// Polling one document at a time, in the order of their commits, costs the
	// measured process little.
	watch := make(chan committed, rate*seconds)
	latencies := make(chan []time.Duration)
	go func() { latencies <- follow(n.B, store, watch) }()
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	for id := first; id < first+rate*seconds; id++ {
		<-tick.C
		at := n.insert(id)
		if (id-first)%sample == 0 {
			watch <- committed{n.document(id), at}
		}
	}
	close(watch)
	return <-latencies
}

// report sorts latencies and reports their percentiles.
func report(b *testing.B, prefix string, l []time.Duration) {
	slices.Sort(l)
	b.ReportMetric(float64(percentile(l, 50).Microseconds())/1e3, prefix+"p50-ms")
	b.ReportMetric(float64(percentile(l, 99).Microseconds())/1e3, prefix+"p99-ms")
}

// percentile of sorted latencies.
func percentile(l []time.Duration, n int) time.Duration { return l[len(l)*n/100] }

type committed struct {
	id string
	at time.Time
}

// follow notes when each document has reached both indexes.
func follow(b *testing.B, store *reader, watch <-chan committed) []time.Duration {
	var all []time.Duration
	for c := range watch {
		for !store.holds(b, c.id) {
			time.Sleep(time.Millisecond)
		}
		all = append(all, time.Since(c.at))
	}
	return all
}

type reader struct {
	*sqlite.Store
	text, vectors leat.Sink
}

func (r *reader) holds(b *testing.B, id string) bool {
	for _, s := range []leat.Sink{r.vectors, r.text} {
		_, err := s.Document(context.Background(), id)
		if errors.Is(err, leat.ErrNotFound) {
			return false
		}
		if err != nil {
			b.Error(err)
		}
	}
	return true
}

// openWhenThere opens the store once it holds a first document.
func openWhenThere(b *testing.B, path, id string) *reader {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		store, err := sqlite.OpenReader(path, sqlite.Config{}, slog.New(slog.DiscardHandler))
		if err != nil {
			continue
		}
		text, err := store.Text(1)
		model, modelErr := store.Model(b.Context(), 1)
		if err == nil && modelErr == nil {
			vectors, err := store.Vectors(1, model)
			if err != nil {
				b.Fatal(err)
			}
			r := &reader{store, text, vectors}
			for !r.holds(b, id) {
				if time.Now().After(deadline) {
					b.Fatalf("%s was not indexed within a minute", id)
				}
				time.Sleep(5 * time.Millisecond)
			}
			return r
		}
		store.Close()
	}
	b.Fatal("nothing was indexed within a minute")
	return nil
}
