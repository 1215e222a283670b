package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/binary"
	"math"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
)

// matrix keeps the vectors of an index in memory, in step with the file: a
// content's number is never used twice, so what is new has higher numbers.
// What is gone from the file stays until it makes up a fifth, then everything
// is read again: a search looks up what it found in the file anyway.
type matrix struct {
	dim  int
	most int64 // contents; past it nothing is kept in memory (I8)

	loading sync.Mutex // taken outside of transactions only
	mu      sync.Mutex // of what follows; never held while waiting for a connection
	view    view
	made    int64 // the index that the view is of: a dropped one's numbers come again
	file    int64 // contents in the file when it was last looked at
}

// view is the matrix as one search uses it.
type view struct {
	blocks []block
	rows   int64
	last   int64 // the highest number in it
}

// block is a run of vectors; a view grows by blocks, without being copied.
type block struct {
	nos  []int64
	data []float32 // len(nos) vectors
}

const blockRows = 512

func newMatrix(dim, bytes int) *matrix {
	return &matrix{dim: dim, most: int64(bytes / (4*dim + 8))}
}

// load reads all of the file's vectors, by two connections, where follow would
// have much to read or to forget. Call it outside of a transaction.
func (m *matrix) load(ctx context.Context, p *pool, table string) error {
	m.loading.Lock()
	defer m.loading.Unlock()
	m.mu.Lock()
	inStep := m.view.rows > 0 && m.view.rows <= m.file+m.file/4+blockRows
	m.mu.Unlock()
	if inStep {
		return nil
	}
	var first, last, held, made int64
	if err := p.tx(ctx, table, func(c *conn) error {
		return c.scan(`SELECT contents, made, (SELECT coalesce(min(no), 0) FROM $_contents), (SELECT coalesce(max(no), 0) FROM $_contents)
			FROM $_totals`, nil, &held, &made, &first, &last)
	}); err != nil || held == 0 || held > m.most {
		return err
	}
	mid := first + (last-first)/2
	bounds := []int64{first - 1, mid, last}
	var halves [2]view
	g, gctx := errgroup.WithContext(ctx)
	for i := range halves {
		g.Go(func() error {
			return p.tx(gctx, table, func(c *conn) error {
				return halves[i].read(c, bounds[i], bounds[i+1], m.dim)
			})
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.view = view{append(halves[0].blocks, halves[1].blocks...), halves[0].rows + halves[1].rows, last}
	m.file, m.made = held, made
	return nil
}

// follow returns the vectors as the transaction sees them (and perhaps some
// that are gone); false where they are more than may be kept.
func (m *matrix) follow(c *conn) (view, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var made int64
	if err := c.scan("SELECT contents, made FROM $_totals", nil, &m.file, &made); err != nil {
		return view{}, false, err
	}
	if made != m.made {
		m.view, m.made = view{}, made
	}
	if m.file > m.most {
		m.view = view{}
		return view{}, false, nil
	}
	newest, err := c.int("SELECT coalesce(max(no), 0) FROM $_contents")
	if err != nil || newest <= m.view.last {
		return m.view, true, err
	}
	v := m.view
	v.blocks = slices.Clone(v.blocks) // those of other views keep their ends
	if err := v.read(c, v.last, newest, m.dim); err != nil {
		return view{}, false, err
	}
	m.view = v
	return v, true, nil
}

// read adds the contents with numbers above from, up to to.
func (v *view) read(c *conn, from, to int64, dim int) error {
	err := c.each("SELECT no, data FROM $_contents WHERE no > ? AND no <= ?", []any{from, to}, func(rows *sql.Rows) error {
		var no int64
		var data sql.RawBytes
		if err := rows.Scan(&no, &data); err != nil {
			return err
		}
		b := len(v.blocks) - 1
		if b < 0 || len(v.blocks[b].nos) == cap(v.blocks[b].nos) {
			v.blocks = append(v.blocks, block{make([]int64, 0, blockRows), make([]float32, 0, blockRows*dim)})
			b++
		}
		k := &v.blocks[b]
		k.nos = append(k.nos, no)
		k.data = k.data[:len(k.data)+dim]
		decodeVector(k.data[len(k.data)-dim:], data)
		v.rows++
		return nil
	})
	v.last = to
	return err
}

// top returns the n contents nearest to the query, best first.
func (v view) top(query []float32, n int) []scored {
	half := len(v.blocks) / 2
	var parts [2]topN
	var wg sync.WaitGroup
	for i, blocks := range [][]block{v.blocks[:half], v.blocks[half:]} {
		wg.Go(func() {
			parts[i].most = n
			for _, b := range blocks {
				parts[i].addBlock(b, query)
			}
		})
	}
	wg.Wait()
	for _, s := range parts[1].best {
		parts[0].add(s.no, s.score)
	}
	return parts[0].sorted()
}

// addBlock scores four vectors at a time: four sums keep the processor from
// waiting for one, and a number of the query is read once for all.
func (t *topN) addBlock(b block, query []float32) {
	dim, j := len(query), 0
	for ; j+4 <= len(b.nos); j += 4 {
		r0, r1, r2, r3 := b.data[j*dim:][:dim], b.data[(j+1)*dim:][:dim], b.data[(j+2)*dim:][:dim], b.data[(j+3)*dim:][:dim]
		var s0, s1, s2, s3 float32
		for i, x := range query {
			s0 += x * r0[i]
			s1 += x * r1[i]
			s2 += x * r2[i]
			s3 += x * r3[i]
		}
		t.add(b.nos[j], s0)
		t.add(b.nos[j+1], s1)
		t.add(b.nos[j+2], s2)
		t.add(b.nos[j+3], s3)
	}
	for ; j < len(b.nos); j++ {
		t.add(b.nos[j], dot(query, b.data[j*dim:][:dim]))
	}
}

func dot(a, b []float32) (sum float32) {
	b = b[:len(a)]
	for i, x := range a {
		sum += x * b[i]
	}
	return sum
}

type scored struct {
	no    int64
	score float32
}

// topN keeps the best of what it is given: a heap with the worst at its root.
type topN struct {
	most int
	best []scored
}

func worse(a, b scored) bool {
	return a.score < b.score || a.score == b.score && a.no > b.no
}

func (t *topN) add(no int64, score float32) {
	s := scored{no, score}
	if len(t.best) < t.most {
		t.best = append(t.best, s)
		for i := len(t.best) - 1; i > 0; {
			up := (i - 1) / 2
			if !worse(t.best[i], t.best[up]) {
				break
			}
			t.best[i], t.best[up] = t.best[up], t.best[i]
			i = up
		}
		return
	}
	if !worse(t.best[0], s) {
		return
	}
	t.best[0] = s
	for i := 0; ; {
		down := 2*i + 1
		if down+1 < len(t.best) && worse(t.best[down+1], t.best[down]) {
			down++
		}
		if down >= len(t.best) || !worse(t.best[down], t.best[i]) {
			return
		}
		t.best[i], t.best[down] = t.best[down], t.best[i]
		i = down
	}
}

// sorted returns them, best first, and leaves t unusable.
func (t *topN) sorted() []scored {
	slices.SortFunc(t.best, func(a, b scored) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.no, b.no))
	})
	return t.best
}

func encodeVector(v []float32) []byte {
	b := make([]byte, 0, 4*len(v))
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

func decodeVector(v []float32, b []byte) {
	b = b[:4*len(v)]
	for i := range v {
		v[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
}
