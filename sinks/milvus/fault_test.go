package milvus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"leat"
	"leat/internal/testenv"
	"leat/sinks/sinktest"
)

// revision makes a document whose chunks point in directions of their own.
func revision(id string, version uint64, chunks int) leat.Revision {
	r := leat.Revision{Document: id, Version: version, Last: true, Tag: fmt.Sprint(version)}
	for i := range chunks {
		text := fmt.Sprintf("%d of %d", i, version)
		v := make([]float32, sinktest.Dimension)
		v[(int(version)+i)%len(v)] = 1
		r.Chunks = append(r.Chunks, leat.Chunk{ID: leat.ChunkID(id, text, 0), Ordinal: i, Start: int64(i), Vector: v})
	}
	return r
}

func deletion(id string, version uint64) leat.Revision {
	return leat.Revision{Document: id, Version: version, Deleted: true, Last: true}
}

// inParts cuts a revision into parts of n chunks.
func inParts(r leat.Revision, n int) (parts []leat.Revision) {
	for chunks := range slices.Chunk(r.Chunks, n) {
		p := r
		p.Part, p.Chunks, p.Last = len(parts), chunks, false
		parts = append(parts, p)
	}
	parts[len(parts)-1].Last = true
	return parts
}

// versions lists the documents with the prefix, and checks that each has the
// chunks of its version and no others.
func versions(t *testing.T, x *Index, prefix string) map[string]uint64 {
	t.Helper()
	all := map[string]uint64{}
	for d, err := range x.Documents(t.Context(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimPrefix(d.ID, prefix)] = d.Version
		chunks, err := x.Chunks(t.Context(), d.ID)
		if err != nil || len(chunks) != d.Chunks || d.Tag != fmt.Sprint(d.Version) {
			t.Fatalf("%+v has %d chunks (%v)", d, len(chunks), err)
		}
		for i, ch := range chunks {
			if text := fmt.Sprintf("%d of %d", i, d.Version); ch.ID != leat.ChunkID(d.ID, text, 0) || ch.Ordinal != i {
				t.Fatalf("chunk %d of %s version %d is %+v", i, d.ID, d.Version, ch)
			}
		}
	}
	return all
}

// rowCount counts all rows of the documents there are, whatever their version.
func rowCount(t *testing.T, x *Index, ids ...string) (chunks, states int) {
	t.Helper()
	ts, err := x.db.now(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	hashes := make([]int64, len(ids))
	for i, id := range ids {
		_, hashes[i] = digest(id)
	}
	for collection, n := range map[string]*int{x.names.chunks: &chunks, x.names.documents: &states} {
		r, err := x.db.query(t.Context(), collection, in(hashes), ts, 0, keyField)
		if err != nil {
			t.Fatal(err)
		}
		*n = r.n
	}
	return chunks, states
}

// faulty fails one call of a client: before it reaches the server, or after. Those
// beside it come to their end, so that none arrives after what is done next.
type faulty struct {
	calls atomic.Int64
	at    atomic.Int64 // the number of the call to fail, from 1; 0: none
	after bool
}

func (f *faulty) intercept(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	hit := f.calls.Add(1) == f.at.Load()
	if hit && !f.after {
		return status.Error(codes.Unavailable, "the test cut it")
	}
	err := call(context.WithoutCancel(ctx), method, req, reply, cc, opts...)
	if hit {
		return status.Error(codes.Unavailable, "the test cut its answer")
	}
	return err
}

// TestCutBetweenCalls ends a writer between any two calls to the server, and
// then replays what it was at or goes on with newer versions.
func TestCutBetweenCalls(t *testing.T) {
	p := newPool(t, testenv.Milvus(t).Addr(), 1)
	name := p.take(t)
	y, err := Open(t.Context(), p.cfg, name, 1, testModel, discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { y.Close() })
	apply := func(x *Index, batch ...leat.Revision) {
		t.Helper()
		if _, err := x.Apply(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	cut := func(n int, after, replay bool) (reached bool) {
		prefix := fmt.Sprintf("%d/%v/%v/", n, after, replay)
		id := func(s string) string { return prefix + s }
		parts := inParts(revision(id("parts"), 2, 5), 2)
		apply(y, revision(id("changed"), 1, 3), revision(id("deleted"), 1, 2), revision(id("parts"), 1, 1), parts[0], parts[1])
		old := map[string]uint64{"changed": 1, "deleted": 1, "parts": 1}
		batch := []leat.Revision{revision(id("changed"), 2, 2), deletion(id("deleted"), 2), revision(id("new"), 2, 2), parts[2]}
		new := map[string]uint64{"changed": 2, "new": 2, "parts": 2}

		f := &faulty{after: after}
		x, err := open(t.Context(), p.cfg, name, 1, testModel, discard, grpc.WithUnaryInterceptor(f.intercept))
		if err != nil {
			t.Fatal(err)
		}
		f.at.Store(f.calls.Load() + int64(n))
		_, err = x.Apply(t.Context(), batch)
		if closed := x.db.close(); closed != nil { // without what Close does: it was killed
			t.Fatal(closed)
		}
		reached = f.calls.Load() >= f.at.Load()
		if reached == (err == nil) {
			t.Fatalf("call %d was cut: %v, Apply says %v", n, reached, err)
		}
		// The states of the batch fit one call: all of it is there or nothing.
		got := versions(t, y, prefix)
		if cmp.Diff(old, got) != "" && cmp.Diff(new, got) != "" {
			t.Fatalf("call %d cut: %v", n, got)
		}
		wantChunks := 2 + 2 + 5
		if replay {
			apply(y, batch...)
		} else {
			apply(y, revision(id("changed"), 3, 1), deletion(id("deleted"), 3), revision(id("new"), 3, 1), revision(id("parts"), 3, 1))
			new, wantChunks = map[string]uint64{"changed": 3, "new": 3, "parts": 3}, 3
		}
		if diff := cmp.Diff(new, versions(t, y, prefix)); diff != "" {
			t.Fatalf("call %d cut: %s", n, diff)
		}
		chunks, states := rowCount(t, y, id("changed"), id("deleted"), id("new"), id("parts"))
		if chunks != wantChunks || states != 4 {
			t.Fatalf("call %d cut: %d rows of chunks and %d of states are there, not %d and 4", n, chunks, states, wantChunks)
		}
		return reached
	}
	for _, after := range []bool{false, true} {
		for _, replay := range []bool{false, true} {
			n := 1
			for cut(n, after, replay) {
				n++
			}
			if n < 7 {
				t.Fatalf("an Apply of %d calls: what was cut?", n-1)
			}
		}
	}
}

// TestLateWriter holds a writer up just before its states are written, has
// another one apply newer versions meanwhile, and lets it go on (I2).
func TestLateWriter(t *testing.T) {
	p := newPool(t, testenv.Milvus(t).Addr(), 1)
	name := p.take(t)
	held, goOn := make(chan struct{}), make(chan struct{})
	var armed atomic.Bool
	late, err := open(t.Context(), p.cfg, name, 1, testModel, discard, grpc.WithUnaryInterceptor(
		func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			if r, ok := req.(interface{ GetCollectionName() string }); ok && strings.HasSuffix(method, "/Upsert") &&
				strings.HasSuffix(r.GetCollectionName(), "_documents") && armed.CompareAndSwap(true, false) {
				close(held)
				<-goOn
			}
			return call(ctx, method, req, reply, cc, opts...)
		}))
	if err != nil {
		t.Fatal(err)
	}
	y, err := Open(t.Context(), p.cfg, name, 1, testModel, discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { y.Close() })
	must := func(x *Index, batch ...leat.Revision) {
		t.Helper()
		if _, err := x.Apply(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	must(late, revision("changed", 1, 2), revision("deleted", 1, 2), revision("other", 1, 1))
	armed.Store(true)
	done := make(chan error, 1)
	go func() {
		_, err := late.Apply(context.WithoutCancel(t.Context()), []leat.Revision{
			revision("changed", 2, 3), revision("deleted", 2, 3), inParts(revision("other", 2, 4), 2)[0]})
		done <- err
	}()
	<-held
	must(y, revision("changed", 3, 1), deletion("deleted", 3), revision("other", 3, 1))
	want := map[string]uint64{"changed": 3, "other": 3}
	check := func(when string) {
		t.Helper()
		if diff := cmp.Diff(want, versions(t, y, "")); diff != "" {
			t.Fatalf("%s: %s", when, diff)
		}
		refresh(t, y)
		for version := range 3 {
			q := make([]float32, sinktest.Dimension)
			q[version+1] = 1
			matches, err := y.SearchVector(t.Context(), q, 10)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range matches {
				if m.Version != 3 {
					t.Fatalf("%s: %+v is found", when, m)
				}
			}
		}
		if st, err := y.Stats(t.Context()); err != nil || st != (leat.Stats{Documents: 2, Chunks: 2}) {
			t.Fatalf("%s: %+v, %v", when, st, err)
		}
	}
	check("while it is held up")
	close(goOn)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	check("after it went on")
	if out, err := y.Apply(t.Context(), []leat.Revision{revision("changed", 2, 3)}); err != nil || out[0] != leat.Superseded {
		t.Fatal(out, err)
	}
	// What it wrote too late it removes when it looks again.
	if err := late.Close(); err != nil {
		t.Fatal(err)
	}
	check("after it was closed")
	if chunks, states := rowCount(t, y, "changed", "deleted", "other"); chunks != 2 || states != 3 {
		t.Fatalf("%d rows of chunks and %d of states are left, not 2 and 3", chunks, states)
	}
}

// TestServerFaults stops, kills and pauses the server while batches are
// applied; each is applied again until it succeeds, as a stage does (I7).
func TestServerFaults(t *testing.T) {
	srv := testenv.Milvus(t, testenv.Own())
	p := newPool(t, srv.Addr(), 1)
	x, err := Open(t.Context(), p.cfg, p.take(t), 1, testModel, discard)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var applied, failed atomic.Int64
	done := make(chan error, 1)
	go func() {
		for n := 1; ctx.Err() == nil; n++ {
			batch := []leat.Revision{revision(fmt.Sprint("d", n%7), uint64(n), 1+n%3), revision("every", uint64(n), 2)}
			if n%5 == 0 {
				batch[0] = deletion(batch[0].Document, uint64(n))
			}
			for {
				_, err := x.Apply(context.WithoutCancel(ctx), batch)
				if err == nil {
					break
				}
				if failed.Add(1); leat.IsPermanent(err) {
					done <- err
					return
				}
				time.Sleep(50 * time.Millisecond)
			}
			applied.Add(1)
		}
		done <- nil
	}()
	more := func(n int64) {
		t.Helper()
		for from, deadline := applied.Load(), time.Now().Add(3*time.Minute); applied.Load() < from+n; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("no batch is applied any more after %d", applied.Load())
			}
		}
	}
	more(5)
	srv.Kill(t)
	srv.Start(t)
	more(5)
	srv.Stop(t)
	time.Sleep(500 * time.Millisecond)
	srv.Start(t)
	more(5)
	srv.Pause(t)
	time.Sleep(3 * time.Second)
	srv.Resume(t)
	more(5)
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Logf("%d batches applied, %d tries failed", applied.Load(), failed.Load())
	last := applied.Load()
	want := map[string]uint64{"every": uint64(last)}
	for n := max(1, last-6); n <= last; n++ {
		if n%5 != 0 {
			want[fmt.Sprint("d", n%7)] = uint64(n)
		}
	}
	if diff := cmp.Diff(want, versions(t, x, "")); diff != "" {
		t.Fatal(diff)
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestUnreachable: an outage is an error that says what to do, at once.
func TestUnreachable(t *testing.T) {
	srv := testenv.Milvus(t, testenv.Own())
	x, err := Open(t.Context(), Config{Address: srv.Addr()}, "down", 1, testModel, discard)
	if err != nil {
		t.Fatal(err)
	}
	srv.Kill(t)
	began := time.Now()
	_, err = x.Apply(t.Context(), []leat.Revision{revision("d", 1, 1)})
	_, searched := x.SearchVector(t.Context(), make([]float32, sinktest.Dimension), 1)
	_, opened := OpenReader(t.Context(), Config{Address: srv.Addr()}, "down", 1, discard)
	for what, err := range map[string]error{"Apply": err, "SearchVector": searched, "Check": x.Check(t.Context()), "OpenReader": opened} {
		if err == nil || leat.HintOf(err) == "" || leat.IsPermanent(err) || !strings.Contains(err.Error(), srv.Addr()) {
			t.Errorf("%s of a server that is down: %v (%s)", what, err, leat.HintOf(err))
		}
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("it took %v to say so", took)
	}
	if err := x.Close(); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}
