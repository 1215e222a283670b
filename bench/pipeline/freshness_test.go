// Package pipeline measures the whole program: `leat run` as a process of its
// own on the embedded broker and store, over a real MySQL server.
package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"leat"
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
	bin := build(b)
	builtin := "builtin: {}"
	for _, m := range []struct {
		name, embedder string
		rate           int // rows a second
	}{
		{"null/200", fmt.Sprintf("openai: {url: %q, model: stand-in, dimension: %d}", null.BaseURL, dimension), 200},
		{"builtin/200", builtin, 200}, // more than two cores embed on most machines: shows the backlog
		{"builtin/40", builtin, 40},
	} {
		b.Run(m.name, func(b *testing.B) { freshness(b, db, bin, m.embedder, m.rate) })
	}
}

func freshness(b *testing.B, db *testenv.DB, bin, embedder string, rate int) {
	name := db.Database(b)
	db.Exec(b, "CREATE TABLE "+name+".notes (id INT PRIMARY KEY, title VARCHAR(100), body TEXT)")
	dir := b.TempDir()
	yaml := fmt.Sprintf(`
sources:
  - name: bench
    mysql: {address: %q, user: %q, password: %q, tables: [{table: %s.notes, title: title, body: [body]}]}
embedder: {%s}
`, db.Addr(), db.User, db.Password, name, embedder)
	if err := os.WriteFile(filepath.Join(dir, "pipeline.yaml"), []byte(yaml), 0o600); err != nil {
		b.Fatal(err)
	}
	run := start(b, bin, dir)
	insert := func(id int) time.Time {
		body := fmt.Sprintf("Note %d says that part %d of machine %d was changed on day %d, and that the next look is due when it has run for %d hours.", id, id%97, id%31, id%365, id%1000)
		if _, err := db.Root().Exec("INSERT INTO "+name+".notes VALUES (?, ?, ?)", id, fmt.Sprintf("Note %d", id), body); err != nil {
			b.Fatal(err)
		}
		return time.Now()
	}
	id := func(n int) string { return leat.DocumentID("mysql", "bench", name+".notes", strconv.Itoa(n)) }

	insert(0)
	store := openWhenThere(b, filepath.Join(dir, "leat-data", "index.db"), id(0))
	defer store.Close()
	// Polling one document at a time, in the order of their commits, costs the
	// measured process little.
	watch := make(chan committed, rate*seconds)
	latencies := make(chan []time.Duration)
	go func() { latencies <- await(b, store, watch) }()
	tick := time.NewTicker(time.Second / time.Duration(rate))
	for n := 1; n <= rate*seconds; n++ {
		<-tick.C
		at := insert(n)
		if n%sample == 0 {
			watch <- committed{id(n), at}
		}
	}
	close(watch)
	l := <-latencies
	report(b, "", l)
	b.ReportMetric(float64(l[len(l)-1].Microseconds())/1e3, "max-ms")
	b.ReportMetric(residentMB(b, run.Pid), "RSS-MB")
	b.ReportMetric(0, "ns/op")
}

// start runs leat, all stages or those that args name, until the benchmark ends.
func start(b *testing.B, bin, dir string, args ...string) *os.Process {
	run := exec.Command(bin, append([]string{"run"}, args...)...)
	run.Dir, run.Stderr = dir, os.Stderr
	run.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := run.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := errors.Join(run.Process.Signal(os.Interrupt), run.Wait()); err != nil {
			b.Error(run, err)
		}
	})
	return run.Process
}

// report sorts latencies and reports their percentiles.
func report(b *testing.B, prefix string, l []time.Duration) {
	slices.Sort(l)
	b.ReportMetric(float64(l[len(l)/2].Microseconds())/1e3, prefix+"p50-ms")
	b.ReportMetric(float64(l[len(l)*99/100].Microseconds())/1e3, prefix+"p99-ms")
}

type committed struct {
	id string
	at time.Time
}

// await notes when each document has reached both indexes.
func await(b *testing.B, store *reader, watch <-chan committed) []time.Duration {
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
		model, err := store.Model(b.Context())
		if err == nil && model.Dimension > 0 {
			vectors, err := store.Vectors(model)
			if err != nil {
				b.Fatal(err)
			}
			r := &reader{store, store.Text(), vectors}
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

func build(b *testing.B) string {
	bin := filepath.Join(b.TempDir(), "leat")
	if out, err := exec.Command("go", "build", "-o", bin, "leat/cmd/leat").CombinedOutput(); err != nil {
		b.Fatalf("build: %v\n%s", err, out)
	}
	return bin
}

// residentMB is the resident memory of a process in MiB, as Linux tells it.
func residentMB(b *testing.B, pid int) float64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmRSS:" {
			kb, _ := strconv.Atoi(f[1])
			return float64(kb) / 1024
		}
	}
	b.Fatal("no VmRSS")
	return 0
}
