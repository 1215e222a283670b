// Package elastic measures the Elasticsearch sink against a real server of its
// own: how fast it is filled beside esutil.BulkIndexer, and how soon a change is
// found.
//
//	go test -run=- -bench=. -benchtime=1x ./bench/elastic
package elastic

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/elastic/go-elasticsearch/v8"
	"github.com/elastic/go-elasticsearch/v8/esutil"
	"golang.org/x/sync/errgroup"

	"leat"
	"leat/bench/program"
	"leat/internal/testenv/local"
	"leat/sinks/elastic"
)

var discard = slog.New(slog.DiscardHandler)

func server(b *testing.B) *local.Elasticsearch {
	b.Helper()
	installation, err := local.FindElasticsearch()
	if err != nil {
		b.Skipf("%v: run `make servers`", err)
	}
	dir, err := local.NewDir("bench-elastic")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := dir.Remove(); err != nil {
			b.Error(err)
		}
	})
	es, err := local.StartElasticsearch(b.Context(), installation, dir.Path)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { es.Close() })
	return es
}

func open(b *testing.B, url, name string) *elastic.Index {
	b.Helper()
	x, err := elastic.Open(b.Context(), elastic.Config{URLs: []string{url}, Replicas: new(int)}, name, 1, discard)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { x.Close() })
	return x
}

// text is about n bytes, English and Chinese in turns.
func text(rnd *rand.Rand, n int) string {
	english := strings.Fields("the kettle switches off before water boils because its lid is not closed or scale covers the sensor clean it with vinegar and try again after an hour if nothing helps return the device within two years of purchase")
	chinese := []rune("数据库的索引让查询更快但写入变慢请在保修期内把商品寄回我们会在七个工作日内退款太阳能灯需要充电八小时")
	var b strings.Builder
	for b.Len() < n {
		if rnd.IntN(2) == 0 {
			b.WriteString(english[rnd.IntN(len(english))] + " ")
		} else {
			at := rnd.IntN(len(chinese) - 8)
			b.WriteString(string(chinese[at:at+8]) + "。")
		}
	}
	return b.String()
}

func revision(id string, version uint64, texts ...string) leat.Revision {
	r := leat.Revision{Document: id, Version: version, Last: true, Title: "Row " + id, Source: "mysql:bench", Metadata: map[string]any{"sku": id}}
	var at int64
	for i, t := range texts {
		r.Chunks = append(r.Chunks, leat.Chunk{ID: leat.ChunkID(id, t, i), Ordinal: i, Start: at, End: at + int64(len(t)), Tokens: len(t) / 4, Text: t})
		at += int64(len(t))
	}
	return r
}

// fill applies revisions as two consumers do, in batches of up to 1,000.
func fill(ctx context.Context, x *elastic.Index, revisions []leat.Revision) error {
	g, ctx := errgroup.WithContext(ctx)
	for part := range slices.Chunk(revisions, (len(revisions)+1)/2) {
		g.Go(func() error {
			for batch := range slices.Chunk(part, 1000) {
				if _, err := x.Apply(ctx, batch); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// BenchmarkFill compares with esutil.BulkIndexer, which is given the very items
// that leat sends, on an index made in the same way.
func BenchmarkFill(b *testing.B) {
	es := server(b)
	const documents, chunks, rounds = 4_000, 2, 3
	rnd := rand.New(rand.NewPCG(1, 2))
	var revisions []leat.Revision
	for i := range documents {
		var texts []string
		for range chunks {
			texts = append(texts, text(rnd, 800))
		}
		revisions = append(revisions, revision(fmt.Sprint("mysql:bench/shop.products/", i), 1, texts...))
	}
	items := recorded(b, es.URL(), revisions)
	var size int
	for _, it := range items {
		size += it.size
	}
	b.Logf("%d items, %d MB", len(items), size>>20)

	var mine, theirs time.Duration
	for range b.N {
		mine, theirs = 0, 0
		for round := range rounds { // in turns, so that a busy machine slows both
			x := open(b, es.URL(), fmt.Sprint("leat-", round))
			began := time.Now()
			if err := fill(b.Context(), x, revisions); err != nil {
				b.Fatal(err)
			}
			mine += time.Since(began)
			name := fmt.Sprint("plain-", round)
			open(b, es.URL(), name)
			began = time.Now()
			plain(b, es.URL(), name+"-g1", items)
			theirs += time.Since(began)
		}
	}
	b.ReportMetric(0, "ns/op")
	rate := func(d time.Duration) float64 { return float64(size) * rounds / (1 << 20) / d.Seconds() }
	b.ReportMetric(rate(mine), "leat-MB/s")
	b.ReportMetric(rate(theirs), "BulkIndexer-MB/s")
	b.ReportMetric(float64(theirs)/float64(mine), "ratio")
}

// sent is an item of a bulk request.
type sent struct {
	esutil.BulkIndexerItem
	body []byte
	size int
}

// recorded is what leat sends to fill an index.
func recorded(b *testing.B, to string, revisions []leat.Revision) (items []sent) {
	target, err := url.Parse(to)
	if err != nil {
		b.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	var mu sync.Mutex
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/_bulk") {
			body, _ := io.ReadAll(r.Body)
			r.Body = io.NopCloser(bytes.NewReader(body))
			lines := bytes.Split(bytes.TrimSpace(body), []byte("\n"))
			mu.Lock()
			for i := 0; i+1 < len(lines); i += 2 {
				var action map[string]struct {
					ID          string `json:"_id"`
					Routing     string
					Version     *int64
					VersionType string `json:"version_type"`
				}
				if err := json.Unmarshal(lines[i], &action); err != nil {
					b.Error(err)
				}
				a := action["index"]
				items = append(items, sent{esutil.BulkIndexerItem{Action: "index", DocumentID: a.ID, Routing: a.Routing,
					Version: a.Version, VersionType: a.VersionType}, lines[i+1], len(lines[i]) + len(lines[i+1]) + 2})
			}
			mu.Unlock()
		}
		proxy.ServeHTTP(w, r)
	}))
	defer s.Close()
	x := open(b, s.URL, "recorded")
	if err := fill(b.Context(), x, revisions); err != nil {
		b.Fatal(err)
	}
	return items
}

func plain(b *testing.B, url, index string, items []sent) {
	client, err := elasticsearch.NewClient(elasticsearch.Config{Addresses: []string{url}})
	if err != nil {
		b.Fatal(err)
	}
	bulk, err := esutil.NewBulkIndexer(esutil.BulkIndexerConfig{Client: client, Index: index, NumWorkers: 2})
	if err != nil {
		b.Fatal(err)
	}
	for _, it := range items {
		item := it.BulkIndexerItem
		item.Body = bytes.NewReader(it.body)
		if err := bulk.Add(b.Context(), item); err != nil {
			b.Fatal(err)
		}
	}
	if err := bulk.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
	if st := bulk.Stats(); st.NumFailed > 0 || st.NumFlushed != uint64(len(items)) {
		b.Fatalf("%+v", st)
	}
}

// BenchmarkFreshness changes 200 rows a second, each at its own moment, in an
// index of 20,000, and asks for one in forty until it is found. It compares the
// sink as it is with one that has searches see every batch at once.
func BenchmarkFreshness(b *testing.B) {
	es := server(b)
	x := open(b, es.URL(), "fresh")
	const documents, rate, seconds = 20_000, 200, 15
	rnd := rand.New(rand.NewPCG(3, 4))
	id := func(i int) string { return fmt.Sprint("mysql:bench/shop.products/", i) }
	var all []leat.Revision
	for i := range documents {
		all = append(all, revision(id(i), 1, text(rnd, 800)))
	}
	if err := fill(b.Context(), x, all); err != nil {
		b.Fatal(err)
	}
	version := uint64(1)
	for _, way := range []struct {
		name    string
		refresh bool
	}{{"warm-up", false}, {"as it is", false}, {"refresh after each batch", true}} {
		b.Run(way.name, func(b *testing.B) {
			var waits []time.Duration
			var batches int
			cpu := program.CPU(b, es.PID())
			for range b.N {
				version++
				w, n, err := change(b.Context(), x, way.refresh, version, rate*seconds, rate, func(i int) string { return id(rnd.IntN(documents)) })
				if err != nil {
					b.Fatal(err)
				}
				waits, batches = append(waits, w...), batches+n
			}
			slices.Sort(waits)
			at := func(p float64) float64 {
				return float64(waits[int(p*float64(len(waits)-1))].Microseconds()) / 1000
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(at(.5), "p50-ms")
			b.ReportMetric(at(.99), "p99-ms")
			b.ReportMetric(float64(batches)/float64(b.N*seconds), "batches/s")
			b.ReportMetric((program.CPU(b, es.PID())-cpu).Seconds()*1000/float64(b.N*rate*seconds), "server-CPU-ms/row")
		})
	}
}

// change makes n changes at a rate and returns how long those asked for took to
// be found, and in how many batches all were applied.
func change(ctx context.Context, x *elastic.Index, refresh bool, version uint64, n, rate int, id func(int) string) (waits []time.Duration, batches int, err error) {
	type row struct {
		leat.Revision
		word string
		made time.Time
	}
	due := make(chan row, n)
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(due)
		start := time.Now()
		for i := range n {
			time.Sleep(time.Until(start.Add(time.Duration(i) * time.Second / time.Duration(rate))))
			word := fmt.Sprintf("w%dx%d", version, i)
			due <- row{revision(id(i), version*1_000_000+uint64(i), "now "+word+" in a text"), word, time.Now()}
		}
		return nil
	})
	g.Go(func() error {
		for first := range due {
			rows := []row{first}
			for len(due) > 0 && len(rows) < 1000 {
				rows = append(rows, <-due)
			}
			var batch []leat.Revision
			for _, r := range rows {
				batch = append(batch, r.Revision)
			}
			if _, err := x.Apply(ctx, batch); err != nil {
				return err
			}
			if refresh {
				if err := x.Refresh(ctx); err != nil {
					return err
				}
			}
			batches++
			for _, r := range rows {
				if rand.IntN(40) > 0 {
					continue
				}
				g.Go(func() error {
					for {
						m, err := x.SearchText(ctx, r.word, 1)
						if err != nil {
							return err
						}
						if len(m) > 0 {
							break
						}
						if time.Since(r.made) > time.Minute {
							return nil // changed again since
						}
						time.Sleep(20 * time.Millisecond)
					}
					mu.Lock()
					defer mu.Unlock()
					waits = append(waits, time.Since(r.made))
					return nil
				})
			}
		}
		return nil
	})
	return waits, batches, g.Wait()
}
