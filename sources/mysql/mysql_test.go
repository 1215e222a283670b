package mysql_test

import (
	"fmt"
	"log/slog"
	"testing"

	"go.uber.org/goleak"

	"leat"
	"leat/internal/testenv"
	"leat/sources/mysql"
	"leat/sources/sourcetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// flavors runs a test on both servers at once.
func flavors(t *testing.T, test func(*testing.T, *testenv.DB), opts ...testenv.Option) {
	t.Run("MySQL", func(t *testing.T) { t.Parallel(); test(t, testenv.MySQL(t, opts...)) })
	t.Run("MariaDB", func(t *testing.T) { t.Parallel(); test(t, testenv.MariaDB(t, opts...)) })
}

func config(db *testenv.DB, tables ...mysql.TableConfig) mysql.Config {
	return mysql.Config{Address: db.Addr(), User: db.User, Password: leat.Secret(db.Password), Tables: tables}
}

func open(t *testing.T, cfg mysql.Config) *mysql.Source {
	t.Helper()
	s, err := mysql.New("shop", cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// origin is a table, for the conformance suite.
type origin struct {
	db    *testenv.DB
	table string
}

func (o *origin) Open(t *testing.T) leat.Source {
	return open(t, config(o.db, mysql.TableConfig{Table: o.table, Title: "title", Body: []string{"body"}, Metadata: []string{"price"}}))
}

func (o *origin) Put(t *testing.T, key int, body string) {
	t.Helper()
	o.db.Exec(t, "INSERT INTO "+o.table+" (id, title, body) VALUES (?,?,?) ON DUPLICATE KEY UPDATE body=?", key, fmt.Sprint("title ", key), body, body)
}

func (o *origin) Delete(t *testing.T, key int) {
	t.Helper()
	o.db.Exec(t, "DELETE FROM "+o.table+" WHERE id=?", key)
}

func (o *origin) Rename(t *testing.T, from, to int) {
	t.Helper()
	o.db.Exec(t, "UPDATE "+o.table+" SET id=? WHERE id=?", to, from)
}

func (o *origin) ID(key int) string {
	return leat.DocumentID("mysql", "shop", o.table, fmt.Sprint(key))
}

func TestConformance(t *testing.T) {
	conformance := func(t *testing.T, db *testenv.DB) {
		sourcetest.Run(t, sourcetest.Harness{
			Source: "mysql:shop",
			New: func(t *testing.T) sourcetest.Origin {
				o := &origin{db: db, table: db.Database(t) + ".notes"}
				db.Exec(t, "CREATE TABLE "+o.table+" (id INT PRIMARY KEY, title VARCHAR(100), body LONGTEXT, price DECIMAL(10,2) DEFAULT 1.5)")
				return o
			},
		})
	}
	// One after the other: the suite looks for goroutines left behind.
	t.Run("MySQL", func(t *testing.T) { conformance(t, testenv.MySQL(t)) })
	t.Run("MariaDB", func(t *testing.T) { conformance(t, testenv.MariaDB(t)) })
}
