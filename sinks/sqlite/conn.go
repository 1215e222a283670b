package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"net/url"
	"strings"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// pool hands out connections that keep their prepared statements, one a
// transaction.
type pool struct {
	db    *sql.DB
	begin string     // how a transaction begins
	free  chan *conn // those not yet opened hold a nil Conn
}

// conn is a connection inside the transaction of ctx. Its methods put table for
// every $ of a query.
type conn struct {
	*sql.Conn
	ctx   context.Context
	table string
	stmts map[stmtKey]*sql.Stmt
}

type stmtKey struct{ table, query string }

func newPool(size int, path, mode, begin string, pragmas ...string) (*pool, error) {
	// A URL, so that no character of the path is taken for an option. The time
	// to wait for another process's transaction comes first: setting
	// journal_mode may have to.
	q := url.Values{"mode": {mode}, "_pragma": append([]string{"busy_timeout(30000)"}, pragmas...)}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+q.Encode())
	if err != nil {
		return nil, err
	}
	p := &pool{db: db, begin: begin, free: make(chan *conn, size)}
	for range size {
		p.free <- &conn{stmts: map[stmtKey]*sql.Stmt{}}
	}
	return p, nil
}

// close waits until every transaction has ended.
func (p *pool) close() error {
	var errs []error
	for range cap(p.free) {
		c, open := <-p.free
		if !open {
			return nil // closed before
		}
		errs = append(errs, c.release())
	}
	close(p.free)
	return errors.Join(append(errs, p.db.Close())...)
}

// tx runs f in one transaction: all that it does is durable when tx returns
// nil, and nothing of it when tx returns an error.
func (p *pool) tx(ctx context.Context, table string, f func(*conn) error) (err error) {
	var c *conn
	select {
	case c = <-p.free:
		if c == nil {
			return errClosed
		}
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { p.free <- c }()
	if c.Conn == nil {
		if c.Conn, err = p.db.Conn(ctx); err != nil {
			return err
		}
	}
	c.ctx, c.table = ctx, table
	if err := c.exec(p.begin); err != nil {
		return err
	}
	if err = f(c); err == nil {
		err = c.exec("COMMIT")
	}
	if err != nil {
		c.ctx = context.WithoutCancel(ctx) // it may be what failed
		if c.exec("ROLLBACK") != nil {
			c.discard() // a full disk, say, has ended the transaction already
		}
	}
	return err
}

var errClosed = errors.New("the store is closed")

func (c *conn) release() error {
	if c.Conn == nil {
		return nil
	}
	err := errors.Join(c.closeStmts(), c.Close())
	c.Conn = nil
	return err
}

// discard has the next transaction open a connection anew.
func (c *conn) discard() {
	_ = c.closeStmts()                                      // the driver crashes on those of a connection that is closed
	_ = c.Raw(func(any) error { return driver.ErrBadConn }) // database/sql's way to drop one
	c.Conn = nil
}

func (c *conn) closeStmts() error {
	var errs []error
	for _, s := range c.stmts {
		errs = append(errs, s.Close())
	}
	c.stmts = map[stmtKey]*sql.Stmt{}
	return errors.Join(errs...)
}

func (c *conn) stmt(q string) (*sql.Stmt, error) {
	k := stmtKey{c.table, q}
	if s := c.stmts[k]; s != nil {
		return s, nil
	}
	s, err := c.PrepareContext(c.ctx, strings.ReplaceAll(q, "$", c.table))
	if err == nil {
		c.stmts[k] = s
	}
	return s, err
}

func (c *conn) exec(q string, args ...any) error {
	s, err := c.stmt(q)
	if err == nil {
		_, err = s.ExecContext(c.ctx, args...)
	}
	return err
}

// script runs statements that are not kept prepared.
func (c *conn) script(q string) error {
	_, err := c.ExecContext(c.ctx, strings.ReplaceAll(q, "$", c.table))
	return err
}

// insert returns the new row's id.
func (c *conn) insert(q string, args ...any) (int64, error) {
	s, err := c.stmt(q)
	if err != nil {
		return 0, err
	}
	r, err := s.ExecContext(c.ctx, args...)
	if err != nil {
		return 0, err
	}
	return r.LastInsertId()
}

// count returns how many rows changed.
func (c *conn) count(q string, args ...any) (int64, error) {
	s, err := c.stmt(q)
	if err != nil {
		return 0, err
	}
	r, err := s.ExecContext(c.ctx, args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// scan reads one row; sql.ErrNoRows where there is none.
func (c *conn) scan(q string, args []any, dest ...any) error {
	s, err := c.stmt(q)
	if err != nil {
		return err
	}
	return s.QueryRowContext(c.ctx, args...).Scan(dest...)
}

func (c *conn) int(q string, args ...any) (n int64, err error) {
	err = c.scan(q, args, &n)
	return n, err
}

// errStop ends each before the last row.
var errStop = errors.New("stop")

// each calls f on every row.
func (c *conn) each(q string, args []any, f func(*sql.Rows) error) error {
	s, err := c.stmt(q)
	if err != nil {
		return err
	}
	rows, err := s.QueryContext(c.ctx, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows); errors.Is(err, errStop) {
			return nil
		} else if err != nil {
			return err
		}
	}
	return rows.Err()
}
