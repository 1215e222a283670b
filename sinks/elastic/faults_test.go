package elastic

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"leat"
	"leat/internal/retry"
	"leat/internal/testenv"
)

// cutter passes connections on and can cut all of them.
type cutter struct {
	net.Listener
	to    string
	mu    sync.Mutex
	conns map[net.Conn]bool
	all   sync.WaitGroup
}

func newCutter(t *testing.T, to string) *cutter {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{Listener: l, to: to, conns: map[net.Conn]bool{}}
	c.all.Go(c.serve)
	t.Cleanup(func() {
		l.Close()
		c.cut()
		c.all.Wait()
	})
	return c
}

func (c *cutter) serve() {
	for {
		in, err := c.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", c.to)
		if err != nil {
			in.Close()
			continue
		}
		c.mu.Lock()
		c.conns[in], c.conns[out] = true, true
		c.mu.Unlock()
		for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
			c.all.Go(func() {
				_, _ = io.Copy(pair[0], pair[1])
				c.mu.Lock()
				defer c.mu.Unlock()
				for _, conn := range pair {
					conn.Close()
					delete(c.conns, conn)
				}
			})
		}
	}
}

func (c *cutter) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.conns {
		conn.Close()
	}
}

// TestFaults applies a stream of changes while the server is killed, stopped
// and paused and connections are cut, and then while its disk is full.
func TestFaults(t *testing.T) {
	es := testenv.Elasticsearch(t, testenv.Flags("cluster.routing.allocation.disk.threshold_enabled=true",
		"cluster.routing.allocation.disk.watermark.low=1b", "cluster.routing.allocation.disk.watermark.high=1b",
		"cluster.routing.allocation.disk.watermark.flood_stage=1b", "cluster.info.update.interval=10s"))
	c := newCutter(t, es.Addr())
	cfg := of(es)
	cfg.URLs = []string{"http://" + c.Addr().String()}
	x := open(t, cfg, "faults")
	apply := func(r ...leat.Revision) error { // as a stage does
		return retry.Do(t.Context(), func() error {
			_, err := x.Apply(t.Context(), r)
			return err
		}, func(err error) {
			if leat.HintOf(err) == "" {
				t.Errorf("an error without a hint: %v", err)
			}
		})
	}

	const documents, batch = 40, 10
	want := contents{Texts: map[string][]string{}}
	last := map[string]string{}
	var ids []string
	applied := make(chan int)
	g, ctx := errgroup.WithContext(t.Context())
	stop := make(chan struct{})
	g.Go(func() error {
		defer close(applied)
		for n := 1; ; n++ {
			select {
			case <-stop:
				return nil
			default:
			}
			var r []leat.Revision
			for i := range batch {
				id := fmt.Sprint("d", (n*batch+i)%documents)
				rev := textRevision(id, uint64(n), fmt.Sprint("text ", n), "constant", fmt.Sprint("more ", n))
				switch first, second := cut(rev); {
				case n%3 == 0 && i == 0:
					r = append(r, first, second)
				case n%7 == 0 && i == 1:
					r = append(r, leat.Revision{Document: id, Version: uint64(n), Deleted: true, Last: true})
					rev.Chunks = nil
				default:
					r = append(r, rev)
				}
				delete(want.Texts, last[id])
				if last[id] == "" {
					ids = append(ids, id)
				}
				last[id] = fmt.Sprint(id, "@", n)
				if rev.Chunks != nil {
					texts := []string{}
					for _, ch := range rev.Chunks {
						texts = append(texts, ch.Text)
					}
					want.Texts[last[id]] = texts
				}
			}
			if err := apply(r...); err != nil {
				return err
			}
			select {
			case applied <- n:
			case <-ctx.Done():
			case <-stop:
			}
		}
	})
	wait := func(n int) {
		t.Helper()
		for range n {
			if _, more := <-applied; !more {
				t.Fatal(g.Wait())
			}
		}
	}
	wait(5)
	for range 10 {
		go c.cut()
		wait(1)
	}
	es.Pause(t)
	time.Sleep(time.Second)
	es.Resume(t)
	wait(2)
	es.Kill(t)
	es.Start(t)
	wait(2)
	es.Stop(t)
	es.Start(t)
	wait(2)
	close(stop)
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	want.States = len(ids)
	for _, texts := range want.Texts {
		want.Chunks += len(texts)
	}
	got := holding(t, x, "").kept(t, x, ids...)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("the index differs (-want +got):\n%s", diff)
	}

	watermark := func(bytes string) {
		t.Helper()
		settings := map[string]any{}
		for _, level := range []string{"low", "high", "flood_stage"} {
			settings["cluster.routing.allocation.disk.watermark."+level] = bytes
		}
		if err := x.call(t.Context(), http.MethodPut, "/_cluster/settings", map[string]any{"persistent": settings}, nil); err != nil {
			t.Fatal(err)
		}
	}
	watermark("99999gb") // more than any disk has left
	version := uint64(0)
	until(t, "the disk is full", func() bool {
		version++
		_, err := x.Apply(t.Context(), []leat.Revision{textRevision("full", version, "text")})
		if err == nil {
			return false
		}
		if leat.IsPermanent(err) || !strings.Contains(leat.HintOf(err), "disk") {
			t.Fatalf("with a full disk: %v (%s)", err, leat.HintOf(err))
		}
		return true
	})
	if err := x.Check(t.Context()); err == nil || !strings.Contains(leat.HintOf(err), "disk") {
		t.Errorf("check with a full disk: %v (%s)", err, leat.HintOf(err))
	}
	watermark("1b")
	if err := apply(textRevision("full", version, "text")); err != nil {
		t.Fatal(err)
	}
	// The server may block the index once more before it sees that there is room.
	until(t, "the check finds nothing wrong", func() bool {
		err := x.Check(t.Context())
		if err != nil && !strings.Contains(leat.HintOf(err), "disk") {
			t.Fatal(err)
		}
		return err == nil
	})
}

// until waits for a condition.
func until(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Minute); !is(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited for 5 minutes: %s", what)
		}
	}
}

// TestRefused tells what is wrong with a document from what is wrong with the
// cluster.
func TestRefused(t *testing.T) {
	cfg := config(t)
	name := nameOf(t.TempDir())
	drop(t, cfg, name)
	x := open(t, cfg, name)
	mustApply(t, x, textRevision("d", 1, "text"))
	for what, r := range map[string]leat.Revision{
		"a long id":          textRevision(strings.Repeat("é", 16384), 2, "text"),
		"a gap":              {Document: "d", Version: 2, Last: true, Chunks: []leat.Chunk{{Ordinal: 1}}},
		"metadata past JSON": {Document: "d", Version: 2, Last: true, Metadata: map[string]any{"f": func() {}}},
	} {
		_, err := x.Apply(t.Context(), []leat.Revision{textRevision("e", 1, "text"), r})
		if !leat.IsPermanent(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// What Elasticsearch itself refuses of one item.
	it, err := newItem("d", address{ID: "d"}, map[string]any{"unknown": 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := x.bulk(t.Context(), []*item{it}); !leat.IsPermanent(err) || leat.HintOf(err) == "" {
		t.Errorf("a field that is not in the mapping: %v", err)
	}
	if got := holding(t, x, ""); len(got.Texts) != 1 {
		t.Errorf("the index holds %+v", got)
	}
	// Much of everything.
	big := textRevision("big", 1, strings.Repeat("word ", 200_000), "\x00\u2028 \xff", strings.Repeat("長", 40000))
	big.Title, big.Metadata = strings.Repeat("t", 40000), map[string]any{"": nested(2000), "a.b": 1, "n": 12345678901234567, "x": []any{}}
	mustApply(t, x, big, textRevision("d", 2, "text"))
	refresh(t, x)
	matches, err := x.SearchText(t.Context(), "長", 1)
	if err != nil || len(matches) != 1 {
		t.Fatal(matches, err)
	}
	hits, err := x.Hits(t.Context(), matches)
	if err != nil || len(hits) != 1 || hits[0].Text != big.Chunks[2].Text || len(hits[0].Metadata) != len(big.Metadata) {
		t.Errorf("%v", err)
	}
	if _, err := x.Document(t.Context(), "none"); !errors.Is(err, leat.ErrNotFound) {
		t.Error(err)
	}
}

func nested(depth int) (v any) {
	for range depth {
		v = []any{v}
	}
	return v
}
