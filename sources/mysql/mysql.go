// Package mysql captures the rows of MySQL and MariaDB tables: a snapshot of
// each table by ranges of its primary key, interleaved with the binlog, then
// the binlog alone.
//
// # How a row becomes a document
//
// A document's id is mysql:NAME/database.table/key, one part for each column
// of the primary key, percent-encoded: integers and decimals in digits, texts
// as they are, binaries in hexadecimal, dates as ISO 8601. Metadata are JSON
// values: integers exact, DECIMAL as a string, dates and times as ISO 8601
// (TIMESTAMP in UTC with Z; the zero date as null), ENUM and SET as their
// text, BIT as a number, binaries in base64, JSON as it is.
//
// # Order and versions
//
// The version of a change is epoch, binlog file and position of its row (see
// version); rows of one event count from the event's start. A snapshot row
// carries the end of the last transaction before its SELECT (the low
// watermark) and is dropped if a change of the same row was read from the
// binlog since, so no older state follows a newer one in the topic (I2, I3).
// A compressed transaction has one position for all its events: its changes of
// one document are coalesced to the last, which takes memory in proportion to
// that transaction's uncompressed size. No other transaction does (I8).
//
// # What cannot be followed row by row
//
// TRUNCATE, DROP and RENAME TABLE, a column of the configuration changed by
// ALTER TABLE, statements in place of rows and rolled back XA transactions
// lead to a new snapshot of that table: documents whose row is gone are
// deleted, all others sent anew.
package mysql

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"

	"leat"
)

// Source captures tables of one server. It implements leat.Source and
// leat.Checker.
type Source struct {
	name string
	cfg  Config
	log  *slog.Logger

	mu   sync.Mutex // guards open
	open *conn      // for Open; nil: none yet
}

var (
	_ leat.Source  = (*Source)(nil)
	_ leat.Checker = (*Source)(nil)
)

// New makes the source called name; it connects to nothing yet.
func New(name string, cfg Config, log *slog.Logger) (*Source, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Source{name: name, cfg: cfg, log: log}, nil
}

// Close ends the connection that Open uses.
func (s *Source) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		return nil
	}
	err := s.open.Close()
	s.open = nil
	return err
}

// Open reads the body of a row again: ErrNotFound if the row is gone,
// ErrChanged if its body is another than ref's.
func (s *Source) Open(ctx context.Context, ref leat.Ref) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body, err := s.readBody(ctx, ref)
	if err != nil {
		if s.open != nil && !errors.Is(err, leat.ErrNotFound) && !errors.Is(err, leat.ErrChanged) {
			s.open.Close() // it may be the connection that is broken
			s.open = nil
		}
		return nil, fmt.Errorf("row %s of source %s: %w", ref.Name, s.name, err)
	}
	return io.NopCloser(bytes.NewReader(body)), nil
}

func (s *Source) readBody(ctx context.Context, ref leat.Ref) ([]byte, error) {
	var t *table
	for _, cfg := range s.cfg.Tables {
		candidate := newTable(s.name, cfg)
		if strings.HasPrefix(ref.Name, candidate.idPrefix[len(candidate.idPrefix)-candidate.tableLen-1:]) {
			t = candidate
		}
	}
	if t == nil {
		return nil, fmt.Errorf("its table is no longer captured: %w", leat.ErrNotFound)
	}
	if s.open == nil {
		c, err := s.connect(ctx)
		if err != nil {
			return nil, err
		}
		s.open = c
	}
	if err := t.load(ctx, s.open); err != nil {
		return nil, err
	}
	key, ok := t.parseKey(ref.Name[t.tableLen+1:])
	if !ok {
		return nil, fmt.Errorf("the table or its key is another now: %w", leat.ErrNotFound)
	}
	m := newMaker(s.name)
	var body []byte
	found := false
	_, err := s.open.selectRows(ctx, t, t.read, "WHERE "+keyEquals(t.read, [][]string{key}), func(cells []cell) error {
		body, found = m.appendBody(nil, t, &t.read.layout, cells), true
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case !found:
		return nil, leat.ErrNotFound
	case digest(body) != ref.Tag:
		return nil, leat.ErrChanged
	}
	return body, nil
}
