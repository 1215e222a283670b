// Package sqlite is the embedded store: one SQLite file that holds a text
// index and a vector index a generation, each a [leat.Sink] of its own with its
// own versions and tombstones, so that each can be replayed or rebuilt alone.
//
// One process writes and any number of others read beside it (write-ahead
// log). See docs/adr/002-embedded-store.md for the choices made here.
package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"

	"leat"
)

// schemaVersion is kept in the file's user_version. Raise it with any change of
// the tables: there are no migrations, the index is rebuilt from its sources.
const schemaVersion = 2

// readers bounds the connections that read at the same time; each has a page
// cache of its own (I8).
const readers = 4

// Store is one open file. Safe for concurrent use.
type Store struct {
	path  string
	cfg   Config
	log   *slog.Logger
	write *pool // nil when opened for reading
	read  *pool
}

// Open opens or creates the store for writing. Several processes may: they
// take turns, a transaction each.
func Open(path string, cfg Config, log *slog.Logger) (*Store, error) {
	// An offset is committed once Apply returns, to a log that is synced: the
	// store must not lose a transaction to a power cut either, hence FULL (I1, I7).
	w, err := newPool(1, path, "rwc", "BEGIN IMMEDIATE",
		"journal_mode(WAL)", "synchronous(FULL)", "cache_size(-16000)", "journal_size_limit(67108864)")
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	if err := createSchema(w); err != nil {
		return nil, errors.Join(fmt.Errorf("open store %s: %w", path, err), w.close())
	}
	s, err := openRead(path, cfg, log)
	if err != nil {
		return nil, errors.Join(err, w.close())
	}
	s.write = w
	return s, nil
}

// OpenReader opens an existing store for reading, beside a process that writes
// it or without one. It fails with fs.ErrNotExist where there is none yet.
func OpenReader(path string, cfg Config, log *slog.Logger) (*Store, error) {
	if fi, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) || err == nil && fi.Size() == 0 {
		return nil, leat.Hint(fmt.Errorf("no store at %s: %w", path, fs.ErrNotExist),
			"nothing has been indexed here yet: start `leat run` first")
	}
	return openRead(path, cfg, log)
}

func openRead(path string, cfg Config, log *slog.Logger) (*Store, error) {
	r, err := newPool(readers, path, "ro", "BEGIN", "cache_size(-8000)")
	if err == nil {
		if err = checkSchema(r); err != nil {
			err = errors.Join(err, r.close())
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	return &Store{path: path, cfg: cfg, log: log, read: r}, nil
}

func createSchema(w *pool) error {
	return w.tx(context.Background(), "", func(c *conn) error {
		v, err := c.int("PRAGMA user_version")
		if err != nil || v != 0 {
			return err
		}
		return c.script(aliasTable + fmt.Sprintf("PRAGMA user_version = %d", schemaVersion))
	})
}

func checkSchema(r *pool) error {
	return r.tx(context.Background(), "", func(c *conn) error {
		v, err := c.int("PRAGMA user_version")
		if err == nil && v != schemaVersion {
			err = leat.Hint(fmt.Errorf("its format is %d, this program reads %d: %w", v, schemaVersion, leat.ErrMismatch),
				"use the leat that wrote it, or move the file away and run `leat reindex` to build it again")
		}
		return err
	})
}

// Close closes the file; the store's indexes cannot be used after it.
func (s *Store) Close() error {
	err := s.read.close()
	if s.write != nil {
		err = errors.Join(err, s.write.close())
	}
	return err
}

// writer is the pool to write with.
func (s *Store) writer() (*pool, error) {
	if s.write == nil {
		return nil, fmt.Errorf("store %s is open for reading only", s.path)
	}
	return s.write, nil
}

// Check implements [leat.Checker]: the file can be written, its disk has room
// and its pages are sound.
func (s *Store) Check(ctx context.Context) error {
	var errs []error
	if free, err := freeBytes(s.path); err == nil && free < minFree {
		errs = append(errs, leat.Hint(fmt.Errorf("store %s: %d MiB left on its disk", s.path, free>>20),
			"make room: below %d MiB writing may stop in the middle", minFree>>20))
	}
	p := s.read
	if s.write != nil {
		p = s.write // its BEGIN IMMEDIATE proves that the file can be written
	}
	err := p.tx(ctx, "", func(c *conn) error {
		var verdict string
		if err := c.scan("PRAGMA quick_check(1)", nil, &verdict); err != nil {
			return err
		}
		if verdict != "ok" {
			return errors.New(verdict)
		}
		return nil
	})
	if err != nil {
		errs = append(errs, leat.Hint(fmt.Errorf("store %s: %w", s.path, err),
			"if it is damaged, stop leat, move the file away and run `leat reindex`"))
	}
	return errors.Join(errs...)
}

// minFree is room for the log of a large transaction beside the file.
const minFree = 256 << 20
