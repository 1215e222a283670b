package mysql_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
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

// said are documents as JSON, by id.
func said(t *testing.T, events map[string]leat.Event) map[string]string {
	t.Helper()
	out := map[string]string{}
	for id, e := range events {
		if e.Document == nil {
			continue
		}
		b, err := json.Marshal(e.Document)
		if err != nil {
			t.Fatal(err)
		}
		out[id] = string(b)
	}
	return out
}

func listed(t *testing.T, src *mysql.Source) map[string]leat.Event {
	t.Helper()
	out := map[string]leat.Event{}
	for e, err := range src.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		out[e.ID] = e
	}
	return out
}

// look asks about documents and takes the answer into the index.
func look(t *testing.T, src *mysql.Source, rec *sourcetest.Recorder, ids ...string) []leat.Event {
	t.Helper()
	asked := rec.Asks(ids...)
	events, err := src.Look(t.Context(), asked)
	if err != nil {
		t.Fatalf("Look: %v (hint: %s)", err, leat.HintOf(err))
	}
	rec.Answer(asked, events)
	if err := rec.Err(); err != nil {
		t.Fatal(err)
	}
	return events
}

// sameDocuments: List and Look give each document word for word as its event.
func sameDocuments(t *testing.T, src *mysql.Source, rec *sourcetest.Recorder) {
	t.Helper()
	want := said(t, rec.Index())
	if diff := cmp.Diff(want, said(t, listed(t, src))); diff != "" {
		t.Errorf("List (+), events (-):\n%.4000s", diff)
	}
	looked := map[string]leat.Event{}
	for _, e := range look(t, src, rec, slices.Sorted(maps.Keys(rec.Index()))...) {
		looked[e.ID] = e
	}
	if diff := cmp.Diff(want, said(t, looked)); diff != "" {
		t.Errorf("Look (+), events (-):\n%.4000s", diff)
	}
}

func (w *world) id(key any) string { return leat.DocumentID("mysql", "shop", w.table, fmt.Sprint(key)) }

// indexed fails unless the index is the table.
func (w *world) indexed(when string) {
	w.Helper()
	if diff := cmp.Diff(w.rows(), documents(w.rec.Index())); diff != "" {
		w.Fatalf("%s: index (+), table (-):\n%.4000s", when, diff)
	}
}

// TestUnlogged: List and Look see what the binlog was never told, and what it
// is told afterwards is newer.
func TestUnlogged(t *testing.T) {
	flavors(t, func(t *testing.T, db *testenv.DB) {
		w := newWorld(t, db)
		w.exec("INSERT INTO @ VALUES (1,'a','1'),(2,'b','2'),(3,'c','3')")
		w.once()
		w.session("SET sql_log_bin=0", "UPDATE @ SET body='unlogged' WHERE id=1", "DELETE FROM @ WHERE id=2", "INSERT INTO @ VALUES (4,'d','unlogged')")
		w.once()
		src := w.open()
		defer src.Close()
		if diff := cmp.Diff(w.rows(), documents(listed(t, src))); diff != "" {
			t.Errorf("list (+), table (-):\n%s", diff)
		}
		look(t, src, w.rec, w.id(1), w.id(2), w.id(3), w.id(4))
		w.indexed("after a look")
		w.once()
		w.indexed("after a session that finds nothing")

		// Nothing has been written since: a snapshot under another configuration
		// is newer all the same.
		w.cfg.Title = "body"
		w.once()
		for id, e := range w.rec.Index() {
			if e.Document != nil && e.Document.Title != e.Document.Body {
				t.Errorf("%s is still what Look made of it: %+v", id, e.Document)
			}
		}
		w.cfg.Title = "title"
		w.once()
		w.indexed("after snapshots")

		w.exec("UPDATE @ SET body='logged'", "INSERT INTO @ VALUES (2,'b','again')", "DELETE FROM @ WHERE id=4")
		w.once()
		w.indexed("after logged changes")
	})
}

// TestLookVisible looks at a row as soon as its change was read from the
// binlog, which a SELECT may show later only, on MySQL here by 100 ms.
func TestLookVisible(t *testing.T) {
	flavors(t, func(t *testing.T, db *testenv.DB) {
		if db.Flavor == "mysql" {
			db.Exec(t, "SET GLOBAL sync_binlog=0")
		}
		w := newWorld(t, db)
		w.exec("INSERT INTO @ VALUES (1,'t','0'),(2,'t','')")
		src := w.open()
		defer src.Close()
		run := w.rec.Start(t, src)
		w.caughtUp("the snapshot")
		if db.Flavor == "mysql" {
			db.Exec(t, "SET GLOBAL binlog_group_commit_sync_delay=100000")
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var writers sync.WaitGroup
		for key := 1; key <= 2; key++ { // the other has transactions under way all the time
			writers.Go(func() {
				for n := 1; ctx.Err() == nil; n++ {
					if _, err := db.Root().ExecContext(ctx, fmt.Sprintf("UPDATE %s SET body='%d' WHERE id=%d", w.table, n, key)); err != nil && ctx.Err() == nil {
						t.Errorf("writing: %v", err)
					}
					time.Sleep(5 * time.Millisecond)
				}
			})
		}
		count := func(e leat.Event) int {
			n, err := strconv.Atoi(e.Document.Body)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		other := w.open()
		defer other.Close()
		var looks []leat.Event
		for range 30 {
			before := w.rec.Index()[w.id(1)].Version
			w.rec.Wait(t, "a change", func() bool { return w.rec.Index()[w.id(1)].Version > before })
			looks = append(looks, look(t, other, w.rec, w.id(1))...)
		}
		cancel()
		writers.Wait()
		w.rec.Wait(t, "all changes", func() bool { return maps.Equal(w.rows(), documents(w.rec.Last())) })
		run.Stop()
		w.indexed("all changes")
		for _, l := range looks {
			for _, e := range w.rec.Events() {
				if e.ID != l.ID {
					continue
				}
				if n, seen := count(e), count(l); e.Version <= l.Version && n > seen || e.Version > l.Version && n < seen {
					t.Errorf("the %d. change came at %d, Look showed the %d. at %d", n, e.Version, seen, l.Version)
				}
			}
		}
	}, testenv.Own())
}

// TestLookAtNothing: ids that no row can have are deletes; a table that is gone
// deletes nothing.
func TestLookAtNothing(t *testing.T) {
	flavors(t, func(t *testing.T, db *testenv.DB) {
		w := newWorld(t, db)
		w.exec("INSERT INTO @ VALUES (7,'a','1')")
		w.once()
		src := w.open()
		defer src.Close()
		prefix := strings.TrimSuffix(w.id(""), "/") + "/"
		for _, e := range look(t, src, w.rec, prefix+"8", prefix+"07", prefix+"x", prefix+"7/7", prefix, prefix+"%zz", prefix+"99999999999999999999999",
			"mysql:shop/"+w.name+".absent/7", "mysql:shop/") {
			if e.Document != nil {
				t.Errorf("%s is %+v", e.ID, e.Document)
			}
		}
		if e := look(t, src, w.rec, w.id(7)); e[0].Document == nil {
			t.Error("a row is not there")
		}
		w.exec("DROP TABLE @")
		if events, err := src.Look(t.Context(), w.rec.Asks(w.id(7))); err == nil {
			t.Errorf("Look at a table that is gone: %+v", events)
		}
		for e, err := range src.List(t.Context()) {
			if err == nil || leat.HintOf(err) == "" {
				t.Errorf("List of a table that is gone: %+v, %v", e, err)
			}
		}
	})
}

// TestLookOddKeys: no id that an index may hold of a table makes Look fail,
// whatever the key was when it was made.
func TestLookOddKeys(t *testing.T) {
	odd := []string{"x", "", "0", "-1", "1.5", "2026-02-30", "2026-13-01", "0000-00-00", "2026-02-28", "2026-02-28T01:02:03", "2026-02-28T25:61:61Z", "zz", "0a", "é", "'", "..", "--", "1e400", "9999999999999999999999"}
	flavors(t, func(t *testing.T, db *testenv.DB) {
		for _, typ := range []string{"TINYINT", "BIGINT UNSIGNED", "DECIMAL(10,2)", "VARCHAR(20)", "VARCHAR(20) CHARACTER SET latin1", "BINARY(4)", "DATE", "DATETIME(3)", "TIMESTAMP(2)"} {
			t.Run(typ, func(t *testing.T) {
				w := newWorld(t, db)
				w.exec("DROP TABLE @", "CREATE TABLE @ (id "+typ+" PRIMARY KEY, title VARCHAR(100), body TEXT)")
				w.once()
				src := w.open()
				defer src.Close()
				var ids []string
				for _, key := range odd {
					ids = append(ids, w.id(key))
				}
				for _, e := range look(t, src, w.rec, ids...) {
					if e.Document != nil {
						t.Errorf("%s is %+v", e.ID, e.Document)
					}
				}
			})
		}
	})
}

// TestLookLost: where versions of this position would mean nothing, an error
// says so.
func TestLookLost(t *testing.T) {
	flavors(t, func(t *testing.T, db *testenv.DB) {
		w := newWorld(t, db)
		w.exec("INSERT INTO @ VALUES (1,'a','1')")
		w.once()
		src := w.open()
		defer src.Close()
		asks := func(change func(p map[string]any)) error {
			t.Helper()
			p := w.position()
			change(p)
			raw, err := json.Marshal(p)
			if err != nil {
				t.Fatal(err)
			}
			asked := w.rec.Asks(w.id(1))
			asked.Position = raw
			_, err = src.Look(t.Context(), asked)
			return err
		}
		const first = "let the source run"
		for name, test := range map[string]struct {
			change func(map[string]any)
			hint   string
		}{
			"another server": {func(p map[string]any) { p["server"] = "another" }, first},
			"positions back": {func(p map[string]any) { p["pos"] = 4_000_000_000 }, map[string]string{"mysql": first, "mariadb": "leat reindex --from-source"}[string(db.Flavor)]},
			"another flavor": {func(p map[string]any) {
				p["flavor"] = map[string]string{"mysql": "mariadb", "mariadb": "mysql"}[string(db.Flavor)]
			}, "leat reindex --from-source"},
			"prepared": {func(p map[string]any) {
				p["tables"].(map[string]any)[w.table].(map[string]any)["prepared"] = true
			}, "XA COMMIT"},
			"nonsense": {func(p map[string]any) { p["epoch"] = "x" }, "leat reindex --from-source"},
		} {
			if err := asks(test.change); err == nil || !strings.Contains(leat.HintOf(err), test.hint) {
				t.Errorf("%s: %v (hint: %s)", name, err, leat.HintOf(err))
			}
		}

		// Between two transactions there is room for some looks.
		var err error
		looks := 0
		for ; err == nil && looks < 100; looks++ {
			asked := w.rec.Asks(w.id(1))
			var events []leat.Event
			if events, err = src.Look(t.Context(), asked); err == nil {
				w.rec.Answer(asked, events)
			}
		}
		if err == nil || looks < 20 || !strings.Contains(leat.HintOf(err), "FLUSH BINARY LOGS") {
			t.Errorf("after %d looks: %v (hint: %s)", looks, err, leat.HintOf(err))
		}
		db.Exec(t, "FLUSH BINARY LOGS")
		look(t, src, w.rec, w.id(1))
		w.exec("UPDATE @ SET body='2'")
		w.once()
		w.indexed("a change after all looks")
		if err := w.rec.Err(); err != nil {
			t.Error(err)
		}
	}, testenv.Own())
}

// TestLookPrepared: rows of a prepared XA transaction were given, and no SELECT
// shows them yet.
func TestLookPrepared(t *testing.T) {
	flavors(t, func(t *testing.T, db *testenv.DB) {
		w := newWorld(t, db)
		w.exec("INSERT INTO @ VALUES (1,'a','1')")
		w.once()
		xid := "'" + w.name + "'"
		w.session("XA START "+xid, "UPDATE @ SET body='prepared'", "XA END "+xid, "XA PREPARE "+xid)
		w.once()
		src := w.open()
		defer src.Close()
		if events, err := src.Look(t.Context(), w.rec.Asks(w.id(1))); err == nil || !strings.Contains(leat.HintOf(err), "XA COMMIT") {
			t.Errorf("%+v, %v (hint: %s)", events, err, leat.HintOf(err))
		}
		w.session("XA COMMIT " + xid)
		w.once()
		if e := look(t, src, w.rec, w.id(1)); e[0].Document.Body != "prepared" {
			t.Errorf("%+v", e[0].Document)
		}
	})
}

// TestLookReset: the server's history is another one.
func TestLookReset(t *testing.T) {
	flavors(t, func(t *testing.T, db *testenv.DB) {
		w := newWorld(t, db)
		w.exec("INSERT INTO @ VALUES (1,'a','1'),(2,'b','2')")
		w.once()
		reset := "RESET BINARY LOGS AND GTIDS"
		if db.Flavor == "mariadb" {
			reset = "RESET MASTER"
		}
		db.Exec(t, reset)
		w.exec("DELETE FROM @ WHERE id=1")
		src := w.open()
		defer src.Close()
		if _, err := src.Look(t.Context(), w.rec.Asks(w.id(1))); !errors.Is(err, leat.ErrPositionLost) {
			t.Errorf("%v (hint: %s)", err, leat.HintOf(err))
		}
	}, testenv.Own())
}

// TestListMany: tables of many ranges, with keys of two parts.
func TestListMany(t *testing.T) {
	flavors(t, func(t *testing.T, db *testenv.DB) {
		w := newWorld(t, db)
		w.exec("DROP TABLE @", "CREATE TABLE @ (a VARCHAR(20) COLLATE utf8mb4_general_ci, b INT, title VARCHAR(100), body LONGTEXT, PRIMARY KEY (a, b))")
		for i := range 20 {
			var q strings.Builder
			q.WriteString("INSERT INTO @ VALUES ")
			for j := range 200 {
				fmt.Fprintf(&q, "('%c%d',%d,'t',REPEAT('x',%d)),", []rune("aBcÄ")[i%4], j%10, 200*i+j, 1+(i*j)%3000)
			}
			w.exec(strings.TrimSuffix(q.String(), ","))
		}
		w.exec("INSERT INTO @ VALUES ('large',1,'t',REPEAT('长',200000))")
		w.once()
		src := w.open()
		defer src.Close()
		if n := len(listed(t, src)); n != 4001 {
			t.Errorf("%d documents", n)
		}
		sameDocuments(t, src, w.rec)
	})
}
