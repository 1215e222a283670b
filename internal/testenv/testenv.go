// Package testenv gives tests real servers without Docker. A server that is
// missing fails the test with the command to get it; under -short the test is
// skipped and says so.
package testenv

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"leat/internal/testenv/local"
)

// Option changes how a server is run.
type Option func(*options)

type options struct {
	own   bool
	flags []string
}

// Own asks for a server of the test's own, which it may stop and restart,
// even where LEAT_TEST_MYSQL or LEAT_TEST_MARIADB names a running one.
func Own() Option { return func(o *options) { o.own = true } }

// Flags adds flags of mysqld, such as "--skip-log-bin" or
// "--binlog-row-image=MINIMAL". It implies Own.
func Flags(flags ...string) Option {
	return func(o *options) { o.own, o.flags = true, append(o.flags, flags...) }
}

// DB is a MySQL or MariaDB server for a test.
type DB struct {
	Flavor         local.Flavor
	User, Password string // may do everything
	addr           string
	root           *sql.DB
	own            *local.Database // nil where the server was running already
}

// MySQL starts a MySQL server that ends with the test. It has row-based
// binary logs with full images and metadata, GTIDs, and root without password.
// Where LEAT_TEST_MYSQL is set ([user[:password]@]host:port, by default root
// without password) and no option asks otherwise, the test gets that server.
func MySQL(t testing.TB, opts ...Option) *DB {
	t.Helper()
	return start(t, local.MySQL, "LEAT_TEST_MYSQL", opts)
}

// MariaDB is as MySQL, with MariaDB and LEAT_TEST_MARIADB.
func MariaDB(t testing.TB, opts ...Option) *DB {
	t.Helper()
	return start(t, local.MariaDB, "LEAT_TEST_MARIADB", opts)
}

func start(t testing.TB, flavor local.Flavor, env string, opts []Option) *DB {
	t.Helper()
	if testing.Short() {
		t.Skipf("left out under -short: needs a real %s server", flavor)
	}
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	if at := os.Getenv(env); at != "" && !o.own {
		return connect(t, flavor, env, at)
	}
	in, err := local.FindInCache(flavor)
	if errors.Is(err, local.ErrNotInstalled) {
		t.Fatalf("%v: run `make servers`", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	dir, err := local.NewDir(string(flavor))
	if err != nil {
		t.Fatal(err)
	}
	own, err := local.StartDatabase(t.Context(), in, dir.Path, o.flags...)
	if err != nil {
		t.Fatal(errors.Join(err, dir.Remove()))
	}
	t.Cleanup(func() {
		err := own.Close()
		if t.Failed() {
			keepLog(t, own.Process)
		}
		if err := errors.Join(err, dir.Remove()); err != nil {
			t.Error(err)
		}
	})
	return &DB{Flavor: flavor, User: "root", addr: own.Addr(), root: own.Root(), own: own}
}

func connect(t testing.TB, flavor local.Flavor, env, at string) *DB {
	t.Helper()
	d := &DB{Flavor: flavor, User: "root", addr: at}
	if i := strings.LastIndexByte(at, '@'); i >= 0 {
		d.User, d.Password, _ = strings.Cut(at[:i], ":")
		d.addr = at[i+1:]
	}
	var err error
	if d.root, err = local.Open(d.User, d.Password, d.addr, ""); err != nil {
		t.Fatalf("%s: %v", env, err)
	}
	t.Cleanup(func() { d.root.Close() })
	if err := d.root.PingContext(t.Context()); err != nil {
		t.Fatalf("%s: %v", env, err)
	}
	return d
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

// Addr is the server's host:port.
func (d *DB) Addr() string { return d.addr }

// Port is the server's TCP port.
func (d *DB) Port() int {
	_, port, _ := net.SplitHostPort(d.addr)
	n, _ := strconv.Atoi(port)
	return n
}

// Host is the server's host.
func (d *DB) Host() string {
	host, _, _ := net.SplitHostPort(d.addr)
	return host
}

// DSN is a data source name of the user who may do everything, for
// go-sql-driver, with times in UTC. database may be "".
func (d *DB) DSN(database string) string { return local.DSN(d.User, d.Password, d.addr, database) }

// Root is a connection pool of that user; it survives restarts of the server.
func (d *DB) Root() *sql.DB { return d.root }

// Exec runs one or more statements as root.
func (d *DB) Exec(t testing.TB, query string, args ...any) {
	t.Helper()
	if _, err := d.root.ExecContext(context.WithoutCancel(t.Context()), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

var counter atomic.Int64

// Database creates an empty database (utf8mb4) with a name of its own and
// drops it at the end of the test.
func (d *DB) Database(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("leat_%d_%d", os.Getpid(), counter.Add(1))
	d.Exec(t, "CREATE DATABASE "+name+" CHARACTER SET utf8mb4")
	if d.own == nil { // one of the test's own goes as a whole
		t.Cleanup(func() { d.Exec(t, "DROP DATABASE IF EXISTS "+name) })
	}
	return name
}

// CreateUser makes a user with a password and grants such as
// "SELECT ON shop.*" and "REPLICATION SLAVE, REPLICATION CLIENT ON *.*".
func (d *DB) CreateUser(t testing.TB, name, password string, grants ...string) {
	t.Helper()
	user := fmt.Sprintf("'%s'@'%%'", name)
	d.Exec(t, "DROP USER IF EXISTS "+user)
	d.Exec(t, fmt.Sprintf("CREATE USER %s IDENTIFIED BY '%s'", user, strings.ReplaceAll(password, "'", "''")))
	for _, g := range grants {
		d.Exec(t, fmt.Sprintf("GRANT %s TO %s", g, user))
	}
	if d.own == nil {
		t.Cleanup(func() { d.Exec(t, "DROP USER IF EXISTS "+user) })
	}
}

// Stop ends the server in good order; Start runs it again on the same port.
func (d *DB) Stop(t testing.TB) { t.Helper(); d.do(t, (*local.Database).Stop) }

// Kill ends the server with SIGKILL; Start runs it again on the same port.
func (d *DB) Kill(t testing.TB) { t.Helper(); d.do(t, (*local.Database).Kill) }

// Start runs the server again after Stop or Kill.
func (d *DB) Start(t testing.TB) {
	t.Helper()
	d.do(t, func(own *local.Database) error { return own.Start(t.Context()) })
}

// Restart is Stop and Start.
func (d *DB) Restart(t testing.TB) { t.Helper(); d.Stop(t); d.Start(t) }

// Pause freezes the server (SIGSTOP): connections stay open and hang.
func (d *DB) Pause(t testing.TB) { t.Helper(); d.do(t, (*local.Database).Pause) }

// Resume ends a Pause.
func (d *DB) Resume(t testing.TB) { t.Helper(); d.do(t, (*local.Database).Resume) }

func (d *DB) do(t testing.TB, f func(*local.Database) error) {
	t.Helper()
	if d.own == nil {
		t.Fatal("this test stops its server, so it needs testenv.Own()")
	}
	if err := f(d.own); err != nil {
		t.Fatal(err)
	}
}
