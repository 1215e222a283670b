package e2e

import (
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// watcher looks at the store again and again while everything changes: a
// version never goes back, a tombstone is never forgotten (I2), and documents
// that are only ever updated never vanish once they are there (I4).
type watcher struct {
	t    *testing.T
	path string
	keep map[string]bool // documents that are never deleted

	last  map[string]uint64 // version, by document id
	rises atomic.Int64      // of versions, in all documents
	looks int
	done  chan struct{}
	ended sync.WaitGroup
}

func watchStore(t *testing.T, path string, all ...*tables) *watcher {
	w := &watcher{t: t, path: path, keep: map[string]bool{}, last: map[string]uint64{}, done: make(chan struct{})}
	for _, x := range all {
		for _, key := range x.steady {
			w.keep[x.productID(key)] = true
		}
	}
	w.ended.Go(w.run)
	t.Cleanup(w.stop)
	return w
}

// progress waits until the store has taken up something new.
func (w *watcher) progress(since int64) {
	w.t.Helper()
	until(w.t, 2*time.Minute, "the index takes up changes", func() error {
		if w.rises.Load() == since {
			return errors.New("nothing new in the store")
		}
		return nil
	})
}

func (w *watcher) stop() {
	select {
	case <-w.done:
		return
	default:
	}
	close(w.done)
	w.ended.Wait()
	if w.looks < 10 {
		w.t.Errorf("the store was looked at %d times only", w.looks)
	}
}

func (w *watcher) run() {
	for {
		select {
		case <-w.done:
			return
		case <-time.After(200 * time.Millisecond):
		}
		switch err := w.look(); {
		case errors.Is(err, fs.ErrNotExist): // nothing has been indexed so far
		case err != nil:
			w.t.Errorf("look at the store: %v", err)
			return
		}
	}
}

func (w *watcher) look() error {
	if fi, err := os.Stat(w.path); err != nil {
		return err
	} else if fi.Size() == 0 {
		return fs.ErrNotExist
	}
	db, err := openStore(w.path)
	if err != nil {
		return err
	}
	defer db.Close()
	var made bool
	if err := db.QueryRow("SELECT COUNT(*) FROM sqlite_master WHERE name = 'text1_totals'").Scan(&made); err != nil || !made {
		return errors.Join(err, fs.ErrNotExist)
	}
	rows, err := db.Query(`SELECT id, version, deleted, (SELECT COUNT(*) FROM text1_chunks k WHERE k.doc = d.no AND k.version = d.version)
		FROM text1_documents d WHERE version IS NOT NULL`)
	if err != nil {
		return err
	}
	defer rows.Close()
	found := map[string]bool{}
	for rows.Next() {
		var id string
		var version uint64
		var deleted bool
		var chunks int
		if err := rows.Scan(&id, &version, &deleted, &chunks); err != nil {
			return err
		}
		found[id] = true
		if version < w.last[id] {
			w.t.Errorf("%s: version went back from %d to %d", id, w.last[id], version)
		}
		if w.keep[id] && (deleted || chunks == 0) {
			w.t.Errorf("%s: has vanished at version %d", id, version)
			w.keep[id] = false // once is enough
		}
		if version > w.last[id] {
			w.rises.Add(1)
		}
		w.last[id] = version
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for id := range w.last {
		if !found[id] {
			w.t.Errorf("%s: is forgotten, so that an older version could come back", id)
			delete(w.last, id)
		}
	}
	w.looks++
	return nil
}

func openStore(path string) (*sql.DB, error) {
	return sql.Open("sqlite", "file:"+path+"?mode=ro&_pragma=busy_timeout(30000)")
}
