package stage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"time"

	"leat"
	"leat/internal/bus"
	"leat/internal/codec"
	"leat/internal/guard"
	"leat/internal/retry"
)

// Position is what the positions topic holds of a source, written by the
// process that leads it, under two keys: a session's claim of its epoch, and
// the position that it has reached. A deposed leader may still write a position
// after its successor's claim; that only makes the next session read a little
// again, while a claim is never overwritten by a lower one.
type Position struct {
	Epoch    uint64          `json:"epoch"` // of the session that wrote it
	Position json.RawMessage `json:"position,omitempty"`
	Reread   int64           `json:"reread,omitempty"` // how often the source had been asked to be read again
	Saved    time.Time       `json:"saved"`
}

// PositionKey is the key of a source's position on the positions topic.
func PositionKey(source string) string { return "position/" + source }

// ClaimKey is the key of the newest claim of a source's epoch.
func ClaimKey(source string) string { return "claim/" + source }

// Source runs one source while this process leads it.
type Source struct {
	Name   string // kind and name, such as "mysql:shop"
	Source leat.Source
	Once   bool
	Out    Producer
	Dead   *DeadLetters
	// Load reads the newest claim's epoch, 0 if there is none, and the newest position.
	Load func(ctx context.Context) (Position, error)
	// Reread is how often the source was asked to be read again from its
	// beginning, and a channel that closes when that may have changed.
	Reread func() (int64, <-chan struct{})
	// Known lists the index once it holds what the documents topic holds now.
	Known     func(ctx context.Context, prefix string) iter.Seq2[leat.DocumentState, error]
	Documents string // topic
	Positions string // topic
	Health    *Health
	Log       *slog.Logger
}

// onceAttempts is how often a source is tried before `leat run --once` gives up.
const onceAttempts = 3

// Run runs sessions of the source until ctx ends: each failure is reported and
// the next session starts, after a pause, at the last durable position. It
// returns an error that no retry heals, and with Once after the first session
// that catches up.
func (s *Source) Run(ctx context.Context) error {
	component := "source/" + s.Name
	attempts := 0
	err := retry.Do(ctx, func() error {
		err := s.session(ctx)
		for errors.Is(err, errReread) {
			err = s.session(ctx)
		}
		if attempts++; s.Once && attempts == onceAttempts {
			return leat.Permanent(err)
		}
		return err
	}, func(err error) {
		s.Health.Retrying(component, err)
	})
	if err == nil || ctx.Err() != nil {
		return ctx.Err()
	}
	s.Health.Failed(component, err)
	return fmt.Errorf("source %s: %w", s.Name, err)
}

// errReread ends a session because the source is to be read from its beginning.
var errReread = errors.New("to be read again")

func (s *Source) session(ctx context.Context) error {
	last, err := s.Load(ctx)
	if err != nil {
		return err
	}
	asked, changed := s.Reread()
	// The claim is durable before the session's first event, so no two sessions
	// share an epoch, and what a deposed leader still writes ranks below (I2).
	claim := Position{Epoch: last.Epoch + 1, Position: last.Position, Reread: asked}
	if err := s.save(ctx, ClaimKey(s.Name), Position{Epoch: claim.Epoch}); err != nil {
		return err
	}
	sctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t := tracker{changed: make(chan struct{}, 1), failed: cancel}
	saved := make(chan error, 1)
	go func() { saved <- s.savePositions(sctx, claim, &t) }()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for n := asked; n == asked; n, changed = s.Reread() {
			select {
			case <-changed:
			case <-sctx.Done():
				return
			}
		}
		t.fail(errReread)
	}()
	err = s.Source.Run(sctx, leat.Session{
		Position: claim.Position,
		Epoch:    claim.Epoch,
		Again:    asked > last.Reread,
		Once:     s.Once,
		Emit: func(ctx context.Context, b leat.Batch) error {
			s.Health.Running("source/" + s.Name) // it reads: what was wrong has healed
			return s.emit(ctx, b, &t)
		},
		Known: s.Known,
		Report: func(p leat.Progress) {
			s.Health.Running("source/" + s.Name)
			s.Health.Progress("source/"+s.Name, p)
		},
		Log: s.Log,
	})
	t.drain(ctx)
	cancel()
	serr := <-saved
	<-watched
	switch {
	case t.err() != nil:
		return t.err()
	case err != nil:
		return err
	}
	return serr
}

// emit enqueues a batch's events and notes the position that they reach.
func (s *Source) emit(ctx context.Context, b leat.Batch, t *tracker) error {
	if err := t.err(); err != nil {
		return err
	}
	p := t.begin(b.Position)
	if guard.Removed("I7") { // saved, and no event is under way yet
		t.end(p, nil)
		time.Sleep(4 * savePeriod)
	}
	if len(b.Events) == 0 {
		t.end(p, nil)
		return nil
	}
	records := make([]bus.Record, len(b.Events))
	var err error
	for i := 0; i < len(records) && err == nil; i++ {
		records[i], err = codec.EncodeEvent(s.Documents, b.Events[i])
	}
	if err == nil {
		err = s.Out.Enqueue(ctx, records, func(err error) { t.end(p, err) })
	}
	switch {
	case leat.IsPermanent(err): // nothing of the batch was accepted: find what the broker cannot take
		err = s.emitSingly(ctx, b)
		t.end(p, err)
	case err != nil:
		t.end(p, err)
	}
	return err
}

// emitSingly makes the events of a batch durable one by one, and dead letters
// of those that cannot be, so that one document never stops its source (I5).
func (s *Source) emitSingly(ctx context.Context, b leat.Batch) error {
	for _, e := range b.Events {
		r, err := codec.EncodeEvent(s.Documents, e)
		if err == nil {
			err = s.Out.Produce(ctx, r)
		}
		if leat.IsPermanent(err) {
			err = s.refused(ctx, e, r, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Source) refused(ctx context.Context, e leat.Event, r bus.Record, cause error) error {
	r.Topic = s.Documents
	return s.Dead.Put(ctx, Sources, r, e.ID, e.Version, cause)
}

// savePeriod bounds how much is read again after a crash, and how often an
// idle machine's disk is written to while a source is busy.
const savePeriod = 250 * time.Millisecond

// savePositions writes the newest position whose events are all durable (I1).
func (s *Source) savePositions(ctx context.Context, claim Position, t *tracker) error {
	for {
		select {
		case <-ctx.Done():
			// The last one, in a moment of its own: without it the next session
			// would only read a little again.
			wctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			if p := t.take(); p != nil {
				if err := s.save(wctx, PositionKey(s.Name), Position{Epoch: claim.Epoch, Position: p, Reread: claim.Reread}); err != nil {
					return err
				}
			}
			return t.err()
		case <-t.changed:
		}
		if p := t.take(); p != nil {
			if err := s.save(ctx, PositionKey(s.Name), Position{Epoch: claim.Epoch, Position: p, Reread: claim.Reread}); err != nil && ctx.Err() == nil {
				t.fail(err)
				return err
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(savePeriod):
		}
	}
}

func (s *Source) save(ctx context.Context, key string, p Position) error {
	p.Saved = time.Now().UTC()
	value, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("encode position of %s: %w", s.Name, err)
	}
	if err := s.Out.Produce(ctx, bus.Record{Topic: s.Positions, Key: []byte(key), Value: value}); err != nil {
		return fmt.Errorf("save position of %s: %w", s.Name, err)
	}
	return nil
}

// tracker follows the batches in flight in order and knows the newest position
// before which everything is durable.
type tracker struct {
	changed chan struct{} // something to take
	failed  context.CancelFunc

	mu      sync.Mutex
	flight  []*pending
	reached json.RawMessage // not yet taken
	broken  error
	idle    chan struct{} // closed when nothing is in flight; set by drain
}

type pending struct {
	position json.RawMessage
	done     bool
}

func (t *tracker) begin(position json.RawMessage) *pending {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := &pending{position: position}
	t.flight = append(t.flight, p)
	return p
}

func (t *tracker) end(p *pending, err error) {
	if err != nil {
		t.fail(err)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	p.done = true
	for len(t.flight) > 0 && t.flight[0].done {
		if t.flight[0].position != nil {
			t.reached = t.flight[0].position
		}
		t.flight = t.flight[1:]
	}
	if t.reached != nil {
		select {
		case t.changed <- struct{}{}:
		default:
		}
	}
	t.signalIdle()
}

func (t *tracker) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.broken == nil {
		t.broken = err
	}
	t.signalIdle()
	t.failed()
}

func (t *tracker) signalIdle() {
	if t.idle != nil && (len(t.flight) == 0 || t.broken != nil) {
		close(t.idle)
		t.idle = nil
	}
}

// drain waits until nothing is in flight any more, an error came or ctx ends.
func (t *tracker) drain(ctx context.Context) {
	t.mu.Lock()
	idle := make(chan struct{})
	t.idle = idle
	t.signalIdle()
	t.mu.Unlock()
	select {
	case <-idle:
	case <-ctx.Done():
	}
}

func (t *tracker) take() json.RawMessage {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.reached
	t.reached = nil
	return p
}

func (t *tracker) err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.broken
}
