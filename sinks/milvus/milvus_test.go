package milvus

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/milvus-io/milvus/client/v2/milvusclient"
	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"leat"
	"leat/internal/testenv"
	"leat/sinks/sinktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(testenv.Shared{M: m}) }

const serverEnv = "LEAT_TEST_MILVUS"

var (
	discard   = slog.New(slog.DiscardHandler)
	testModel = leat.Model{Name: "test", Dimension: sinktest.Dimension}
	counter   atomic.Int64
)

// pool hands out empty indexes of one server. To make one takes the server
// seconds, most of them waiting, so that they are used again.
type pool struct {
	cfg  Config
	mu   sync.Mutex
	free []string
}

// newPool makes n indexes side by side.
func newPool(t testing.TB, addr string, n int) *pool {
	t.Helper()
	p := &pool{cfg: Config{Address: addr}}
	var g errgroup.Group
	for range n {
		g.Go(func() error {
			name, err := p.create(t.Context())
			p.put(name)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if os.Getenv(serverEnv) != "" { // a server that stays
		t.Cleanup(func() {
			for _, name := range p.free {
				if err := p.each(name, func(ctx context.Context, x *Index, collection string) error {
					return x.db.client.DropCollection(ctx, milvusclient.NewDropCollectionOption(collection))
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	return p
}

func (p *pool) create(ctx context.Context) (string, error) {
	name := fmt.Sprintf("test-%d-%d", os.Getpid(), counter.Add(1))
	x, err := Open(ctx, p.cfg, name, 1, testModel, discard)
	if err != nil {
		return name, err
	}
	return name, x.Close()
}

func (p *pool) put(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, name)
}

// take returns an index that nothing else uses until t ends.
func (p *pool) take(t testing.TB) (name string) {
	t.Helper()
	p.mu.Lock()
	if n := len(p.free); n > 0 {
		name, p.free = p.free[n-1], p.free[:n-1]
	}
	p.mu.Unlock()
	if name == "" {
		var err error
		if name, err = p.create(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := p.each(name, func(ctx context.Context, x *Index, collection string) error {
			_, err := x.db.client.Delete(ctx, milvusclient.NewDeleteOption(collection).WithExpr(`id > ""`))
			return err
		}); err != nil {
			t.Error(err)
		}
		p.put(name)
	})
	return name
}

// each does something with both collections of an index.
func (p *pool) each(name string, do func(ctx context.Context, x *Index, collection string) error) error {
	ctx := context.Background()
	x, err := Open(ctx, p.cfg, name, 1, testModel, discard)
	if err != nil {
		return err
	}
	return errors.Join(do(ctx, x, x.names.chunks), do(ctx, x, x.names.documents), x.Close())
}

// name of the index that belongs to a directory of sinktest: it is in a file there.
func (p *pool) name(t testing.TB, dir string) string {
	t.Helper()
	file := filepath.Join(dir, "name")
	name, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		name = []byte(p.take(t))
		err = os.WriteFile(file, name, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(name)
}

// open is what sinktest opens a directory with.
func (p *pool) open(t testing.TB, dir string) leat.VectorIndex {
	t.Helper()
	x, err := Open(t.Context(), p.cfg, p.name(t, dir), 1, testModel, discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	})
	return x
}

// refresh has searches see all that was applied.
func refresh(t testing.TB, x leat.VectorIndex) {
	t.Helper()
	if err := x.(*Index).Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestVectorConformance(t *testing.T) {
	// A step of a sequence asks the server some 20 times.
	for name, value := range map[string]string{"rapid.checks": "5", "rapid.steps": "12"} {
		if f := flag.Lookup(name); f.Value.String() == f.DefValue {
			if err := f.Value.Set(value); err != nil {
				t.Fatal(err)
			}
		}
	}
	sinktest.RunVector(t, newPool(t, testenv.Milvus(t).Addr(), 6).open)
}

func TestVectorCrash(t *testing.T) {
	sinktest.RunVectorCrash(t, newPool(t, testenv.Milvus(t).Addr(), 0).open)
}
