package milvus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/milvus-io/milvus/client/v2/entity"
	"github.com/milvus-io/milvus/client/v2/milvusclient"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"leat"
	"leat/internal/testenv"
	"leat/sinks/sinktest"
)

// newName is that of a pipeline of which nothing remains when t ends.
func newName(t testing.TB, cfg Config) string {
	name := fmt.Sprintf("test-%d-%d", os.Getpid(), counter.Add(1))
	t.Cleanup(func() {
		c, err := dial(context.Background(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		g := generations{c, name, discard}
		alias := collectionNames(name, 0).alias
		if _, err := g.resolve(context.Background(), alias); err == nil {
			if err := c.client.DropAlias(context.Background(), milvusclient.NewDropAliasOption(alias)); err != nil {
				t.Error(err)
			}
		}
		for n := 1; n <= 3; n++ {
			if err := g.Drop(context.Background(), n); err != nil {
				t.Error(err)
			}
		}
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return name
}

func TestGenerations(t *testing.T) {
	cfg := Config{Address: testenv.Milvus(t).Addr()}
	var mu sync.Mutex
	named := map[string]string{}
	name := func(t testing.TB, dir string) string {
		mu.Lock()
		defer mu.Unlock()
		if named[dir] == "" {
			named[dir] = newName(t, cfg)
		}
		return named[dir]
	}
	closed := func(t testing.TB, x interface{ Close() error }) {
		t.Cleanup(func() {
			if err := x.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	sinktest.RunGenerations(t, sinktest.GenerationsHarness{
		Generations: func(t testing.TB, dir string) leat.Generations {
			g, err := OpenGenerations(t.Context(), cfg, name(t, dir), discard)
			if err != nil {
				t.Fatal(err)
			}
			closed(t, g)
			return g
		},
		Index: func(t testing.TB, dir string, generation int) leat.Sink {
			x, err := Open(t.Context(), cfg, name(t, dir), generation, testModel, discard)
			if err != nil {
				t.Fatal(err)
			}
			closed(t, x)
			return x
		},
		Reader: func(t testing.TB, dir string, generation int) (leat.Sink, error) {
			x, err := OpenReader(t.Context(), cfg, name(t, dir), generation, discard)
			if err != nil {
				return nil, err
			}
			closed(t, x)
			return x, nil
		},
	})
}

// TestSwitchUnderSearches moves the alias again and again while others search
// through it, and checks what searches find then: an alias that has moved can
// go on to lead them to the former collection.
func TestSwitchUnderSearches(t *testing.T) {
	cfg := Config{Address: testenv.Milvus(t).Addr()}
	name := newName(t, cfg)
	for n := 1; n <= 2; n++ {
		x, err := Open(t.Context(), cfg, name, n, testModel, discard)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := x.Apply(t.Context(), []leat.Revision{revision(fmt.Sprint("of", n), 1, 1)}); err != nil {
			t.Fatal(err)
		}
		if err := x.Close(); err != nil {
			t.Fatal(err)
		}
	}
	// How often the alias is moved in all, to see whether once was enough.
	var moves atomic.Int64
	c, err := dial(t.Context(), cfg, grpc.WithUnaryInterceptor(
		func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			if filepath.Base(method) == "AlterAlias" {
				moves.Add(1)
			}
			return call(ctx, method, req, reply, cc, opts...)
		}))
	if err != nil {
		t.Fatal(err)
	}
	g := &generations{c, name, discard}
	t.Cleanup(func() { g.Close() })
	if err := g.Switch(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	client, err := milvusclient.New(t.Context(), &milvusclient.ClientConfig{Address: cfg.Address})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(context.Background()) })
	alias := collectionNames(name, 0).alias
	search := func(ctx context.Context) (document string, err error) {
		v := make([]float32, sinktest.Dimension)
		v[1] = 1
		r, err := client.Search(ctx, milvusclient.NewSearchOption(alias, 1, []entity.Vector{entity.FloatVector(v)}).
			WithANNSField(vectorField).WithOutputFields("document"))
		if err != nil {
			return "", err
		}
		if r[0].ResultCount != 1 {
			return "", errors.New("nothing is found")
		}
		return r[0].GetColumn("document").GetAsString(0)
	}
	ctx, stop := context.WithCancel(t.Context())
	var searchers sync.WaitGroup
	var searches atomic.Int64
	for range 4 {
		searchers.Go(func() {
			for ctx.Err() == nil {
				searches.Add(1)
				_, _ = search(ctx) // some fail while the alias moves
			}
		})
	}
	switches := 30
	if n, err := strconv.Atoi(os.Getenv("LEAT_TEST_SWITCHES")); err == nil {
		switches = n
	}
	moves.Store(0)
	for i := range switches {
		n := 1 + (i+1)%2
		if err := g.Switch(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			found, err := search(t.Context())
			if err != nil && passing(err) {
				continue
			}
			if want := fmt.Sprint("of", n); err != nil || found != want {
				t.Errorf("switch %d: a search through the alias finds %s, not %s (%v)", i, found, want, err)
			}
		}
	}
	stop()
	searchers.Wait()
	t.Logf("%d switches beside %d searches, the alias was moved %d times", switches, searches.Load(), moves.Load())
}

// TestSwitchRepeats loses the first moves of the alias, as the server can.
func TestSwitchRepeats(t *testing.T) {
	cfg := Config{Address: testenv.Milvus(t).Addr()}
	name := newName(t, cfg)
	for n := 1; n <= 2; n++ { // empty ones, which are equal
		x, err := Open(t.Context(), cfg, name, n, testModel, discard)
		if err != nil {
			t.Fatal(err)
		}
		if err := x.Close(); err != nil {
			t.Fatal(err)
		}
	}
	var lost atomic.Int64
	var broken atomic.Bool
	c, err := dial(t.Context(), cfg, grpc.WithUnaryInterceptor(
		func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			switch {
			case filepath.Base(method) == "AlterAlias" && lost.Add(-1) >= 0:
				return nil // it says that it is done
			case filepath.Base(method) == "Query" && broken.Load():
				return status.Error(codes.Unavailable, "the test cut it")
			}
			return call(ctx, method, req, reply, cc, opts...)
		}))
	if err != nil {
		t.Fatal(err)
	}
	g := &generations{c, name, discard}
	t.Cleanup(func() { g.Close() })
	if err := g.Switch(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	lost.Store(3)
	if err := g.Switch(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	if n, err := g.Live(t.Context()); err != nil || n != 2 || lost.Load() > 0 {
		t.Fatalf("generation %d is live, %d moves were not sent (%v)", n, lost.Load(), err)
	}
	broken.Store(true)
	if err := g.Switch(t.Context(), 1); err == nil || leat.HintOf(err) == "" {
		t.Fatalf("a switch that nothing proves: %v", err)
	}
	broken.Store(false)
	// Nothing of it remains.
	for n := 1; n <= 2; n++ {
		x, err := OpenReader(t.Context(), cfg, name, n, discard)
		if err != nil {
			t.Fatal(err)
		}
		if damage, strays := inventory(t, x, ""); len(damage)+len(strays) > 0 {
			t.Errorf("generation %d: %v, %v", n, damage, strays)
		}
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	}
	// An alias that is someone else's is left alone.
	other := collectionNames(newName(t, cfg), 1)
	if x, err := Open(t.Context(), cfg, other.alias, 1, testModel, discard); err != nil {
		t.Fatal(err)
	} else if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.client.AlterAlias(t.Context(), milvusclient.NewAlterAliasOption(collectionNames(name, 0).alias, other.chunks)); err != nil {
		t.Fatal(err)
	}
	if n, err := g.Live(t.Context()); err == nil || leat.HintOf(err) == "" {
		t.Errorf("generation %d is live where the alias leads elsewhere (%v)", n, err)
	}
	if err := g.Switch(t.Context(), 1); err == nil || leat.HintOf(err) == "" {
		t.Errorf("an alias that leads elsewhere is switched (%v)", err)
	}
	if err := c.client.DropAlias(t.Context(), milvusclient.NewDropAliasOption(collectionNames(name, 0).alias)); err != nil {
		t.Fatal(err)
	}
	// Several may make it live first.
	var both errgroup.Group
	for range 3 {
		both.Go(func() error { return g.Switch(t.Context(), 1) })
	}
	if err := both.Wait(); err != nil {
		t.Error(err)
	}
}

// TestMark: what a switch is proven by is found by no search, and one that
// remained of a process that was killed is stray.
func TestMark(t *testing.T) {
	p := newPool(t, testenv.Milvus(t).Addr(), 1)
	x := p.open(t, t.TempDir()).(*Index)
	r := revision("d", 0, 1)
	if _, err := x.Apply(t.Context(), []leat.Revision{r}); err != nil {
		t.Fatal(err)
	}
	mark := markOf(1, sinktest.Dimension)
	if err := x.write(t.Context(), []chunkRow{mark}, nil); err != nil {
		t.Fatal(err)
	}
	refresh(t, x)
	for limit := 1; limit < 3; limit++ {
		m, err := x.SearchVector(t.Context(), mark.chunk.Vector, limit)
		if err != nil || len(m) != 1 || m[0].Document != "d" {
			t.Errorf("%+v, %v", m, err)
		}
	}
	damage, strays := inventory(t, x, "")
	if want := x.names.chunks + " generation 1"; len(damage) > 0 || len(strays) != 1 || strays[0] != want {
		t.Errorf("%v, %q", damage, strays)
	}
	if err := x.Discard(t.Context(), strays); err != nil {
		t.Fatal(err)
	}
	if _, strays := inventory(t, x, ""); len(strays) > 0 {
		t.Error(strays)
	}
}
