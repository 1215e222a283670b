package mysql

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/go-mysql-org/go-mysql/client"
	gomysql "github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/replication"
)

// queueBytes bounds what is read from the binlog ahead of its conversion (I8).
// One event larger than this passes alone.
const queueBytes = 8 << 20

// item is an event as the stream gives it. rows are the row images of each
// rows event in it, undecoded: one, or those of a compressed transaction.
type item struct {
	*replication.BinlogEvent
	rows [][]byte
}

// stream reads the binlog in a goroutine of go-mysql's, which decodes all but
// the rows, and queues the events for the one that converts rows.
type stream struct {
	syncer *replication.BinlogSyncer
	rows   [][]byte // of the event being parsed

	mu     sync.Mutex
	items  []item
	bytes  int
	err    error
	closed bool
	space  sync.Cond     // the queue was emptied
	ready  chan struct{} // there are items, or an error
	ended  chan struct{} // go-mysql's goroutine is gone
}

// openStream asks for all transactions that are not in set. The end of ctx
// breaks its connection; it is to be closed after that.
func (s *Source) openStream(ctx context.Context, v *server, set gomysql.GTIDSet) (*stream, error) {
	cfg, err := s.syncerConfig(ctx, v, s.cfg.replicaID(s.name, ""))
	if err != nil {
		return nil, err
	}
	st := &stream{ready: make(chan struct{}, 1), ended: make(chan struct{})}
	st.space.L = &st.mu
	cfg.SynchronousEventHandler = st
	cfg.RowsEventDecodeFunc = st.decodeRows
	// A pipeline that is slow for minutes must not cost the connection.
	cfg.Option = func(c *client.Conn) error {
		_, err := c.Execute("SET SESSION net_write_timeout=3600")
		return err
	}
	st.syncer = replication.NewBinlogSyncer(cfg)
	inner, err := st.syncer.StartSyncGTID(set.Clone())
	if err != nil {
		st.syncer.Close()
		return nil, s.explain(err, readingBinlog)
	}
	go func() {
		defer close(st.ended)
		// Events come by HandleEvent; this only ever brings the end.
		_, err := inner.GetEvent(context.Background())
		if err == nil {
			err = fmt.Errorf("unexpected event")
		}
		st.fail(s.explain(err, readingBinlog))
	}()
	return st, nil
}

// decodeRows leaves the rows as they are: most columns, and all rows of other
// tables, are never looked at.
func (st *stream) decodeRows(e *replication.RowsEvent, data []byte) error {
	n, err := e.DecodeHeader(data)
	if err != nil {
		return err
	}
	st.rows = append(st.rows, data[n:])
	return nil
}

// HandleEvent queues an event; go-mysql calls it right after parsing it.
func (st *stream) HandleEvent(e *replication.BinlogEvent) error {
	it := item{BinlogEvent: e}
	size := len(e.RawData)
	if len(st.rows) > 0 {
		it.rows, st.rows = st.rows, nil
	}
	if p, ok := e.Event.(*replication.TransactionPayloadEvent); ok {
		size += int(p.UncompressedSize)
	}
	st.mu.Lock()
	for st.bytes > 0 && st.bytes+size > queueBytes && !st.closed {
		st.space.Wait()
	}
	st.items = append(st.items, it)
	st.bytes += size
	closed := st.closed
	st.mu.Unlock()
	if closed {
		return replication.ErrSyncClosed
	}
	st.wake()
	return nil
}

func (st *stream) wake() {
	select {
	case st.ready <- struct{}{}:
	default:
	}
}

func (st *stream) fail(err error) {
	st.mu.Lock()
	st.err = err
	st.mu.Unlock()
	st.wake()
}

// take moves the queued events to into, which it returns. An error comes after
// the events that were read before it.
func (st *stream) take(into []item) ([]item, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	taken := st.items
	st.items, st.bytes = into[:0], 0
	st.space.Signal()
	if len(taken) == 0 {
		return taken, st.err
	}
	return taken, nil
}

func (st *stream) close() {
	st.mu.Lock()
	st.closed = true
	st.mu.Unlock()
	st.space.Broadcast()
	st.syncer.Close()
	<-st.ended
}

// eventTime of an event without a finer clock.
func eventTime(h *replication.EventHeader) time.Time {
	return time.Unix(int64(h.Timestamp), 0).UTC()
}
