package mysql

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	gomysql "github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/replication"

	"leat"
)

// transaction is the one being read, if any.
type transaction struct {
	open     bool // from its GTID event to its end
	body     bool // its first statement was read: BEGIN, or XA START
	xa       bool
	gtid     *replication.GTIDEvent
	gtidMDB  *replication.MariadbGTIDEvent
	time     time.Time
	maps     map[uint64]*mapLayout // by table id; nil: not captured
	captured map[*table]bool       // tables with changes in it
	changes  []schemaChange        // to judge when it has ended
}

// artificial events are made by the server for this connection and stand at no
// place in the binlog.
const artificial = replication.LOG_EVENT_ARTIFICIAL_F

// apply takes one event of the stream.
func (r *run) apply(ctx context.Context, it *item) error {
	h := it.Header
	if e, ok := it.Event.(*replication.RotateEvent); ok {
		return r.rotate(string(e.NextLogName), uint32(e.Position))
	}
	if h.EventType == replication.HEARTBEAT_EVENT {
		if string(it.Event.(*replication.HeartbeatEvent).Filename) == r.file && h.LogPos > 0 {
			r.seen.pos = h.LogPos
		}
		return nil
	}
	if h.LogPos == 0 || h.Flags&artificial != 0 {
		return nil
	}
	start := position{r.number, h.LogPos - h.EventSize}
	r.seen = position{r.number, h.LogPos}
	switch e := it.Event.(type) {
	case *replication.GTIDEvent:
		if h.EventType == replication.ANONYMOUS_GTID_EVENT {
			return leat.Hint(fmt.Errorf("the binlog has a transaction without GTID at %s:%d", r.file, start.pos),
				"set gtid_mode=ON, then leat reindex --from-source")
		}
		return r.beginTransaction(start, h, e, nil)
	case *replication.GtidTaggedLogEvent:
		return r.beginTransaction(start, h, &e.GTIDEvent, nil)
	case *replication.MariadbGTIDEvent:
		return r.beginTransaction(start, h, nil, e)
	case *replication.TableMapEvent:
		return r.tableMap(e, it.RawData)
	case *replication.RowsEvent:
		return r.rows(ctx, h.EventType, e, it.rows[0], start.pos, r.add)
	case *replication.TransactionPayloadEvent:
		return r.payload(ctx, it, e, start)
	case *replication.QueryEvent:
		return r.query(ctx, string(e.Schema), string(e.Query))
	case *replication.XIDEvent:
		return r.commit(ctx)
	}
	if h.EventType == replication.XA_PREPARE_LOG_EVENT {
		if onePhase := len(it.RawData) > replication.EventHeaderSize && it.RawData[replication.EventHeaderSize] == 1; !onePhase {
			for t := range r.captured {
				r.state.Tables[t.name].Prepared = true
			}
		}
		return r.commit(ctx)
	}
	return nil
}

// rotate: the stream goes on in another file.
func (r *run) rotate(file string, pos uint32) error {
	n, err := fileNumber(file)
	if err != nil {
		return err
	}
	r.file, r.number = file, n
	r.seen = position{n, pos}
	if !r.open && r.end.less(r.seen) {
		r.end, r.moved = r.seen, true
	}
	return nil
}

func (r *run) beginTransaction(start position, h *replication.EventHeader, e *replication.GTIDEvent, m *replication.MariadbGTIDEvent) error {
	if start.less(r.end) {
		// Positions go back where a history begins again (a reset server) and
		// where a file has grown past 4 GiB. It is found again on every read.
		if err := r.raiseEpoch(); err != nil {
			return err
		}
	}
	maps, captured := r.maps, r.captured
	clear(maps)
	clear(captured)
	if maps == nil {
		maps, captured = map[uint64]*mapLayout{}, map[*table]bool{}
	}
	r.transaction = transaction{open: true, gtid: e, gtidMDB: m, maps: maps, captured: captured, time: eventTime(h)}
	if m != nil {
		r.body = !m.IsStandalone()
	} else if e.OriginalCommitTimestamp != 0 {
		r.time = time.UnixMicro(int64(e.OriginalCommitTimestamp)).UTC()
	}
	return nil
}

// commit ends the transaction: a place to resume at.
func (r *run) commit(ctx context.Context) error {
	if !r.open {
		return nil
	}
	if r.gtid != nil {
		if err := r.set.add(r.gtid); err != nil {
			return err
		}
	} else {
		r.set.addMariaDB(r.gtidMDB)
	}
	r.open = false
	r.end, r.moved = r.seen, true
	if len(r.out) >= batchEvents || r.outBytes >= batchBytes {
		if err := r.flush(ctx); err != nil {
			return err
		}
	}
	if len(r.changes) > 0 {
		// Like rows, a change of schema can be read before it is visible.
		if err := r.c.waitVisible(ctx, r.end, r.set.String()); err != nil {
			return r.s.explain(err, "waiting for transactions on")
		}
		for _, c := range r.changes {
			r.judge(ctx, c)
		}
	}
	if len(r.resyncs) > 0 {
		return r.resync(ctx)
	}
	if r.snapshot.reading != nil || len(r.snapshot.read) > 0 {
		return r.advanceSnapshot(ctx)
	}
	return nil
}

// tableMap notes how the rows that follow are read.
func (r *run) tableMap(e *replication.TableMapEvent, raw []byte) error {
	// The map's bytes past its table id are the schema: equal bytes, equal layout.
	const idEnd = replication.EventHeaderSize + 6
	l, ok := r.layouts[string(raw[idEnd:])]
	if !ok {
		if t := r.tables[string(e.Schema)+"."+string(e.Table)]; t != nil {
			var err error
			if l, err = newMapLayout(t, e, r.server.charsetOf); err != nil {
				return err
			}
		}
		if len(r.layouts) > 10000 {
			clear(r.layouts)
		}
		r.layouts[string(raw[idEnd:])] = l
	}
	r.maps[e.TableID] = l
	return nil
}

// emitter takes an event and its size in bytes.
type emitter func(context.Context, leat.Event, int) error

// rows makes events of one rows event that begins at start.
func (r *run) rows(ctx context.Context, typ replication.EventType, e *replication.RowsEvent, data []byte, start uint32, emit emitter) error {
	l := r.maps[e.TableID]
	if l == nil {
		return nil
	}
	t := l.table
	switch typ {
	case replication.PARTIAL_UPDATE_ROWS_EVENT:
		return leat.Hint(fmt.Errorf("the binlog holds only part of changed JSON values of table %s", t.name),
			"SET GLOBAL binlog_row_value_options='' (and in sessions that set it otherwise), then leat reindex --from-source")
	case replication.MARIADB_WRITE_ROWS_COMPRESSED_EVENT_V1, replication.MARIADB_UPDATE_ROWS_COMPRESSED_EVENT_V1, replication.MARIADB_DELETE_ROWS_COMPRESSED_EVENT_V1:
		var err error
		if data, err = gomysql.DecompressMariadbData(data); err != nil {
			return fmt.Errorf("rows of table %s: %w", t.name, err)
		}
	}
	columns := len(l.steps)
	if !full(e.ColumnBitmap1, columns) || len(e.ColumnBitmap2) > 0 && !full(e.ColumnBitmap2, columns) {
		return leat.Hint(fmt.Errorf("the binlog holds only part of the rows of table %s", t.name),
			"SET GLOBAL binlog_row_image=FULL (and in sessions that set it otherwise), then leat reindex --from-source")
	}
	if int(e.ColumnCount) != columns {
		return fmt.Errorf("table %s: %d columns in its map, %d in its rows: %w", t.name, columns, e.ColumnCount, errRow)
	}
	r.captured[t] = true
	if p := r.state.Tables[t.name]; p != nil && p.Seen != l.shape {
		if p.Seen != "" {
			r.resyncs[t] = "its columns have changed"
		}
		p.Seen = l.shape
	}
	if n := len(l.columns); cap(r.cells) < n {
		r.cells, r.before = make([]cell, n), make([]cell, n)
	}
	cells, before := r.cells[:len(l.columns)], r.before[:len(l.columns)]
	kind := e.Type()
	// Rows count from the event's start: an event has more bytes than rows, so
	// no two share a version and all stand before the next event's.
	v := version(r.state.Epoch, position{r.number, start})
	for ; len(data) > 0; v++ {
		var err error
		switch kind {
		case replication.EnumRowsEventTypeInsert:
			if data, r.scratch, err = l.decode(data, cells, r.scratch[:0]); err == nil {
				err = r.changed(ctx, t, l, cells, v, emit)
			}
		case replication.EnumRowsEventTypeDelete:
			if data, r.scratch, err = l.decode(data, cells, r.scratch[:0]); err == nil {
				err = r.deleted(ctx, t, l, cells, v, emit)
			}
		case replication.EnumRowsEventTypeUpdate:
			if data, r.scratch, err = l.decode(data, before, r.scratch[:0]); err != nil {
				return err
			}
			if data, r.scratch, err = l.decode(data, cells, r.scratch); err != nil {
				return err
			}
			if !l.sameKey(before, cells) { // another id: another document
				if err = r.deleted(ctx, t, l, before, v, emit); err != nil {
					return err
				}
			}
			err = r.changed(ctx, t, l, cells, v, emit)
		default:
			err = fmt.Errorf("table %s: rows event of type %s", t.name, typ)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *layout) sameKey(a, b []cell) bool {
	for _, k := range l.key {
		if a[k].n != b[k].n || string(a[k].b) != string(b[k].b) {
			return false
		}
	}
	return true
}

func (r *run) changed(ctx context.Context, t *table, l *mapLayout, cells []cell, v uint64, emit emitter) error {
	e, size := r.maker.changed(t, &l.layout, cells, v, r.time)
	r.snapshot.touched(t, e.ID)
	return emit(ctx, e, size)
}

func (r *run) deleted(ctx context.Context, t *table, l *mapLayout, cells []cell, v uint64, emit emitter) error {
	e := r.maker.deleted(t, &l.layout, cells, v, r.time)
	r.snapshot.touched(t, e.ID)
	return emit(ctx, e, len(e.ID)+128)
}

// payload applies a compressed transaction: all its events stand at one
// position, so only the last change of each document is given.
func (r *run) payload(ctx context.Context, it *item, p *replication.TransactionPayloadEvent, start position) error {
	var events []leat.Event
	var sizes []int
	last := map[string]int{} // document: its place in events
	gather := func(_ context.Context, e leat.Event, size int) error {
		e.Version = version(r.state.Epoch, start)
		if i, ok := last[e.ID]; ok {
			events[i], sizes[i] = e, size
			return nil
		}
		last[e.ID] = len(events)
		events, sizes = append(events, e), append(sizes, size)
		return nil
	}
	rows := it.rows
	ended := false
	for _, inner := range p.Events {
		switch e := inner.Event.(type) {
		case *replication.TableMapEvent:
			if err := r.tableMap(e, inner.RawData); err != nil {
				return err
			}
		case *replication.RowsEvent:
			if err := r.rows(ctx, inner.Header.EventType, e, rows[0], start.pos, gather); err != nil {
				return err
			}
			rows = rows[1:]
		case *replication.QueryEvent:
			if strings.EqualFold(string(e.Query), "COMMIT") {
				ended = true
			} else if err := r.query(ctx, string(e.Schema), string(e.Query)); err != nil {
				return err
			}
		case *replication.XIDEvent:
			ended = true
		}
	}
	for i, e := range events {
		if err := r.add(ctx, e, sizes[i]); err != nil {
			return err
		}
	}
	if !ended {
		return errors.New("a compressed transaction in the binlog has no end")
	}
	return r.commit(ctx)
}
