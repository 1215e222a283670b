// Package s3 measures the bucket source by itself, over a real MinIO server: no
// broker, no model.
package s3

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sync/errgroup"

	"leat"
	"leat/internal/testenv"
	"leat/sources/s3"
	"leat/sources/sourcetest"
)

const objects = 10_000

func put(ctx context.Context, server *testenv.ObjectStore, bucket, key, body string) error {
	_, err := server.Client().PutObject(ctx, bucket, key, strings.NewReader(body), int64(len(body)), minio.PutObjectOptions{})
	return err
}

// fill makes a bucket of objects.
func fill(b *testing.B, server *testenv.ObjectStore, objects int) string {
	b.Helper()
	bucket := server.Bucket(b, false)
	g, ctx := errgroup.WithContext(b.Context())
	g.SetLimit(8)
	for i := range objects {
		g.Go(func() error {
			return put(ctx, server, bucket, fmt.Sprintf("folder %03d/文件 %d.md", i/1000, i), "text")
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	return bucket
}

func source(b *testing.B, server *testenv.ObjectStore, bucket string) *s3.Source {
	b.Helper()
	s, err := s3.New("bench", s3.Config{
		Endpoint: server.URL(), AccessKey: server.AccessKey, SecretKey: leat.Secret(server.SecretKey), Bucket: bucket,
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	return s
}

// session is one over an index that holds what known says.
func session(known []leat.DocumentState, emit func(leat.Batch)) leat.Session {
	return leat.Session{
		Epoch: 1,
		Once:  true,
		Emit: func(_ context.Context, batch leat.Batch) error {
			emit(batch)
			return nil
		},
		Known: func(context.Context, string) iter.Seq2[leat.DocumentState, error] {
			return func(yield func(leat.DocumentState, error) bool) {
				for _, d := range known {
					if !yield(d, nil) {
						return
					}
				}
			}
		},
		Report: func(leat.Progress) {},
		Log:    slog.New(slog.DiscardHandler),
	}
}

// BenchmarkReconcile measures a reconciliation with a bucket of objects that
// the index lacks, and of objects that it holds.
func BenchmarkReconcile(b *testing.B) {
	server := testenv.MinIO(b)
	src := source(b, server, fill(b, server, objects))
	var known []leat.DocumentState
	if err := src.Run(b.Context(), session(nil, func(batch leat.Batch) {
		for _, e := range batch.Events {
			known = append(known, leat.DocumentState{ID: e.ID, Version: e.Version, Tag: e.Document.Ref.Tag})
		}
	})); err != nil {
		b.Fatal(err)
	}
	slices.SortFunc(known, func(a, b leat.DocumentState) int { return strings.Compare(a.ID, b.ID) })
	for name, known := range map[string][]leat.DocumentState{"New": nil, "Unchanged": known} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				events := 0
				if err := src.Run(b.Context(), session(known, func(batch leat.Batch) { events += len(batch.Events) })); err != nil {
					b.Fatal(err)
				}
				if want := objects - len(known); events != want {
					b.Fatalf("%d events, not %d", events, want)
				}
			}
			b.ReportMetric(float64(objects)*float64(b.N)/b.Elapsed().Seconds(), "objects/s")
		})
	}
}

// BenchmarkWatch measures the time from the end of a put to its event, and
// beside it that of the put itself.
func BenchmarkWatch(b *testing.B) {
	server := testenv.MinIO(b)
	bucket := fill(b, server, 100)
	ctx, cancel := context.WithCancel(b.Context())
	events := make(chan leat.Event, 200)
	rec := sourcetest.NewRecorder("s3:bench")
	rec.Hook = func(_ context.Context, batch leat.Batch) error {
		for _, e := range batch.Events {
			events <- e
		}
		return nil
	}
	s, _ := rec.Session(false, slog.New(slog.DiscardHandler))
	done := make(chan error, 1)
	src := source(b, server, bucket)
	go func() { done <- src.Run(ctx, s) }()
	for range 100 {
		<-events
	}
	var puts, took []time.Duration
	for i := 0; b.Loop(); i++ {
		start := time.Now()
		if err := put(ctx, server, bucket, "changed.md", fmt.Sprint(i)); err != nil {
			b.Fatal(err)
		}
		end := time.Now()
		<-events
		puts, took = append(puts, end.Sub(start)), append(took, time.Since(end))
	}
	cancel()
	<-done
	for name, d := range map[string][]time.Duration{"put-": puts, "": took} {
		slices.Sort(d)
		b.ReportMetric(float64(d[len(d)/2].Microseconds())/1000, name+"p50-ms")
		b.ReportMetric(float64(d[len(d)*99/100].Microseconds())/1000, name+"p99-ms")
	}
}
