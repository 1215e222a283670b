package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"leat"
)

// aliasTable has one row once a generation is live.
const aliasTable = `CREATE TABLE alias (one INTEGER PRIMARY KEY CHECK (one = 1), generation INTEGER NOT NULL);`

// tables is what the names of the tables of an index begin with.
func tables(kind string, generation int) string { return fmt.Sprint(kind, generation) }

// there tells whether the transaction's index is in the file: its totals are
// the first table that is dropped.
func there(c *conn) (bool, error) {
	n, err := c.int("SELECT count(*) FROM sqlite_schema WHERE name = ?", c.table+"_totals")
	return n > 0, err
}

func (s *Store) missing(kind string, generation int) error {
	return leat.Hint(fmt.Errorf("store %s has no %s of generation %d: %w", s.path, kind, generation, fs.ErrNotExist),
		"nothing has been indexed there yet: start `leat run` first")
}

// open makes the tables of an index where they are missing, if the store may be
// written, and calls check, if any, in the same transaction.
func (s *Store) open(kind string, generation int, schema string, check func(c *conn, made bool) error) (table string, err error) {
	if generation < 1 {
		return "", fmt.Errorf("%d is not a generation: they count from 1", generation)
	}
	p := s.read
	if s.write != nil {
		p = s.write
	}
	table = tables(kind, generation)
	err = p.tx(context.Background(), table, func(c *conn) error {
		ok, err := there(c)
		switch {
		case err != nil:
			return err
		case !ok && s.write == nil:
			return s.missing(kind, generation)
		case !ok:
			// What a drop that was interrupted has left goes first.
			if err := c.script(strings.Join(dropped, ";") + ";" + schema); err != nil {
				return err
			}
		}
		if check == nil {
			return nil
		}
		return check(c, !ok)
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("store %s: %w", s.path, err)
	}
	return table, err
}

// dropped are the steps that remove the rest of an index, each a transaction of
// its own so that none keeps writers waiting for all of it.
var dropped = []string{
	"DROP TABLE IF EXISTS $_vocabulary",
	"DROP TABLE IF EXISTS $_words",
	"DROP INDEX IF EXISTS $_chunks_content",
	"DROP TABLE IF EXISTS $_chunks",
	"DROP INDEX IF EXISTS $_contents_chunk",
	"DROP TABLE IF EXISTS $_contents",
	"DROP TABLE IF EXISTS $_documents",
	"DROP TABLE IF EXISTS $_parts",
	"DROP TABLE IF EXISTS $_model",
}

// Generations returns the file's generations, of texts and vectors together.
func (s *Store) Generations() leat.Generations { return generations{s} }

type generations struct{ *Store }

// Live implements [leat.Generations].
func (g generations) Live(ctx context.Context) (n int, err error) {
	err = g.read.tx(ctx, "", func(c *conn) error {
		return c.scan("SELECT coalesce(max(generation), 0) FROM alias", nil, &n)
	})
	if err != nil {
		return 0, fmt.Errorf("store %s: read the alias: %w", g.path, err)
	}
	return n, nil
}

// Switch implements [leat.Generations]. An index of either kind will do: that of
// the other may be in a server.
func (g generations) Switch(ctx context.Context, n int) error {
	w, err := g.writer()
	if err != nil {
		return err
	}
	err = w.tx(ctx, "", func(c *conn) error {
		found := false
		for _, kind := range kinds {
			c.table = tables(kind, n)
			ok, err := there(c)
			if err != nil {
				return err
			}
			found = found || ok
		}
		if !found {
			return fs.ErrNotExist
		}
		return c.exec("INSERT OR REPLACE INTO alias VALUES (1, ?)", n)
	})
	if err != nil {
		return fmt.Errorf("store %s: switch to generation %d: %w", g.path, n, err)
	}
	live, err := g.Live(ctx)
	if err == nil && live != n {
		err = leat.Hint(fmt.Errorf("store %s: the alias leads to generation %d, not %d", g.path, live, n),
			"another process has moved it at the same time: see `leat status`, and repeat")
	}
	return err
}

var kinds = []string{"text", "vectors"}

// Drop implements [leat.Generations]. Its room is used again by what is written
// next; the file does not become smaller.
func (g generations) Drop(ctx context.Context, n int) error {
	w, err := g.writer()
	if err != nil {
		return err
	}
	err = w.tx(ctx, "", func(c *conn) error {
		live, err := c.int("SELECT count(*) FROM alias WHERE generation = ?", n)
		if err == nil && live > 0 {
			err = leat.Hint(errors.New("it is the live one"), "switch to another generation first: `leat reindex rollback`")
		}
		for _, kind := range kinds {
			c.table = tables(kind, n)
			if err == nil {
				err = c.script("DROP TABLE IF EXISTS $_totals")
			}
		}
		return err
	})
	for _, kind := range kinds {
		for _, step := range dropped {
			if err != nil {
				return fmt.Errorf("store %s: drop generation %d: %w", g.path, n, err)
			}
			err = w.tx(ctx, tables(kind, n), func(c *conn) error {
				if made, err := there(c); err != nil || made { // made anew since, without what was left
					return err
				}
				return c.script(step)
			})
		}
	}
	return err
}

// Close implements [leat.Generations]: nothing, the file is the store's.
func (generations) Close() error { return nil }
