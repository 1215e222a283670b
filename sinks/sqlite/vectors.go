package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"leat"
)

// VectorIndex finds chunks by their vectors: an exact scan, cosine.
type VectorIndex struct {
	sink
	model  leat.Model
	matrix *matrix
}

var _ leat.VectorIndex = (*VectorIndex)(nil)

// Model returns the model whose vectors a generation holds. It fails with
// fs.ErrNotExist where the file has no vector index of it.
func (s *Store) Model(ctx context.Context, generation int) (m leat.Model, err error) {
	err = s.read.tx(ctx, tables("vectors", generation), func(c *conn) error {
		if ok, err := there(c); err != nil || !ok {
			return cmp.Or(err, s.missing("vectors", generation))
		}
		m, err = model(c)
		return err
	})
	return m, err
}

func model(c *conn) (m leat.Model, err error) {
	var b string
	if err := c.scan("SELECT model FROM $_model", nil, &b); err != nil {
		return m, err
	}
	return m, json.Unmarshal([]byte(b), &m)
}

// Vectors returns the vector index of a generation, for vectors of the model. A
// store opened for writing makes it where it is missing; another fails with
// fs.ErrNotExist. It fails with leat.ErrMismatch where the index holds vectors
// of another model.
func (s *Store) Vectors(generation int, m leat.Model) (*VectorIndex, error) {
	if m.Dimension <= 0 {
		return nil, fmt.Errorf("model %q: %d is not a dimension", m.Name, m.Dimension)
	}
	table, err := s.open("vectors", generation, sinkTables, func(c *conn, made bool) error {
		if made {
			b, err := json.Marshal(m)
			if err != nil {
				return err
			}
			return c.exec("INSERT INTO $_model VALUES (?)", string(b))
		}
		kept, err := model(c)
		if err != nil {
			return err
		}
		if kept.Name != m.Name || kept.Dimension != m.Dimension {
			return leat.Hint(fmt.Errorf("generation %d holds vectors of %s (%d dimensions), not of %s (%d): %w",
				generation, kept.Name, kept.Dimension, m.Name, m.Dimension, leat.ErrMismatch),
				"run `leat reindex` to embed everything with the new model, or configure %s again", kept.Name)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &VectorIndex{
		sink:   sink{store: s, table: table, kind: vectorContents{m}},
		model:  m,
		matrix: newMatrix(m.Dimension, s.cfg.vectorBytes()),
	}, nil
}

// vectorContents keeps the vectors of chunks, as little-endian float32.
type vectorContents struct{ model leat.Model }

func (k vectorContents) data(ch *leat.Chunk) ([]byte, error) {
	if len(ch.Vector) != k.model.Dimension {
		return nil, leat.Hint(fmt.Errorf("a vector of %d dimensions, not of %d: %w", len(ch.Vector), k.model.Dimension, leat.ErrMismatch),
			"run `leat reindex` to embed everything with one model")
	}
	var norm float64
	for _, x := range ch.Vector {
		norm += float64(x) * float64(x)
	}
	if !(math.Abs(norm-1) < 0.01) { // NaN too
		return nil, leat.Permanent(fmt.Errorf("a vector of length %g, not 1", math.Sqrt(norm)))
	}
	return encodeVector(ch.Vector), nil
}

func (vectorContents) digest(_ string, _ []string, data []byte) []byte { return digest(data) }

// Vectors are searched in memory, from the table of contents alone.
func (vectorContents) index(*conn, int64, *leat.Revision, *leat.Chunk) error { return nil }
func (vectorContents) unindex(*conn, int64) error                            { return nil }
func (vectorContents) indexed() (column, join string)                        { return "o.no", "" }

// A chunk may be missing that the model refused, and there is no text.
func (vectorContents) whole() bool { return false }

// Chunks implements [leat.Sink]. They carry vectors and no text.
func (v *VectorIndex) Chunks(ctx context.Context, id string) ([]leat.Chunk, error) {
	return v.chunks(ctx, id, func(ch *leat.Chunk, data []byte) {
		ch.Vector = make([]float32, len(data)/4)
		decodeVector(ch.Vector, data)
	})
}

// SearchVector implements [leat.VectorIndex].
func (v *VectorIndex) SearchVector(ctx context.Context, vector []float32, limit int) ([]leat.Match, error) {
	if len(vector) != v.model.Dimension {
		return nil, fmt.Errorf("a query of %d dimensions for an index of %d: %w", len(vector), v.model.Dimension, leat.ErrMismatch)
	}
	if limit <= 0 {
		return nil, nil
	}
	if err := v.matrix.load(ctx, v.store.read, v.table); err != nil {
		return nil, fmt.Errorf("store %s: load vectors: %w", v.store.path, err)
	}
	var found []leat.Match
	err := v.store.read.tx(ctx, v.table, func(c *conn) error {
		vectors, fit, err := v.matrix.follow(c)
		if err != nil {
			return err
		}
		nearest := func(n int) ([]scored, error) { return vectors.top(vector, n), nil }
		if !fit {
			nearest = func(n int) ([]scored, error) { return scan(c, vector, n) }
		}
		// Contents that are gone, or wait for their version's last part, are
		// found as well: look further where leaving them out leaves too few.
		for n := limit + limit/4 + 8; ; n *= 4 {
			best, err := nearest(n)
			if err != nil {
				return err
			}
			if found, err = v.searchable(c, best, limit); err != nil || len(found) == limit || len(best) < n {
				return err
			}
		}
	})
	if err != nil {
		return nil, fmt.Errorf("store %s: search vectors: %w", v.store.path, err)
	}
	return found, nil
}

// searchable makes matches of the first limit contents that held versions have.
func (v *VectorIndex) searchable(c *conn, best []scored, limit int) ([]leat.Match, error) {
	found := make([]leat.Match, 0, limit)
	for _, s := range best {
		m := leat.Match{Score: float64(s.score)}
		err := c.scan(`SELECT d.id, d.version, o.chunk, k.start
			FROM $_contents AS o JOIN $_documents AS d ON d.no = o.doc
			JOIN $_chunks AS k ON k.content = o.no AND k.version = d.version
			WHERE o.no = ? LIMIT 1`, []any{s.no}, &m.Document, &m.Version, &m.Chunk, &m.Start)
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if found = append(found, m); len(found) == limit {
			break
		}
	}
	return found, nil
}

// scan reads every vector from the file: for an index that does not fit the
// memory it may use.
func scan(c *conn, query []float32, n int) ([]scored, error) {
	t := topN{most: n}
	row := make([]float32, len(query))
	err := c.each("SELECT no, data FROM $_contents", nil, func(rows *sql.Rows) error {
		var no int64
		var data sql.RawBytes
		if err := rows.Scan(&no, &data); err != nil {
			return err
		}
		decodeVector(row, data)
		t.add(no, dot(query, row))
		return nil
	})
	return t.sorted(), err
}
