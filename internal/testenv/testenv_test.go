package testenv

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"leat/internal/testenv/local"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestDatabases(t *testing.T) {
	for name, start := range map[string]func(testing.TB, ...Option) *DB{"mysql": MySQL, "mariadb": MariaDB} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			db := start(t, Own())
			t.Logf("%s up in %v", db.Flavor, time.Since(began))
			base := db.Database(t)
			db.Exec(t, "CREATE TABLE "+base+".t (id INT PRIMARY KEY); INSERT INTO "+base+".t VALUES (1), (2)")
			for variable, want := range map[string]string{"log_bin": "ON", "binlog_format": "ROW", "binlog_row_image": "FULL", "binlog_row_metadata": "FULL"} {
				if got := value(t, db, "SHOW VARIABLES LIKE '"+variable+"'"); !strings.EqualFold(got, want) {
					t.Errorf("%s = %q, want %q", variable, got, want)
				}
			}
			count := func() string { return value(t, db, "SELECT 'rows', COUNT(*) FROM "+base+".t") }
			addr := db.Addr()
			for how, stop := range map[string]func(testing.TB){"stop": db.Stop, "kill": db.Kill} {
				stop(t)
				if err := db.Root().PingContext(t.Context()); err == nil {
					t.Errorf("it answers after %s", how)
				}
				db.Start(t)
				if got := count(); got != "2" {
					t.Errorf("after %s and start: %s rows, want 2", how, got)
				}
			}
			if db.Addr() != addr {
				t.Errorf("it moved from %s to %s", addr, db.Addr())
			}

			db.Pause(t)
			ping := func(limit time.Duration) error {
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				defer cancel()
				return db.Root().PingContext(ctx)
			}
			if ping(200*time.Millisecond) == nil {
				t.Error("it answers while paused")
			}
			db.Resume(t)
			// What was under way in the pause may be lost: what counts is that it
			// answers again.
			for began := time.Now(); ping(5*time.Second) != nil; {
				if time.Since(began) > 2*time.Minute {
					t.Fatal("it does not answer after resume")
				}
			}
			if got := count(); got != "2" {
				t.Errorf("after resume: %s rows, want 2", got)
			}

			db.CreateUser(t, "reader", "pass'word", "SELECT ON "+base+".*")
			reader, err := local.Open("reader", "pass'word", db.Addr(), base)
			if err != nil {
				t.Fatal(err)
			}
			defer reader.Close()
			if _, err := reader.Exec("DELETE FROM t"); err == nil || !strings.Contains(err.Error(), "denied") {
				t.Errorf("the reader's delete gave %v, want a denial", err)
			}

			// Another test gets this server where its environment names it.
			t.Setenv("LEAT_TEST_"+strings.ToUpper(name), "root@"+db.Addr())
			same := start(t)
			if same.Addr() != db.Addr() {
				t.Errorf("LEAT_TEST_%s is not heeded", strings.ToUpper(name))
			}
			other := start(t, Flags("--binlog-row-image=MINIMAL"))
			if got := value(t, other, "SHOW VARIABLES LIKE 'binlog_row_image'"); got != "MINIMAL" {
				t.Errorf("flag not heeded: binlog_row_image = %s", got)
			}
		})
	}
}

// value is the second column of the first row.
func value(t *testing.T, db *DB, query string) string {
	t.Helper()
	var name, value string
	if err := db.Root().QueryRowContext(t.Context(), query).Scan(&name, &value); err != nil {
		t.Errorf("%s: %v", query, err)
	}
	return value
}

func TestDirOfADeadProcessIsSwept(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	mine, err := local.NewDir("mine")
	if err != nil {
		t.Fatal(err)
	}
	// What a killed process leaves: a directory and a lock that nobody holds.
	dead := filepath.Join(filepath.Dir(mine.Path), "dead")
	for _, err := range []error{os.Mkdir(dead, 0o755), os.WriteFile(dead+".lock", nil, 0o644)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	next, err := local.NewDir("next")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dead); !os.IsNotExist(err) {
		t.Errorf("the dead process's directory is still there (%v)", err)
	}
	for _, d := range []*local.Dir{mine, next} {
		if _, err := os.Stat(d.Path); err != nil {
			t.Errorf("a directory in use is gone: %v", err)
		}
		if err := d.Remove(); err != nil {
			t.Error(err)
		}
	}
}
