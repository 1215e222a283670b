package local

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
)

// Flavor is a kind of MySQL-compatible server.
type Flavor string

// The flavors; the value is the name of the folder in the cache's servers.
const (
	MySQL   Flavor = "mysql"
	MariaDB Flavor = "mariadb"
)

func (f Flavor) daemon() string {
	if f == MariaDB {
		return "mariadbd"
	}
	return "mysqld"
}

// Installation is a database server's program on this machine.
type Installation struct {
	Flavor  Flavor
	Version string // such as "9.7.4-2"
	Daemon  string // path of mysqld or mariadbd
	base    string // folder with share/mysql
}

// ErrNotInstalled: the server's program is not on this machine.
var ErrNotInstalled = errors.New("is not installed")

// FindInCache finds the server that scripts/servers put into the cache.
func FindInCache(f Flavor) (*Installation, error) {
	cache, err := Cache()
	if err != nil {
		return nil, err
	}
	prefix := filepath.Join(cache, "servers", string(f))
	if _, err := os.Stat(prefix); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s %w in %s", f, ErrNotInstalled, prefix)
	}
	return inspect(filepath.Join(prefix, f.daemon()), filepath.Join(prefix, "root", "usr"))
}

// FindOnPath finds a MySQL or MariaDB server among the machine's own programs.
func FindOnPath() (*Installation, error) {
	for _, name := range []string{"mysqld", "mariadbd"} {
		// Debian keeps servers where a user's PATH seldom leads.
		for _, candidate := range []string{name, "/usr/sbin/" + name, "/usr/libexec/" + name, "/usr/local/mysql/bin/" + name} {
			path, err := exec.LookPath(candidate)
			if err != nil {
				continue
			}
			real, err := filepath.EvalSymlinks(path)
			if err != nil {
				continue
			}
			if in, err := inspect(real, filepath.Dir(filepath.Dir(real))); err == nil {
				return in, nil
			}
		}
	}
	return nil, fmt.Errorf("no MySQL or MariaDB server is on the PATH: it %w", ErrNotInstalled)
}

var versionPattern = regexp.MustCompile(`Ver ([0-9][^ ]*)`)

func inspect(daemon, base string) (*Installation, error) {
	out, err := exec.Command(daemon, "--no-defaults", "--version").CombinedOutput()
	m := versionPattern.FindSubmatch(out)
	if err != nil || m == nil {
		return nil, fmt.Errorf("%s --version: %w: %s", daemon, err, out)
	}
	in := &Installation{Flavor: MySQL, Version: string(m[1]), Daemon: daemon, base: base}
	if strings.Contains(string(out), "MariaDB") {
		in.Flavor = MariaDB
	}
	return in, nil
}

// flags that every run of the server has, initialisation included.
func (in *Installation) flags(data string) []string {
	flags := []string{
		"--no-defaults", "--basedir=" + in.base, "--datadir=" + data,
		"--tmpdir=" + filepath.Dir(data), // a server that starts clears away the temporary tables of others beside it
		"--lc-messages-dir=" + filepath.Join(in.base, "share/mysql"),
		"--character-sets-dir=" + filepath.Join(in.base, "share/mysql/charsets"),
		"--plugin-dir=" + filepath.Join(in.base, "lib/mysql/plugin"),
		"--secure-file-priv=",
	}
	if in.Flavor == MySQL {
		flags = append(flags, "--loose-mysqlx=OFF")
	}
	if os.Getuid() == 0 {
		flags = append(flags, "--user=root")
	}
	return flags
}

// template returns a freshly initialised data directory to copy, made once
// for each version: initialisation takes ten times as long as a copy.
func (in *Installation) template(ctx context.Context) (string, error) {
	cache, err := Cache()
	if err != nil {
		return "", err
	}
	parent := filepath.Join(cache, "servers", "templates")
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", err
	}
	dir := filepath.Join(parent, fmt.Sprintf("%s-%s-1", in.Flavor, in.Version))
	return dir, withLock(dir+".lock", func() error {
		if _, err := os.Stat(dir); err == nil {
			return nil
		}
		making := dir + ".making"
		if err := os.RemoveAll(making); err != nil {
			return err
		}
		if err := in.initialize(ctx, making); err != nil {
			return fmt.Errorf("initialise a data directory of %s %s: %w", in.Flavor, in.Version, err)
		}
		return os.Rename(making, dir)
	})
}

func (in *Installation) initialize(ctx context.Context, data string) error {
	if err := os.MkdirAll(data, 0o755); err != nil {
		return err
	}
	log := data + ".log"
	args := append(in.flags(data), "--log-error="+log)
	var script strings.Builder
	if in.Flavor == MariaDB {
		// What mariadb-install-db does, without its need for a whole installation.
		args = append(args, "--bootstrap", "--innodb-log-file-size=16M")
		script.WriteString("CREATE DATABASE mysql;\nUSE mysql;\nSET @auth_root_socket=NULL;\n")
		for _, name := range []string{"mysql_system_tables", "mysql_performance_tables",
			"mysql_system_tables_data", "fill_help_tables", "maria_add_gis_sp_bootstrap"} {
			sql, err := os.ReadFile(filepath.Join(in.base, "share/mysql", name+".sql"))
			if err != nil {
				return err
			}
			script.Write(sql)
		}
		// Privileges are not loaded in a bootstrap, so no CREATE USER.
		script.WriteString("\nREPLACE INTO mysql.global_priv SELECT '127.0.0.1', User, Priv FROM mysql.global_priv WHERE User='root' AND Host='localhost';\n")
	} else {
		init := data + ".sql"
		defer os.Remove(init)
		if err := os.WriteFile(init, []byte("CREATE USER root@'127.0.0.1';\nGRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION;\n"), 0o600); err != nil {
			return err
		}
		args = append(args, "--initialize-insecure", "--init-file="+init, "--skip-log-bin", "--loose-innodb-redo-log-capacity=8M")
	}
	cmd := exec.CommandContext(ctx, in.Daemon, args...)
	cmd.Stdin = strings.NewReader(script.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		tail, _ := os.ReadFile(log)
		return fmt.Errorf("%w: %s%s", err, out, tail)
	}
	// Without it a copy makes its own server_uuid at its first start.
	if err := os.Remove(filepath.Join(data, "auto.cnf")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Remove(log)
}

// Database is a MySQL or MariaDB server of this process, with row-based
// binary logs, full row images and metadata and GTIDs. Its user is root,
// without password.
type Database struct {
	*Process
	Installation *Installation
	port         int
	root         *sql.DB
}

// StartDatabase runs a new, empty server whose files lie in dir, with flags
// after (and so above) its own.
func StartDatabase(ctx context.Context, in *Installation, dir string, flags ...string) (*Database, error) {
	template, err := in.template(ctx)
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "data")
	if err := os.CopyFS(data, os.DirFS(template)); err != nil {
		return nil, fmt.Errorf("copy %s: %w", template, err)
	}
	for try := 1; ; try++ {
		d, err := startOn(ctx, in, dir, data, flags)
		// Someone may have taken the port since it was found free.
		if err == nil || try == 3 || !strings.Contains(err.Error(), "in use") {
			return d, err
		}
	}
}

func startOn(ctx context.Context, in *Installation, dir, data string, flags []string) (*Database, error) {
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	d := &Database{Installation: in, port: port}
	if d.root, err = Open("root", "", d.Addr(), ""); err != nil {
		return nil, err
	}
	args := append(in.flags(data), "--bind-address=127.0.0.1", "--port="+strconv.Itoa(port),
		"--socket=mysql.sock", "--pid-file=mysqld.pid", "--skip-name-resolve",
		"--server-id="+strconv.Itoa(port), "--log-bin=binlog", "--binlog-format=ROW",
		"--binlog-row-image=FULL", "--binlog-row-metadata=FULL",
		"--innodb-buffer-pool-size=128M", "--innodb-flush-log-at-trx-commit=2", "--sync-binlog=0")
	if in.Flavor == MariaDB {
		args = append(args, "--gtid-strict-mode=ON", "--log-slave-updates", "--innodb-log-file-size=64M")
	} else {
		args = append(args, "--gtid-mode=ON", "--enforce-gtid-consistency=ON")
	}
	args = append(args, flags...)
	d.Process, err = Start(ctx, Spec{
		Name:    string(in.Flavor) + " " + in.Version,
		Command: func() *exec.Cmd { return exec.Command(in.Daemon, args...) },
		Ready:   d.ping,
		Log:     filepath.Join(dir, "server.log"),
	})
	if err != nil {
		d.root.Close()
		return nil, err
	}
	return d, nil
}

func (d *Database) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err := d.root.ExecContext(ctx, "DO 1")
	return err
}

// Addr is the server's host:port.
func (d *Database) Addr() string { return loopback(d.port) }

// Port is the server's TCP port on 127.0.0.1.
func (d *Database) Port() int { return d.port }

// DSN is the data source name of root, for go-sql-driver. database may be "".
func (d *Database) DSN(database string) string { return DSN("root", "", d.Addr(), database) }

// Root is a connection pool of root that survives restarts of the server.
func (d *Database) Root() *sql.DB { return d.root }

// Close ends the server and closes Root.
func (d *Database) Close() error { return errors.Join(d.root.Close(), d.Kill()) }

// DSN is a data source name for go-sql-driver whose times are UTC.
func DSN(user, password, addr, database string) string {
	return config(user, password, addr, database).FormatDSN()
}

// Open makes a connection pool that does not log the failures of connections:
// a server that is down is what many callers wait for.
func Open(user, password, addr, database string) (*sql.DB, error) {
	c := config(user, password, addr, database)
	c.Logger = silent{}
	connector, err := mysql.NewConnector(c)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(connector), nil
}

func config(user, password, addr, database string) *mysql.Config {
	c := mysql.NewConfig()
	c.User, c.Passwd, c.Net, c.Addr, c.DBName = user, password, "tcp", addr, database
	c.Params = map[string]string{"time_zone": "'+00:00'"}
	c.MultiStatements = true
	return c
}

type silent struct{}

func (silent) Print(...any) {}
