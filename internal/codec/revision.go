package codec

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
	"unicode/utf8"

	"leat"
	"leat/internal/bus"
)

// wireRevision is the JSON of a revision: leat.Revision with the chunks' vectors.
type wireRevision struct {
	leat.Revision
	Chunks []wireChunk `json:"chunks"`
}

type wireChunk struct {
	leat.Chunk
	Vector []byte `json:"vector"` // base64 of little-endian float32
}

// EncodeRevision makes the record of a revision, or one part of it, for topic.
// A revision that no decoder would take is a Permanent error.
func EncodeRevision(topic string, r leat.Revision) (bus.Record, error) {
	if r.Document == "" || !utf8.ValidString(r.Document) {
		return bus.Record{}, leat.Permanent(fmt.Errorf("codec: revision of %s: document id %q is empty or not UTF-8", r.Source, r.Document))
	}
	size := 2*len(r.Document) + 300 + 48*len(r.Metadata)
	for i := range r.Chunks {
		c := &r.Chunks[i]
		size += len(c.Text) + len(c.Text)/16 + base64.StdEncoding.EncodedLen(4*len(c.Vector)) + 160
	}
	b := append(make([]byte, 0, size), r.Document...)
	at := len(b)
	key := b[:at:at]
	b, err := appendRevision(b, &r)
	if err != nil {
		return bus.Record{}, leat.Permanent(fmt.Errorf("codec: revision of %s: %w", r.Document, err))
	}
	return bus.Record{Topic: topic, Key: key, Value: b[at:]}, nil
}

func appendRevision(b []byte, r *leat.Revision) ([]byte, error) {
	o := object{b: append(b, '{')}
	o.key("document")
	o.b = appendString(o.b, r.Document)
	o.key("version")
	var err error
	if o.b, err = appendValue(o.b, r.Version); err != nil {
		return nil, err
	}
	o.string("source", r.Source)
	if !r.Time.IsZero() {
		o.string("time", r.Time.UTC().Format(time.RFC3339Nano))
	}
	o.bool("again", r.Again)
	o.bool("deleted", r.Deleted)
	o.string("title", r.Title)
	o.string("media_type", r.MediaType)
	o.string("tag", r.Tag)
	if err := o.metadata(r.Metadata); err != nil {
		return nil, err
	}
	o.int("part", int64(r.Part))
	o.bool("last", r.Last)
	if len(r.Chunks) > 0 {
		o.key("chunks")
		o.b = append(o.b, '[')
		for i := range r.Chunks {
			if i > 0 {
				o.b = append(o.b, ',')
			}
			o.b = appendChunk(o.b, &r.Chunks[i])
		}
		o.b = append(o.b, ']')
	}
	return append(o.b, '}'), nil
}

func appendChunk(b []byte, c *leat.Chunk) []byte {
	o := object{b: append(b, '{')}
	o.string("id", c.ID)
	o.int("ordinal", int64(c.Ordinal))
	o.int("start", c.Start)
	o.int("end", c.End)
	o.int("tokens", int64(c.Tokens))
	o.strings("heading", c.Heading)
	o.int("page", int64(c.Page))
	o.string("text", c.Text)
	o.vector("vector", c.Vector)
	return append(o.b, '}')
}

// RevisionSize is how many bytes the record of r takes once its chunks have
// vectors of that dimension: what has to stay below the topic's message size
// when a document is cut into parts. It is ChunkSize over the chunks and what
// the document itself adds to each part.
func RevisionSize(r leat.Revision, dimension int) (int, error) {
	n := 0
	for i := range r.Chunks {
		n += ChunkSize(r.Chunks[i], dimension)
	}
	r.Chunks = nil
	record, err := EncodeRevision("", r)
	if err != nil {
		return 0, err
	}
	return n + len(record.Key) + len(record.Value) + recordOverhead, nil
}

// ChunkSize is how many bytes a chunk takes in its revision's record once it
// has a vector of that dimension.
func ChunkSize(c leat.Chunk, dimension int) int {
	c.Vector = nil
	n := len(appendChunk(make([]byte, 0, len(c.Text)+len(c.Text)/16+200), &c)) + 1
	if dimension > 0 {
		n += len(`,"vector":""`) + base64.StdEncoding.EncodedLen(4*dimension)
	}
	return n
}

// recordOverhead covers `,"chunks":[]` and what Kafka adds to a record and its batch.
const recordOverhead = 128

// DecodeRevision reads a revision's record. Every error is Permanent. Numbers
// in metadata come back as json.Number.
func DecodeRevision(r bus.Record) (leat.Revision, error) {
	rev, err := decodeRevision(&r)
	if err != nil {
		err = fmt.Errorf("codec: revision %q at %s/%d offset %d: %w", r.Key, r.Topic, r.Partition, r.Offset, err)
		return leat.Revision{}, leat.Permanent(leat.Hint(err, "nothing but leat writes to %s: find what else does", r.Topic))
	}
	return rev, nil
}

func decodeRevision(r *bus.Record) (leat.Revision, error) {
	var w wireRevision
	if err := decodeJSON(r.Value, &w); err != nil {
		return leat.Revision{}, err
	}
	rev := w.Revision
	if rev.Document != string(r.Key) || rev.Document == "" {
		return leat.Revision{}, fmt.Errorf("it is of document %q, not of its key", rev.Document)
	}
	if rev.Version > maxVersion {
		return leat.Revision{}, fmt.Errorf("version %d is past %d", rev.Version, uint64(maxVersion))
	}
	rev.Time = rev.Time.UTC()
	rev.Chunks = nil
	if len(w.Chunks) > 0 {
		rev.Chunks = make([]leat.Chunk, len(w.Chunks))
	}
	for i, c := range w.Chunks {
		rev.Chunks[i] = c.Chunk
		if len(c.Vector)%4 != 0 {
			return leat.Revision{}, errors.New("a vector is not made of float32")
		}
		if len(c.Vector) == 0 {
			continue
		}
		v := make([]float32, len(c.Vector)/4)
		for j := range v {
			v[j] = math.Float32frombits(binary.LittleEndian.Uint32(c.Vector[4*j:]))
		}
		rev.Chunks[i].Vector = v
	}
	return rev, nil
}
