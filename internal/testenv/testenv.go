// Package testenv gives tests real servers without Docker. A server that is
// missing fails the test with the command to get it; under -short the test is
// skipped and says so.
package testenv

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"leat/internal/testenv/local"
)

// Option changes how a server is run.
type Option func(*options)

type options struct {
	own       bool
	flags     []string
	env       []string                       // of MinIO
	listeners map[string]local.KafkaListener // of Kafka
}

// Own asks for a server of the test's own, which it may stop and restart,
// even where a variable such as LEAT_TEST_MYSQL names a running one.
func Own() Option { return func(o *options) { o.own = true } }

// Flags adds flags of the server's program, such as "--skip-log-bin" of
// mysqld. It implies Own.
func Flags(flags ...string) Option {
	return func(o *options) { o.own, o.flags = true, append(o.flags, flags...) }
}

// Env adds variables, such as "NAME=value", to a server that is configured by
// them: MinIO. It implies Own.
func Env(variables ...string) Option {
	return func(o *options) { o.own, o.env = true, append(o.env, variables...) }
}

func chosen(opts []Option) (o options) {
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

// needs leaves the test out under -short.
func needs(t testing.TB, name string) {
	t.Helper()
	if testing.Short() {
		t.Skipf("left out under -short: needs a real %s server", name)
	}
}

// Server is a real server of a test: its own, or one that was running already.
type Server struct {
	addr    string
	process *local.Process // nil where the server was running already
}

// launch starts a server of the test's own whose files lie in a directory that
// ends with the test, as it does itself.
func launch(t testing.TB, name string, start func(ctx context.Context, dir string) (*local.Process, error)) *local.Process {
	t.Helper()
	p, dir := begin(t.Context(), t, name, start)
	t.Cleanup(func() {
		err := p.Kill()
		if t.Failed() {
			keepLog(t, p)
		}
		if err := errors.Join(err, dir.Remove()); err != nil {
			t.Error(err)
		}
	})
	return p
}

// begin starts a server whose files lie in a directory of its own.
func begin(ctx context.Context, t testing.TB, name string, start func(ctx context.Context, dir string) (*local.Process, error)) (*local.Process, *local.Dir) {
	t.Helper()
	dir, err := local.NewDir(name)
	if err != nil {
		t.Fatal(err)
	}
	p, err := start(ctx, dir.Path)
	if errors.Is(err, local.ErrNotInstalled) {
		t.Fatalf("%v: run `make servers`", errors.Join(err, dir.Remove()))
	}
	if err != nil {
		t.Fatal(errors.Join(err, dir.Remove()))
	}
	return p, dir
}

// Addr is the server's host:port.
func (s *Server) Addr() string { return s.addr }

// Port is the server's TCP port.
func (s *Server) Port() int {
	_, port, _ := net.SplitHostPort(s.addr)
	n, _ := strconv.Atoi(port)
	return n
}

// Host is the server's host.
func (s *Server) Host() string {
	host, _, _ := net.SplitHostPort(s.addr)
	return host
}

// PID is the process's id; 0 where the server was running already.
func (s *Server) PID() int {
	if s.process == nil {
		return 0
	}
	return s.process.PID()
}

// Stop ends the server in good order; Start runs it again on the same port.
func (s *Server) Stop(t testing.TB) { t.Helper(); s.do(t, (*local.Process).Stop) }

// Kill ends the server with SIGKILL; Start runs it again on the same port.
func (s *Server) Kill(t testing.TB) { t.Helper(); s.do(t, (*local.Process).Kill) }

// Start runs the server again after Stop or Kill.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	s.do(t, func(p *local.Process) error { return p.Start(t.Context()) })
}

// Restart is Stop and Start.
func (s *Server) Restart(t testing.TB) { t.Helper(); s.Stop(t); s.Start(t) }

// Pause freezes the server (SIGSTOP): connections stay open and hang.
func (s *Server) Pause(t testing.TB) { t.Helper(); s.do(t, (*local.Process).Pause) }

// Resume ends a Pause.
func (s *Server) Resume(t testing.TB) { t.Helper(); s.do(t, (*local.Process).Resume) }

func (s *Server) do(t testing.TB, f func(*local.Process) error) {
	t.Helper()
	if s.process == nil {
		t.Fatal("this test stops its server, so it needs testenv.Own()")
	}
	if err := f(s.process); err != nil {
		t.Fatal(err)
	}
}

// keepLog puts a failed test's server log where it outlives the test.
func keepLog(t testing.TB, p *local.Process) {
	dir := filepath.Join(os.TempDir(), "leat-test-logs")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		t.Log(err)
		return
	}
	path := filepath.Join(dir, fileName.ReplaceAllString(t.Name()+"-"+p.Name(), "_")+".log")
	if err := os.WriteFile(path, []byte(p.LogTail(1<<20)), 0o644); err != nil {
		t.Log(err)
	}
	t.Logf("log of %s: %s; its end:\n%s", p.Name(), path, p.LogTail(2000))
}

var fileName = regexp.MustCompile(`[^A-Za-z0-9.-]+`)
