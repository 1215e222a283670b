package mysql_test

import (
	"strings"
	"testing"

	"leat"
	"leat/internal/testenv"
	"leat/sources/mysql"
)

// TestSchemaChanges changes the table while nobody reads, and then reads the
// binlog of before and after.
func TestSchemaChanges(t *testing.T) {
	for _, test := range []struct {
		name       string
		statements []string
	}{
		{"AddColumnBefore", []string{"ALTER TABLE @ ADD COLUMN extra VARCHAR(20) DEFAULT 'x' FIRST", "UPDATE @ SET body='new' WHERE id=1"}},
		{"DropColumnBefore", []string{"ALTER TABLE @ ADD COLUMN extra INT AFTER id", "UPDATE @ SET body='one' WHERE id=1", "ALTER TABLE @ DROP COLUMN extra", "UPDATE @ SET body='two' WHERE id=2"}},
		{"SwapNames", []string{"UPDATE @ SET body='as body' WHERE id=1", "ALTER TABLE @ RENAME COLUMN body TO old", "ALTER TABLE @ ADD COLUMN body TEXT", "UPDATE @ SET body='fresh' WHERE id=2"}},
		{"ModifyType", []string{"ALTER TABLE @ MODIFY title VARCHAR(50) CHARACTER SET latin1", "UPDATE @ SET title='é' WHERE id=1"}},
		{"RenameIntoUse", []string{"ALTER TABLE @ ADD COLUMN next TEXT", "UPDATE @ SET next='n', body='b' WHERE id=1", "ALTER TABLE @ CHANGE body old LONGTEXT, CHANGE next `body` LONGTEXT"}},
		{"Truncate", []string{"TRUNCATE TABLE @", "INSERT INTO @ (id,title,body) VALUES (9,'i','9')"}},
		{"TruncateOnly", []string{"TRUNCATE @"}},
		{"DropAndCreate", []string{"DROP TABLE @", "CREATE TABLE @ (id INT PRIMARY KEY, body TEXT, title TEXT)", "INSERT INTO @ (id,title,body) VALUES (2,'x','y')"}},
		{"DropDatabase", []string{"DROP DATABASE !", "CREATE DATABASE !", "CREATE TABLE @ (id INT PRIMARY KEY, body TEXT, title TEXT)"}},
		{"KeyType", []string{"ALTER TABLE @ DROP PRIMARY KEY, MODIFY id VARCHAR(10), ADD PRIMARY KEY (id, title)", "INSERT INTO @ VALUES ('k','t','b')", "ALTER TABLE @ DROP PRIMARY KEY, ADD PRIMARY KEY (id)"}},
		{"SwapTables", []string{"CREATE TABLE !.other LIKE @", "INSERT INTO !.other VALUES (2,'other','two'),(7,'other','seven')", "RENAME TABLE @ TO !.old, !.other TO @", "UPDATE @ SET body='live' WHERE id=7"}},
		{"AlterRename", []string{"CREATE TABLE !.other LIKE @", "INSERT INTO !.other VALUES (8,'other','eight')", "DROP TABLE @", "ALTER TABLE !.other RENAME TO @"}},
		{"OnlineCopy", []string{"CREATE TABLE !._notes_gho LIKE @", "ALTER TABLE !._notes_gho ADD COLUMN extra INT FIRST", "INSERT INTO !._notes_gho SELECT 1, id, title, body FROM @",
			"UPDATE @ SET body='before' WHERE id=1", "UPDATE !._notes_gho SET body='before' WHERE id=1", "RENAME TABLE @ TO !._notes_del, !._notes_gho TO @", "UPDATE @ SET body='after' WHERE id=2"}},
		{"DropPartition", []string{"ALTER TABLE @ PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (2), PARTITION p1 VALUES LESS THAN MAXVALUE)", "ALTER TABLE @ DROP PARTITION p0"}},
		{"CreateSelect", []string{"DROP TABLE @", "CREATE TABLE @ (PRIMARY KEY (id)) SELECT 5 AS id, 't' AS title, 'from select' AS body"}},
		{"IndexAndOthers", []string{"CREATE INDEX i ON @ (title)", "ALTER TABLE @ ADD INDEX j (title)", "DROP INDEX i ON @", "ANALYZE TABLE @", "UPDATE @ SET body='still' WHERE id=1"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			flavors(t, func(t *testing.T, db *testenv.DB) {
				w := newWorld(t, db)
				w.exec("INSERT INTO @ VALUES (1,'a','1'),(2,'b','2'),(3,'c','3')")
				w.once()
				w.equal("snapshot")
				before := len(w.rec.Events())
				for _, s := range test.statements {
					w.exec(replaceDatabase(s, w.name))
				}
				w.once()
				w.equal(test.name)
				again := len(w.rec.Events())
				w.once()
				if n := len(w.rec.Events()); n != again {
					t.Errorf("%d events although nothing changed", n-again)
				}
				if test.name == "IndexAndOthers" && again-before != 1 {
					t.Errorf("%d events of 1 change beside indexes: the table was read anew", again-before)
				}
				if test.name == "OnlineCopy" && again-before != 2 {
					t.Errorf("%d events of 2 changes around an online schema change: the table was read anew", again-before)
				}
			})
		})
	}
}

// TestSchemaChangesLive does it while the source runs.
func TestSchemaChangesLive(t *testing.T) {
	flavors(t, func(t *testing.T, db *testenv.DB) {
		w := newWorld(t, db)
		w.exec("INSERT INTO @ VALUES (1,'a','1'),(2,'b','2')")
		defer w.live()()
		w.caughtUp("snapshot")
		w.exec("ALTER TABLE @ ADD COLUMN first INT FIRST", "UPDATE @ SET body='x' WHERE id=1")
		w.caughtUp("a column added")
		w.exec("TRUNCATE TABLE @")
		w.caughtUp("truncate")
		w.exec("INSERT INTO @ (id,title,body) VALUES (1,'a','again'),(4,'d','4')")
		w.caughtUp("inserts")
		w.exec("ALTER TABLE @ MODIFY body MEDIUMTEXT CHARACTER SET utf16")
		w.exec("UPDATE @ SET body='宽' WHERE id=4")
		w.caughtUp("a charset changed")
		w.exec("CREATE TABLE "+w.name+".empty LIKE @", "RENAME TABLE @ TO "+w.name+".old, "+w.name+".empty TO @")
		w.caughtUp("an empty table renamed into place")
	})
}

// TestConfigurationChanges: tables and columns come and go in the
// configuration.
func TestConfigurationChanges(t *testing.T) {
	flavors(t, func(t *testing.T, db *testenv.DB) {
		w := newWorld(t, db)
		second := w.name + ".second"
		w.exec("INSERT INTO @ VALUES (1,'a','1'),(2,'b','2')", "CREATE TABLE "+second+" LIKE @", "INSERT INTO "+second+" VALUES (1,'other','one')")
		w.once()
		w.equal("one table")
		with := func(tables ...mysql.TableConfig) {
			t.Helper()
			src := open(t, config(db, tables...))
			defer src.Close()
			w.rec.Once(t, src)
		}
		other := w.cfg
		other.Table = second
		id := leat.DocumentID("mysql", "shop", second, "1")
		with(w.cfg, other)
		if e := w.rec.Index()[id]; e.Document == nil {
			t.Fatal("the table that was added has no document")
		}
		w.exec("UPDATE "+second+" SET body='unseen'", "UPDATE @ SET body='seen' WHERE id=1")
		with(w.cfg)
		if e := w.rec.Index()[id]; e.Document.Body != "one" {
			t.Error("the table that was removed still gives events")
		}
		with(w.cfg, other)
		if e := w.rec.Index()[id]; e.Document == nil || e.Document.Body != "unseen" {
			t.Errorf("the table that came back: %+v", e.Document)
		}
		w.cfg.Metadata = []string{"title"}
		with(w.cfg, other)
		if e := w.rec.Index()[leat.DocumentID("mysql", "shop", w.table, "2")]; e.Document.Metadata["title"] != "b" {
			t.Errorf("a column added to the configuration: %+v", e.Document)
		}
	})
}

func replaceDatabase(s, name string) string { return strings.ReplaceAll(s, "!", name) }
