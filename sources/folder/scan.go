package folder

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"leat"
	"leat/sources/listing"
)

const (
	// pollEvery is the pause between scans where the folder cannot be watched.
	// A scan that took long earns a longer one.
	pollEvery  = 5 * time.Second
	pollFactor = 10
	maxFolders = 1024 // folders waiting for a scan; past that, all is scanned
)

// scan merges the sorted walk of the folder at rel, "" for the root, with the
// sorted list of what the index holds below it.
func (s *session) scan(ctx context.Context, rel string) error {
	if err := s.sameRoot(); err != nil {
		return err
	}
	if rel == "" {
		if unmounted := s.rootMounted(); unmounted != nil {
			known, err := s.teller.Knows(ctx, s.prefix(rel))
			if err != nil {
				return err
			}
			if known {
				return unmounted
			}
		}
	}

	var done int64
	var mounts []string
	w := s.walker()
	w.unlisted = s.warn
	w.mount = func(rel string) {
		mounts = append(mounts, rel)
		s.mounted(rel)
	}
	items := func(yield func(listing.Item, error) bool) {
		w.found = func(f found) error {
			if done++; done%1000 == 0 {
				s.Report(leat.Progress{Phase: "scanning", Position: f.rel, Done: done, Total: max(s.scans.total(), done)})
			}
			if !yield(listing.Item{ID: s.id(f.rel), Tag: f.tag}, nil) {
				return errStopped
			}
			return nil
		}
		if err := w.walk(ctx, rel); err != nil && !errors.Is(err, errStopped) {
			yield(listing.Item{}, err)
		}
	}
	if err := s.teller.Scan(ctx, s.prefix(rel), items); err != nil {
		return err
	}
	if rel == "" {
		s.setMounts(mounts)
		if err := s.teller.Complete(ctx); err != nil {
			return err
		}
		s.scans.setTotal(done)
		s.report("scanning", fmt.Sprintf("%d files", done), done)
	}
	return s.sameRoot()
}

// scans says when to scan what.
type scans struct {
	mu      sync.Mutex
	files   int64               // that the last full scan came by
	folders map[string]struct{} // to scan soon
	all     chan struct{}       // scan everything now
	some    chan struct{}       // folders has got one
	polling bool                // the watch does not cover everything
}

func newScans() scans {
	return scans{
		folders: map[string]struct{}{},
		all:     make(chan struct{}, 1),
		some:    make(chan struct{}, 1),
	}
}

func (s *scans) total() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.files
}

func (s *scans) setTotal(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files = n
}

func (s *scans) poll(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.polling = on
}

func (s *scans) pause(rescan, took time.Duration) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.polling {
		return rescan
	}
	return min(rescan, max(pollEvery, pollFactor*took))
}

// everything asks for a full scan.
func (s *scans) everything() { signal(s.all) }

// folder asks for a scan of the folder at rel.
func (s *scans) folder(rel string) {
	s.mu.Lock()
	full := len(s.folders) >= maxFolders
	if !full {
		s.folders[rel] = struct{}{}
	}
	s.mu.Unlock()
	if full {
		s.everything()
		return
	}
	signal(s.some)
}

// take returns the folders to scan, those below others left out.
func (s *scans) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var top []string
	for _, rel := range slices.Sorted(maps.Keys(s.folders)) {
		if !slices.ContainsFunc(top, func(above string) bool { return strings.HasPrefix(rel, above+"/") }) {
			top = append(top, rel)
		}
	}
	clear(s.folders)
	return top
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// rescan scans everything once the watch has begun, then whenever asked or due.
func (s *session) rescan(ctx context.Context) error {
	select {
	case <-s.scans.all:
	case <-ctx.Done():
	}
	for {
		start := time.Now()
		if err := s.scan(ctx, ""); err != nil {
			return err
		}
		s.report("watching", fmt.Sprintf("%d files", s.scans.total()), s.scans.total())
		timer := time.NewTimer(s.scans.pause(s.cfg.Rescan, time.Since(start)))
		select {
		case <-timer.C:
		case <-s.scans.all:
		case <-ctx.Done():
		}
		timer.Stop()
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// rescanFolders scans folders that came, went or were renamed, of which the
// watch tells only that.
func (s *session) rescanFolders(ctx context.Context) error {
	for {
		select {
		case <-s.scans.some:
		case <-ctx.Done():
			return ctx.Err()
		}
		// What is being written there gets the same rest as a single file.
		select {
		case <-time.After(quiet):
		case <-ctx.Done():
			return ctx.Err()
		}
		for _, rel := range s.scans.take() {
			if err := s.scan(ctx, rel); err != nil {
				return err
			}
		}
	}
}

func (s *session) report(phase, position string, files int64) {
	s.Report(leat.Progress{Phase: phase, Position: position, Done: files, Total: files})
}
