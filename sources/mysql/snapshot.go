package mysql

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"leat"
	"leat/internal/guard"
)

// The snapshot reads a table in chunks by its primary key, without locks,
// while the binlog goes on: the watermarks of DBLog (Andreakis, Papapanagiotou:
// "DBLog: A Watermark Based Change-Data-Capture Framework", 2020), with
// positions of the binlog in place of rows written to the source.
//
// A chunk is asked for at the end of a transaction, at L. Before its SELECT,
// everything up to L is made visible: MySQL waits for the GTID set (a
// transaction can be read from the binlog before a SELECT shows it), MariaDB
// takes consistent snapshots until one stands at or past L. After the SELECT,
// H is the end of the binlog: everything that the SELECT saw stands before it.
// From the request on, the loop notes the ids that the binlog changes in the
// table. When it has read to H, every row of the chunk that is not among them
// has not changed between L and now: it is given with version L, and no newer
// event of that document stands before it in the topic. Those among them were
// given by the binlog, newer.
type snapshot struct {
	conn     *conn
	cancel   context.CancelFunc // of the chunk being read
	results  chan *chunk
	reading  *chunk   // being read
	read     []*chunk // read, in order, waiting for the binlog to reach their end
	estimate map[*table]int64
	rows     int             // of the next chunk
	ctx      context.Context // of the reading goroutine
}

const (
	maxTouched = 200_000 // ids noted for one chunk before it is given up
	sweepBatch = 500     // documents looked up at once
)

// current is the table to snapshot now, nil if none.
func (r *run) current() *table {
	for _, t := range r.order {
		if p := r.state.Tables[t.name]; p == nil || !p.Done {
			return t
		}
	}
	return nil
}

func (r *run) snapshotDone() bool {
	return r.current() == nil && len(r.resyncs) == 0
}

func (r *run) snapshotProgress() (done, total int64) {
	for _, t := range r.order {
		var n int64
		p := r.state.Tables[t.name]
		if p != nil {
			n = p.Rows
		}
		done += n
		if p != nil && p.Done {
			total += n
		} else {
			total += max(r.snapshot.estimate[t], n)
		}
	}
	return done, total
}

func (s *snapshot) touched(t *table, id string) {
	if c := s.reading; c != nil && c.table == t {
		c.note(id)
	}
	for _, c := range s.read {
		if c.table == t {
			c.note(id)
		}
	}
}

// arrived takes a chunk from the goroutine that read it.
func (s *snapshot) arrived(c *chunk) error {
	if s.reading == c {
		s.reading = nil
	}
	if c.err != nil && !c.void {
		return c.err
	}
	s.read = append(s.read, c)
	s.rows = c.next()
	return nil
}

// stop ends the goroutine.
func (s *snapshot) stop() {
	if s.cancel != nil {
		s.cancel()
	}
	if s.reading != nil {
		<-s.results
	}
	if s.conn != nil {
		s.conn.Close()
	}
}

// advanceSnapshot, between transactions: asks for the next chunk and gives
// those that are due.
func (r *run) advanceSnapshot(ctx context.Context) error {
	s := &r.snapshot
	select {
	case c := <-s.results:
		if err := s.arrived(c); err != nil {
			return r.s.explain(err, "reading from")
		}
	default:
	}
	for {
		if err := r.askChunk(ctx); err != nil {
			return err
		}
		if len(s.read) == 0 || r.place().less(s.read[0].high) {
			return nil
		}
		c := s.read[0]
		s.read = s.read[1:]
		if c.void { // ask again from where it began
			for _, later := range s.read {
				later.void = true
			}
			if s.reading != nil && s.reading.table == c.table {
				s.reading.void = true
			}
			continue
		}
		if err := r.give(ctx, c); err != nil {
			return err
		}
	}
}

// askChunk has the next chunk read by another goroutine: one at a time, and
// ahead of the giving by one.
func (r *run) askChunk(ctx context.Context) error {
	s := &r.snapshot
	if s.reading != nil || len(s.read) > 1 {
		return nil
	}
	t := r.current()
	if t == nil {
		return nil
	}
	if err := r.prepareTable(ctx, t); err != nil {
		return err
	}
	p := r.state.Tables[t.name]
	if p.Done {
		return nil
	}
	after := p.Key
	if len(s.read) > 0 {
		if s.read[0].void || s.read[0].last || s.read[0].table != t {
			return nil
		}
		after = s.read[0].key
	}
	if s.conn == nil {
		c, err := r.s.connect(ctx)
		if err != nil {
			return err
		}
		s.conn = c
		s.rows = firstRows
		s.ctx, s.cancel = context.WithCancel(ctx)
	}
	v, err := r.snapshotVersion(p)
	if err != nil {
		return err
	}
	c := &chunk{table: t, layout: t.read, after: after, low: r.end, gtid: r.set.String(), limit: s.rows, version: v}
	s.reading = c
	go func() {
		c.err = s.conn.readChunk(s.ctx, c, r.s.name)
		s.results <- c
	}()
	return nil
}

// prepareTable begins a table's snapshot: documents whose rows are gone are
// deleted first. Where there can be none, that does not wait for the stages to
// have worked off the tables before.
func (r *run) prepareTable(ctx context.Context, t *table) error {
	p := r.state.Tables[t.name]
	if p != nil && p.Swept {
		return nil
	}
	p = &progress{Config: t.config, Base: r.state.Given}
	if t.read != nil {
		p.Shape = t.read.shape
	}
	r.state.Tables[t.name] = p
	if !r.empty {
		if err := r.sweep(ctx, t); err != nil {
			return err
		}
	}
	p.Swept = true
	if p.Done = t.read == nil; p.Done {
		return nil // dropped: CREATE TABLE begins it again
	}
	rows, err := r.c.rows(ctx, "SELECT TABLE_ROWS FROM information_schema.TABLES WHERE TABLE_SCHEMA="+quoteText(t.schema)+" AND TABLE_NAME="+quoteText(t.base))
	if err != nil {
		return r.s.explain(err, "estimating the rows of "+t.name+" on")
	}
	if len(rows) > 0 {
		n, err := strconv.ParseInt(rows[0][0], 10, 64)
		if err == nil {
			r.snapshot.estimate[t] = n
		}
	}
	return nil
}

// snapshotVersion is the version of what is read now: the low watermark. Where
// it has not moved since another snapshot, the bytes between it and the next
// row, of events that carry none, tell the two apart.
func (r *run) snapshotVersion(p *progress) (uint64, error) {
	if p.Base >= version(r.state.Epoch, r.end)+spare {
		if err := r.raiseEpoch(); err != nil {
			return 0, err
		}
	}
	v := max(version(r.state.Epoch, r.end), p.Base+1)
	r.state.Given = max(r.state.Given, v)
	return v, nil
}

// sweep deletes the documents of a table that have no row. A row that comes
// back later does so by the binlog, past the version given here.
func (r *run) sweep(ctx context.Context, t *table) error {
	if err := r.flush(ctx); err != nil { // Known waits for what was handed over
		return err
	}
	if t.read != nil {
		if err := r.c.waitVisible(ctx, r.end, r.set.String()); err != nil {
			return r.s.explain(err, "waiting for transactions on")
		}
	}
	p := r.state.Tables[t.name]
	low := version(r.state.Epoch, r.end)
	gone := 0
	batch := make([]string, 0, sweepBatch)
	look := func() error {
		v, err := r.snapshotVersion(p)
		if err != nil {
			return err
		}
		have := map[string]bool{}
		err = r.c.selectByID(ctx, t, batch, func(cells []cell) error {
			have[r.maker.id(t, &t.read.layout, cells)] = true
			return nil
		})
		if err != nil {
			return err
		}
		for _, id := range batch {
			if !have[id] {
				gone++
				if err := r.add(ctx, leat.Event{ID: id, Version: v, Source: r.maker.source, Time: time.Now().UTC()}, len(id)+128); err != nil {
					return err
				}
			}
		}
		batch = batch[:0]
		return nil
	}
	for d, err := range r.session.Known(ctx, t.idPrefix) {
		if err != nil {
			return fmt.Errorf("listing the documents of %s: %w", t.name, err)
		}
		if low <= d.Version && d.Version < low+spare {
			p.Base = max(p.Base, d.Version) // of a Look since the last transaction
		}
		if batch = append(batch, d.ID); len(batch) == cap(batch) {
			if err := look(); err != nil {
				return err
			}
		}
	}
	if err := look(); err != nil {
		return err
	}
	if gone > 0 {
		r.session.Log.Info("deleted documents whose rows are gone", "table", t.name, "documents", gone)
	}
	return nil
}

// resync begins the snapshots that statements have made necessary.
func (r *run) resync(ctx context.Context) error {
	if len(r.resyncs) == 0 {
		return nil
	}
	if err := r.c.waitVisible(ctx, r.end, r.set.String()); err != nil {
		return r.s.explain(err, "waiting for transactions on")
	}
	for t, why := range r.resyncs {
		r.session.Log.Warn("reading the table anew", "table", t.name, "because", why)
		if err := t.load(ctx, r.c); err != nil {
			return err
		}
		for _, c := range r.snapshot.read {
			c.void = c.void || c.table == t
		}
		if c := r.snapshot.reading; c != nil && c.table == t {
			c.void = true
		}
		delete(r.state.Tables, t.name)
		delete(r.resyncs, t)
		r.moved, r.empty = true, false
	}
	return nil
}

// give hands over a chunk's rows that the binlog has not changed meanwhile.
func (r *run) give(ctx context.Context, c *chunk) error {
	for i, e := range c.events {
		if _, newer := c.touched[e.ID]; newer && !guard.Removed("I2") { // I2
			continue
		}
		if err := r.add(ctx, e, c.sizes[i]); err != nil {
			return err
		}
	}
	p := r.state.Tables[c.table.name]
	p.Rows += int64(len(c.events))
	if c.key != nil {
		p.Key = c.key
	}
	r.moved = true
	if c.last {
		p.Done, p.Key = true, nil
		r.session.Log.Info("snapshot of the table is complete", "table", c.table.name, "rows", p.Rows)
	}
	return r.flush(ctx)
}
