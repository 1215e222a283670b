package stage

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"leat"
	"leat/chunker"
	"leat/internal/bus"
	"leat/internal/codec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// topic records what was produced, and can hold acknowledgements back.
type topic struct {
	mu      sync.Mutex
	records []bus.Record
	held    []func(error)
	hold    bool
	err     error
}

func (p *topic) Produce(_ context.Context, records ...bus.Record) error {
	if err := tooLarge(records); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.records = append(p.records, records...)
	return p.err
}

func (p *topic) Enqueue(_ context.Context, records []bus.Record, done func(error)) error {
	if err := tooLarge(records); err != nil {
		return err
	}
	p.mu.Lock()
	p.records = append(p.records, records...)
	hold, err := p.hold, p.err
	if hold {
		p.held = append(p.held, done)
	}
	p.mu.Unlock()
	if !hold {
		done(err)
	}
	return nil
}

func tooLarge(records []bus.Record) error {
	for _, r := range records {
		if len(r.Value) > 1<<20 {
			return fmt.Errorf("%s: %w", r.Key, leat.ErrTooLarge)
		}
	}
	return nil
}

func (p *topic) on(name string) []bus.Record {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []bus.Record
	for _, r := range p.records {
		if r.Topic == name {
			out = append(out, r)
		}
	}
	return out
}

func common(name string, out Producer) Common {
	return Common{
		Name: name, Out: out, Health: &Health{Topic: "positions", Out: out, Log: slog.New(slog.DiscardHandler)}, Log: slog.New(slog.DiscardHandler),
		Dead: &DeadLetters{Topic: "deadletters", Out: out, Log: slog.New(slog.DiscardHandler)},
	}
}

func event(t *testing.T, id string, version uint64, doc *leat.Document) bus.Record {
	t.Helper()
	r, err := codec.EncodeEvent("documents", leat.Event{ID: id, Version: version, Source: "folder:notes", Time: time.Unix(1, 0), Document: doc})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func revisions(t *testing.T, records []bus.Record) []leat.Revision {
	t.Helper()
	var out []leat.Revision
	for _, r := range records {
		rev, err := codec.DecodeRevision(r)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, rev)
	}
	return out
}

func letters(t *testing.T, p *topic) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, r := range p.on("deadletters") {
		l, err := DecodeDeadLetter(r)
		if err != nil {
			t.Fatal(err)
		}
		out[l.ID()] = l.Reason + " / " + l.Hint
	}
	return out
}

type files map[string]string

func (f files) Open(_ context.Context, ref leat.Ref) (io.ReadCloser, error) {
	switch s, ok := f[ref.Name]; {
	case !ok:
		return nil, leat.ErrNotFound
	case s == "changed":
		return nil, fmt.Errorf("%s: %w", ref.Name, leat.ErrChanged)
	default:
		return io.NopCloser(strings.NewReader(s)), nil
	}
}

func TestChunksEndEveryEvent(t *testing.T) {
	out := &topic{}
	ch, err := chunker.New(chunker.Config{}, chunker.Estimate, 500)
	if err != nil {
		t.Fatal(err)
	}
	s := Chunks{
		Common: common(Chunker, out), Chunker: ch, Topic: "chunks",
		Openers: map[string]leat.Opener{"folder:notes": files{"a.txt": "A text.", "c.txt": "changed", "bad.txt": "\xff\xfe\x00bad\x80"}},
	}
	ref := func(name string) *leat.Document { return &leat.Document{Ref: &leat.Ref{Name: name, Tag: "1"}} }
	elsewhere := event(t, "folder:other/x.txt", 1, ref("x.txt"))
	for i, h := range elsewhere.Headers {
		if h.Key == "ce_source" {
			elsewhere.Headers[i].Value = []byte("/leat/folder:other")
		}
	}
	batch := []bus.Record{
		event(t, "folder:notes/a.txt", 1, ref("gone.txt")),
		event(t, "folder:notes/a.txt", 2, ref("a.txt")), // supersedes version 1
		event(t, "folder:notes/gone.txt", 1, ref("gone.txt")),
		event(t, "folder:notes/c.txt", 1, ref("c.txt")),
		event(t, "folder:notes/bad.txt", 1, ref("bad.txt")),
		event(t, "folder:notes/deleted.txt", 7, nil),
		event(t, "folder:notes/empty.txt", 3, &leat.Document{Title: "Empty"}),
		elsewhere,
		{Topic: "documents", Key: []byte("junk"), Value: []byte("{")},
	}
	if err := s.Handle(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, r := range revisions(t, out.on("chunks")) {
		text := ""
		for _, c := range r.Chunks {
			text += c.Text
		}
		got[r.Document] = fmt.Sprintf("%d deleted=%v last=%v tag=%s %q", r.Version, r.Deleted, r.Last, r.Tag, text)
	}
	want := map[string]string{
		"folder:notes/a.txt":       `2 deleted=false last=true tag=1 "A text."`,
		"folder:notes/deleted.txt": `7 deleted=true last=true tag= ""`,
		"folder:notes/empty.txt":   `3 deleted=false last=true tag=` + digest(`{"title":"Empty"}`) + ` ""`,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("revisions (-want +got):\n%s", d)
	}
	dead := letters(t, out)
	for _, id := range []string{"chunker/folder:notes/bad.txt", "chunker/folder:other/x.txt", "chunker/junk"} {
		if reason, ok := dead[id]; !ok || strings.HasSuffix(reason, " / ") {
			t.Errorf("dead letter %s: got %q, want a reason and a hint", id, reason)
		}
		delete(dead, id)
	}
	if len(dead) > 0 {
		t.Errorf("more dead letters: %v", dead)
	}
}

// digest tags an inline document.
func digest(document string) string {
	sum := sha256.Sum256([]byte(document))
	return base64.RawURLEncoding.EncodeToString(sum[:])[:22]
}

func TestChunksCutLargeDocumentsIntoParts(t *testing.T) {
	out := &topic{}
	ch, err := chunker.New(chunker.Config{}, chunker.Estimate, 500)
	if err != nil {
		t.Fatal(err)
	}
	s := Chunks{Common: common(Chunker, out), Chunker: ch, Topic: "chunks"}
	var body strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&body, "Sentence number %d stands here. ", i)
	}
	if err := s.Handle(t.Context(), []bus.Record{event(t, "folder:notes/a", 1, &leat.Document{Body: body.String()})}); err != nil {
		t.Fatal(err)
	}
	revs := revisions(t, out.on("chunks"))
	if len(revs) < 3 {
		t.Fatalf("%d parts, want several", len(revs))
	}
	ordinal := 0
	for i, r := range revs {
		if r.Part != i || r.Last != (i == len(revs)-1) || len(r.Chunks) > partChunks {
			t.Errorf("part %d: part %d, last %v, %d chunks", i, r.Part, r.Last, len(r.Chunks))
		}
		for _, c := range r.Chunks {
			if c.Ordinal != ordinal || body.String()[c.Start:c.End] != c.Text {
				t.Fatalf("part %d: chunk %d is out of place", i, c.Ordinal)
			}
			ordinal++
		}
	}
}

// TestHandleWaitsForDurability: without the wait an offset would be committed
// before its effect is durable (I1).
func TestHandleWaitsForDurability(t *testing.T) {
	out := &topic{hold: true}
	ch, _ := chunker.New(chunker.Config{}, chunker.Estimate, 500)
	s := Chunks{Common: common(Chunker, out), Chunker: ch, Topic: "chunks"}
	handled := make(chan error)
	go func() {
		handled <- s.Handle(t.Context(), []bus.Record{event(t, "folder:notes/a", 1, nil)})
	}()
	for len(out.on("chunks")) == 0 {
		time.Sleep(time.Millisecond)
	}
	select {
	case err := <-handled:
		t.Fatalf("Handle returned (%v) before the revision was durable", err)
	case <-time.After(50 * time.Millisecond):
	}
	failed := errors.New("not durable")
	out.held[0](failed)
	if err := <-handled; !errors.Is(err, failed) {
		t.Errorf("Handle returned %v, want %v", err, failed)
	}
}

// picky refuses texts that hold "refused".
type picky struct{ calls int }

func (m *picky) Embed(_ context.Context, _ leat.Kind, texts []string) ([][]float32, error) {
	m.calls++
	out := make([][]float32, len(texts))
	for i, s := range texts {
		if strings.Contains(s, "refused") {
			return nil, leat.Hint(leat.Permanent(errors.New("a refused text")), "write something else")
		}
		out[i] = []float32{1, 0}
	}
	return out, nil
}
func (*picky) Model() leat.Model { return leat.Model{Name: "picky", Dimension: 2, MaxTokens: 100} }
func (*picky) Close() error      { return nil }

func TestVectorsLeaveOutRefusedTextsOnly(t *testing.T) {
	out := &topic{}
	s := Vectors{Common: common(Embedder, out), Model: &picky{}, Topic: "vectors"}
	var batch []bus.Record
	for i, text := range []string{"good", "refused"} {
		r, err := codec.EncodeRevision("chunks", leat.Revision{
			Document: fmt.Sprintf("folder:notes/%d", i), Version: 1, Last: true, Title: "T",
			Chunks: []leat.Chunk{{ID: "x", Text: "first"}, {ID: "y", Ordinal: 1, Text: text}},
		})
		if err != nil {
			t.Fatal(err)
		}
		batch = append(batch, r)
	}
	if err := s.Handle(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for _, r := range revisions(t, out.on("vectors")) {
		for _, c := range r.Chunks {
			if len(c.Vector) != 2 || c.Text != "" {
				t.Errorf("chunk %+v: want a vector and no text", c)
			}
		}
		got[r.Document] = len(r.Chunks)
	}
	if d := cmp.Diff(map[string]int{"folder:notes/0": 2, "folder:notes/1": 1}, got); d != "" {
		t.Errorf("vectors by document (-want +got):\n%s", d)
	}
	if dead := letters(t, out); !strings.Contains(dead["embedder/folder:notes/1"], "refused") || len(dead) != 1 {
		t.Errorf("dead letters %v", dead)
	}
}

// scripted is a source that runs a function.
type scripted func(context.Context, leat.Session) error

func (f scripted) Run(ctx context.Context, s leat.Session) error       { return f(ctx, s) }
func (scripted) Open(context.Context, leat.Ref) (io.ReadCloser, error) { return nil, leat.ErrNotFound }
func (scripted) List(context.Context) iter.Seq2[leat.Event, error]     { return nil }
func (scripted) Look(context.Context, leat.Look) ([]leat.Event, error) { return nil, nil }
func (scripted) Close() error                                          { return nil }

func runner(out *topic, f scripted) Source {
	return Source{
		Name: "folder:notes", Source: f, Out: out, Dead: common("", out).Dead, Documents: "documents", Positions: "positions",
		Load: func(context.Context) (Position, error) {
			return Position{Epoch: 4, Position: json.RawMessage(`"old"`)}, nil
		},
		Reread: func() (int64, <-chan struct{}) { return 0, nil },
		Known: func(context.Context, string) iter.Seq2[leat.DocumentState, error] {
			return func(func(leat.DocumentState, error) bool) {}
		},
		Health: &Health{Topic: "positions", Out: out, Log: slog.New(slog.DiscardHandler)}, Log: slog.New(slog.DiscardHandler),
	}
}

func saved(t *testing.T, out *topic, key string) []Position {
	t.Helper()
	var all []Position
	for _, r := range out.on("positions") {
		if string(r.Key) == key {
			var p Position
			if err := json.Unmarshal(r.Value, &p); err != nil {
				t.Fatal(err)
			}
			all = append(all, p)
		}
	}
	return all
}

func TestSourceClaimsItsEpochBeforeItsFirstEvent(t *testing.T) {
	out := &topic{}
	s := runner(out, func(ctx context.Context, s leat.Session) error {
		if s.Epoch != 5 || string(s.Position) != `"old"` {
			t.Errorf("session of epoch %d at %s, want 5 at \"old\"", s.Epoch, s.Position)
		}
		if claims := saved(t, out, ClaimKey("folder:notes")); len(claims) != 1 || claims[0].Epoch != 5 {
			t.Errorf("claims %+v, want one of epoch 5", claims)
		}
		return s.Emit(ctx, leat.Batch{Events: []leat.Event{{ID: "folder:notes/a", Version: 1, Source: "folder:notes"}}, Position: json.RawMessage(`"new"`)})
	})
	s.Once = true
	if err := s.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if p := saved(t, out, PositionKey("folder:notes")); len(p) == 0 || string(p[len(p)-1].Position) != `"new"` {
		t.Errorf("positions %+v, want \"new\" last", p)
	}
}

// TestPositionWaitsForEvents: a position is saved only once everything before
// it is durable (I1), though later events were acknowledged first.
func TestPositionWaitsForEvents(t *testing.T) {
	out := &topic{hold: true}
	ctx, cancel := context.WithCancel(t.Context())
	s := runner(out, func(ctx context.Context, s leat.Session) error {
		for i := range 3 {
			b := leat.Batch{Events: []leat.Event{{ID: "folder:notes/a", Version: uint64(i + 1), Source: "folder:notes"}}, Position: json.RawMessage(fmt.Sprint(i))}
			if err := s.Emit(ctx, b); err != nil {
				return err
			}
		}
		// A batch without events is done at once, but not before those ahead of it.
		if err := s.Emit(ctx, leat.Batch{Position: json.RawMessage("3")}); err != nil {
			return err
		}
		out.mu.Lock()
		held := out.held
		out.mu.Unlock()
		held[2](nil)
		held[1](nil)
		time.Sleep(2 * savePeriod)
		if p := saved(t, out, PositionKey("folder:notes")); len(p) != 0 {
			t.Errorf("positions %+v were saved while the first event was in flight", p)
		}
		held[0](nil)
		<-ctx.Done()
		return ctx.Err()
	})
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	for {
		if p := saved(t, out, PositionKey("folder:notes")); len(p) > 0 {
			if string(p[0].Position) != "3" {
				t.Errorf("saved position %s, want 3", p[0].Position)
			}
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Run returned %v", err)
	}
}

// TestSourceIsReadAgain: a session under way ends when its source is asked for
// once more, and it is asked until a position was saved.
func TestSourceIsReadAgain(t *testing.T) {
	out := &topic{}
	type session struct {
		position string
		again    bool
	}
	var sessions []session
	var mu sync.Mutex
	asked, changed := int64(0), make(chan struct{})
	ask := func() {
		mu.Lock()
		defer mu.Unlock()
		asked++
		close(changed)
		changed = make(chan struct{})
	}
	s := runner(out, func(ctx context.Context, s leat.Session) error {
		sessions = append(sessions, session{string(s.Position), s.Again})
		switch len(sessions) {
		case 1:
			go ask()
			<-ctx.Done()
			return ctx.Err()
		case 2: // without a position it has to be read once more
			return errors.New("the server is away")
		case 3:
			return s.Emit(ctx, leat.Batch{Position: json.RawMessage(`"anew"`)})
		}
		return leat.Permanent(errors.New("done"))
	})
	s.Once = true
	s.Reread = func() (int64, <-chan struct{}) {
		mu.Lock()
		defer mu.Unlock()
		return asked, changed
	}
	if err := s.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]session{{`"old"`, false}, {`"old"`, true}, {`"old"`, true}}, sessions, cmp.AllowUnexported(session{})); d != "" {
		t.Errorf("sessions (-want +got):\n%s", d)
	}
	if p := saved(t, out, PositionKey("folder:notes")); len(p) != 1 || p[0].Reread != 1 {
		t.Errorf("positions %+v, want one that tells of the request", p)
	}
}

func TestSourceFailures(t *testing.T) {
	sessions := 0
	s := runner(&topic{}, func(context.Context, leat.Session) error {
		if sessions++; sessions < 3 {
			return errors.New("the server is away")
		}
		return leat.Hint(leat.Permanent(leat.ErrPositionLost), "start over")
	})
	err := s.Run(t.Context())
	if !errors.Is(err, leat.ErrPositionLost) || sessions != 3 {
		t.Errorf("got %v after %d sessions, want ErrPositionLost after 3", err, sessions)
	}
	st := s.Health.States()["source/folder:notes"]
	if st.State != "failed" || st.Hint != "start over" {
		t.Errorf("state %+v, want failed with its hint", st)
	}
}

// TestSourceOutlivesAnEventTheBrokerRefuses: one document never stops its source (I5).
func TestSourceOutlivesAnEventTheBrokerRefuses(t *testing.T) {
	out := &topic{}
	s := runner(out, func(ctx context.Context, s leat.Session) error {
		doc := func(body string) *leat.Document { return &leat.Document{Body: body} }
		return s.Emit(ctx, leat.Batch{
			Events: []leat.Event{
				{ID: "folder:notes/a", Version: 1, Source: "folder:notes", Document: doc("a")},
				{ID: "folder:notes/large", Version: 2, Source: "folder:notes", Document: doc(strings.Repeat("x", 2<<20))},
				{ID: "", Version: 3, Source: "folder:notes"},
				{ID: "folder:notes/b", Version: 4, Source: "folder:notes", Document: doc("b")},
			},
			Position: json.RawMessage(`"after"`),
		})
	})
	s.Once = true
	if err := s.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, r := range out.on("documents") {
		keys = append(keys, string(r.Key))
	}
	if d := cmp.Diff([]string{"folder:notes/a", "folder:notes/b"}, keys); d != "" {
		t.Errorf("documents (-want +got):\n%s", d)
	}
	dead := letters(t, out)
	for _, id := range []string{"sources/folder:notes/large", "sources/"} {
		if reason, ok := dead[id]; !ok || strings.HasSuffix(reason, " / ") {
			t.Errorf("dead letter %q: %q, want one with a hint", id, dead[id])
		}
	}
	if p := saved(t, out, PositionKey("folder:notes")); len(p) == 0 || string(p[len(p)-1].Position) != `"after"` {
		t.Errorf("positions %+v, want \"after\" last", p)
	}
}
