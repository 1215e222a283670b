package sqlite

import (
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"leat"
)

// sinkTables makes the tables of one index, whose names begin with what stands
// for $ in all queries.
//
//   - documents: the version held; NULL while only parts of the first one are.
//   - parts: how many parts a version that waits for its last one has. One that
//     is applied again while it is held waits under another number, see apart.
//   - chunks: which contents make up a document at one version, and where they
//     stand. Versions that wait for their last part are there as well: a chunk
//     is searchable when its version is its document's (I4).
//   - contents: what is indexed, once for all versions that have it, so that an
//     unchanged chunk costs a row of chunks and no indexing. Its numbers are
//     never used twice: a reader sees what is new by them.
//   - totals: one row: the searchable documents and chunks, all contents, and a
//     number that no former index of these names had.
//   - model: of the vectors, as JSON; no row in a text index.
const sinkTables = `
CREATE TABLE $_documents (
	no INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE,
	version INTEGER, deleted INTEGER NOT NULL, tag TEXT NOT NULL, title TEXT NOT NULL,
	metadata TEXT, chunks INTEGER NOT NULL, applied INTEGER NOT NULL);
CREATE TABLE $_parts (
	doc INTEGER NOT NULL, version INTEGER NOT NULL, parts INTEGER NOT NULL,
	PRIMARY KEY (doc, version)) WITHOUT ROWID;
CREATE TABLE $_chunks (
	doc INTEGER NOT NULL, version INTEGER NOT NULL, part INTEGER NOT NULL, ordinal INTEGER NOT NULL,
	content INTEGER NOT NULL, start INTEGER NOT NULL, stop INTEGER NOT NULL, tokens INTEGER NOT NULL,
	page INTEGER NOT NULL, heading TEXT,
	PRIMARY KEY (doc, version, part, ordinal)) WITHOUT ROWID;
CREATE INDEX $_chunks_content ON $_chunks (content);
CREATE TABLE $_contents (
	no INTEGER PRIMARY KEY AUTOINCREMENT, doc INTEGER NOT NULL, chunk TEXT NOT NULL,
	digest BLOB NOT NULL, data BLOB NOT NULL);
CREATE INDEX $_contents_chunk ON $_contents (doc, chunk);
CREATE TABLE $_totals (documents INTEGER NOT NULL, chunks INTEGER NOT NULL, contents INTEGER NOT NULL, made INTEGER NOT NULL);
INSERT INTO $_totals VALUES (0, 0, 0, random());
CREATE TABLE $_model (model TEXT NOT NULL);
`

// sink is what the text and the vector index have in common.
type sink struct {
	store *Store
	table string // the prefix of its tables
	kind  contentKind
}

// contentKind is what differs between them: how contents are kept.
type contentKind interface {
	// data is what the table of contents keeps of a chunk. Its errors speak of
	// the chunk, before anything is written.
	data(ch *leat.Chunk) ([]byte, error)
	// digest is of all that a chunk with this data is indexed by: a chunk with
	// the same id and digest is the same content.
	digest(title string, heading []string, data []byte) []byte
	// index adds a content to what is searched beyond the common tables.
	index(c *conn, no int64, r *leat.Revision, ch *leat.Chunk) error
	// unindex removes from there the contents of document ?1 that no chunk has.
	unindex(c *conn, doc int64) error
	// indexed joins to the contents o what is searched: a column that is NULL
	// where a content is missing from it.
	indexed() (column, join string)
	// whole says that every chunk of a document is there, with its text: its
	// ordinals and ids follow from that.
	whole() bool
}

// Document implements [leat.Sink].
func (s *sink) Document(ctx context.Context, id string) (d leat.DocumentState, err error) {
	err = s.store.read.tx(ctx, s.table, func(c *conn) error {
		var applied int64
		err := c.scan(`SELECT id, version, deleted, tag, title, chunks, applied FROM $_documents
			WHERE id = ? AND version IS NOT NULL`, []any{id},
			&d.ID, &d.Version, &d.Deleted, &d.Tag, &d.Title, &d.Chunks, &applied)
		d.Applied = time.UnixMilli(applied).UTC()
		return err
	})
	if errors.Is(err, sql.ErrNoRows) {
		return leat.DocumentState{}, fmt.Errorf("%s: %w", id, leat.ErrNotFound)
	}
	return d, err
}

// A page is what one transaction lists: a long one would keep the log from
// being folded into the file.
const (
	pageDocuments = 500
	pageChunks    = 10_000 // unless one document has more
)

// holding is what Documents and Inventory list.
type holding struct {
	no int64 // of the document
	leat.Holding
}

// page is a run of documents.
type page struct {
	last chan string // the last one's id, before look has seen them; closed without one after the end, or an error
	done chan error
	all  []holding
}

// read begins to read the page of documents with the prefix whose ids are at
// least from, or above it. look, if any, sees it in the transaction that read it,
// and may go on with it.
func (s *sink) read(ctx context.Context, prefix, at, from string, look func(*conn, []holding) error) *page {
	p := &page{last: make(chan string, 1), done: make(chan error, 1)}
	go func() {
		defer close(p.last)
		p.done <- s.store.read.tx(ctx, s.table, func(c *conn) error {
			chunks, full := 0, false
			err := c.each("SELECT no, id, version, tag, title, chunks, applied FROM $_documents WHERE id "+at+` ?
				AND NOT deleted AND version IS NOT NULL ORDER BY id`, []any{from}, func(rows *sql.Rows) error {
				var h holding
				var applied int64
				err := rows.Scan(&h.no, &h.ID, &h.Version, &h.Tag, &h.Title, &h.Chunks, &applied)
				if err != nil || !strings.HasPrefix(h.ID, prefix) {
					return cmp.Or(err, errStop)
				}
				chunks += h.Chunks
				if full = len(p.all) == pageDocuments || len(p.all) > 0 && chunks > pageChunks; full {
					return errStop
				}
				h.Applied = time.UnixMilli(applied).UTC()
				p.all = append(p.all, h)
				return nil
			})
			if full {
				p.last <- p.all[len(p.all)-1].ID
			}
			if err != nil || look == nil {
				return err
			}
			return look(c, p.all)
		})
	}()
	return p
}

// list lists documents page by page, and reads the next page, by another
// connection, while one is looked at or used.
func (s *sink) list(ctx context.Context, prefix string, look func(*conn, []holding) error) iter.Seq2[leat.Holding, error] {
	return func(yield func(leat.Holding, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		p := s.read(ctx, prefix, ">=", prefix, look)
		defer func() {
			cancel()
			if p != nil {
				<-p.done
			}
		}()
		for p != nil {
			var next *page
			if last, more := <-p.last; more {
				next = s.read(ctx, prefix, ">", last, look)
			}
			err := <-p.done
			all := p.all
			p = next
			if err != nil {
				yield(leat.Holding{}, fmt.Errorf("store %s: list documents of %s: %w", s.store.path, s.table, err))
				return
			}
			for i := range all {
				if !yield(all[i].Holding, nil) {
					return
				}
			}
		}
	}
}

// Documents implements [leat.Sink].
func (s *sink) Documents(ctx context.Context, prefix string) iter.Seq2[leat.DocumentState, error] {
	return func(yield func(leat.DocumentState, error) bool) {
		for h, err := range s.list(ctx, prefix, nil) {
			if !yield(h.DocumentState, err) {
				return
			}
		}
	}
}

// Stats implements [leat.Sink].
func (s *sink) Stats(ctx context.Context) (st leat.Stats, err error) {
	err = s.store.read.tx(ctx, s.table, func(c *conn) error {
		return c.scan("SELECT documents, chunks FROM $_totals", nil, &st.Documents, &st.Chunks)
	})
	return st, err
}

// Close implements [leat.Sink]: nothing, the file is the store's.
func (s *sink) Close() error { return nil }

// chunks lists the chunks of the version that is held; content fills in what
// the index keeps of one.
func (s *sink) chunks(ctx context.Context, id string, content func(*leat.Chunk, []byte)) (chunks []leat.Chunk, err error) {
	err = s.store.read.tx(ctx, s.table, func(c *conn) error {
		return c.each(`SELECT o.chunk, o.data, k.ordinal, k.start, k.stop, k.tokens, k.page, k.heading
			FROM $_documents AS d JOIN $_chunks AS k ON k.doc = d.no AND k.version = d.version
			JOIN $_contents AS o ON o.no = k.content WHERE d.id = ? ORDER BY k.ordinal`, []any{id}, func(rows *sql.Rows) error {
			var ch leat.Chunk
			var data sql.RawBytes
			var heading sql.NullString
			err := rows.Scan(&ch.ID, &data, &ch.Ordinal, &ch.Start, &ch.End, &ch.Tokens, &ch.Page, &heading)
			if err != nil {
				return err
			}
			content(&ch, data)
			ch.Heading, err = headings(heading)
			chunks = append(chunks, ch)
			return err
		})
	})
	return chunks, err
}

func headings(s sql.NullString) (h []string, err error) {
	if s.Valid {
		err = json.Unmarshal([]byte(s.String), &h)
	}
	return h, err
}

// digest is of the parts, each with its length: no two lists have the same.
func digest(parts ...[]byte) []byte {
	h := sha256.New()
	var n [24]byte
	for _, p := range parts {
		h.Write(append(strconv.AppendInt(n[:0], int64(len(p)), 10), ':'))
		h.Write(p)
	}
	return h.Sum(nil)[:16]
}
