package mysql

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"leat"
)

// List implements leat.Source: the rows of each table in ranges of its primary
// key, each as it is when it is read.
func (s *Source) List(ctx context.Context) iter.Seq2[leat.Event, error] {
	return func(yield func(leat.Event, error) bool) {
		err := s.list(ctx, func(e leat.Event) bool { return yield(e, nil) })
		if err != nil {
			yield(leat.Event{}, err)
		}
	}
}

func (s *Source) list(ctx context.Context, yield func(leat.Event) bool) error {
	c, tables, err := s.openTables(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, t := range tables {
		for k := (&chunk{table: t, layout: t.read, limit: firstRows}); !k.last; k.after, k.limit = k.key, k.next() {
			if err := c.selectChunk(ctx, k, s.name); err != nil {
				return s.explain(err, "reading from")
			}
			for _, e := range k.events {
				if !yield(e) {
					return nil
				}
			}
		}
	}
	return nil
}

// openTables connects and reads the present schema of all tables.
func (s *Source) openTables(ctx context.Context) (*conn, []*table, error) {
	c, err := s.connect(ctx)
	if err != nil {
		return nil, nil, err
	}
	tables, err := s.prepare(ctx, c)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		c.Close()
		return nil, nil, err
	}
	return c, tables, nil
}

// Look implements leat.Source: it reads the rows with these keys.
//
// Their version is the end of the binlog before the SELECT, once that shows
// everything up to there (I2). Each change that the SELECT does not show thus
// stands after it in the binlog, with a higher version; each that it shows and
// that stands before has a lower one. The SELECT may show later changes too:
// their own events then say the same, or newer, under higher versions. Where a
// session has yet to read the binlog up to there, what it will give is older than
// what is seen here, and superseded by it. A session in a newer epoch than that
// of the position gives higher versions in any case.
//
// Where a document has a version at or past that place (of a snapshot or of
// another Look, and nothing was written since), its next version is one above:
// the bytes between a place and the first row after it, of events that carry
// none, hold [spare] of them. Without a position the next session begins in an
// epoch above all documents', and one that has not saved its first position yet
// has begun in such a one: one above what the document has is below both.
//
// A SELECT shows what has been committed. Rows of a prepared XA transaction,
// which Run gives when it is prepared, are an error where the position tells of
// it; one that was prepared since is overlooked.
func (s *Source) Look(ctx context.Context, l leat.Look) ([]leat.Event, error) {
	c, tables, err := s.openTables(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var saved *state
	if l.Position != nil {
		if saved, err = s.savedState(ctx, c, l); err != nil {
			return nil, err
		}
	}
	asked := map[*table][]string{}
	for _, id := range l.IDs {
		for _, t := range tables {
			if strings.HasPrefix(id, t.idPrefix) {
				asked[t] = append(asked[t], id)
			}
		}
	}
	for t := range asked {
		if saved == nil || saved.Tables[t.name] == nil || !saved.Tables[t.name].Prepared {
			continue
		}
		return nil, leat.Hint(fmt.Errorf("table %s has rows of a prepared XA transaction, which cannot be looked at", t.name),
			"XA COMMIT or XA ROLLBACK it (XA RECOVER lists it), let the source run, then try again")
	}

	var at places
	var found map[string]leat.Event
	err = c.unaltered(ctx, func() error {
		at, found, err = c.lookRows(ctx, s.name, saved, asked)
		return err
	})
	if err != nil {
		return nil, s.explain(err, "reading from")
	}
	if saved != nil {
		if past, err := saved.past(c.server, at.end); past || err != nil {
			return nil, s.runFirst(errors.Join(err, errors.New("its binlog ends before the saved position")))
		}
	}
	events := make([]leat.Event, len(l.IDs))
	for i, id := range l.IDs {
		e, ok := found[id]
		if !ok {
			e = leat.Event{ID: id, Source: "mysql:" + s.name, Time: time.Now().UTC()}
		}
		if e.Version, ok = lookVersion(saved, at, l.Above[i]); !ok {
			return nil, s.runFirst(fmt.Errorf("its binlog has no room above version %d of document %s", l.Above[i], id))
		}
		events[i] = e
	}
	return events, nil
}

// places of the binlog up to which a SELECT shows everything.
type places struct {
	low, end position // end is the end of the binlog; low may be it too
}

// lookVersion is the version of what is seen at these places, see Look; false
// where there is none.
func lookVersion(saved *state, at places, above uint64) (uint64, bool) {
	if saved == nil {
		return above + 1, true
	}
	for _, p := range []position{at.low, at.end} {
		if v := version(max(saved.Epoch, above>>epochBits), p); above+1 < v+spare {
			return max(v, above+1), true
		}
	}
	return 0, false
}

// savedState is that of a position, if it is of this server as it is now.
func (s *Source) savedState(ctx context.Context, c *conn, l leat.Look) (*state, error) {
	saved, err := parseState(l.Position)
	if err != nil {
		return nil, leat.Hint(err, "leat reindex --from-source begins anew")
	}
	if _, err := s.checkHistory(ctx, c, saved); err != nil {
		return nil, err
	}
	if saved.Server != c.server.id {
		return nil, s.runFirst(errors.New("it is another server than that of the saved position"))
	}
	return saved, nil
}

func (s *Source) runFirst(err error) error {
	return leat.Hint(fmt.Errorf("source %s at %s: %w", s.name, s.cfg.Address, err),
		"let the source run until it has caught up, then try again; if nothing was written since it did, FLUSH BINARY LOGS")
}

// lookRows reads the rows with these ids, by table, in a state that holds
// everything up to the places.
func (c *conn) lookRows(ctx context.Context, source string, saved *state, asked map[*table][]string) (at places, found map[string]leat.Event, err error) {
	if at, err = c.lowWatermark(ctx, saved); err != nil {
		return at, nil, err
	}
	m := newMaker(source)
	now := time.Now().UTC()
	found = map[string]leat.Event{}
	for t, ids := range asked {
		for batch := range slices.Chunk(ids, sweepBatch) {
			err := c.selectByID(ctx, t, batch, func(cells []cell) error {
				e, _ := m.changed(t, &t.read.layout, cells, 0, now)
				found[e.ID] = e
				return nil
			})
			if err != nil {
				return at, nil, err
			}
		}
	}
	return at, found, nil
}

// lowWatermark returns places up to which a SELECT after the call, on this
// connection, shows everything.
func (c *conn) lowWatermark(ctx context.Context, saved *state) (places, error) {
	status, err := c.logStatus(ctx)
	if err != nil {
		return places{}, err
	}
	end, err := status.position()
	if err != nil {
		return places{}, err
	}
	if c.server.mariadb() {
		end, err = c.snapshotFrom(ctx, end)
		return places{end, end}, err
	}
	at := places{end, end}
	if err := c.waitCommitted(ctx); err != nil || saved == nil || saved.File != status.file {
		return at, err
	}
	rows, err := c.rows(ctx, "SELECT GTID_SUBSET(@@GLOBAL.gtid_executed,"+quoteText(saved.GTID)+")")
	if err == nil && rows[0][0] == "1" {
		// Nothing was written since the position, whose place may be lower: a
		// snapshot that begins there is to be above what is given now.
		at.low.pos = min(end.pos, saved.Pos)
	}
	return at, err
}
