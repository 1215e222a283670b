package testenv

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"testing"

	"leat/internal/testenv/local"
)

// shared are the servers that the tests of a package share.
var shared struct {
	sync.Mutex
	on   bool
	stop []func() error
}

// Shared are the tests of a package. Those that ask for an Elasticsearch or
// Milvus server without an option get the same one, since to start it takes
// longer than most of them: it is started for the first and ends with the last.
type Shared struct{ M *testing.M }

// Run runs the tests, as [testing.M] does.
func (s Shared) Run() int {
	shared.on = true
	code := s.M.Run()
	http.DefaultClient.CloseIdleConnections()
	for _, stop := range shared.stop {
		if err := stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	return code
}

// share starts a server for all tests of the package where they share one, and
// names it, by its address, in the environment, as one that was running already.
func share(t testing.TB, variable, name string, start func(ctx context.Context, dir string) (*local.Process, error), address func() string) {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if !shared.on || os.Getenv(variable) != "" {
		return
	}
	p, dir := begin(context.WithoutCancel(t.Context()), t, name, start)
	shared.stop = append(shared.stop, func() error { return errors.Join(p.Kill(), dir.Remove()) })
	if err := os.Setenv(variable, address()); err != nil {
		t.Fatal(err)
	}
}
