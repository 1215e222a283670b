package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"leat"
	"leat/bench/program"
	"leat/embedder/embeddertest"
	"leat/internal/stage"
	"leat/internal/testenv"
	"leat/sinks/elastic"
	"leat/sinks/milvus"
)

// BenchmarkFreshnessOnServers commits 200 rows a second, one a transaction, to
// MySQL; every stage is a process of its own, and Kafka, Elasticsearch and
// Milvus run on the same machine. For one row in two hundred it measures the time
// from the commit's return to the answer of the first search by words, in
// Elasticsearch, and by vector, in Milvus, that finds it.
func BenchmarkFreshnessOnServers(b *testing.B) {
	const rate, seconds, sample = 200, 150, 200
	const warmUp = 30 // seconds: until the servers' code has been compiled
	db := testenv.MySQL(b)
	kafka, es, mv := testenv.Kafka(b), testenv.Elasticsearch(b), testenv.Milvus(b, testenv.Flags("proxy.timeTickInterval=50"))
	null := embeddertest.Start(dimension)
	b.Cleanup(null.Close)
	name := db.Database(b)
	pipeline := strings.ReplaceAll(name, "_", "-")
	db.Exec(b, "CREATE TABLE "+name+".notes (id INT PRIMARY KEY, title VARCHAR(100), body TEXT)")
	dir := b.TempDir()
	yaml := fmt.Sprintf(`
name: %s
kafka: {brokers: [%q]}
elasticsearch: {urls: [%q], replicas: 0}
milvus: {address: %q}
sources:
  - name: bench
    mysql: {address: %q, user: %q, password: %q, tables: [{table: %s.notes, title: title, body: [body]}]}
embedder: {openai: {url: %q, model: stand-in, dimension: %d}}
`, pipeline, kafka.Addr(), es.URL(), mv.Addr(), db.Addr(), db.User, db.Password, name, null.BaseURL, dimension)
	if err := os.WriteFile(filepath.Join(dir, "pipeline.yaml"), []byte(yaml), 0o600); err != nil {
		b.Fatal(err)
	}
	bin := program.Build(b)
	for _, s := range stage.Names {
		program.Start(b, bin, dir, "run", "--stages", s)
	}
	insert := func(id int) time.Time {
		if _, err := db.Root().Exec("INSERT INTO "+name+".notes VALUES (?, ?, ?)", id, title(id), note(id)); err != nil {
			b.Fatal(err)
		}
		return time.Now()
	}
	id := func(n int) string { return leat.DocumentID("mysql", "bench", name+".notes", strconv.Itoa(n)) }

	insert(0)
	text := opened(b, func() (*elastic.Index, error) {
		return elastic.OpenReader(b.Context(), elastic.Config{URLs: []string{es.URL()}}, pipeline, 1, slog.New(slog.DiscardHandler))
	})
	defer text.Close()
	vectors := opened(b, func() (*milvus.Index, error) {
		return milvus.OpenReader(b.Context(), milvus.Config{Address: mv.Addr()}, pipeline, 1, slog.New(slog.DiscardHandler))
	})
	defer vectors.Close()
	found := map[string]func(n int) bool{
		"text": func(n int) bool {
			return visible(b, es.URL()+"/"+pipeline, id(n)) && has(b, id(n))(text.SearchText(b.Context(), unique(n), 3))
		},
		"vectors": func(n int) bool {
			return has(b, id(n))(vectors.SearchVector(b.Context(), passage(n), 3))
		},
	}

	latencies := map[string][]time.Duration{}
	var mu sync.Mutex
	var searching sync.WaitGroup
	watch := func(n int, at time.Time) {
		took := map[string]time.Duration{}
		var both sync.WaitGroup
		for store, find := range found {
			both.Go(func() {
				// To search all the time would be most of the machine's work: a wait
				// is measured too long by up to 4 %.
				for !find(n) && time.Since(at) < time.Minute {
					time.Sleep(max(10*time.Millisecond, time.Since(at)/25))
				}
				mu.Lock()
				defer mu.Unlock()
				took[store] = time.Since(at)
			})
		}
		both.Wait()
		mu.Lock()
		defer mu.Unlock()
		latencies["both"] = append(latencies["both"], max(took["text"], took["vectors"]))
		for store, t := range took {
			latencies[store] = append(latencies[store], t)
		}
	}
	begin := time.Now()
	for n := 1; n <= rate*seconds; n++ {
		time.Sleep(time.Until(begin.Add(time.Duration(n) * time.Second / rate)))
		at := insert(n)
		if n%sample == 0 && n > warmUp*rate {
			searching.Go(func() { watch(n, at) })
		}
	}
	b.ReportMetric(rate*seconds/time.Since(begin).Seconds(), "rows/s")
	searching.Wait()
	for store, l := range latencies {
		report(b, store+"-", l)
	}
	b.ReportMetric(float64(len(latencies["both"])), "samples")
	b.ReportMetric(0, "ns/op")
}

// passage is the vector of a row: one that is only near it could miss it, since
// Milvus searches its newest rows by clusters, and few of those.
func passage(id int) []float32 {
	return embeddertest.Vector(leat.Embeddable(title(id), note(id)), dimension)
}

func title(id int) string { return fmt.Sprintf("Note %d", id) }

func unique(id int) string { return fmt.Sprintf("u%dx", id) }

// note is about 200 bytes that no other note is near to.
func note(id int) string {
	rnd := rand.New(rand.NewPCG(uint64(id), 0))
	words := []string{unique(id)}
	for range 25 {
		words = append(words, fmt.Sprintf("w%d", int(5000*rnd.Float64()*rnd.Float64()))) // some often, as in a language
	}
	return strings.Join(words, " ") + "."
}

// visible asks what costs little: whether searches see the document's state.
func visible(b *testing.B, index, id string) bool {
	res, err := http.Get(index + "/_count?filter_path=count&q=document:" + url.QueryEscape(`"`+id+`"`))
	if err != nil {
		b.Error(err)
		return true
	}
	defer res.Body.Close()
	var answer struct{ Count int }
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil || res.StatusCode != http.StatusOK {
		b.Error(res.Status, err)
		return true
	}
	return answer.Count > 0
}

// opened opens a store once something is in it.
func opened[I leat.Sink](b *testing.B, open func() (I, error)) I {
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		x, err := open()
		if err == nil {
			return x
		}
		if !errors.Is(err, fs.ErrNotExist) || time.Now().After(deadline) {
			b.Fatal(err)
		}
	}
}

func has(b *testing.B, id string) func([]leat.Match, error) bool {
	return func(found []leat.Match, err error) bool {
		if err != nil && !errors.Is(err, context.Canceled) {
			b.Error(err)
			return true
		}
		return slices.ContainsFunc(found, func(m leat.Match) bool { return m.Document == id })
	}
}
