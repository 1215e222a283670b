// Package search measures how well and how fast leat finds what was asked for.
//
//	LEAT_BENCH_DATA=FOLDER go test -run=- -bench=. -benchtime=1x ./bench/search
package search

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"leat"
	"leat/internal/search"
	"leat/internal/testenv"
	"leat/sinks/elastic"
	"leat/sinks/milvus"
)

func unit(rnd *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	var norm float64
	for i := range v {
		v[i] = float32(rnd.NormFloat64())
		norm += float64(v[i]) * float64(v[i])
	}
	for i := range v {
		v[i] /= float32(math.Sqrt(norm))
	}
	return v
}

// BenchmarkQuality embeds every paragraph as a chunk and asks every question:
// how often its paragraph comes first, among the first five, and the mean of
// 1/rank (ranks past 20 count as none). Reciprocal rank fusion is the baseline
// of hybrid search.
func BenchmarkQuality(b *testing.B) {
	m := model(b)
	quality(b, m, func(string) (leat.TextIndex, leat.VectorIndex) { return stores(b, b.TempDir(), m.Model()) })
}

// BenchmarkQualityOnServers is the same over Elasticsearch and Milvus.
func BenchmarkQualityOnServers(b *testing.B) {
	m := model(b)
	es, mv := testenv.Elasticsearch(b), testenv.Milvus(b)
	quality(b, m, func(name string) (leat.TextIndex, leat.VectorIndex) { return onServers(b, es, mv, name, m.Model()) })
}

// onServers opens two empty indexes.
func onServers(b *testing.B, es *testenv.Elasticsearch8, mv *testenv.MilvusServer, name string, m leat.Model) (leat.TextIndex, leat.VectorIndex) {
	b.Helper()
	log := slog.New(slog.DiscardHandler)
	text, err := elastic.Open(b.Context(), elastic.Config{URLs: []string{es.URL()}, Replicas: new(int)}, name, 1, log)
	if err != nil {
		b.Fatal(err)
	}
	vectors, err := milvus.Open(b.Context(), milvus.Config{Address: mv.Addr()}, name, 1, m, log)
	if err != nil {
		b.Fatal(errors.Join(err, text.Close()))
	}
	b.Cleanup(func() {
		if err := errors.Join(text.Close(), vectors.Close()); err != nil {
			b.Error(err)
		}
	})
	return text, vectors
}

func quality(b *testing.B, m leat.Embedder, open func(name string) (leat.TextIndex, leat.VectorIndex)) {
	sets := both(b)
	ctx := context.Background()
	const deep = 20
	for i, s := range sets {
		text, vectors := open(fmt.Sprint("bench-", i))
		embedded, err := m.Embed(ctx, leat.Passage, s.paragraphs)
		if err != nil {
			b.Fatal(err)
		}
		id := func(i int) string { return fmt.Sprintf("bench:%04d", i) }
		var all []leat.Revision
		for i, p := range s.paragraphs {
			all = append(all, revision(id(i), 1, []string{p}, embedded[i:i+1]))
		}
		for _, x := range []leat.Sink{text, vectors} {
			if _, err := x.Apply(ctx, all); err != nil {
				b.Fatal(err)
			}
			if _, err := x.Stats(ctx); err != nil { // which sees all that is durable
				b.Fatal(err)
			}
		}
		searcher := search.New(text, vectors, m)
		ask := func(mode search.Mode, q string, limit int) []string {
			r, err := searcher.Search(ctx, q, mode, limit)
			if err != nil {
				b.Fatal(err)
			}
			var ids []string
			for _, h := range r.Hits {
				ids = append(ids, h.Document)
			}
			return ids
		}
		by := func(mode search.Mode) func(string) []string {
			return func(q string) []string { return ask(mode, q, deep) }
		}
		byRanks := func(q string) []string {
			score := map[string]float64{}
			for _, mode := range []search.Mode{search.Text, search.Vector} {
				for rank, id := range ask(mode, q, 100) {
					score[id] += 1 / float64(60+rank+1)
				}
			}
			ids := make([]string, 0, len(score))
			for id := range score {
				ids = append(ids, id)
			}
			slices.SortFunc(ids, func(x, y string) int {
				return cmp.Or(cmp.Compare(score[y], score[x]), cmp.Compare(x, y))
			})
			return ids
		}
		for _, way := range []struct {
			name string
			ask  func(string) []string
		}{
			{"text", by(search.Text)},
			{"vector", by(search.Vector)},
			{"hybrid", by(search.Hybrid)},
			{"rank fusion", byRanks},
		} {
			b.Run(s.name+"/"+way.name, func(b *testing.B) {
				var first, five, mrr float64
				for range b.N {
					first, five, mrr = 0, 0, 0
					for _, q := range s.questions {
						rank := slices.Index(way.ask(q.text), id(q.paragraph)) + 1
						if rank == 0 || rank > deep {
							continue
						}
						if rank == 1 {
							first++
						}
						if rank <= 5 {
							five++
						}
						mrr += 1 / float64(rank)
					}
				}
				n := float64(len(s.questions))
				b.ReportMetric(0, "ns/op") // the time says nothing here
				b.ReportMetric(first/n, "R@1")
				b.ReportMetric(five/n, "R@5")
				b.ReportMetric(mrr/n, "MRR")
			})
		}
	}
}
