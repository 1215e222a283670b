package mysql

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	gomysql "github.com/go-mysql-org/go-mysql/mysql"

	"leat"
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
	chunkBytes   = 4 << 20  // what chunks are sized to
	chunkLimit   = 16 << 20 // after which rows of one wait for the next
	maxChunkRows = 8192
	maxTouched   = 200_000 // ids noted for one chunk before it is given up
	sweepBatch   = 500     // documents looked up at once
)

type chunk struct {
	table   *table
	layout  *readLayout
	after   []string // key; nil: from the first row
	low     position
	gtid    string // MySQL: what must be visible
	limit   int
	version uint64

	events  []leat.Event
	sizes   []int
	key     []string // of the last row; nil: none came
	last    bool     // of the table
	high    position
	bytes   int
	err     error
	touched map[string]struct{}
	void    bool // given up
}

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

func (c *chunk) note(id string) {
	if c.touched == nil {
		c.touched = map[string]struct{}{}
	}
	if c.touched[id] = struct{}{}; len(c.touched) > maxTouched {
		c.void, c.touched = true, nil
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
	if c.bytes > 0 && !c.last {
		s.rows = min(max(c.limit*chunkBytes/c.bytes, 16), maxChunkRows)
	}
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
		s.rows = 500
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
// deleted first.
func (r *run) prepareTable(ctx context.Context, t *table) error {
	p := r.state.Tables[t.name]
	if p != nil && p.Swept {
		return nil
	}
	if err := r.flush(ctx); err != nil { // Known waits for what was handed over
		return err
	}
	p = &progress{Config: t.config, Base: r.state.Given}
	if t.read != nil {
		p.Shape = t.read.shape
	}
	r.state.Tables[t.name] = p
	if err := r.sweep(ctx, t); err != nil {
		return err
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
	const spare = 32 // less than the GTID event that begins a transaction
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
	if t.read != nil {
		if err := r.c.waitVisible(ctx, r.end, r.set.String()); err != nil {
			return r.s.explain(err, "waiting for transactions on")
		}
	}
	v, err := r.snapshotVersion(r.state.Tables[t.name])
	if err != nil {
		return err
	}
	gone := 0
	batch := make([]string, 0, sweepBatch)
	look := func() error {
		have := map[string]bool{}
		var keys [][]string
		for _, id := range batch {
			if key, ok := t.parseKey(strings.TrimPrefix(id, t.idPrefix)); ok {
				keys = append(keys, key)
			}
		}
		if len(keys) > 0 {
			_, err := r.c.selectRows(ctx, t, t.read, "WHERE "+keyEquals(t.read, keys), func(cells []cell) error {
				have[r.maker.id(t, &t.read.layout, cells)] = true
				return nil
			})
			if err != nil {
				return err
			}
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
		r.moved = true
	}
	return nil
}

// give hands over a chunk's rows that the binlog has not changed meanwhile.
func (r *run) give(ctx context.Context, c *chunk) error {
	for i, e := range c.events {
		if _, newer := c.touched[e.ID]; newer { // I2
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

// readChunk reads k's rows, in a state that holds everything up to k.low.
func (c *conn) readChunk(ctx context.Context, k *chunk, source string) error {
	for tries := 1; ; tries++ {
		err := c.tryChunk(ctx, k, source)
		var e *gomysql.MyError
		if !errors.As(err, &e) || e.Code != erTableDefChanged || tries == 10 {
			return err
		}
		// The table was altered after the consistent snapshot was taken.
		if _, err := c.do(ctx, "ROLLBACK"); err != nil {
			return err
		}
	}
}

func (c *conn) tryChunk(ctx context.Context, k *chunk, source string) error {
	if c.server.mariadb() {
		for {
			at, err := c.beginSnapshot(ctx)
			if err != nil {
				return err
			}
			if k.high, err = at.position(); err != nil {
				return err
			}
			if !k.high.less(k.low) {
				break
			}
			if err := sleep(ctx, time.Millisecond); err != nil {
				return err
			}
		}
	} else if err := c.waitVisible(ctx, k.low, k.gtid); err != nil {
		return err
	}
	where := "ORDER BY " + strings.Join(k.layout.keyNames, ",") + " LIMIT " + strconv.Itoa(k.limit)
	if k.after != nil {
		where = "WHERE " + keyAfter(k.layout, k.after) + " " + where
	}
	m := newMaker(source)
	now := time.Now().UTC()
	cut := false
	k.bytes, k.key = 0, nil
	k.events = make([]leat.Event, 0, k.limit)
	k.sizes = make([]int, 0, k.limit)
	n, err := c.selectRows(ctx, k.table, k.layout, where, func(cells []cell) error {
		if k.bytes > chunkLimit {
			cut = true
			return nil
		}
		e, size := m.changed(k.table, &k.layout.layout, cells, k.version, now)
		k.events, k.sizes = append(k.events, e), append(k.sizes, size)
		k.bytes += size
		if k.bytes > chunkLimit || len(k.events) == k.limit {
			k.key = keyLiterals(&k.layout.layout, cells, k.layout.charsets)
		}
		return nil
	})
	if err != nil {
		return err
	}
	k.last = n < k.limit && !cut
	if c.server.mariadb() {
		_, err := c.do(ctx, "COMMIT")
		return err
	}
	status, err := c.logStatus(ctx)
	if err != nil {
		return err
	}
	k.high, err = status.position()
	return err
}

// waitVisible returns when a SELECT shows everything up to low, the end of the
// last transaction of the set.
func (c *conn) waitVisible(ctx context.Context, low position, gtid string) error {
	if c.server.mariadb() {
		for {
			at, err := c.beginSnapshot(ctx)
			if err != nil {
				return err
			}
			if _, err := c.do(ctx, "COMMIT"); err != nil {
				return err
			}
			high, err := at.position()
			if err != nil || !high.less(low) {
				return err
			}
			if err := sleep(ctx, time.Millisecond); err != nil {
				return err
			}
		}
	}
	if gtid == "" {
		return nil
	}
	for { // a transaction may be long in coming, where it waits for a semi-synchronous replica
		rows, err := c.rows(ctx, "SELECT WAIT_FOR_EXECUTED_GTID_SET("+quoteText(gtid)+",10)")
		if err != nil || rows[0][0] == "0" {
			return err
		}
	}
}

// beginSnapshot starts a transaction that sees the state at one place of the
// binlog, which MariaDB tells.
func (c *conn) beginSnapshot(ctx context.Context) (logStatus, error) {
	if _, err := c.do(ctx, "START TRANSACTION WITH CONSISTENT SNAPSHOT"); err != nil {
		return logStatus{}, err
	}
	rows, err := c.rows(ctx, "SHOW STATUS LIKE 'binlog_snapshot_%'")
	if err != nil {
		return logStatus{}, err
	}
	var l logStatus
	for _, r := range rows {
		switch strings.ToLower(r[0]) {
		case "binlog_snapshot_file":
			l.file = r[1]
		case "binlog_snapshot_position":
			n, err := strconv.ParseUint(r[1], 10, 32)
			if err != nil {
				return l, fmt.Errorf("binlog position %q: %w", r[1], err)
			}
			l.pos = uint32(n)
		}
	}
	return l, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
