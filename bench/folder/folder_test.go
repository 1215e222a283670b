// Package folder measures the folder source by itself: no broker, no model.
package folder

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"leat"
	"leat/sources/folder"
	"leat/sources/sourcetest"
)

const files = 20_000

// tree makes a folder of files in folders of 1,000.
func tree(b *testing.B, files int) string {
	b.Helper()
	dir := b.TempDir()
	for i := range files {
		path := filepath.Join(dir, fmt.Sprintf("folder %03d/file %d.md", i/1000, i))
		if i%1000 == 0 {
			if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
				b.Fatal(err)
			}
		}
		if err := os.WriteFile(path, []byte("text"), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	return dir
}

func source(b *testing.B, dir string) *folder.Source {
	b.Helper()
	s, err := folder.New("bench", folder.Config{Path: dir}, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
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

// BenchmarkScan measures a scan of files that the index lacks, and of files
// that it holds.
func BenchmarkScan(b *testing.B) {
	src := source(b, tree(b, files))
	var known []leat.DocumentState
	if err := src.Run(b.Context(), session(nil, func(batch leat.Batch) {
		for _, e := range batch.Events {
			known = append(known, leat.DocumentState{ID: e.ID, Version: e.Version, Tag: e.Document.Ref.Tag})
		}
	})); err != nil {
		b.Fatal(err)
	}
	for name, known := range map[string][]leat.DocumentState{"New": nil, "Unchanged": known} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				events := 0
				if err := src.Run(b.Context(), session(known, func(batch leat.Batch) { events += len(batch.Events) })); err != nil {
					b.Fatal(err)
				}
				if want := files - len(known); events != want {
					b.Fatalf("%d events, not %d", events, want)
				}
			}
			b.ReportMetric(float64(files)*float64(b.N)/b.Elapsed().Seconds(), "files/s")
		})
	}
}

// BenchmarkWatch measures the time from the end of a write to its event.
func BenchmarkWatch(b *testing.B) {
	dir := tree(b, 1000)
	ctx, cancel := context.WithCancel(b.Context())
	events := make(chan leat.Event, 2000)
	rec := sourcetest.NewRecorder("folder:bench")
	rec.Hook = func(_ context.Context, batch leat.Batch) error {
		for _, e := range batch.Events {
			events <- e
		}
		return nil
	}
	s, _ := rec.Session(false, slog.New(slog.DiscardHandler))
	done := make(chan error, 1)
	go func() { done <- source(b, dir).Run(ctx, s) }()
	for range 1000 {
		<-events
	}
	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		start := time.Now()
		if err := os.WriteFile(filepath.Join(dir, "folder 000", "changed.md"), fmt.Append(nil, i), 0o600); err != nil {
			b.Fatal(err)
		}
		<-events
		took = append(took, time.Since(start))
	}
	cancel()
	<-done
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Milliseconds()), "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Milliseconds()), "p99-ms")
}
