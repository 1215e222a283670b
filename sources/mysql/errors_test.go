package mysql_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"leat"
	"leat/internal/testenv"
	"leat/sources/mysql"
	"leat/sources/sourcetest"
)

// fails checks that Check and Run both say what and how to mend it. hints of
// errors that are joined stand in no order, so all of them are looked at.
func fails(t *testing.T, cfg mysql.Config, rec *sourcetest.Recorder, what, remedy string) {
	t.Helper()
	src := open(t, cfg)
	defer src.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	session, end := rec.Session(true, slog.New(slog.DiscardHandler))
	defer end()
	for name, err := range map[string]error{"Check": src.Check(ctx), "Run": src.Run(ctx, session)} {
		if err == nil || !strings.Contains(err.Error(), what) || !strings.Contains(hints(err), remedy) {
			t.Errorf("%s: %v (hints: %s), not %q with %q", name, err, hints(err), what, remedy)
		}
	}
}

func hints(err error) string {
	var joined interface{ Unwrap() []error }
	if leat.HintOf(err) != "" && !errors.As(err, &joined) {
		return leat.HintOf(err)
	}
	all := leat.HintOf(err)
	if errors.As(err, &joined) {
		for _, e := range joined.Unwrap() {
			all += "; " + hints(e)
		}
	}
	return all
}

func TestRefusals(t *testing.T) {
	flavors(t, func(t *testing.T, db *testenv.DB) {
		w := newWorld(t, db)
		w.exec("CREATE TABLE "+w.name+".nokey (id INT, title TEXT)", "CREATE TABLE "+w.name+".oddkey (id DOUBLE PRIMARY KEY, title TEXT)",
			"CREATE TABLE "+w.name+".blobs (id INT PRIMARY KEY, body BLOB)", "CREATE TABLE "+w.name+".swedish (id INT PRIMARY KEY, title VARCHAR(20) CHARACTER SET swe7)")
		user := fmt.Sprintf("u%d", time.Now().UnixNano()%1e9)
		db.CreateUser(t, user+"none", "secret", "SELECT ON "+w.name+".*")
		db.CreateUser(t, user+"table", "secret", "REPLICATION SLAVE, REPLICATION CLIENT ON *.*")
		db.CreateUser(t, user+"client", "secret", "SELECT ON "+w.name+".*", "REPLICATION SLAVE ON *.*")
		db.CreateUser(t, user+"slave", "secret", "SELECT ON "+w.name+".*", "REPLICATION CLIENT ON *.*")
		db.CreateUser(t, user+"good", "secret", "SELECT ON "+w.name+".*", "REPLICATION SLAVE, REPLICATION CLIENT ON *.*")
		as := func(name string) func(*mysql.Config) {
			return func(c *mysql.Config) { c.User, c.Password = user+name, "secret" }
		}
		table := func(name string, title string, body ...string) func(*mysql.Config) {
			return func(c *mysql.Config) {
				c.Tables = []mysql.TableConfig{{Table: w.name + "." + name, Title: title, Body: body}}
			}
		}
		for name, test := range map[string]struct {
			change       func(*mysql.Config)
			what, remedy string
		}{
			"Unreachable":   {func(c *mysql.Config) { c.Address = "127.0.0.1:1" }, "connect", "listening at 127.0.0.1:1"},
			"WrongPassword": {func(c *mysql.Config) { c.User, c.Password = user+"good", "wrong" }, "Access denied", "check user and password"},
			"NoReplication": {as("none"), "denied", "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO '" + user + "none'@'%'"},
			"NoClient":      {as("client"), "denied", "GRANT REPLICATION SLAVE, REPLICATION CLIENT"},
			"NoSlave":       {as("slave"), "denied", "GRANT REPLICATION SLAVE, REPLICATION CLIENT"},
			"NoSelect":      {as("table"), "denied", "GRANT SELECT ON `" + w.name + "`.`notes` TO '" + user + "table'@'%'"},
			"NoTable":       {table("absent", "title"), "does not exist", "check its name"},
			"NoColumn":      {table("notes", "titel"), `no column "titel"`, "its columns are id, title, body"},
			"NoKey":         {table("nokey", "title"), "no primary key", "ADD PRIMARY KEY"},
			"OddKey":        {table("oddkey", "title"), "of type double", "integers, decimals"},
			"BinaryBody":    {table("blobs", "", "body"), "is binary", "TEXT"},
			"Charset":       {table("swedish", "title"), `charset "swe7" is not supported`, ""},
		} {
			t.Run(name, func(t *testing.T) {
				cfg := config(db, w.cfg)
				test.change(&cfg)
				fails(t, cfg, sourcetest.NewRecorder("mysql:shop"), test.what, test.remedy)
			})
		}
		cfg := config(db, w.cfg)
		as("good")(&cfg)
		src := open(t, cfg)
		defer src.Close()
		if err := src.Check(t.Context()); err != nil {
			t.Errorf("Check with all that is needed: %v", err)
		}
		w.rec.Once(t, src)
	})
}

// TestServerSettings: settings that the binlog must have.
func TestServerSettings(t *testing.T) {
	flavors(t, func(t *testing.T, db *testenv.DB) {
		w := newWorld(t, db)
		settings := map[string][3]string{
			"binlog_row_image":    {"MINIMAL", "FULL", `binlog_row_image is "MINIMAL"`},
			"binlog_row_metadata": {"MINIMAL", "FULL", `binlog_row_metadata is "MINIMAL"`},
			"binlog_format":       {"MIXED", "ROW", `binlog_format is "MIXED"`},
		}
		if db.Flavor == "mysql" {
			settings["binlog_row_value_options"] = [3]string{"'PARTIAL_JSON'", "''", "binlog_row_value_options"}
			settings["gtid_mode"] = [3]string{"ON_PERMISSIVE", "ON", `gtid_mode is "ON_PERMISSIVE"`}
		}
		for name, s := range settings {
			t.Run(name, func(t *testing.T) {
				db.Exec(t, "SET GLOBAL "+name+"="+s[0])
				defer db.Exec(t, "SET GLOBAL "+name+"="+s[1])
				remedy := "SET GLOBAL " + name
				if name == "gtid_mode" {
					remedy = "gtid_mode step by step"
				}
				fails(t, config(db, w.cfg), sourcetest.NewRecorder("mysql:shop"), s[2], remedy)
			})
		}
	}, testenv.Own())
}

// TestNoBinlog: a server without binlog, or that leaves the database out.
func TestNoBinlog(t *testing.T) {
	flavors(t, func(t *testing.T, db *testenv.DB) {
		w := newWorld(t, db)
		fails(t, config(db, w.cfg), sourcetest.NewRecorder("mysql:shop"), `log_bin is "OFF"`, "start the server with log_bin")
	}, testenv.Flags("--skip-log-bin"))
}

func TestFilteredBinlog(t *testing.T) {
	flavors(t, func(t *testing.T, db *testenv.DB) {
		db.Exec(t, "CREATE DATABASE hidden")
		db.Exec(t, "CREATE TABLE hidden.t (id INT PRIMARY KEY, title TEXT)")
		cfg := config(db, mysql.TableConfig{Table: "hidden.t", Title: "title"})
		fails(t, cfg, sourcetest.NewRecorder("mysql:shop"), "leaves database hidden out", "binlog-ignore-db")
	}, testenv.Flags("--binlog-ignore-db=hidden"))
}

// TestSessionSettings: what a session may log otherwise is found in the event.
func TestSessionSettings(t *testing.T) {
	flavors(t, func(t *testing.T, db *testenv.DB) {
		for name, test := range map[string]struct {
			statements   []string
			what, remedy string
			mysqlOnly    bool
		}{
			"MinimalImage": {[]string{"SET SESSION binlog_row_image=MINIMAL", "UPDATE @ SET body='x' WHERE id=1"}, "only part of the rows", "binlog_row_image=FULL", false},
			"NoBlob":       {[]string{"SET SESSION binlog_row_image=NOBLOB", "UPDATE @ SET title='x' WHERE id=1"}, "only part of the rows", "binlog_row_image=FULL", false},
			"PartialJSON":  {[]string{"SET SESSION binlog_row_value_options=PARTIAL_JSON", "UPDATE @ SET j=JSON_SET(j,'$.a',2)"}, "only part of changed JSON", "binlog_row_value_options=''", true},
		} {
			t.Run(name, func(t *testing.T) {
				if test.mysqlOnly && db.Flavor != "mysql" {
					return
				}
				w := newWorld(t, db)
				typ := "JSON"
				w.exec("ALTER TABLE @ ADD COLUMN j "+typ, `INSERT INTO @ VALUES (1,'a','1','{"a":1,"pad":"0123456789012345678901234567890123456789"}')`)
				w.once()
				w.session(test.statements...)
				src := w.open()
				defer src.Close()
				session, end := w.rec.Session(true, slog.New(slog.DiscardHandler))
				defer end()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if err := src.Run(ctx, session); err == nil || !strings.Contains(err.Error(), test.what) || !strings.Contains(leat.HintOf(err), test.remedy) {
					t.Errorf("Run: %v (hint %s)", err, leat.HintOf(err))
				}
			})
		}
		t.Run("Statement", func(t *testing.T) {
			w := newWorld(t, db)
			w.exec("INSERT INTO @ VALUES (1,'a','1'),(2,'b','2')")
			w.once()
			w.session("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SET SESSION binlog_format=STATEMENT", "UPDATE @ SET body='logged as a statement'", "DELETE FROM @ WHERE id=2")
			w.once()
			w.equal("statements")
		})
	})
}

// TestMetadataMinimal: rows logged without column names.
func TestMetadataMinimal(t *testing.T) {
	flavors(t, func(t *testing.T, db *testenv.DB) {
		w := newWorld(t, db)
		w.once()
		db.Exec(t, "SET GLOBAL binlog_row_metadata=MINIMAL")
		w.exec("INSERT INTO @ VALUES (1,'a','1')")
		db.Exec(t, "SET GLOBAL binlog_row_metadata=FULL")
		src := w.open()
		defer src.Close()
		session, end := w.rec.Session(true, slog.New(slog.DiscardHandler))
		defer end()
		if err := src.Run(t.Context(), session); err == nil || !strings.Contains(err.Error(), "no column names") || !strings.Contains(leat.HintOf(err), "binlog_row_metadata=FULL") {
			t.Errorf("Run: %v (hint %s)", err, leat.HintOf(err))
		}
	}, testenv.Own())
}

func TestConfigValidate(t *testing.T) {
	good := func() mysql.Config {
		return mysql.Config{Address: "127.0.0.1:3306", User: "leat", Tables: []mysql.TableConfig{{Table: "a.b", Title: "t", Body: []string{"x", "y"}}}}
	}
	if err := good().Validate(); err != nil {
		t.Fatal(err)
	}
	for field, change := range map[string]func(*mysql.Config){
		"address":               func(c *mysql.Config) { c.Address = "localhost" },
		"user":                  func(c *mysql.Config) { c.User = "" },
		"tables":                func(c *mysql.Config) { c.Tables = nil },
		"tables[0].table":       func(c *mysql.Config) { c.Tables[0].Table = "b" },
		"tables[1].table":       func(c *mysql.Config) { c.Tables = append(c.Tables, c.Tables[0]) },
		"tables[0]":             func(c *mysql.Config) { c.Tables[0].Title, c.Tables[0].Body = "", nil },
		"tables[0].body[1]":     func(c *mysql.Config) { c.Tables[0].Body[1] = "X" },
		"tables[0].metadata[0]": func(c *mysql.Config) { c.Tables[0].Metadata = []string{""} },
	} {
		c := good()
		change(&c)
		var e *leat.FieldError
		if err := c.Validate(); !errors.As(err, &e) || e.Field != field || e.Msg == "" || e.Hint == "" {
			t.Errorf("%s: %v", field, err)
		}
	}
}
