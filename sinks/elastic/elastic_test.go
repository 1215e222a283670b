package elastic

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"leat"
	"leat/internal/testenv"
	"leat/sinks/sinktest"
)

var discard = slog.New(slog.DiscardHandler)

func TestMain(m *testing.M) { goleak.VerifyTestMain(testenv.Shared{M: m}) }

func config(t testing.TB) Config {
	t.Helper()
	return of(testenv.Elasticsearch(t))
}

// of is the configuration of a server.
func of(es *testenv.Elasticsearch8) Config {
	return Config{URLs: []string{es.URL()}, User: es.User, Password: leat.Secret(es.Password), Replicas: new(int)}
}

// nameOf makes an index name of a directory.
func nameOf(dir string) string {
	h := fnv.New64a()
	h.Write([]byte(dir))
	return fmt.Sprintf("leat-test-%x", h.Sum64())
}

func open(t testing.TB, cfg Config, name string) *Index {
	t.Helper()
	x, err := Open(t.Context(), cfg, name, 1, discard)
	if err != nil {
		t.Fatalf("%v (%s)", err, leat.HintOf(err))
	}
	t.Cleanup(func() { x.Close() })
	return x
}

// drop removes what belongs to a name at the end of a test.
func drop(t testing.TB, cfg Config, name string) {
	t.Cleanup(func() {
		c, err := newClient(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer c.close()
		ctx := context.WithoutCancel(t.Context())
		for _, generation := range []int{1, 2, 3} {
			_ = c.call(ctx, http.MethodDelete, path(physical(name, generation)), nil, nil)
		}
		_ = c.call(ctx, http.MethodDelete, path("_index_template", "leat-"+name), nil, nil)
	})
}

// namer names the indices that belong to a directory, and drops them at the end.
func namer(cfg Config) func(t testing.TB, dir string) string {
	var mu sync.Mutex
	known := map[string]bool{}
	return func(t testing.TB, dir string) string {
		t.Helper()
		name := nameOf(dir)
		mu.Lock()
		defer mu.Unlock()
		if !known[name] {
			known[name] = true
			drop(t, cfg, name)
		}
		return name
	}
}

// opener opens the index that belongs to a directory.
func opener(cfg Config) sinktest.OpenText {
	name := namer(cfg)
	return func(t testing.TB, dir string) leat.TextIndex {
		t.Helper()
		return open(t, cfg, name(t, dir))
	}
}

func TestText(t *testing.T) {
	// Each sequence of the property test makes an index of its own, which takes
	// a server a good part of a second.
	if checks := flag.Lookup("rapid.checks"); checks.Value.String() == checks.DefValue {
		if err := checks.Value.Set("8"); err != nil {
			t.Fatal(err)
		}
	}
	sinktest.RunText(t, opener(config(t)))
}

func TestTextCrash(t *testing.T) {
	cfg := config(t)
	open := opener(cfg)
	sinktest.RunTextCrash(t, func(t testing.TB, dir string) leat.TextIndex {
		idle(t, cfg)
		return open(t, dir)
	})
}

// idle waits until the server has done what a killed process asked for.
func idle(t testing.TB, cfg Config) {
	t.Helper()
	c, err := newClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	for quiet := 0; quiet < 3; quiet++ {
		time.Sleep(20 * time.Millisecond)
		var tasks json.RawMessage
		if err := c.call(t.Context(), http.MethodGet, "/_tasks?actions=indices:data/write/*", nil, &tasks); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(tasks), "indices:data/write") {
			quiet = -1
		}
	}
}
