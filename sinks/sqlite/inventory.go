package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"hash/maphash"
	"iter"
	"math"
	"slices"
	"strings"

	"leat"
)

// Inventory implements [leat.Sink]. What is read of a document is checked row
// by row and not kept.
func (s *sink) Inventory(ctx context.Context, prefix string) iter.Seq2[leat.Holding, error] {
	return func(yield func(leat.Holding, error) bool) {
		check := func(c *conn, all []holding) error {
			k := checker{kind: s.kind, whole: s.kind.whole(), seed: maphash.MakeSeed(), texts: map[uint64]int{}}
			return k.page(c, all)
		}
		for h, err := range s.list(ctx, prefix, check) {
			if !yield(h, err) || err != nil {
				return
			}
		}
		if prefix != "" {
			return
		}
		for stray, err := range s.strays(ctx) {
			if !yield(leat.Holding{Stray: stray}, err) {
				return
			}
		}
	}
}

// checker compares what is read of documents with what was written.
type checker struct {
	kind  contentKind
	whole bool

	h       *holding // the document whose chunks are read
	next    int      // ordinal, at least
	chunks  int      // read of it
	texts   map[uint64]int
	seed    maphash.Seed
	json    []byte   // the last heading read: chunk after chunk has the same
	heading []string // what it says
}

// page checks the documents of a page.
func (k *checker) page(c *conn, all []holding) error {
	if len(all) == 0 {
		return nil
	}
	column, join := k.kind.indexed()
	rest := all
	k.begin(&rest[0])
	err := c.each(`SELECT d.no, k.ordinal, k.start, k.stop, k.heading, o.chunk, o.digest, o.data, `+column+` IS NOT NULL
		FROM $_documents AS d JOIN $_chunks AS k ON k.doc = d.no AND k.version = d.version
		LEFT JOIN $_contents AS o ON o.no = k.content AND o.doc = d.no `+join+`
		WHERE d.id >= ? AND d.id <= ? AND NOT d.deleted ORDER BY d.id, k.part, k.ordinal`,
		[]any{all[0].ID, all[len(all)-1].ID}, func(rows *sql.Rows) error {
			var no int64
			var r row
			if err := rows.Scan(&no, &r.Ordinal, &r.Start, &r.End, &r.heading, &r.id, &r.digest, &r.data, &r.indexed); err != nil {
				return err
			}
			for no != rest[0].no {
				k.end()
				rest = rest[1:]
				k.begin(&rest[0])
			}
			return k.check(&r)
		})
	for range rest[1:] {
		k.end()
		rest = rest[1:]
		k.begin(&rest[0])
	}
	k.end()
	return err
}

// row is a chunk as it is read. Its bytes are the driver's.
type row struct {
	leat.Chunk
	heading, digest, data sql.RawBytes
	id                    sql.NullString
	indexed               bool
}

func (k *checker) begin(h *holding) {
	k.h, k.next, k.chunks = h, 0, 0
	clear(k.texts)
}

func (k *checker) end() {
	if k.chunks != k.h.Chunks {
		k.damage("it has %d chunks, not %d", k.chunks, k.h.Chunks)
	}
}

// damage notes the first thing that is wrong.
func (k *checker) damage(format string, args ...any) {
	if k.h.Damage == "" {
		k.h.Damage = fmt.Sprintf(format, args...)
	}
}

func (k *checker) check(r *row) (err error) {
	switch {
	case r.Ordinal < k.next:
		k.damage("chunk %d is there twice", r.Ordinal)
	case r.Ordinal > k.next && k.whole:
		k.damage("chunk %d is missing", k.next)
	}
	k.next = r.Ordinal + 1
	k.chunks++
	if !r.id.Valid {
		k.damage("chunk %d has no content", r.Ordinal)
		return nil
	}
	r.ID = r.id.String
	k.h.Digest = k.h.Digest.Add(&r.Chunk)
	if !bytes.Equal(k.json, r.heading) {
		k.json = append(k.json[:0], r.heading...)
		k.heading, err = headings(sql.NullString{String: string(r.heading), Valid: r.heading != nil})
		if err != nil {
			k.json, k.heading = nil, nil
			k.damage("the heading of chunk %d was altered", r.Ordinal)
		}
	}
	if !bytes.Equal(r.digest, k.kind.digest(k.h.Title, k.heading, r.data)) {
		k.damage("chunk %d was altered", r.Ordinal)
	}
	if k.whole {
		text := maphash.Bytes(k.seed, r.data)
		if r.ID != leat.ChunkID(k.h.ID, string(r.data), k.texts[text]) {
			k.damage("chunk %d has not the id of its text", r.Ordinal)
		}
		k.texts[text]++
	}
	if !r.indexed {
		k.damage("chunk %d is not among what is searched", r.Ordinal)
	}
	return nil
}

// strayChunk selects chunks k that are neither of the version that their document
// has nor of one that waits for its last part.
const strayChunk = `NOT EXISTS (SELECT 1 FROM $_documents AS d WHERE d.no = k.doc
	AND (d.version = k.version AND NOT d.deleted OR EXISTS (SELECT 1 FROM $_parts WHERE doc = k.doc AND version = k.version)))`

// strayRows is how many rows one transaction looks at for strays.
const strayRows = 20_000

// strays lists the names of strays: "text1_chunks 12/3" are the chunks of
// version 3 of document number 12, "text1_contents 12" its contents.
func (s *sink) strays(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for _, of := range []struct{ table, query string }{
			{"chunks", `SELECT DISTINCT k.doc || '/' || k.version FROM $_chunks AS k
				WHERE k.doc > ? AND k.doc <= ? AND ` + strayChunk},
			{"contents", `SELECT DISTINCT doc FROM $_contents AS o
				WHERE doc > ? AND doc <= ? AND NOT EXISTS (SELECT 1 FROM $_documents WHERE no = o.doc)`},
		} {
			for from := int64(math.MinInt64); from < math.MaxInt64; {
				var names []string
				err := s.store.read.tx(ctx, s.table, func(c *conn) error {
					to, err := c.int("SELECT coalesce(max(doc), ?) FROM (SELECT doc FROM $_"+of.table+` WHERE doc > ?
						ORDER BY doc LIMIT 1 OFFSET ?)`, int64(math.MaxInt64), from, strayRows)
					if err != nil {
						return err
					}
					err = c.each(of.query, []any{from, to}, func(rows *sql.Rows) error {
						var key string
						err := rows.Scan(&key)
						names = append(names, s.table+"_"+of.table+" "+key)
						return err
					})
					from = to
					return err
				})
				if err != nil {
					yield("", fmt.Errorf("store %s: look for strays of %s: %w", s.store.path, s.table, err))
					return
				}
				for _, n := range names {
					if !yield(n, nil) {
						return
					}
				}
			}
		}
	}
}

// Discard implements [leat.Sink]. What has come to belong to something since it
// was called stray stays.
func (s *sink) Discard(ctx context.Context, strays []string) error {
	w, err := s.store.writer()
	if err != nil {
		return err
	}
	for some := range slices.Chunk(strays, pageDocuments) {
		err = w.tx(ctx, s.table, func(c *conn) error {
			a := applier{conn: c, kind: s.kind}
			for _, name := range some {
				if err := a.discard(name); err != nil {
					return fmt.Errorf("%q: %w", name, err)
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("store %s: discard strays: %w", s.store.path, err)
		}
	}
	if len(strays) == 0 {
		return nil
	}
	// Neither they nor what they were of need have been counted.
	err = w.tx(ctx, s.table, func(c *conn) error {
		return c.exec(`UPDATE $_totals SET (documents, chunks) = (SELECT count(*), coalesce(sum(chunks), 0) FROM $_documents
			WHERE NOT deleted AND version IS NOT NULL), contents = (SELECT count(*) FROM $_contents)`)
	})
	if err != nil {
		return fmt.Errorf("store %s: count again: %w", s.store.path, err)
	}
	return nil
}

func (a *applier) discard(name string) error {
	table, key, _ := strings.Cut(name, " ")
	var doc, version int64
	var err error
	switch table {
	case a.table + "_chunks":
		if _, err = fmt.Sscanf(key, "%d/%d", &doc, &version); err == nil {
			err = a.exec("DELETE FROM $_chunks AS k WHERE doc = ? AND version = ? AND "+strayChunk, doc, version)
		}
	case a.table + "_contents":
		if _, err = fmt.Sscanf(key, "%d", &doc); err == nil {
			err = a.exec("DELETE FROM $_chunks AS k WHERE doc = ? AND "+strayChunk, doc)
		}
	default:
		err = fmt.Errorf("%s has no strays of this name", a.table)
	}
	if err != nil {
		return err
	}
	return a.sweep(doc)
}
