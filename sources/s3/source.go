// Package s3 is a [leat.Source] over a bucket of MinIO or another server that
// speaks S3: every object in it is a document, its key the document's id. One
// whose key ends with a slash stands for a folder and is none.
//
// A notification is a hint only: it may be lost, come twice or late, or bear a
// key that is escaped. Whatever hints at an object, an event reports what a HEAD
// of the object shows, and of two events the one with the higher version never
// knows less. Of a versioned
// bucket the latest version counts, and a delete marker is a delete. What no
// notification told of (a listener hears nothing while it is disconnected) a
// reconciliation finds: it merges the list of the bucket with the list of what
// the index holds, in constant memory.
//
// A reference holds key and ETag: equal ETags are equal content, so a document
// outlives the version of its object that it was read from.
package s3

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sync/errgroup"

	"leat"
	"leat/sources/listing"
)

const kind = "s3"

const (
	// quiet is how long an object must rest before it is looked at, so that one
	// that is written many times is read once; longest is after how long one
	// that never rests is looked at all the same.
	quiet   = 20 * time.Millisecond
	longest = time.Second
	tick    = 20 * time.Millisecond

	parallel = 16 // HEAD requests at a time

	// silence is how long a listener hears nothing, not even that there is
	// nothing, before its connection counts as broken.
	silence = 30 * time.Second
)

// Source is a bucket.
type Source struct {
	name      string
	cfg       Config
	log       *slog.Logger
	client    *minio.Client
	transport *http.Transport
	silence   time.Duration
}

// New makes the source with a name over a bucket. Nothing is connected before
// Run.
func New(name string, cfg Config, log *slog.Logger) (*Source, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Reconcile == 0 {
		cfg.Reconcile = defaultReconcile
	}
	s := &Source{name: name, cfg: cfg, log: log.With("source", kind+":"+name), silence: silence}
	return s, s.connect()
}

// Close implements [leat.Source].
func (s *Source) Close() error {
	s.transport.CloseIdleConnections()
	return nil
}

// Check implements [leat.Checker]: it lists the bucket, looks at an object and
// listens.
func (s *Source) Check(ctx context.Context) error {
	if err := s.probe(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	heard := false
	err := s.listen(ctx, func() { heard = true; cancel() }, func(string, time.Time) {})
	if heard || errors.Is(err, errNoNotifications) {
		return nil
	}
	return err
}

// position is what a session leaves to the next, for people: where to resume is
// found by the merge.
type position struct {
	Epoch uint64    `json:"epoch"`
	Time  time.Time `json:"time"`
}

// session is one Run.
type session struct {
	*Source
	leat.Session
	teller *listing.Teller
	hints  listing.Hints

	listening chan struct{} // closed once the server tells of changes, or is known not to
	again     chan struct{} // asks for a reconciliation soon
	objects   int64         // that the last reconciliation listed
}

// Run implements [leat.Source]. What breaks the connection ends it: the next
// session finds what happened meanwhile.
func (s *Source) Run(ctx context.Context, ls leat.Session) error {
	if err := s.probe(ctx); err != nil {
		return err
	}
	run := &session{
		Source: s, Session: ls, teller: listing.NewTeller(s.looker(), ls),
		hints:     listing.Hints{Quiet: quiet, Longest: longest},
		listening: make(chan struct{}), again: make(chan struct{}, 1),
	}
	run.teller.Failed = func(_ string, err error) error { return err }
	run.teller.Position = func() (json.RawMessage, error) {
		return json.Marshal(position{Epoch: ls.Epoch, Time: time.Now().UTC()})
	}
	if ls.Once {
		return run.scan(ctx)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return run.hear(ctx) })
	g.Go(func() error { return run.watch(ctx) })
	g.Go(func() error { return run.reconcile(ctx) })
	return g.Wait()
}

// hear gathers hints from notifications.
func (s *session) hear(ctx context.Context) error {
	err := s.listen(ctx, func() { close(s.listening) }, func(key string, at time.Time) {
		if s.cfg.selects(key) && !s.hints.Add(key, at) {
			s.reconcileSoon()
		}
	})
	if errors.Is(err, errNoNotifications) {
		s.log.Warn("the server does not tell of changes: the bucket is listed every "+s.cfg.Reconcile.String()+" instead",
			"hint", "set reconcile to how old a change may become")
		close(s.listening)
		return nil
	}
	return err
}

// watch looks at objects that were hinted at.
func (s *session) watch(ctx context.Context) error {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	var hints []listing.Hint
	tell := func() error {
		err := s.teller.Tell(ctx, hints)
		hints = hints[:0]
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		for key, at := range s.hints.Rested() {
			if hints = append(hints, listing.Hint{ID: s.id(key), Name: key, Time: at}); len(hints) == listing.Batch {
				if err := tell(); err != nil {
					return err
				}
			}
		}
		if err := tell(); err != nil {
			return err
		}
	}
}

// reconcile compares the bucket with the index once the server tells of
// changes, then whenever asked or due.
func (s *session) reconcile(ctx context.Context) error {
	select {
	case <-s.listening:
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		start := time.Now()
		if err := s.scan(ctx); err != nil {
			return err
		}
		s.report("watching")
		// A bucket into which much is written asks without end: half of the time
		// it gets.
		if err := sleep(ctx, min(s.cfg.Reconcile, max(time.Second, time.Since(start)))); err != nil {
			return err
		}
		due := time.NewTimer(time.Until(start.Add(s.cfg.Reconcile)))
		select {
		case <-due.C:
		case <-s.again:
		case <-ctx.Done():
		}
		due.Stop()
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

func (s *session) report(phase string) {
	s.Report(leat.Progress{Phase: phase, Position: fmt.Sprintf("%d objects", s.objects), Done: s.objects, Total: s.objects})
}

func (s *session) reconcileSoon() {
	select {
	case s.again <- struct{}{}:
	default:
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
