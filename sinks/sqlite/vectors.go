package sqlite

import (
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

// Model returns the model whose vectors the file holds, the zero Model if none yet.
func (s *Store) Model(ctx context.Context) (m leat.Model, err error) {
	err = s.read.tx(ctx, vectorsPrefix, func(c *conn) error {
		var b string
		err := c.scan("SELECT model FROM $_model", nil, &b)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		return json.Unmarshal([]byte(b), &m)
	})
	return m, err
}

// Vectors returns the store's vector index for vectors of the model. It fails
// with leat.ErrMismatch where the file holds vectors of another.
func (s *Store) Vectors(model leat.Model) (*VectorIndex, error) {
	if model.Dimension <= 0 {
		return nil, fmt.Errorf("model %q: %d is not a dimension", model.Name, model.Dimension)
	}
	v := &VectorIndex{
		sink:   sink{store: s, table: vectorsPrefix, kind: vectorContents{model}},
		model:  model,
		matrix: newMatrix(model.Dimension, s.cfg.vectorBytes()),
	}
	p := s.read
	if s.write != nil {
		p = s.write
	}
	err := p.tx(context.Background(), v.table, func(c *conn) error {
		var b string
		err := c.scan("SELECT model FROM $_model", nil, &b)
		if errors.Is(err, sql.ErrNoRows) {
			if s.write == nil {
				return nil
			}
			b, err := json.Marshal(model)
			if err != nil {
				return err
			}
			return c.exec("INSERT INTO $_model VALUES (?)", string(b))
		}
		if err != nil {
			return err
		}
		var kept leat.Model
		if err := json.Unmarshal([]byte(b), &kept); err != nil {
			return err
		}
		if kept.Name != model.Name || kept.Dimension != model.Dimension {
			return leat.Hint(fmt.Errorf("it holds vectors of %s (%d dimensions), not of %s (%d): %w",
				kept.Name, kept.Dimension, model.Name, model.Dimension, leat.ErrMismatch),
				"run `leat reindex` to embed everything with the new model, or configure %s again", kept.Name)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("store %s: %w", s.path, err)
	}
	return v, nil
}

// vectorContents keeps the vectors of chunks, as little-endian float32.
type vectorContents struct{ model leat.Model }

func (k vectorContents) data(_ *leat.Revision, ch *leat.Chunk) (any, []string, error) {
	if len(ch.Vector) != k.model.Dimension {
		return nil, nil, leat.Hint(fmt.Errorf("a vector of %d dimensions, not of %d: %w", len(ch.Vector), k.model.Dimension, leat.ErrMismatch),
			"run `leat reindex` to embed everything with one model")
	}
	var norm float64
	for _, x := range ch.Vector {
		norm += float64(x) * float64(x)
	}
	if !(math.Abs(norm-1) < 0.01) { // NaN too
		return nil, nil, leat.Permanent(fmt.Errorf("a vector of length %g, not 1", math.Sqrt(norm)))
	}
	b := encodeVector(ch.Vector)
	return b, []string{string(b)}, nil
}

// Vectors are searched in memory, from the table of contents alone.
func (vectorContents) index(*conn, int64, *leat.Revision, *leat.Chunk) error { return nil }
func (vectorContents) unindex(*conn, int64) error                            { return nil }

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
