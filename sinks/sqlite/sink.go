package sqlite

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"
	"strings"
	"time"

	"leat"
)

// The prefix of an index's tables. The number is the generation's.
const (
	textPrefix    = "text1"
	vectorsPrefix = "vectors1"
)

// sinkTables makes the tables of one index.
//
//   - documents: the version held; NULL while only parts of the first one are.
//   - parts: how many parts a version that waits for its last one has.
//   - chunks: which contents make up a document at one version, and where they
//     stand. Versions that wait for their last part are there as well: a chunk
//     is searchable when its version is its document's (I4).
//   - contents: what is indexed, once for all versions that have it, so that an
//     unchanged chunk costs a row of chunks and no indexing. Its numbers are
//     never used twice: a reader sees what is new by them.
//   - totals: one row: the searchable documents and chunks, and all contents.
//   - model: of the vectors, as JSON; no row in a text index.
func sinkTables(prefix string) string {
	return strings.ReplaceAll(`
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
CREATE TABLE $_totals (documents INTEGER NOT NULL, chunks INTEGER NOT NULL, contents INTEGER NOT NULL);
INSERT INTO $_totals VALUES (0, 0, 0);
CREATE TABLE $_model (model TEXT NOT NULL);
`, "$", prefix)
}

// sink is what the text and the vector index have in common.
type sink struct {
	store *Store
	table string // the prefix of its tables
	kind  contentKind
}

// contentKind is what differs between them: how contents are kept.
type contentKind interface {
	// data is what the table of contents keeps of a chunk, and what the chunk
	// is indexed by apart from it: a chunk with the same of both is the same
	// content. Its errors speak of the chunk, before anything is written.
	data(r *leat.Revision, ch *leat.Chunk) (data any, key []string, err error)
	// index adds a content to what is searched beyond the common tables.
	index(c *conn, no int64, r *leat.Revision, ch *leat.Chunk) error
	// unindex removes from there the contents of document ?1 that no chunk has.
	unindex(c *conn, doc int64) error
}

// unused selects the contents of document ?1 that no version of it has.
const unused = `SELECT no FROM $_contents AS o WHERE doc = ?1
	AND NOT EXISTS (SELECT 1 FROM $_chunks WHERE content = o.no)`

// Apply implements [leat.Sink]: one transaction, durable when it returns.
func (s *sink) Apply(ctx context.Context, revisions []leat.Revision) ([]leat.Outcome, error) {
	w, err := s.store.writer()
	if err != nil {
		return nil, err
	}
	out := make([]leat.Outcome, len(revisions))
	err = w.tx(ctx, s.table, func(c *conn) error {
		a := applier{conn: c, kind: s.kind, now: time.Now().UnixMilli()}
		for i := range revisions {
			r := &revisions[i]
			var err error
			if out[i], err = a.apply(r); err != nil {
				return fmt.Errorf("%s version %d: %w", r.Document, r.Version, err)
			}
		}
		return c.exec("UPDATE $_totals SET documents = documents + ?, chunks = chunks + ?, contents = contents + ?",
			a.documents, a.chunks, a.contents)
	})
	if err != nil {
		return nil, fmt.Errorf("store %s, %s index: %w", s.store.path, s.table, err)
	}
	return out, nil
}

// applier applies the revisions of one transaction.
type applier struct {
	*conn
	kind contentKind
	now  int64 // ms
	// How the totals change.
	documents, chunks, contents int64
}

// held is a row of documents.
type held struct {
	no      int64
	version sql.NullInt64
	deleted bool
	chunks  int64
}

func (a *applier) apply(r *leat.Revision) (leat.Outcome, error) {
	if r.Version > math.MaxInt64 {
		return 0, leat.Permanent(errors.New("the version is past 1<<63-1"))
	}
	var doc held
	err := a.scan("SELECT no, version, deleted, chunks FROM $_documents WHERE id = ?", []any{r.Document},
		&doc.no, &doc.version, &doc.deleted, &doc.chunks)
	fresh := errors.Is(err, sql.ErrNoRows)
	switch {
	case err != nil && !fresh:
		return 0, err
	case doc.version.Valid && doc.version.Int64 > int64(r.Version):
		return leat.Superseded, nil // I2
	case doc.version.Valid && doc.version.Int64 == int64(r.Version):
		return leat.Applied, nil // a replay: versions are never used twice
	case fresh:
		doc.no, err = a.insert("INSERT INTO $_documents VALUES (NULL, ?, NULL, 0, '', '', NULL, 0, 0)", r.Document)
		if err != nil {
			return 0, err
		}
	}
	parts := int64(0)
	if !fresh {
		if parts, err = a.int("SELECT coalesce(max(parts), 0) FROM $_parts WHERE doc = ? AND version = ?", doc.no, r.Version); err != nil {
			return 0, err
		}
	}
	if int64(r.Part) > parts {
		return 0, leat.Permanent(leat.Hint(fmt.Errorf("part %d came without part %d", r.Part, parts),
			"the store was replaced while parts were under way: touch the document at its source or run `leat reindex`"))
	}
	if err := a.add(doc.no, r, fresh, int64(r.Part) < parts); err != nil {
		return 0, err
	}
	if !r.Last {
		return leat.Applied, a.exec("INSERT OR REPLACE INTO $_parts VALUES (?, ?, ?)",
			doc.no, r.Version, max(parts, int64(r.Part)+1))
	}
	return leat.Applied, a.activate(&doc, r, fresh)
}

// add puts the chunks of one part beside those of the version that is held,
// where no search finds them yet.
func (a *applier) add(doc int64, r *leat.Revision, fresh, again bool) error {
	if again {
		if err := a.exec("DELETE FROM $_chunks WHERE doc = ? AND version = ? AND part = ?", doc, r.Version, r.Part); err != nil {
			return err
		}
	}
	for i := range r.Chunks {
		ch := &r.Chunks[i]
		no, err := a.content(doc, r, ch, fresh)
		if err != nil {
			return fmt.Errorf("chunk %d: %w", ch.Ordinal, err)
		}
		heading := sql.NullString{}
		if len(ch.Heading) > 0 {
			b, err := json.Marshal(ch.Heading)
			if err != nil {
				return err
			}
			heading = sql.NullString{String: string(b), Valid: true}
		}
		if err := a.exec("INSERT INTO $_chunks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", doc, r.Version, r.Part, ch.Ordinal,
			no, ch.Start, ch.End, ch.Tokens, ch.Page, heading); err != nil {
			return err
		}
	}
	return nil
}

// content returns the number of the chunk's content, which it adds unless some
// version of the document has it already.
func (a *applier) content(doc int64, r *leat.Revision, ch *leat.Chunk, fresh bool) (no int64, err error) {
	data, key, err := a.kind.data(r, ch)
	if err != nil {
		return 0, err
	}
	h := sha256.New()
	for _, k := range key {
		fmt.Fprintf(h, "%d:%s", len(k), k)
	}
	digest := h.Sum(nil)[:16]
	if !fresh {
		err := a.scan("SELECT no FROM $_contents WHERE doc = ? AND chunk = ? AND digest = ?", []any{doc, ch.ID, digest}, &no)
		if !errors.Is(err, sql.ErrNoRows) {
			return no, err
		}
	}
	if no, err = a.insert("INSERT INTO $_contents VALUES (NULL, ?, ?, ?, ?)", doc, ch.ID, digest, data); err != nil {
		return 0, err
	}
	a.contents++
	return no, a.kind.index(a.conn, no, r, ch)
}

// activate makes the version the one that is held (I4): its chunks become
// searchable by one row's change, and what no version needs is removed.
func (a *applier) activate(doc *held, r *leat.Revision, fresh bool) error {
	var metadata sql.NullString
	n := int64(len(r.Chunks))
	if !fresh {
		// A replay that was cut in fewer parts leaves some of the first attempt.
		err := errors.Join(
			a.exec("DELETE FROM $_chunks WHERE doc = ? AND version = ? AND part > ?", doc.no, r.Version, r.Part),
			a.exec("DELETE FROM $_chunks WHERE doc = ? AND version < ?", doc.no, r.Version),
			a.exec("DELETE FROM $_parts WHERE doc = ? AND version <= ?", doc.no, r.Version),
			a.kind.unindex(a.conn, doc.no))
		if err != nil {
			return err
		}
		gone, err := a.count("DELETE FROM $_contents WHERE no IN ("+unused+")", doc.no)
		if err != nil {
			return err
		}
		a.contents -= gone
	}
	if r.Part > 0 {
		var err error
		if n, err = a.int("SELECT count(*) FROM $_chunks WHERE doc = ? AND version = ?", doc.no, r.Version); err != nil {
			return err
		}
	}
	if !r.Deleted && len(r.Metadata) > 0 {
		b, err := json.Marshal(r.Metadata)
		if err != nil {
			return leat.Permanent(fmt.Errorf("metadata: %w", err))
		}
		metadata = sql.NullString{String: string(b), Valid: true}
	}
	if doc.version.Valid && !doc.deleted {
		a.documents--
	}
	if !r.Deleted {
		a.documents++
	}
	a.chunks += n - doc.chunks
	return a.exec(`UPDATE $_documents SET version = ?, deleted = ?, tag = ?, title = ?, metadata = ?, chunks = ?, applied = ?
		WHERE no = ?`, r.Version, r.Deleted, r.Tag, r.Title, metadata, n, a.now, doc.no)
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

// page is how many documents Documents reads in one transaction: a long one
// would keep the log from being folded into the file.
const page = 500

// Documents implements [leat.Sink].
func (s *sink) Documents(ctx context.Context, prefix string) iter.Seq2[leat.DocumentState, error] {
	return func(yield func(leat.DocumentState, error) bool) {
		from, states := prefix, make([]leat.DocumentState, 0, page)
		for q := ">="; ; q = ">" {
			states = states[:0]
			err := s.store.read.tx(ctx, s.table, func(c *conn) error {
				return c.each("SELECT id, version, tag, title, chunks, applied FROM $_documents WHERE id "+q+` ?
					AND NOT deleted AND version IS NOT NULL ORDER BY id LIMIT ?`, []any{from, page}, func(rows *sql.Rows) error {
					var d leat.DocumentState
					var applied int64
					err := rows.Scan(&d.ID, &d.Version, &d.Tag, &d.Title, &d.Chunks, &applied)
					d.Applied = time.UnixMilli(applied).UTC()
					states = append(states, d)
					return err
				})
			})
			if err != nil {
				yield(leat.DocumentState{}, err)
				return
			}
			for _, d := range states {
				if !strings.HasPrefix(d.ID, prefix) || !yield(d, nil) {
					return
				}
				from = d.ID
			}
			if len(states) < page {
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
