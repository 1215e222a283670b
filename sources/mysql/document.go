package mysql

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"net/url"
	"time"

	"leat"
)

// inlineLimit is the largest body, in bytes, that travels in the event itself;
// the chunker fetches larger ones with Open.
const inlineLimit = 256 << 10

func floatOf(bits uint64) float64 { return math.Float64frombits(bits) }

// roles says which cells of a row are what. Cells stand in the order of
// table.columns, followed by those of the key that are not among them.
type roles struct {
	title int // -1: none
	body  []int
	meta  []int // named by TableConfig.Metadata
}

// layout is how the cells of one reader's rows are read: one a schema version
// of a table, made once and used for every row.
type layout struct {
	columns []column // of each cell
	key     []int    // cells of the primary key, in its order
	shape   string   // fingerprint: rows of layouts that share it become the same documents
}

// fingerprint sets shape. Charsets and widths are no part of it: the same text
// or number comes of them.
func (l *layout) fingerprint() {
	b := []byte{}
	for _, c := range l.columns {
		b = fmt.Appendf(b, "%d.%d ", c.kind, c.scale)
	}
	l.shape = fmt.Sprintf("%s%v", b, l.key)
}

// maker makes events of rows, with few allocations: it is not safe for
// concurrent use, and its events may share memory.
type maker struct {
	source    string // leat.Event.Source
	buf       []byte
	scratch   []byte
	documents []leat.Document // a slab that events point into
}

func newMaker(name string) *maker {
	return &maker{source: "mysql:" + name}
}

// id of the row's document.
func (m *maker) id(t *table, l *layout, cells []cell) string {
	m.buf = m.appendID(m.buf[:0], t, l, cells)
	return string(m.buf)
}

// appendID writes what leat.DocumentID would.
func (m *maker) appendID(dst []byte, t *table, l *layout, cells []cell) []byte {
	dst = append(dst, t.idPrefix...)
	for i, k := range l.key {
		if i > 0 {
			dst = append(dst, '/')
		}
		c := l.columns[k]
		if c.kind == signed || c.kind == unsigned {
			dst = c.appendText(dst, cells[k])
			continue
		}
		m.scratch = c.appendText(m.scratch[:0], cells[k])
		dst = append(dst, url.PathEscape(string(m.scratch))...)
	}
	return dst
}

// deleted is the event of a row that is gone.
func (m *maker) deleted(t *table, l *layout, cells []cell, version uint64, at time.Time) leat.Event {
	return leat.Event{ID: m.id(t, l, cells), Version: version, Source: m.source, Time: at}
}

// changed is the event of a row that was inserted, updated or read. Its size
// is about what it holds in memory, in bytes.
func (m *maker) changed(t *table, l *layout, cells []cell, version uint64, at time.Time) (e leat.Event, size int) {
	// One string holds id, title and body: one allocation for the three.
	b := m.appendID(m.buf[:0], t, l, cells)
	idEnd := len(b)
	if t.roles.title >= 0 {
		b = l.columns[t.roles.title].appendText(b, cells[t.roles.title])
	}
	titleEnd := len(b)
	b = m.appendBody(b, t, l, cells)
	m.buf = b

	if len(m.documents) == cap(m.documents) {
		m.documents = make([]leat.Document, 0, 256)
	}
	m.documents = append(m.documents, leat.Document{MediaType: t.mediaType})
	doc := &m.documents[len(m.documents)-1]
	var s string
	if body := b[titleEnd:]; len(body) > inlineLimit {
		doc.Ref = &leat.Ref{Name: string(b[len(t.idPrefix)-t.tableLen-1 : idEnd]), Tag: digest(body), Size: int64(len(body))}
		s = string(b[:titleEnd])
		m.buf = nil // a large buffer is not kept
	} else {
		s = string(b)
	}
	doc.Title = s[idEnd:titleEnd]
	doc.Body = s[titleEnd:]
	size = len(s) + 256
	if len(t.roles.meta) > 0 {
		doc.Metadata = make(map[string]any, len(t.roles.meta))
		for i, k := range t.roles.meta {
			doc.Metadata[t.cfg.Metadata[i]] = l.columns[k].value(cells[k], m.scratch)
			size += len(cells[k].b) + 64
		}
	}
	return leat.Event{ID: s[:idEnd], Version: version, Source: m.source, Time: at, Document: doc}, size
}

// appendBody joins the body's columns by blank lines.
func (m *maker) appendBody(dst []byte, t *table, l *layout, cells []cell) []byte {
	start := len(dst)
	for _, k := range t.roles.body {
		before := len(dst)
		if before > start {
			dst = append(dst, "\n\n"...)
		}
		from := len(dst)
		if dst = l.columns[k].appendText(dst, cells[k]); len(dst) == from {
			dst = dst[:before]
		}
	}
	return dst
}

// digest of a body: Ref.Tag.
func digest(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:16])
}

// keyLiterals are the SQL literals that compare equal to the row's key.
func keyLiterals(l *layout, cells []cell, charsetNames []string) []string {
	out := make([]string, len(l.key))
	for i, k := range l.key {
		c, v := l.columns[k], cells[k]
		switch c.kind {
		case signed, unsigned, decimal:
			out[i] = string(c.appendText(nil, v))
		case binaryKind:
			out[i] = fmt.Sprintf("X'%x'", v.b)
		case text: // in the column's own charset: no conversion stands between
			out[i] = fmt.Sprintf("_%s X'%x'", charsetNames[k], v.b)
		default:
			out[i] = fmt.Sprintf("'%s'", v.b)
		}
	}
	return out
}
