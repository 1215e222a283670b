// Package milvus measures the Milvus index beside what its client's library
// does with the same rows: BenchmarkApply, and how soon what was applied is
// found: BenchmarkFresh. All in one run on one server, which is fetched by
// `make servers`.
package milvus

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/milvus-io/milvus/client/v2/column"
	"github.com/milvus-io/milvus/client/v2/entity"
	"github.com/milvus-io/milvus/client/v2/index"
	"github.com/milvus-io/milvus/client/v2/milvusclient"

	"leat"
	"leat/internal/testenv"
	"leat/sinks/milvus"
)

const (
	dimension = 384
	documents = 500 // a batch, of 3 MB
	chunks    = 4   // a document
)

var discard = slog.New(slog.DiscardHandler)

func vector(rnd *rand.Rand) []float32 {
	v := make([]float32, dimension)
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

// batch makes revisions of documents from number first on.
func batch(rnd *rand.Rand, first int, version uint64) []leat.Revision {
	revisions := make([]leat.Revision, documents)
	for i := range revisions {
		id := fmt.Sprintf("mysql:shop/store.products/%d", first+i)
		r := leat.Revision{Document: id, Version: version, Title: fmt.Sprintf("Product %d", first+i), Last: true}
		for c := range chunks {
			text := fmt.Sprintf("%d of %s at %d", c, id, version)
			r.Chunks = append(r.Chunks, leat.Chunk{ID: leat.ChunkID(id, text, 0), Ordinal: c, Start: int64(c) * 800, End: int64(c)*800 + 780,
				Tokens: 190, Heading: []string{"Products", "Description"}, Vector: vector(rnd)})
		}
		revisions[i] = r
	}
	return revisions
}

func openIndex(b *testing.B, addr string) *milvus.Index {
	b.Helper()
	name := fmt.Sprintf("bench%d", time.Now().UnixNano())
	x, err := milvus.Open(b.Context(), milvus.Config{Address: addr}, name, 1, leat.Model{Name: "bench", Dimension: dimension}, discard)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { x.Close() })
	return x
}

// plain is the library alone: one collection with the same fields.
type plain struct {
	client *milvusclient.Client
	name   string
}

func openPlain(b *testing.B, addr string) *plain {
	b.Helper()
	ctx := b.Context()
	p := &plain{name: fmt.Sprintf("plain%d", time.Now().UnixNano())}
	var err error
	if p.client, err = milvusclient.New(ctx, &milvusclient.ClientConfig{Address: addr}); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { p.client.Close(context.Background()) })
	schema := entity.NewSchema().WithField(entity.NewField().WithName("id").WithDataType(entity.FieldTypeVarChar).WithIsPrimaryKey(true).WithMaxLength(200))
	for _, f := range []string{"document", "chunk", "heading"} {
		schema.WithField(entity.NewField().WithName(f).WithDataType(entity.FieldTypeVarChar).WithMaxLength(2000))
	}
	for _, f := range []string{"version", "ordinal", "start", "end", "tokens", "page"} {
		schema.WithField(entity.NewField().WithName(f).WithDataType(entity.FieldTypeInt64))
	}
	schema.WithField(entity.NewField().WithName("vector").WithDataType(entity.FieldTypeFloatVector).WithDim(dimension))
	err = p.client.CreateCollection(ctx, milvusclient.NewCreateCollectionOption(p.name, schema).WithShardNum(1).
		WithIndexOptions(milvusclient.NewCreateIndexOption(p.name, "vector", index.NewHNSWIndex(entity.COSINE, 16, 200))))
	if err != nil {
		b.Fatal(err)
	}
	load, err := p.client.LoadCollection(ctx, milvusclient.NewLoadCollectionOption(p.name))
	if err == nil {
		err = load.Await(ctx)
	}
	if err != nil {
		b.Fatal(err)
	}
	return p
}

// upsert writes the chunks of the revisions.
func (p *plain) upsert(ctx context.Context, revisions []leat.Revision) error {
	var ids, docs, chunk, heading []string
	var version, ordinal, start, end, tokens, page []int64
	var vectors [][]float32
	for _, r := range revisions {
		for _, ch := range r.Chunks {
			ids, docs = append(ids, fmt.Sprintf("%s#%d", r.Document, ch.Ordinal)), append(docs, r.Document)
			chunk, heading = append(chunk, ch.ID), append(heading, fmt.Sprint(ch.Heading))
			version, ordinal = append(version, int64(r.Version)), append(ordinal, int64(ch.Ordinal))
			start, end = append(start, ch.Start), append(end, ch.End)
			tokens, page = append(tokens, int64(ch.Tokens)), append(page, int64(ch.Page))
			vectors = append(vectors, ch.Vector)
		}
	}
	_, err := p.client.Upsert(ctx, milvusclient.NewColumnBasedInsertOption(p.name,
		column.NewColumnVarChar("id", ids), column.NewColumnVarChar("document", docs), column.NewColumnVarChar("chunk", chunk),
		column.NewColumnVarChar("heading", heading), column.NewColumnInt64("version", version), column.NewColumnInt64("ordinal", ordinal),
		column.NewColumnInt64("start", start), column.NewColumnInt64("end", end), column.NewColumnInt64("tokens", tokens),
		column.NewColumnInt64("page", page), column.NewColumnFloatVector("vector", dimension, vectors)))
	return err
}

// search sees all that was written before.
func (p *plain) search(ctx context.Context, vector []float32) error {
	_, err := p.client.Search(ctx, milvusclient.NewSearchOption(p.name, 1, []entity.Vector{entity.FloatVector(vector)}).
		WithANNSField("vector").WithConsistencyLevel(entity.ClStrong))
	return err
}

// BenchmarkApply writes the same batches of 2,000 chunks of 384 dimensions by
// the index and by the library alone, in turns of 5 batches until the server
// finds the last of them: new documents, and new versions of them, which in the
// index replace the former.
func BenchmarkApply(b *testing.B) {
	addr := testenv.Milvus(b).Addr()
	for _, what := range []string{"New", "Changed"} {
		b.Run(what, func(b *testing.B) {
			x, p := openIndex(b, addr), openPlain(b, addr)
			rnd := rand.New(rand.NewPCG(1, 1))
			const turn = 5
			var leatTime, plainTime time.Duration
			n := 0
			for b.Loop() {
				var work [][]leat.Revision
				for k := range turn {
					first, version := (n*turn+k)*documents, uint64(1)
					if what == "Changed" {
						first, version = k*documents, uint64(n+1)
					}
					work = append(work, batch(rnd, first, version))
				}
				each := func(write func([]leat.Revision) error, find func() error) time.Duration {
					began := time.Now()
					for _, r := range work {
						if err := write(r); err != nil {
							b.Fatal(err)
						}
					}
					if err := find(); err != nil {
						b.Fatal(err)
					}
					return time.Since(began)
				}
				q := work[0][0].Chunks[0].Vector
				leatTime += each(func(r []leat.Revision) error {
					_, err := x.Apply(b.Context(), r)
					return err
				}, func() error {
					_, err := x.SearchVector(b.Context(), q, 1)
					return err
				})
				plainTime += each(func(r []leat.Revision) error { return p.upsert(b.Context(), r) }, func() error { return p.search(b.Context(), q) })
				n++
			}
			rows := float64(n * turn * documents * chunks)
			b.ReportMetric(rows/leatTime.Seconds(), "leat-rows/s")
			b.ReportMetric(rows/plainTime.Seconds(), "plain-rows/s")
			b.ReportMetric(plainTime.Seconds()/leatTime.Seconds(), "ratio")
		})
	}
}

// BenchmarkFresh changes one document and searches until it is found at its
// new version, with 10,000 others beside it.
func BenchmarkFresh(b *testing.B) {
	x := openIndex(b, testenv.Milvus(b).Addr())
	rnd := rand.New(rand.NewPCG(1, 1))
	for i := range 10 {
		if _, err := x.Apply(b.Context(), batch(rnd, 1000+i*documents, 1)); err != nil {
			b.Fatal(err)
		}
	}
	var apply, search []time.Duration
	version := uint64(1)
	for b.Loop() {
		version++
		r := batch(rnd, 0, version)[:1]
		began := time.Now()
		if _, err := x.Apply(b.Context(), r); err != nil {
			b.Fatal(err)
		}
		applied := time.Now()
		m, err := x.SearchVector(b.Context(), r[0].Chunks[0].Vector, 10)
		if err != nil || len(m) == 0 || m[0].Version != version || m[0].Document != r[0].Document {
			b.Fatalf("%+v, %v", m, err)
		}
		apply, search = append(apply, applied.Sub(began)), append(search, time.Since(applied))
	}
	for name, d := range map[string][]time.Duration{"apply": apply, "search": search} {
		slices.Sort(d)
		b.ReportMetric(float64(d[len(d)/2].Microseconds())/1000, name+"-p50-ms")
		b.ReportMetric(float64(d[len(d)*99/100].Microseconds())/1000, name+"-p99-ms")
	}
}
