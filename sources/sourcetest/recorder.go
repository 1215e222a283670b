package sourcetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"leat"
)

// Limit is how long the suite waits for anything before it fails.
const Limit = time.Minute

// limit is Limit but in tests of the suite itself.
var limit = Limit

// Recorder stands for everything behind one source: it takes the events of its
// sessions, saves positions, counts epochs, and answers Known from what was
// emitted, as the topics, checkpoints and index of a pipeline do. Whatever it
// is given that breaks the contract of [leat.Source] is kept for [Recorder.Err].
// Safe for concurrent use.
type Recorder struct {
	// Hook, if set before a session begins, is called with every batch before
	// it is taken: to block, to count, or to refuse it with an error.
	Hook func(context.Context, leat.Batch) error

	source string // Event.Source of every event

	mu       sync.Mutex
	changed  chan struct{} // closed at every change, then replaced
	batches  []leat.Batch
	index    map[string]leat.Event // the event with the highest version of each document
	last     map[string]leat.Event // the last event of each document from a session, in order of arrival
	content  map[string]string     // document id and version to what was said of it
	position json.RawMessage
	epoch    uint64
	progress leat.Progress
	broken   []string
}

// NewRecorder returns one that has seen nothing. source is what Event.Source
// must be, such as "folder:notes"; ids must begin with it and a slash.
func NewRecorder(source string) *Recorder {
	return &Recorder{
		source:  source,
		changed: make(chan struct{}),
		index:   map[string]leat.Event{},
		last:    map[string]leat.Event{},
		content: map[string]string{},
	}
}

// Session begins the next session of the source, from the saved position. The
// function it returns ends it: an event that comes after that is an error.
func (r *Recorder) Session(once bool, log *slog.Logger) (leat.Session, func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.epoch++
	run := &session{recorder: r, versions: map[string]uint64{}}
	return leat.Session{
		Position: slices.Clone(r.position),
		Epoch:    r.epoch,
		Once:     once,
		Emit:     run.emit,
		Known:    r.Known,
		Report:   r.report,
		Log:      log,
	}, run.end
}

// session checks what must hold within one session.
type session struct {
	recorder *Recorder
	emitting bool
	ended    bool
	versions map[string]uint64 // the last version of each document
}

func (s *session) end() {
	s.recorder.mu.Lock()
	defer s.recorder.mu.Unlock()
	s.ended = true
}

func (s *session) emit(ctx context.Context, b leat.Batch) error {
	r := s.recorder
	r.mu.Lock()
	if s.emitting {
		r.breaks("Emit was called while another call had not returned: the order of events is lost")
	}
	s.emitting = true
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		s.emitting = false
		r.mu.Unlock()
	}()

	if r.Hook != nil {
		if err := r.Hook(ctx, b); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	if s.ended {
		r.breaks("Emit was called after Run had returned")
		return errors.New("the session has ended")
	}
	if b.Position != nil && !json.Valid(b.Position) {
		r.breaks("position %q is not JSON", b.Position)
	}
	for _, e := range b.Events {
		r.check(e)
		if v, seen := s.versions[e.ID]; seen && e.Version <= v {
			r.breaks("%s: version %d came after %d", e.ID, e.Version, v) // I2, I3
		}
		s.versions[e.ID] = e.Version
		r.apply(e)
	}
	r.batches = append(r.batches, b)
	if b.Position != nil {
		r.position = b.Position
	}
	r.wake()
	return nil
}

// check looks at what every event must be.
func (r *Recorder) check(e leat.Event) {
	if !strings.HasPrefix(e.ID, r.source+"/") {
		r.breaks("id %q does not begin with %q", e.ID, r.source+"/")
	}
	if e.Source != r.source {
		r.breaks("%s: source is %q, not %q", e.ID, e.Source, r.source)
	}
	if e.Version == 0 || e.Version > 1<<63-1 {
		r.breaks("%s: version %d is not in 1..1<<63-1", e.ID, e.Version)
	}
	if e.Time.IsZero() {
		r.breaks("%s: no time", e.ID)
	}
	said, err := json.Marshal(e.Document)
	if err != nil {
		r.breaks("%s: the document is not JSON: %v", e.ID, err)
		return
	}
	if d := e.Document; d != nil {
		if d.Ref != nil && d.Body != "" {
			r.breaks("%s: both a body and a reference", e.ID)
		}
		var back leat.Document
		if err := json.Unmarshal(said, &back); err != nil {
			r.breaks("%s: the document does not survive JSON: %v", e.ID, err)
		}
		back.Metadata = d.Metadata // numbers and times may change their Go type
		if !reflect.DeepEqual(*d, back) {
			r.breaks("%s: the document is another after JSON (text that is not UTF-8?): %+v, %+v", e.ID, *d, back)
		}
	}
	// A version may come again after a crash, then with the same content.
	key := fmt.Sprintf("%s@%d", e.ID, e.Version)
	if before, seen := r.content[key]; seen && before != string(said) {
		r.breaks("%s: version %d was %s before and is %s now", e.ID, e.Version, before, said)
	}
	r.content[key] = string(said)
}

func (r *Recorder) apply(e leat.Event) {
	r.last[e.ID] = e
	r.hold(e)
}

func (r *Recorder) hold(e leat.Event) {
	if held, ok := r.index[e.ID]; !ok || e.Version >= held.Version {
		r.index[e.ID] = e
	}
}

func (r *Recorder) breaks(format string, args ...any) {
	r.broken = append(r.broken, fmt.Sprintf(format, args...))
	r.wake()
}

func (r *Recorder) wake() {
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *Recorder) report(p leat.Progress) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.progress = p
	r.wake()
}

// Asks is a question for a source's Look, as a pipeline asks it.
func (r *Recorder) Asks(ids ...string) leat.Look {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := leat.Look{Position: slices.Clone(r.position), Epoch: r.epoch, IDs: ids, Above: make([]uint64, len(ids))}
	for i, id := range ids {
		l.Above[i] = r.index[id].Version
	}
	return l
}

// Answer takes what a source's Look returned into the index.
func (r *Recorder) Answer(l leat.Look, events []leat.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(events) != len(l.IDs) {
		r.breaks("%d events for %d ids", len(events), len(l.IDs))
		return
	}
	for i, e := range events {
		if e.ID != l.IDs[i] || e.Version <= l.Above[i] {
			r.breaks("asked for %s above %d, Look gave %s at %d", l.IDs[i], l.Above[i], e.ID, e.Version)
		}
		r.check(e)
		r.hold(e)
	}
	r.wake()
}

// Known is Session.Known over what was emitted.
func (r *Recorder) Known(ctx context.Context, prefix string) iter.Seq2[leat.DocumentState, error] {
	return func(yield func(leat.DocumentState, error) bool) {
		index := r.Index()
		for _, id := range slices.Sorted(maps.Keys(index)) {
			e := index[id]
			if e.Document == nil || !strings.HasPrefix(id, prefix) {
				continue
			}
			if err := ctx.Err(); err != nil {
				yield(leat.DocumentState{}, err)
				return
			}
			state := leat.DocumentState{ID: id, Version: e.Version, Title: e.Document.Title, Chunks: 1, Applied: e.Time}
			if e.Document.Ref != nil {
				state.Tag = e.Document.Ref.Tag
			}
			if !yield(state, nil) {
				return
			}
		}
	}
}

// Index is the event with the highest version of each document, deletes
// included, by document id.
func (r *Recorder) Index() map[string]leat.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.index)
}

// Last is the last event of each document that came from a session, in order of
// arrival, by document id.
func (r *Recorder) Last() map[string]leat.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.last)
}

// Batches are all that were taken, over all sessions.
func (r *Recorder) Batches() []leat.Batch {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.batches)
}

// Events are those of all batches, in order.
func (r *Recorder) Events() []leat.Event {
	var events []leat.Event
	for _, b := range r.Batches() {
		events = append(events, b.Events...)
	}
	return events
}

// Position is the one that the next session begins at.
func (r *Recorder) Position() json.RawMessage {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Clone(r.position)
}

// Progress is what the source reported last.
func (r *Recorder) Progress() leat.Progress {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.progress
}

// Err lists what broke the contract, or is nil.
func (r *Recorder) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.broken) == 0 {
		return nil
	}
	return errors.New(strings.Join(r.broken, "\n"))
}

// Crash leaves what a crash may leave: the first saved batches with their last
// position, and of the later ones the events that keep holds on to.
func (r *Recorder) Crash(saved int, keep func(leat.Event) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	batches := r.batches
	r.batches, r.position = nil, nil
	r.index, r.last = map[string]leat.Event{}, map[string]leat.Event{}
	for i, b := range batches {
		if i >= saved {
			b.Position = nil
			b.Events = slices.DeleteFunc(slices.Clone(b.Events), func(e leat.Event) bool { return !keep(e) })
		}
		if b.Position != nil {
			r.position = b.Position
		}
		for _, e := range b.Events {
			r.apply(e)
		}
		r.batches = append(r.batches, b)
	}
}

// Wait returns when cond holds, which is tried after every change; it fails
// the test after [Limit], or at once when the contract is broken.
func (r *Recorder) Wait(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(limit)
	for {
		r.mu.Lock()
		changed := r.changed
		r.mu.Unlock()
		if err := r.Err(); err != nil {
			t.Fatalf("waiting for %s: %v", what, err)
		}
		if cond() {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("waited %s for %s; the source is at %+v", limit, what, r.Progress())
		}
	}
}

// Once runs src until it has caught up and fails the test if it does not.
func (r *Recorder) Once(t testing.TB, src leat.Source) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	s, end := r.Session(true, slog.New(slog.DiscardHandler))
	err := src.Run(ctx, s)
	end()
	if err != nil {
		t.Fatalf("Run with Once: %v (hint: %s)", err, leat.HintOf(err))
	}
	if err := ctx.Err(); err != nil {
		t.Fatalf("Run with Once did not return in %s: %v", limit, err)
	}
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
}

// Running is a session in the background.
type Running struct {
	t      testing.TB
	r      *Recorder
	cancel context.CancelFunc
	done   chan struct{}
	err    error // of Run, once done is closed
}

// Start runs src in the background until Stop; the end of the test stops it too.
func (r *Recorder) Start(t testing.TB, src leat.Source) *Running {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	s, end := r.Session(false, slog.New(slog.DiscardHandler))
	run := &Running{t: t, r: r, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(run.done)
		run.err = src.Run(ctx, s)
		end()
	}()
	t.Cleanup(func() {
		cancel()
		<-run.done
	})
	return run
}

// Wait waits for Run to return by itself and returns its error.
func (run *Running) Wait() error {
	run.t.Helper()
	select {
	case <-run.done:
	case <-time.After(limit):
		run.t.Fatalf("Run has not returned in %s", limit)
	}
	return run.err
}

// Stop cancels the session and fails the test unless Run returns soon, with
// nil or the context's error.
func (run *Running) Stop() {
	run.t.Helper()
	run.cancel()
	select {
	case <-run.done:
	case <-time.After(10 * time.Second):
		run.t.Fatal("Run has not returned 10 s after its context was cancelled")
	}
	if run.err != nil && !errors.Is(run.err, context.Canceled) {
		run.t.Fatalf("Run: %v (hint: %s)", run.err, leat.HintOf(run.err))
	}
	if err := run.r.Err(); err != nil {
		run.t.Fatal(err)
	}
}
