package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"leat"
)

// TextIndex finds chunks by their words: FTS5, BM25.
type TextIndex struct {
	sink
	frequencies frequencies
}

var _ leat.TextIndex = (*TextIndex)(nil)

// Text returns the text index of a generation. A store opened for writing makes
// it where it is missing; another fails with fs.ErrNotExist.
func (s *Store) Text(generation int) (*TextIndex, error) {
	table, err := s.open("text", generation, sinkTables+wordsTable, nil)
	if err != nil {
		return nil, err
	}
	return &TextIndex{sink: sink{store: s, table: table, kind: textContents{}}}, nil
}

// wordsTable makes the full-text table. It keeps no text of its own
// (contentless), only the words that [words] makes of it, which is why the
// plainest tokenizer does.
const wordsTable = `
CREATE VIRTUAL TABLE $_words USING fts5(title, body, content='', contentless_delete=1, tokenize='` + tokenize + `');
CREATE VIRTUAL TABLE $_vocabulary USING fts5vocab($_words, row);
INSERT INTO $_words($_words, rank) VALUES ('rank', 'bm25(` + columnWeights + `)');
`

const (
	tokenize      = "ascii"
	columnWeights = "1.0, 1.0"
)

// textContents keeps the text of chunks, searched by title, headings and text.
type textContents struct{}

func (textContents) data(ch *leat.Chunk) ([]byte, error) { return []byte(ch.Text), nil }

func (textContents) digest(title string, heading []string, data []byte) []byte {
	return digest([]byte(above(title, heading)), data)
}

func (textContents) index(c *conn, no int64, r *leat.Revision, ch *leat.Chunk) error {
	return c.exec("INSERT INTO $_words (rowid, title, body) VALUES (?, ?, ?)", no,
		strings.Join(words(above(r.Title, ch.Heading)), " "), strings.Join(words(ch.Text), " "))
}

func (textContents) unindex(c *conn, doc int64) error {
	return c.exec("DELETE FROM $_words WHERE rowid IN ("+unused+")", doc)
}

func (textContents) indexed() (column, join string) {
	return "w.id", "LEFT JOIN $_words_docsize AS w ON w.id = o.no" // FTS5's own table, a row a content
}

func (textContents) whole() bool { return true }

// above is what stands above a chunk: its document's title and its headings.
func above(title string, heading []string) string {
	return strings.Join(append([]string{title}, heading...), "\n")
}

// SearchText implements [leat.TextIndex]. A query is plain text: any of its
// words may match, the more and the rarer the better (BM25).
func (t *TextIndex) SearchText(ctx context.Context, query string, limit int) ([]leat.Match, error) {
	asked := distinct(query)
	if len(asked) == 0 || limit <= 0 {
		return nil, nil
	}
	var found []leat.Match
	err := t.store.read.tx(ctx, t.table, func(c *conn) error {
		telling, err := t.frequencies.rarest(c, asked)
		if err != nil || len(telling) == 0 {
			return err
		}
		match := matchExpression(telling)
		// Contents of versions that wait for their last part are found as well
		// and left out by the join: look further where that leaves too few.
		for n := limit; ; n *= 4 {
			found = found[:0]
			seen := 0
			err := c.each(`SELECT d.id, d.version, o.chunk, k.start, -f.rank
				FROM (SELECT rowid, rank FROM $_words WHERE $_words MATCH ? ORDER BY rank LIMIT ?) AS f
				JOIN $_contents AS o ON o.no = f.rowid
				JOIN $_documents AS d ON d.no = o.doc
				LEFT JOIN $_chunks AS k ON k.content = o.no AND k.version = d.version
				ORDER BY f.rank, f.rowid`, []any{match, n}, func(rows *sql.Rows) error {
				var m leat.Match
				var version, start sql.NullInt64
				seen++
				err := rows.Scan(&m.Document, &version, &m.Chunk, &start, &m.Score)
				if start.Valid && len(found) < limit {
					m.Version, m.Start = uint64(version.Int64), start.Int64
					found = append(found, m)
				}
				return err
			})
			if err != nil || len(found) == limit || seen < n {
				return err
			}
		}
	})
	if err != nil {
		return nil, fmt.Errorf("store %s: search text: %w", t.store.path, err)
	}
	return found, nil
}

// Chunks implements [leat.Sink].
func (t *TextIndex) Chunks(ctx context.Context, id string) ([]leat.Chunk, error) {
	return t.chunks(ctx, id, func(ch *leat.Chunk, data []byte) { ch.Text = string(data) })
}

// Hits implements [leat.TextIndex], in one transaction: no result shows two
// versions of a document.
func (t *TextIndex) Hits(ctx context.Context, matches []leat.Match) ([]*leat.Hit, error) {
	hits := make([]*leat.Hit, len(matches))
	err := t.store.read.tx(ctx, t.table, func(c *conn) error {
		for i, m := range matches {
			h, err := hit(c, m)
			if err != nil {
				return fmt.Errorf("%s: %w", m.Document, err)
			}
			hits[i] = h
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("store %s: read hits: %w", t.store.path, err)
	}
	return hits, nil
}

// hit returns what a match shows; nil where its document is gone.
func hit(c *conn, m leat.Match) (*leat.Hit, error) {
	h := leat.Hit{Document: m.Document, Score: m.Score}
	var doc int64
	var metadata sql.NullString
	err := c.scan("SELECT no, version, title, metadata FROM $_documents WHERE id = ? AND NOT deleted AND version IS NOT NULL",
		[]any{m.Document}, &doc, &h.Version, &h.Title, &metadata)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var heading sql.NullString
	dest := []any{&h.Chunk, &h.Text, &h.Location.Page, &heading, &h.Location.Start, &h.Location.End}
	const columns = "SELECT o.chunk, o.data, k.page, k.heading, k.start, k.stop FROM "
	err = c.scan(columns+`$_contents AS o JOIN $_chunks AS k ON k.content = o.no
		WHERE o.doc = ? AND o.chunk = ? AND k.version = ? LIMIT 1`, []any{doc, m.Chunk, h.Version}, dest...)
	if errors.Is(err, sql.ErrNoRows) { // replaced: the last chunk that starts at or before it
		err = c.scan(columns+`$_chunks AS k JOIN $_contents AS o ON o.no = k.content
			WHERE k.doc = ? AND k.version = ? ORDER BY k.start > ?, abs(k.start - ?) LIMIT 1`,
			[]any{doc, h.Version, m.Start, m.Start}, dest...)
	}
	if errors.Is(err, sql.ErrNoRows) { // no text is left of it
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	// Both are there in a result, if empty: [] and {}.
	h.Location.Heading, h.Metadata = []string{}, map[string]any{}
	if heading.Valid {
		if err := json.Unmarshal([]byte(heading.String), &h.Location.Heading); err != nil {
			return nil, err
		}
	}
	if metadata.Valid {
		d := json.NewDecoder(bytes.NewReader([]byte(metadata.String)))
		d.UseNumber() // numbers past 1<<53 keep their digits
		err = d.Decode(&h.Metadata)
	}
	return &h, err
}
