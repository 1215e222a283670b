package embedder

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// store is the file of vectors. A row's id is the first 64 bits of its key, so
// that a look-up is one descent of one tree; two keys with one id replace each
// other, which costs an embedding in 2^64.
type store struct {
	db      *sql.DB
	byKey   *sql.Stmt // lookupBatch ids
	touched *sql.Stmt // a day and lookupBatch ids
}

const (
	lookupBatch = 64
	schema      = `
CREATE TABLE IF NOT EXISTS vectors (
	id     INTEGER PRIMARY KEY,
	key    BLOB NOT NULL,    -- SHA-256, see cache.key
	used   INTEGER NOT NULL, -- the last day it was asked for, since 1970
	vector BLOB NOT NULL     -- float32, little endian
);
CREATE INDEX IF NOT EXISTS vectors_used ON vectors (used);`
)

// openStore opens the file or makes it. A process beside may do the same.
func openStore(path string) (*store, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	options := url.Values{"_pragma": {"busy_timeout(10000)", "journal_mode(wal)", "synchronous(normal)", "temp_store(memory)"}}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: options.Encode()}).String())
	if err != nil {
		return nil, err
	}
	s := &store{db: db}
	if _, err = db.Exec(schema); err == nil {
		ids := "(?" + strings.Repeat(",?", lookupBatch-1) + ")"
		if s.byKey, err = db.Prepare("SELECT key, used, vector FROM vectors WHERE id IN " + ids); err == nil {
			s.touched, err = db.Prepare("UPDATE vectors SET used = ? WHERE id IN " + ids)
		}
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

// damaged reports whether err says that the file is no sound database.
func damaged(err error) bool {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return false
	}
	code := e.Code() & 0xff
	return code == sqlite3.SQLITE_CORRUPT || code == sqlite3.SQLITE_NOTADB
}

// lookup returns the vectors there are, and the keys of those last used before
// today.
func (s *store) lookup(ctx context.Context, keys []key, dimension int, today int64) (found map[key][]float32, stale []key, err error) {
	found = make(map[key][]float32, len(keys))
	wanted := make(map[key]bool, len(keys))
	for _, k := range keys {
		wanted[k] = true
	}
	for len(keys) > 0 {
		n := min(lookupBatch, len(keys))
		rows, err := s.byKey.QueryContext(ctx, ids(keys[:n])...)
		if err != nil {
			return found, stale, err
		}
		for rows.Next() {
			var raw, vector sql.RawBytes
			var used int64
			if err := rows.Scan(&raw, &used, &vector); err != nil {
				return found, stale, errors.Join(err, rows.Close())
			}
			var k key
			if copy(k[:], raw) != len(k) || !wanted[k] || len(vector) != 4*dimension {
				continue // another key with the same id
			}
			found[k] = decode(vector)
			if used < today {
				stale = append(stale, k)
			}
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return found, stale, err
		}
		keys = keys[n:]
	}
	return found, stale, nil
}

// ids are the ids of at most lookupBatch keys, as many as the statements take.
func ids(keys []key) []any {
	args := make([]any, lookupBatch)
	for i := range args {
		args[i] = keys[min(i, len(keys)-1)].id()
	}
	return args
}

// touch notes that keys were used today.
func (s *store) touch(ctx context.Context, keys []key, today int64) error {
	return s.inTransaction(ctx, func(tx *sql.Tx) error {
		touched := tx.StmtContext(ctx, s.touched)
		for len(keys) > 0 {
			n := min(lookupBatch, len(keys))
			if _, err := touched.ExecContext(ctx, append([]any{today}, ids(keys[:n])...)...); err != nil {
				return err
			}
			keys = keys[n:]
		}
		return nil
	})
}

// save keeps the vectors that are not nil, then removes what makes the file
// larger than maxBytes, those that were unused for longest first.
func (s *store) save(ctx context.Context, keys []key, vectors [][]float32, today, maxBytes int64) error {
	err := s.inTransaction(ctx, func(tx *sql.Tx) error {
		insert, err := tx.PrepareContext(ctx, "INSERT OR REPLACE INTO vectors (id, key, used, vector) VALUES (?, ?, ?, ?)")
		if err != nil {
			return err
		}
		defer insert.Close()
		for i, k := range keys {
			if vectors[i] == nil {
				continue
			}
			if _, err := insert.ExecContext(ctx, k.id(), k[:], today, encode(vectors[i])); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for {
		var used int64
		err := s.db.QueryRowContext(ctx, `SELECT (page_count - freelist_count) * page_size
			FROM pragma_page_count, pragma_freelist_count, pragma_page_size`).Scan(&used)
		if err != nil || used <= maxBytes {
			return err
		}
		res, err := s.db.ExecContext(ctx, `DELETE FROM vectors WHERE id IN (
			SELECT id FROM vectors ORDER BY used LIMIT (SELECT 1 + count(*) / 10 FROM vectors))`)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return err
		}
	}
}

func (s *store) inTransaction(ctx context.Context, f func(tx *sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

func encode(v []float32) []byte {
	b := make([]byte, 0, 4*len(v))
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

func decode(b []byte) []float32 {
	v := make([]float32, len(b)/4)
	for i := range v {
		v[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return v
}
