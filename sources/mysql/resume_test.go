package mysql_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"strings"
	"testing"
	"time"

	"leat"
	"leat/internal/testenv"
	"leat/sources/sourcetest"
)

// run runs one session from position and returns Run's error.
func (w *world) runFrom(position json.RawMessage) error {
	w.Helper()
	src := w.open()
	defer src.Close()
	session, end := w.rec.Session(true, slog.New(slog.DiscardHandler))
	defer end()
	if position != nil {
		session.Position = position
	}
	ctx, cancel := context.WithTimeout(w.Context(), sourcetest.Limit)
	defer cancel()
	return src.Run(ctx, session)
}

func (w *world) position() map[string]any {
	w.Helper()
	var p map[string]any
	if err := json.Unmarshal(w.rec.Position(), &p); err != nil {
		w.Fatal(err)
	}
	return p
}

// TestServerRestarts: the server goes down in good order, by SIGKILL, and
// rotates its binlogs; a running source reports it and goes on when run again.
func TestServerRestarts(t *testing.T) {
	flavors(t, func(t *testing.T, db *testenv.DB) {
		w := newWorld(t, db)
		w.exec("INSERT INTO @ VALUES (1,'a','1')")
		w.once()
		for i, stop := range []func(testing.TB){db.Restart, func(t testing.TB) { db.Kill(t); db.Start(t) }, func(t testing.TB) { db.Exec(t, "FLUSH BINARY LOGS") }} {
			src := w.open()
			run := w.rec.Start(t, src)
			w.exec(fmt.Sprintf("INSERT INTO @ VALUES (%d,'b','before')", 10+i))
			w.caughtUp("an insert")
			stop(t)
			if i < 2 {
				if err := run.Wait(); err == nil || leat.HintOf(err) == "" {
					t.Errorf("Run returned %v (hint %q) when the server went down", err, leat.HintOf(err))
				}
			}
			w.exec(fmt.Sprintf("INSERT INTO @ VALUES (%d,'c','after')", 20+i))
			if i == 2 {
				w.caughtUp("an insert after a rotation")
				run.Stop()
			}
			src.Close()
			w.once()
			w.equal("after a restart")
		}
		events := len(w.rec.Events())
		w.once()
		if n := len(w.rec.Events()); n != events {
			t.Errorf("%d events although nothing changed", n-events)
		}
		if e := w.position()["epoch"]; e != 1. {
			t.Errorf("epoch %v after restarts of one server", e)
		}
	}, testenv.Own())
}

// TestDeadConnection: a server that hangs is noticed by its missing heartbeat.
func TestDeadConnection(t *testing.T) {
	flavors(t, func(t *testing.T, db *testenv.DB) {
		w := newWorld(t, db)
		w.exec("INSERT INTO @ VALUES (1,'a','1')")
		src := w.open()
		defer src.Close()
		run := w.rec.Start(t, src)
		w.caughtUp("the snapshot")
		db.Pause(t)
		err := run.Wait()
		db.Resume(t)
		if err == nil {
			t.Error("Run returned nil when the server hung")
		}
	}, testenv.Own())
}

// TestPositionLost: what the server no longer holds is one clear error.
func TestPositionLost(t *testing.T) {
	flavors(t, func(t *testing.T, db *testenv.DB) {
		lost := func(t *testing.T, w *world) {
			t.Helper()
			err := w.runFrom(nil)
			if !errors.Is(err, leat.ErrPositionLost) || !strings.Contains(leat.HintOf(err), "leat reindex --from-source") {
				t.Errorf("Run: %v (hint %s)", err, leat.HintOf(err))
			}
			// The remedy: no position, the index as it is.
			w.rec.Crash(0, func(leat.Event) bool { return true })
			w.once()
			w.equal("read anew")
		}
		purge := func(t *testing.T) {
			t.Helper()
			db.Exec(t, "FLUSH BINARY LOGS")
			query, columns := "SHOW BINARY LOG STATUS", 5
			if db.Flavor == "mariadb" {
				query, columns = "SHOW MASTER STATUS", 4
			}
			var file string
			into := []any{&file}
			for range columns - 1 {
				into = append(into, new(any))
			}
			if err := db.Root().QueryRowContext(t.Context(), query).Scan(into...); err != nil {
				t.Fatal(err)
			}
			for range 50 { // MariaDB keeps a log that a checkpoint still needs for a moment
				db.Exec(t, "PURGE BINARY LOGS TO '"+file+"'")
				var n int
				rows, err := db.Root().QueryContext(t.Context(), "SHOW BINARY LOGS")
				if err != nil {
					t.Fatal(err)
				}
				for rows.Next() {
					n++
				}
				rows.Close()
				if n == 1 {
					return
				}
				time.Sleep(100 * time.Millisecond)
			}
			t.Fatal("binlogs were not purged")
		}
		t.Run("Purged", func(t *testing.T) {
			w := newWorld(t, db)
			w.exec("INSERT INTO @ VALUES (1,'a','1'),(2,'b','2')")
			w.once()
			w.exec("DELETE FROM @ WHERE id=1", "INSERT INTO @ VALUES (3,'c','3')")
			purge(t)
			lost(t, w)
		})
		t.Run("PurgedWhatWasRead", func(t *testing.T) {
			w := newWorld(t, db)
			w.exec("INSERT INTO @ VALUES (1,'a','1')")
			w.once()
			purge(t)
			w.exec("INSERT INTO @ VALUES (3,'c','3')")
			w.once()
			w.equal("after a purge of what was read")
		})
		t.Run("Reset", func(t *testing.T) {
			w := newWorld(t, db)
			w.exec("INSERT INTO @ VALUES (1,'a','1'),(2,'b','2')")
			w.once()
			w.exec("UPDATE @ SET body='x'")
			w.once()
			reset := "RESET BINARY LOGS AND GTIDS"
			if db.Flavor == "mariadb" {
				reset = "RESET MASTER"
			}
			db.Exec(t, reset)
			w.exec("DELETE FROM @ WHERE id=1", "INSERT INTO @ VALUES (3,'c','3')")
			lost(t, w)
			if e := w.position()["epoch"]; e == 1. {
				t.Error("the epoch did not rise")
			}
		})
	}, testenv.Own())
}

// TestFailover: the position is of another server with the same transactions.
func TestFailover(t *testing.T) {
	flavors(t, func(t *testing.T, db *testenv.DB) {
		w := newWorld(t, db)
		w.exec("INSERT INTO @ VALUES (1,'a','1'),(2,'b','2')")
		w.once()
		p := w.position()
		p["server"], p["file"], p["pos"] = "another", "other.009999", 12345
		raw, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		w.exec("UPDATE @ SET body='after' WHERE id=1")
		if err := w.runFrom(raw); err != nil {
			t.Fatal(err)
		}
		w.equal("after a failover")
		if e := w.position()["epoch"]; e != 2. {
			t.Errorf("epoch %v after a failover", e)
		}
		w.exec("UPDATE @ SET body='later'")
		w.once()
		w.equal("after a failover")
	})
}

// TestIdleSource: the position moves on when only other tables change.
func TestIdleSource(t *testing.T) {
	flavors(t, func(t *testing.T, db *testenv.DB) {
		w := newWorld(t, db)
		w.once()
		before := fmt.Sprint(w.position()["gtid"])
		w.exec("CREATE TABLE " + w.name + ".other (id INT PRIMARY KEY)")
		w.exec("INSERT INTO " + w.name + ".other VALUES (1),(2)")
		w.once()
		if after := fmt.Sprint(w.position()["gtid"]); after == before {
			t.Errorf("the position stayed at %s", before)
		}
		src := w.open()
		defer src.Close()
		run := w.rec.Start(t, src)
		defer run.Stop()
		before = fmt.Sprint(w.position()["gtid"])
		w.exec("DELETE FROM " + w.name + ".other")
		w.rec.Wait(t, "the position to be saved", func() bool {
			return fmt.Sprint(w.position()["gtid"]) != before
		})
	})
}

// TestBesideEachOther: Check does not disturb a running source of the same name.
func TestBesideEachOther(t *testing.T) {
	flavors(t, func(t *testing.T, db *testenv.DB) {
		w := newWorld(t, db)
		w.exec("INSERT INTO @ VALUES (1,'a','1')")
		src := w.open()
		defer src.Close()
		run := w.rec.Start(t, src)
		w.caughtUp("the snapshot")
		other := w.open()
		defer other.Close()
		for range 3 {
			if err := other.Check(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		w.exec("INSERT INTO @ VALUES (2,'b','2')")
		w.caughtUp("an insert")
		run.Stop()
	})
}

// TestFirstStart: what the first table brought need not be indexed before the
// next table is read, where the index held nothing that could be gone.
func TestFirstStart(t *testing.T) {
	flavors(t, func(t *testing.T, db *testenv.DB) {
		w := newWorld(t, db)
		other := w.cfg
		other.Table = w.name + ".others"
		w.exec("INSERT INTO @ VALUES (1,'a','1')", "CREATE TABLE "+other.Table+" AS SELECT * FROM @", "ALTER TABLE "+other.Table+" ADD PRIMARY KEY (id)")
		src := open(t, config(db, w.cfg, other))
		defer src.Close()
		session, end := w.rec.Session(true, slog.New(slog.DiscardHandler))
		session.Known = func(ctx context.Context, prefix string) iter.Seq2[leat.DocumentState, error] {
			if n := len(w.rec.Events()); n > 0 {
				t.Errorf("asked for what is known of %s after %d events", prefix, n)
			}
			return w.rec.Known(ctx, prefix)
		}
		if err := src.Run(t.Context(), session); err != nil {
			t.Fatal(err)
		}
		end()
		if n := len(w.rec.Index()); n != 2 {
			t.Errorf("%d documents of two tables with a row each", n)
		}
	})
}
