package testenv

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"leat/internal/testenv/local"
)

// DB is a MySQL or MariaDB server for a test.
type DB struct {
	Server
	Flavor         local.Flavor
	User, Password string // may do everything
	root           *sql.DB
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
	needs(t, string(flavor))
	o := chosen(opts)
	if at := os.Getenv(env); at != "" && !o.own {
		return connect(t, flavor, env, at)
	}
	var own *local.Database
	p := launch(t, string(flavor), func(ctx context.Context, dir string) (*local.Process, error) {
		in, err := local.FindInCache(flavor)
		if err != nil {
			return nil, err
		}
		if own, err = local.StartDatabase(ctx, in, dir, o.flags...); err != nil {
			return nil, err
		}
		return own.Process, nil
	})
	t.Cleanup(func() { own.Root().Close() })
	return &DB{Server: Server{own.Addr(), p}, Flavor: flavor, User: "root", root: own.Root()}
}

func connect(t testing.TB, flavor local.Flavor, env, at string) *DB {
	t.Helper()
	d := &DB{Server: Server{addr: at}, Flavor: flavor, User: "root"}
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
	if d.process == nil { // one of the test's own goes as a whole
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
	if d.process == nil {
		t.Cleanup(func() { d.Exec(t, "DROP USER IF EXISTS "+user) })
	}
}
