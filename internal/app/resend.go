package app

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"

	"leat"
	"leat/internal/bus"
	"leat/internal/codec"
)

// Resend sends the latest events of documents, or of whole sources, through the
// flow again, and has them applied where they are held already: for an index
// that is damaged. It returns how many.
func (a *App) Resend(ctx context.Context, document, sourceName string) (n int, err error) {
	prefix := ""
	if sourceName != "" {
		if err := a.knowsSources([]string{sourceName}); err != nil {
			return 0, err
		}
		for _, s := range a.cfg.Sources {
			if isSource(s, sourceName) {
				prefix = leat.DocumentID(s.Kind(), s.Name) + "/"
			}
		}
	}
	err = a.withProducer(ctx, func(conn connection, p *bus.Producer) error {
		return a.resend(ctx, conn, p, true, func(id string) bool {
			if id != document && (prefix == "" || !strings.HasPrefix(id, prefix)) {
				return false
			}
			n++
			return true
		})
	})
	if err == nil && n == 0 && document != "" {
		err = leat.Hint(fmt.Errorf("the documents topic holds no event of %q: %w", document, leat.ErrNotFound),
			"ids look like mysql:NAME/db.table/key, s3:NAME/key or folder:NAME/path; `leat verify --repair` asks the source")
	}
	return n, err
}

// mender adds events to the documents topic beside a running pipeline. The topic
// is compacted by offset: the last record of a document has to be its newest
// version, whatever came while an older one was on its way.
type mender struct {
	*App
	conn   connection
	out    *bus.Producer
	cursor []int64 // by partition, up to which has been read what came meanwhile
	batch  []bus.Record
	came   map[uint64]uint64 // versions of others' events that did, by the hash of the id
}

func (a *App) newMender(ctx context.Context, conn connection, p *bus.Producer) (*mender, error) {
	ends, err := conn.EndOffsets(ctx, a.topics().Documents)
	return &mender{App: a, conn: conn, out: p, cursor: ends, came: map[uint64]uint64{}}, err
}

const menderBatch = 500

func (m *mender) add(ctx context.Context, r bus.Record) error {
	if e, err := codec.DecodeEvent(r); err == nil && m.came[xxhash.Sum64(r.Key)] > e.Version {
		return nil
	}
	if m.batch = append(m.batch, r); len(m.batch) < menderBatch {
		return nil
	}
	return m.flush(ctx)
}

// flush makes the batch durable. Of its documents that have got a newer version
// meanwhile, that one is sent once more.
func (m *mender) flush(ctx context.Context) error {
	from := slices.Clone(m.cursor)
	for send := m.batch; len(send) > 0; {
		if err := m.out.Produce(ctx, send...); err != nil {
			return err
		}
		type history struct {
			newest  bus.Record
			version uint64
			last    uint64
		}
		of := make(map[string]*history, len(m.batch))
		for _, r := range m.batch {
			of[string(r.Key)] = &history{}
		}
		ends, err := m.conn.EndOffsets(ctx, m.topics().Documents)
		if err != nil {
			return err
		}
		for partition := range ends {
			err := m.conn.ReadRange(ctx, m.topics().Documents, partition, from[partition], ends[partition], func(r bus.Record) error {
				e, err := codec.DecodeEvent(r)
				if err != nil {
					return nil // the chunker makes a dead letter of it
				}
				h := of[string(r.Key)]
				if h == nil {
					m.came[xxhash.Sum64(r.Key)] = e.Version
					return nil
				}
				if h.last = e.Version; e.Version >= h.version {
					h.newest, h.version = r, e.Version
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		send = nil
		for _, h := range of {
			if h.last < h.version {
				send = append(send, h.newest)
			}
		}
		m.cursor = ends
	}
	m.batch = m.batch[:0]
	return nil
}

// versions are those of the latest events of documents, by id.
func (m *mender) versions(ctx context.Context, ids []string) (map[string]uint64, error) {
	of := make(map[string]uint64, len(ids))
	for _, id := range ids {
		of[id] = 0
	}
	for partition, end := range m.cursor {
		err := m.conn.ReadRange(ctx, m.topics().Documents, partition, 0, end, func(r bus.Record) error {
			if v, asked := of[string(r.Key)]; asked {
				if e, err := codec.DecodeEvent(r); err == nil {
					of[string(r.Key)] = max(v, e.Version)
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return of, nil
}

// resend produces the latest events of the documents that are wanted once more;
// wanted is asked once for each. It holds some 40 bytes for each document of a
// partition.
func (a *App) resend(ctx context.Context, conn connection, p *bus.Producer, again bool, wanted func(id string) bool) error {
	m, err := a.newMender(ctx, conn, p)
	if err != nil {
		return err
	}
	topic := a.topics().Documents
	for partition, end := range slices.Clone(m.cursor) {
		latest := map[uint64]int64{} // offsets, by the hash of the id
		err := conn.ReadRange(ctx, topic, partition, 0, end, func(r bus.Record) error {
			latest[xxhash.Sum64(r.Key)] = r.Offset
			return nil
		})
		if err != nil {
			return err
		}
		err = conn.ReadRange(ctx, topic, partition, 0, end, func(r bus.Record) error {
			if latest[xxhash.Sum64(r.Key)] != r.Offset || !wanted(string(r.Key)) {
				return nil
			}
			if again {
				r = codec.MarkAgain(r)
			}
			return m.add(ctx, r)
		})
		if err != nil {
			return err
		}
	}
	return m.flush(ctx)
}
