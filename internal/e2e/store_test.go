package e2e

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// expectedDocument is what a source holds, read by this package's own code.
type expectedDocument struct {
	title     string
	text      string // the whole of it; where converted, the file's bytes
	ext       string // that says its format
	converted bool   // the extracted text is not the source's own
	metadata  map[string]any
	window    window // of the binlog, around the last change
}

// storedDocument is what the store's file holds, read with plain SQL.
type storedDocument struct {
	version  uint64
	deleted  bool
	title    string
	metadata map[string]any
	stated   int // chunks, as the document's row says
	chunks   []storedChunk
}

type storedChunk struct {
	version           uint64
	ordinal, from, to int
	data              []byte // the text, or the vector
}

// readStore reads one index ("text1" or "vectors1") of the store in one
// transaction, so at one moment.
func readStore(path, index string) (map[string]*storedDocument, error) {
	db, err := openStore(path)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	tx, err := db.Begin()
	if err != nil {
		return nil, err
	}
	defer tx.Rollback()
	all, byNumber := map[string]*storedDocument{}, map[int64]*storedDocument{}
	rows, err := tx.Query("SELECT no, id, COALESCE(version, 0), deleted, title, metadata, chunks FROM " + index + "_documents")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var no int64
		var id string
		var metadata sql.NullString
		d := &storedDocument{}
		if err := rows.Scan(&no, &id, &d.version, &d.deleted, &d.title, &metadata, &d.stated); err != nil {
			return nil, err
		}
		if metadata.String != "" {
			if err := json.Unmarshal([]byte(metadata.String), &d.metadata); err != nil {
				return nil, fmt.Errorf("%s: metadata: %w", id, err)
			}
		}
		all[id], byNumber[no] = d, d
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	rows, err = tx.Query("SELECT k.doc, k.version, k.ordinal, k.start, k.stop, o.data FROM " + index + "_chunks k JOIN " + index + "_contents o ON o.no = k.content ORDER BY k.doc, k.ordinal")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var no int64
		var c storedChunk
		if err := rows.Scan(&no, &c.version, &c.ordinal, &c.from, &c.to, &c.data); err != nil {
			return nil, err
		}
		d := byNumber[no]
		if d == nil {
			return nil, fmt.Errorf("%s: a chunk of document number %d, which is not there", index, no)
		}
		d.chunks = append(d.chunks, c)
	}
	return all, rows.Err()
}

// noOrphans fails the test if the store keeps what no document leads to.
func noOrphans(t *testing.T, path, index string) {
	t.Helper()
	db, err := openStore(path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, query := range []string{
		"SELECT COUNT(*) FROM $_contents o WHERE NOT EXISTS (SELECT 1 FROM $_chunks k WHERE k.content = o.no)",
		"SELECT COUNT(*) FROM $_chunks k WHERE NOT EXISTS (SELECT 1 FROM $_documents d WHERE d.no = k.doc AND d.version = k.version AND NOT d.deleted)",
		"SELECT COUNT(*) FROM $_parts",
	} {
		query = strings.ReplaceAll(query, "$", index)
		var found int
		if err := db.QueryRow(query).Scan(&found); err != nil {
			t.Fatal(err)
		}
		if found > 0 {
			t.Errorf("%d orphans: %s", found, query)
		}
	}
}

// compare says how the store differs from what the sources hold.
// split gives the chunk texts of documents, as `leat chunk` cuts them.
func compare(want map[string]expectedDocument, got map[string]*storedDocument, split map[string][]string) (diff []string) {
	bad := func(format string, args ...any) { diff = append(diff, fmt.Sprintf(format, args...)) }
	for id, w := range want {
		g := got[id]
		if g == nil || g.deleted {
			bad("%s: missing", id)
			continue
		}
		if w.title != "" && g.title != w.title {
			bad("%s: title %q, want %q", id, g.title, w.title)
		}
		if w.metadata != nil {
			if a, b := canonical(g.metadata), canonical(w.metadata); a != b {
				bad("%s: metadata %s, want %s", id, a, b)
			}
		}
		var texts []string
		for i, c := range g.chunks {
			if c.version != g.version {
				bad("%s: a chunk of version %d beside version %d", id, c.version, g.version)
			}
			if c.ordinal != i {
				bad("%s: chunk %d has ordinal %d", id, i, c.ordinal)
			}
			if len(c.data) > 0 || i > 0 { // a row with a title and no text has one empty chunk
				texts = append(texts, string(c.data))
			}
		}
		if g.stated != len(g.chunks) {
			bad("%s: says %d chunks, has %d", id, g.stated, len(g.chunks))
		}
		if !w.converted {
			if err := covers(w.text, g.chunks); err != nil {
				bad("%s: %v", id, err)
			}
		}
		if split != nil && !slices.Equal(texts, split[id]) {
			bad("%s: %d chunks are not the %d that its text is cut into", id, len(texts), len(split[id]))
		}
	}
	for id, g := range got {
		if _, ok := want[id]; !ok && !g.deleted {
			bad("%s: orphaned", id)
		}
		if g.deleted && len(g.chunks) > 0 {
			bad("%s: deleted, and has %d chunks", id, len(g.chunks))
		}
	}
	slices.Sort(diff)
	return diff
}

// covers checks that each chunk is the slice of the text that it says it is,
// and that together, in order, they hold all of the text that is not space.
func covers(text string, chunks []storedChunk) error {
	end := 0
	for i, c := range chunks {
		if c.from < 0 || c.to > len(text) || c.from > c.to {
			return fmt.Errorf("chunk %d stands at %d to %d of a text of %d bytes", i, c.from, c.to, len(text))
		}
		if text[c.from:c.to] != string(c.data) {
			return fmt.Errorf("chunk %d is not the text from %d to %d", i, c.from, c.to)
		}
		if c.from > end && !blank(text[end:c.from]) {
			return fmt.Errorf("no chunk holds %q (%d to %d)", text[end:min(c.from, end+60)], end, c.from)
		}
		end = max(end, c.to)
	}
	if !blank(text[end:]) {
		return fmt.Errorf("no chunk holds the end, from %d: %q", end, text[end:min(len(text), end+60)])
	}
	return nil
}

func canonical(v map[string]any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
