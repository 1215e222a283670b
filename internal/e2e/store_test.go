package e2e

import (
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"leat"
	"leat/embedder/embeddertest"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// expectedDocument is what a source holds, read by this package's own code.
type expectedDocument struct {
	title     string
	text      string // the whole of it; where converted, the file's bytes
	ext       string // that says its format
	converted bool   // the extracted text is not the source's own
	metadata  map[string]any
	tag       string // of its content; "" where that is not known
	window    window // of the binlog, around the last change
}

// storedDocument is what the store's file holds, read with plain SQL.
type storedDocument struct {
	version  uint64
	deleted  bool
	title    string
	tag      string
	metadata map[string]any
	stated   int // chunks, as the document's row says
	chunks   []storedChunk
}

type storedChunk struct {
	id                string
	version           uint64
	ordinal, from, to int
	data              []byte // the text, or the vector: numbers of 4 bytes, little-endian
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
	rows, err := tx.Query("SELECT no, id, COALESCE(version, 0), deleted, title, tag, metadata, chunks FROM " + index + "_documents")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var no int64
		var id string
		var metadata sql.NullString
		d := &storedDocument{}
		if err := rows.Scan(&no, &id, &d.version, &d.deleted, &d.title, &d.tag, &metadata, &d.stated); err != nil {
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
	rows, err = tx.Query("SELECT k.doc, o.chunk, k.version, k.ordinal, k.start, k.stop, o.data FROM " + index + "_chunks k JOIN " + index + "_contents o ON o.no = k.content ORDER BY k.doc, k.ordinal")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var no int64
		var c storedChunk
		if err := rows.Scan(&no, &c.id, &c.version, &c.ordinal, &c.from, &c.to, &c.data); err != nil {
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
	found, err := orphans(path, index)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range found {
		t.Error(o)
	}
}

// orphans says what the store keeps of an index that no document leads to.
func orphans(path, index string) (all []string, err error) {
	db, err := openStore(path)
	if err != nil {
		return nil, err
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
			return nil, err
		}
		if found > 0 {
			all = append(all, fmt.Sprintf("%d orphans: %s", found, query))
		}
	}
	return all, nil
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
		if w.tag != "" && g.tag != w.tag {
			bad("%s: tag %q, want %q", id, g.tag, w.tag)
		}
		if w.metadata != nil {
			if a, b := canonical(g.metadata), canonical(w.metadata); a != b {
				bad("%s: metadata %s, want %s", id, a, b)
			}
		}
		var texts []string
		occurs := map[string]int{}
		for i, c := range g.chunks {
			if want := chunkID(id, string(c.data), occurs[string(c.data)]); c.id != want {
				bad("%s: chunk %d has the id %s, want %s", id, i, c.id, want)
			}
			occurs[string(c.data)]++
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

// chunkID is the hash by which a chunk is known, written out here once more.
func chunkID(document, text string, occurrence int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%d\x00%s", document, occurrence, text))
	return base64.RawURLEncoding.EncodeToString(sum[:])[:22]
}

// compareVectors says which vectors are not the null model's, of a dimension,
// of the texts that the text index holds.
func compareVectors(text, vectors map[string]*storedDocument, dimension int) (diff []string) {
	for id, v := range vectors {
		for i, c := range v.chunks {
			t := text[id]
			if t == nil || i >= len(t.chunks) {
				break // sameIndexes tells
			}
			want := embeddertest.Vector(leat.Embeddable(t.title, string(t.chunks[i].data)), dimension)
			near := len(c.data) == 4*dimension
			for j := 0; near && j < dimension; j++ {
				got := math.Float32frombits(binary.LittleEndian.Uint32(c.data[4*j:]))
				near = math.Abs(float64(got-want[j])) < 1e-5
			}
			if !near {
				diff = append(diff, fmt.Sprintf("%s: the vector of chunk %d is not that of its text in %d dimensions", id, i, dimension))
			}
		}
	}
	slices.Sort(diff)
	return diff
}

func canonical(v map[string]any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
