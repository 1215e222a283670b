package milvus

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc64"
	"iter"
	"math"
	"strconv"

	"github.com/milvus-io/milvus/client/v2/column"

	"leat"
)

// chunkRow is a row of the chunks collection.
type chunkRow struct {
	key      string
	hash     int64
	document string // its id, escaped
	version  uint64
	chunk    *leat.Chunk // without text and headings
	heading  string      // JSON
	sum      int64       // as it was read, see checksum
}

var chunkFields = []string{
	keyField, hashField, "document", "version", "ordinal", "chunk", "start", "end", "tokens", "page", "heading", vectorField, checksumField,
}

const maxChunkID = 64

func (x *Index) checkChunk(ch *leat.Chunk) error {
	if len(ch.Vector) != x.model.Dimension {
		return leat.Hint(fmt.Errorf("a vector of %d dimensions, not of %d: %w", len(ch.Vector), x.model.Dimension, leat.ErrMismatch),
			"run `leat reindex` to embed everything with one model")
	}
	var norm float64
	for _, v := range ch.Vector {
		norm += float64(v) * float64(v)
	}
	switch {
	case !(math.Abs(norm-1) < 0.01): // NaN too
		return leat.Permanent(fmt.Errorf("a vector of length %g, not 1", math.Sqrt(norm)))
	case len(ch.ID) > maxChunkID:
		return leat.Permanent(fmt.Errorf("an id of %d bytes: %w", len(ch.ID), leat.ErrTooLarge))
	case ch.Ordinal < 0 || ch.Ordinal > math.MaxInt32:
		return leat.Permanent(errors.New("its number is not between 0 and 1<<31-1"))
	}
	return nil
}

// headings as JSON. Where they are longer than a field holds, the outermost
// are left out: they only tell people where a chunk stands.
func headings(h []string) (string, error) {
	if len(h) == 0 {
		return "", nil
	}
	for ; ; h = h[1:] {
		j, err := json.Marshal(h)
		if err != nil || len(j) <= maxVarChar {
			return string(j), err
		}
	}
}

func (r *chunkRow) size() int {
	return 4*len(r.chunk.Vector) + len(r.document) + len(r.heading) + 200
}

var crcTable = crc64.MakeTable(crc64.ECMA)

// checksum is a CRC-64 of all that the row holds. Milvus gives vectors back bit
// by bit.
func (r *chunkRow) checksum() int64 {
	b := make([]byte, 0, r.size())
	for _, s := range []string{r.key, r.document, r.chunk.ID, r.heading} {
		b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
	}
	for _, n := range []int64{
		r.hash, int64(r.version), int64(r.chunk.Ordinal), r.chunk.Start, r.chunk.End, int64(r.chunk.Tokens), int64(r.chunk.Page),
	} {
		b = binary.LittleEndian.AppendUint64(b, uint64(n))
	}
	for _, v := range r.chunk.Vector {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return int64(crc64.Checksum(b, crcTable))
}

func chunkColumns(rows []chunkRow, dimension int) []column.Column {
	n := len(rows)
	numbers := func(of func(*chunkRow) int64) []int64 {
		out := make([]int64, n)
		for i := range rows {
			out[i] = of(&rows[i])
		}
		return out
	}
	texts := func(of func(*chunkRow) string) []string {
		out := make([]string, n)
		for i := range rows {
			out[i] = of(&rows[i])
		}
		return out
	}
	vectors := make([][]float32, n)
	for i := range rows {
		vectors[i] = rows[i].chunk.Vector
	}
	return []column.Column{
		column.NewColumnVarChar(keyField, texts(func(r *chunkRow) string { return r.key })),
		column.NewColumnInt64(hashField, numbers(func(r *chunkRow) int64 { return r.hash })),
		column.NewColumnVarChar("document", texts(func(r *chunkRow) string { return r.document })),
		column.NewColumnInt64("version", numbers(func(r *chunkRow) int64 { return int64(r.version) })),
		column.NewColumnInt64("ordinal", numbers(func(r *chunkRow) int64 { return int64(r.chunk.Ordinal) })),
		column.NewColumnVarChar("chunk", texts(func(r *chunkRow) string { return r.chunk.ID })),
		column.NewColumnInt64("start", numbers(func(r *chunkRow) int64 { return r.chunk.Start })),
		column.NewColumnInt64("end", numbers(func(r *chunkRow) int64 { return r.chunk.End })),
		column.NewColumnInt64("tokens", numbers(func(r *chunkRow) int64 { return int64(r.chunk.Tokens) })),
		column.NewColumnInt64("page", numbers(func(r *chunkRow) int64 { return int64(r.chunk.Page) })),
		column.NewColumnVarChar("heading", texts(func(r *chunkRow) string { return r.heading })),
		column.NewColumnInt64(checksumField, numbers((*chunkRow).checksum)),
		column.NewColumnFloatVector(vectorField, dimension, vectors),
	}
}

// Bounds of a read of whole rows (I8).
const (
	pageRows  = 1200
	pageBytes = 16 << 20 // headings not counted, of which each has 64 KiB at most
)

// chunkRows gives the rows that the filter matches, page by page in the order
// of keys, as of ts or later. No id among them is longer than longest.
func (x *Index) chunkRows(ctx context.Context, filter string, longest int, ts uint64) iter.Seq2[chunkRow, error] {
	limit := min(pageRows, max(2, pageBytes/(4*x.model.Dimension+longest+500)))
	return func(yield func(chunkRow, error) bool) {
		for after, n := "", limit; more(n, limit); {
			r, err := x.db.query(ctx, x.names.chunks, fmt.Sprintf("%s && %s > %s", filter, keyField, strconv.Quote(after)), ts, limit, chunkFields...)
			if err != nil {
				yield(chunkRow{}, err)
				return
			}
			n = r.n
			for i := range n {
				row := r.chunkRow(i)
				if after = row.key; !yield(row, nil) {
					return
				}
			}
		}
	}
}

// chunkRow reads the i-th row, of which the query asked for chunkFields.
func (r rows) chunkRow(i int) chunkRow {
	return chunkRow{
		key: r.text(keyField, i), hash: r.number(hashField, i), document: r.text("document", i), version: uint64(r.number("version", i)),
		heading: r.text("heading", i), sum: r.number(checksumField, i), chunk: &leat.Chunk{
			ID: r.text("chunk", i), Ordinal: int(r.number("ordinal", i)), Start: r.number("start", i), End: r.number("end", i),
			Tokens: int(r.number("tokens", i)), Page: int(r.number("page", i)), Vector: r.vector(i),
		},
	}
}
