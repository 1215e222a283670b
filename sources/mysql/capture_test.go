package mysql_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"leat"
	"leat/internal/testenv"
	"leat/sources/mysql"
	"leat/sources/sourcetest"
)

// world is a table notes(id, title, body), a source over it and what came.
type world struct {
	*testing.T
	db    *testenv.DB
	name  string // of the database
	table string
	cfg   mysql.TableConfig
	rec   *sourcetest.Recorder
}

func newWorld(t *testing.T, db *testenv.DB) *world {
	w := &world{T: t, db: db, name: db.Database(t), rec: sourcetest.NewRecorder("mysql:shop")}
	w.table = w.name + ".notes"
	w.cfg = mysql.TableConfig{Table: w.table, Title: "title", Body: []string{"body"}}
	db.Exec(t, "CREATE TABLE "+w.table+" (id INT PRIMARY KEY, title VARCHAR(100), body LONGTEXT)")
	return w
}

// exec runs statements with @ in place of the table.
func (w *world) exec(statements ...string) {
	w.Helper()
	for _, s := range statements {
		w.db.Exec(w.T, strings.ReplaceAll(s, "@", w.table))
	}
}

// session runs statements on one connection.
func (w *world) session(statements ...string) {
	w.Helper()
	conn, err := w.db.Root().Conn(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	defer func() { // its settings must not stay in the pool
		_ = conn.Raw(func(any) error { return driver.ErrBadConn })
		conn.Close()
	}()
	for _, s := range statements {
		if _, err := conn.ExecContext(w.Context(), strings.ReplaceAll(s, "@", w.table)); err != nil {
			w.Fatalf("%s: %v", s, err)
		}
	}
}

func (w *world) open() *mysql.Source { w.Helper(); return open(w.T, config(w.db, w.cfg)) }

func (w *world) once() {
	w.Helper()
	src := w.open()
	defer src.Close()
	w.rec.Once(w.T, src)
}

// live runs the source as a pipeline does, again after an error (a table may
// be altered under its hands), until the returned function is called.
func (w *world) live() (stop func()) {
	ctx, cancel := context.WithCancel(w.Context())
	var running sync.WaitGroup
	running.Go(func() {
		for ctx.Err() == nil {
			src := w.open()
			session, end := w.rec.Session(false, slog.New(slog.DiscardHandler))
			if err := src.Run(ctx, session); err != nil && ctx.Err() == nil {
				w.Logf("Run: %v (hint %s)", err, leat.HintOf(err))
			}
			end()
			src.Close()
		}
	})
	return func() { cancel(); running.Wait() }
}

// rows of the table as documents: id to title and body.
func (w *world) rows() map[string]string {
	w.Helper()
	out := map[string]string{}
	rows, err := w.db.Root().QueryContext(w.Context(), "SELECT id, COALESCE(title,''), COALESCE(body,'') FROM "+w.table)
	if err != nil {
		w.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id, title, body string
		if err := rows.Scan(&id, &title, &body); err != nil {
			w.Fatal(err)
		}
		out[leat.DocumentID("mysql", "shop", w.table, id)] = title + "|" + body
	}
	if err := rows.Err(); err != nil {
		w.Fatal(err)
	}
	return out
}

func documents(events map[string]leat.Event) map[string]string {
	out := map[string]string{}
	for id, e := range events {
		if e.Document != nil {
			out[id] = e.Document.Title + "|" + e.Document.Body
		}
	}
	return out
}

// equal fails unless both the highest versions and the last events are the table.
func (w *world) equal(when string) {
	w.Helper()
	want := w.rows()
	for what, got := range map[string]map[string]string{"highest versions": documents(w.rec.Index()), "last events": documents(w.rec.Last())} {
		if !maps.Equal(want, got) { // cmp is slow on large maps
			w.Fatalf("%s: %s (+), table (-):\n%.4000s", when, what, cmp.Diff(want, got))
		}
	}
}

func (w *world) caughtUp(what string) {
	w.Helper()
	defer func() {
		if w.Failed() {
			w.Logf("at the end (+), table (-):\n%.4000s", cmp.Diff(w.rows(), documents(w.rec.Index())))
		}
	}()
	w.rec.Wait(w.T, what, func() bool { return maps.Equal(w.rows(), documents(w.rec.Index())) })
	w.equal(what)
}

// TestSnapshotUnderLoad writes from several connections while the table is
// snapshotted, stopped and resumed in the middle.
func TestSnapshotUnderLoad(t *testing.T) {
	flavors(t, func(t *testing.T, db *testenv.DB) {
		w := newWorld(t, db)
		const rows = 15_000
		for i := 0; i < rows; i += 1000 {
			var q strings.Builder
			q.WriteString("INSERT INTO @ VALUES ")
			for j := range 1000 {
				fmt.Fprintf(&q, "(%d,'t','first %d'),", 3*(i+j), i+j)
			}
			w.exec(strings.TrimSuffix(q.String(), ","))
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var writers sync.WaitGroup
		for n := range 4 {
			writers.Go(func() {
				rnd := rand.New(rand.NewPCG(uint64(n), uint64(time.Now().UnixNano())))
				for i := 0; ctx.Err() == nil; i++ {
					if err := change(ctx, db.Root(), w.table, rnd, 3*rows, fmt.Sprintf("%d.%d", n, i)); err != nil && ctx.Err() == nil {
						t.Errorf("writing: %v", err)
						return
					}
				}
			})
		}
		defer writers.Wait()
		defer cancel()
		stops := 0
		for ; stops < 5; stops++ {
			var once sync.Once
			enough := make(chan struct{})
			events := 0
			w.rec.Hook = func(_ context.Context, b leat.Batch) error {
				if events += len(b.Events); events > 2500 {
					once.Do(func() { close(enough) })
				}
				return nil
			}
			src := w.open()
			run := w.rec.Start(t, src)
			select {
			case <-enough:
			case <-time.After(sourcetest.Limit):
				t.Fatal("no progress")
			}
			run.Stop()
			src.Close()
			if w.progress() {
				break
			}
		}
		t.Logf("stopped %d times during the snapshot", stops)
		w.rec.Hook = nil
		src := w.open()
		defer src.Close()
		run := w.rec.Start(t, src)
		time.Sleep(time.Second) // of live changes
		cancel()
		writers.Wait()
		run.Stop()
		w.once()
		w.equal("all changes")
		if err := w.rec.Err(); err != nil {
			t.Error(err)
		}
	})
}

// progress reports whether the saved position says that the snapshot is done.
func (w *world) progress() bool {
	w.Helper()
	var p struct {
		Tables map[string]struct{ Done bool }
	}
	if err := json.Unmarshal(w.rec.Position(), &p); err != nil {
		w.Fatal(err)
	}
	return p.Tables[w.table].Done
}

// change makes one random transaction.
func change(ctx context.Context, db *sql.DB, table string, rnd *rand.Rand, keys int, text string) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	for range 1 + rnd.IntN(3) {
		key, other := rnd.IntN(keys), rnd.IntN(keys)
		var err error
		switch rnd.IntN(5) {
		case 0:
			_, err = tx.ExecContext(ctx, "INSERT IGNORE INTO "+table+" VALUES (?,?,?)", key, "t", text)
		case 1:
			_, err = tx.ExecContext(ctx, "DELETE FROM "+table+" WHERE id=?", key)
		case 2:
			_, err = tx.ExecContext(ctx, "UPDATE IGNORE "+table+" SET id=? WHERE id=?", other, key)
		case 3:
			_, err = tx.ExecContext(ctx, "UPDATE "+table+" SET body=? WHERE id BETWEEN ? AND ?", text, key, key+20)
		default:
			_, err = tx.ExecContext(ctx, "REPLACE INTO "+table+" VALUES (?,?,?)", key, "t", text)
		}
		if err != nil {
			if strings.Contains(err.Error(), "Deadlock") || strings.Contains(err.Error(), "Record has changed") {
				return nil
			}
			return err
		}
	}
	if rnd.IntN(10) == 0 {
		return tx.Rollback()
	}
	return tx.Commit()
}

func TestTransactions(t *testing.T) {
	flavors(t, func(t *testing.T, db *testenv.DB) {
		w := newWorld(t, db)
		w.exec("INSERT INTO @ VALUES (1,'a','1'),(2,'b','2'),(3,'c','3')")
		w.once()
		w.equal("snapshot")
		w.session("BEGIN", "UPDATE @ SET body='x'", "INSERT INTO @ VALUES (4,'d','4')", "DELETE FROM @ WHERE id=2", "UPDATE @ SET body='y' WHERE id=1", "COMMIT")
		w.session("BEGIN", "UPDATE @ SET body='void'", "ROLLBACK")
		w.session("BEGIN", "UPDATE @ SET body='s1' WHERE id=1", "SAVEPOINT s", "UPDATE @ SET body='void' WHERE id=3", "DELETE FROM @ WHERE id=1",
			"ROLLBACK TO s", "UPDATE @ SET body='s2' WHERE id=4", "COMMIT")
		w.session("UPDATE @ SET id=id+10 ORDER BY id DESC")                                               // several keys in one event
		w.session("BEGIN", "UPDATE @ SET id=100 WHERE id=11", "UPDATE @ SET id=11 WHERE id=13", "COMMIT") // a key freed and taken
		w.once()
		w.equal("transactions")
		seen := map[string]uint64{}
		for _, e := range w.rec.Events() {
			if seen[e.ID] >= e.Version {
				t.Errorf("%s: version %d after %d", e.ID, e.Version, seen[e.ID])
			}
			seen[e.ID] = e.Version
		}
	})
}

// TestMixedEngines rolls back transactions that changed a table without
// transactions too: MySQL does not allow them together with GTIDs.
func TestMixedEngines(t *testing.T) {
	t.Run("MariaDB", func(t *testing.T) {
		db := testenv.MariaDB(t)
		w := newWorld(t, db)
		w.exec("CREATE TABLE "+w.name+".plain (id INT PRIMARY KEY, title VARCHAR(10)) ENGINE=MyISAM", "INSERT INTO @ VALUES (1,'a','1')")
		w.once()
		w.session("BEGIN", "UPDATE @ SET body='void'", "INSERT INTO "+w.name+".plain VALUES (1,'x')", "ROLLBACK")
		w.session("BEGIN", "INSERT INTO @ VALUES (2,'b','2')", "SAVEPOINT s", "INSERT INTO "+w.name+".plain VALUES (2,'x')", "UPDATE @ SET body='void' WHERE id=1", "ROLLBACK TO s", "COMMIT")
		w.session("BEGIN", "CREATE TEMPORARY TABLE "+w.name+".tmp (id INT)", "INSERT INTO @ VALUES (3,'void','')", "ROLLBACK")
		w.once()
		w.equal("after rollbacks")
	})
}

func TestXA(t *testing.T) {
	flavors(t, func(t *testing.T, db *testenv.DB) {
		w := newWorld(t, db)
		w.exec("INSERT INTO @ VALUES (1,'a','1')")
		w.once()
		w.session("XA START 'x1'", "UPDATE @ SET body='one phase'", "XA END 'x1'", "XA COMMIT 'x1' ONE PHASE")
		w.once()
		w.equal("one phase")
		w.session("XA START 'x2'", "INSERT INTO @ VALUES (2,'b','2')", "XA END 'x2'", "XA PREPARE 'x2'", "XA COMMIT 'x2'")
		w.once()
		w.equal("two phases")
		w.session("XA START 'x3'", "INSERT INTO @ VALUES (3,'c','void')", "UPDATE @ SET body='void' WHERE id=1", "XA END 'x3'", "XA PREPARE 'x3'", "XA ROLLBACK 'x3'")
		w.once()
		w.equal("rolled back")
	})
}

// TestLargeTransaction is larger than what may be held: it comes in several
// batches, only the last of which is a place to resume at.
func TestLargeTransaction(t *testing.T) {
	flavors(t, func(t *testing.T, db *testenv.DB) {
		w := newWorld(t, db)
		w.once()
		before := len(w.rec.Batches())
		statements := []string{"SET SESSION max_statement_time=0", "BEGIN"}
		if db.Flavor == "mysql" {
			statements = statements[1:]
		}
		for i := range 50 {
			var q strings.Builder
			q.WriteString("INSERT INTO @ VALUES ")
			for j := range 200 {
				fmt.Fprintf(&q, "(%d,'t',REPEAT('x',500)),", i*200+j)
			}
			statements = append(statements, strings.TrimSuffix(q.String(), ","))
		}
		w.session(append(statements, "COMMIT")...)
		w.once()
		w.equal("a large transaction")
		places := 0
		for _, b := range w.rec.Batches()[before:] {
			if b.Position != nil {
				places++
			}
			if len(b.Events) > 5000 {
				t.Errorf("a batch of %d events", len(b.Events))
			}
		}
		if n := len(w.rec.Batches()) - before; n < 4 || places > 2 {
			t.Errorf("%d batches, %d of them places to resume at", n, places)
		}
	})
}

func TestCompressedTransactions(t *testing.T) {
	flavors(t, func(t *testing.T, db *testenv.DB) {
		w := newWorld(t, db)
		on := "SET SESSION binlog_transaction_compression=ON"
		if db.Flavor == "mariadb" {
			db.Exec(t, "SET GLOBAL log_bin_compress=ON, log_bin_compress_min_len=10")
			t.Cleanup(func() { db.Exec(t, "SET GLOBAL log_bin_compress=OFF, log_bin_compress_min_len=256") })
			on = "SELECT 1"
		}
		w.exec("INSERT INTO @ VALUES (1,'a','1'),(2,'b','2')")
		w.once()
		w.session(on, "BEGIN", "INSERT INTO @ VALUES (3,'c',REPEAT('long ',200)),(4,'d','4')", "UPDATE @ SET body=CONCAT(body,' again')",
			"DELETE FROM @ WHERE id=4", "UPDATE @ SET id=5 WHERE id=1", "UPDATE @ SET id=1 WHERE id=2", "COMMIT",
			"INSERT INTO @ VALUES (6,'e',REPEAT('more ',200))", "UPDATE @ SET body=REPEAT('other ',100) WHERE id=6")
		w.once()
		w.equal("compressed")
		if db.Flavor == "mysql" { // one event a document
			n := 0
			for _, e := range w.rec.Events() {
				if e.ID == leat.DocumentID("mysql", "shop", w.table, "1") {
					n++
				}
			}
			if n != 2 {
				t.Errorf("%d events of a row that was moved away and replaced in one compressed transaction, not 1 and the snapshot's", n)
			}
		}
	})
}

func TestLargeBodies(t *testing.T) {
	flavors(t, func(t *testing.T, db *testenv.DB) {
		w := newWorld(t, db)
		w.exec("INSERT INTO @ VALUES (1,'a',REPEAT('长',200000)),(2,'b','short'),(3,'c',REPEAT('z',300000))")
		src := w.open()
		defer src.Close()
		w.rec.Once(t, src)
		e := w.rec.Index()[leat.DocumentID("mysql", "shop", w.table, "1")]
		if e.Document == nil || e.Document.Ref == nil || e.Document.Body != "" || e.Document.Ref.Size != 600000 {
			t.Fatalf("a body of 600,000 bytes: %+v", e.Document)
		}
		read := func(ref leat.Ref) (string, error) {
			r, err := src.Open(t.Context(), ref)
			if err != nil {
				return "", err
			}
			defer r.Close()
			b, err := io.ReadAll(r)
			return string(b), err
		}
		if got, err := read(*e.Document.Ref); err != nil || got != strings.Repeat("长", 200000) {
			t.Fatalf("Open: %d bytes, %v", len(got), err)
		}
		w.exec("UPDATE @ SET body=CONCAT(body,'!') WHERE id=1")
		if _, err := read(*e.Document.Ref); !errors.Is(err, leat.ErrChanged) {
			t.Errorf("Open of a changed row: %v", err)
		}
		w.rec.Once(t, src)
		e = w.rec.Index()[e.ID]
		if got, err := read(*e.Document.Ref); err != nil || got != strings.Repeat("长", 200000)+"!" {
			t.Errorf("Open after the change: %d bytes, %v", len(got), err)
		}
		w.exec("DELETE FROM @ WHERE id=1")
		if _, err := read(*e.Document.Ref); !errors.Is(err, leat.ErrNotFound) {
			t.Errorf("Open of a deleted row: %v", err)
		}
	})
}

// TestKeys: ids of keys of several types and parts, from both readers, in
// chunks smaller than the table.
func TestKeys(t *testing.T) {
	flavors(t, func(t *testing.T, db *testenv.DB) {
		for _, test := range []struct{ columns, key, values, id string }{
			{"a INT, b VARCHAR(20)", "a,b", "7,'x/ü 1'", "7/x%2F%C3%BC%201"},
			{"a INT, b VARCHAR(20)", "b,a", "7,'x'", "x/7"},
			{"a BIGINT UNSIGNED, b INT", "a", "18446744073709551615,1", "18446744073709551615"},
			{"a BINARY(4), b INT", "a", "X'01000000',1", "01000000"},
			{"a DECIMAL(10,2), b INT", "a", "-7.50,1", "-7.50"},
			{"a DATETIME(3), b INT", "a", "'2026-02-28 01:02:03.5',1", "2026-02-28T01:02:03.500"},
			{"a DATE, b INT", "a,b", "'2026-02-28',1", "2026-02-28/1"},
			{"a VARCHAR(20) CHARACTER SET gbk, b INT", "a", "'中文',1", "%E4%B8%AD%E6%96%87"},
			{"a CHAR(8) CHARACTER SET latin1, b INT", "a", "'é ',1", "%C3%A9"},
		} {
			t.Run(test.columns+" "+test.key, func(t *testing.T) {
				w := newWorld(t, db)
				w.exec("DROP TABLE @", "CREATE TABLE @ ("+test.columns+", title VARCHAR(100), body TEXT, PRIMARY KEY ("+test.key+"))",
					"INSERT INTO @ VALUES ("+test.values+",'t','snapshot')")
				w.once()
				id := "mysql:shop/" + w.table + "/" + test.id
				if e := w.rec.Index()[id]; e.Document == nil || e.Document.Body != "snapshot" {
					t.Fatalf("no document %s from the snapshot: %v", id, w.rec.Index())
				}
				w.exec("UPDATE @ SET body='binlog'")
				w.once()
				if e := w.rec.Index()[id]; len(w.rec.Index()) != 1 || e.Document == nil || e.Document.Body != "binlog" {
					t.Fatalf("no document %s from the binlog: %v", id, w.rec.Index())
				}
				src := w.open()
				defer src.Close()
				sameDocuments(t, src, w.rec)
				// A snapshot anew looks the key up by its id.
				w.rec.Crash(0, func(leat.Event) bool { return true })
				w.once()
				if e := w.rec.Index()[id]; len(w.rec.Index()) != 1 || e.Document == nil {
					t.Fatalf("document %s did not survive a new snapshot: %v", id, w.rec.Index())
				}
				deletes := 0
				for _, e := range w.rec.Events() {
					if e.Document == nil {
						deletes++
					}
				}
				if deletes > 0 {
					t.Errorf("%d deletes of a row that was always there", deletes)
				}
			})
		}
	})
}

// TestVisibility: a transaction can be read from MySQL's binlog before a SELECT
// shows it, here by 200 ms. Every row is written once while the table is
// snapshotted in many chunks: whatever one of them says wrongly would stay.
func TestVisibility(t *testing.T) {
	t.Run("MySQL", func(t *testing.T) {
		db := testenv.MySQL(t, testenv.Own())
		db.Exec(t, "SET GLOBAL sync_binlog=0")
		w := newWorld(t, db)
		const blocks, size = 200, 100
		for b := range blocks {
			var q strings.Builder
			q.WriteString("INSERT INTO @ VALUES ")
			for i := range size {
				fmt.Fprintf(&q, "(%d,'first',REPEAT('x',2000)),", b*size+i)
			}
			w.exec(strings.TrimSuffix(q.String(), ","))
		}
		db.Exec(t, "SET GLOBAL binlog_group_commit_sync_delay=200000")
		src := w.open()
		defer src.Close()
		run := w.rec.Start(t, src)
		order := rand.Perm(blocks)
		var writers sync.WaitGroup
		for n := range 8 {
			writers.Go(func() {
				for i := n; i < blocks; i += 8 {
					b := order[i]
					if _, err := db.Root().ExecContext(t.Context(), "UPDATE "+w.table+" SET title='second' WHERE id BETWEEN ? AND ?", b*size, b*size+9); err != nil {
						t.Errorf("writing: %v", err)
					}
				}
			})
		}
		writers.Wait()
		run.Stop()
		w.once()
		w.equal("all changes")
	})
}
