package mysql

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	gomysql "github.com/go-mysql-org/go-mysql/mysql"

	"leat"
)

const (
	firstRows    = 500      // of the first chunk
	chunkBytes   = 4 << 20  // what chunks are sized to
	chunkLimit   = 16 << 20 // after which rows of one wait for the next
	maxChunkRows = 8192
)

// chunk is a range of a table's rows, by primary key.
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

func (c *chunk) note(id string) {
	if c.touched == nil {
		c.touched = map[string]struct{}{}
	}
	if c.touched[id] = struct{}{}; len(c.touched) > maxTouched {
		c.void, c.touched = true, nil
	}
}

// next is how many rows the chunk after it is asked for.
func (c *chunk) next() int {
	if c.bytes == 0 || c.last {
		return c.limit
	}
	return min(max(c.limit*chunkBytes/c.bytes, 16), maxChunkRows)
}

// readChunk reads k's rows, in a state that holds everything up to k.low.
func (c *conn) readChunk(ctx context.Context, k *chunk, source string) error {
	return c.unaltered(ctx, func() error { return c.tryChunk(ctx, k, source) })
}

// unaltered tries again what fails because a table was altered after the
// consistent snapshot was taken.
func (c *conn) unaltered(ctx context.Context, read func() error) error {
	for tries := 1; ; tries++ {
		err := read()
		var e *gomysql.MyError
		if !errors.As(err, &e) || e.Code != erTableDefChanged || tries == 10 {
			return err
		}
		if _, err := c.do(ctx, "ROLLBACK"); err != nil {
			return err
		}
	}
}

func (c *conn) tryChunk(ctx context.Context, k *chunk, source string) (err error) {
	if c.server.mariadb() {
		k.high, err = c.snapshotFrom(ctx, k.low)
	} else {
		err = c.waitVisible(ctx, k.low, k.gtid)
	}
	if err != nil {
		return err
	}
	if err := c.selectChunk(ctx, k, source); err != nil {
		return err
	}
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

// selectChunk fills in what k says of its rows.
func (c *conn) selectChunk(ctx context.Context, k *chunk, source string) error {
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
	k.last = n < k.limit && !cut
	return err
}
