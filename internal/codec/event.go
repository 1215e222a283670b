// Package codec turns the flow's types into Kafka records and back.
//
// Events follow CloudEvents 1.0 in binary mode (docs/formats.md): the key is
// the document id, the value the JSON of leat.Document, no value a delete, and
// the rest stands in headers. Anyone may publish events, so decoding checks
// everything and its errors say what to mend. Revisions are internal: JSON,
// vectors as base64 of little-endian float32.
package codec

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"leat"
	"leat/internal/bus"
)

// Headers of an event's record.
const (
	headerSpecVersion = "ce_specversion"
	headerID          = "ce_id"
	headerSource      = "ce_source"
	headerType        = "ce_type"
	headerTime        = "ce_time"
	headerSubject     = "ce_subject" // optional
	headerVersion     = "ce_leatversion"
	headerAgain       = "ce_leatagain" // optional, see leat.Event
	headerContentType = "content-type"
)

// Types of events.
const (
	TypeUpserted = "leat.document.upserted"
	TypeDeleted  = "leat.document.deleted"
)

const (
	sourcePrefix = "/leat/"
	maxVersion   = 1<<63 - 1
)

// Header values that are the same in every event. Nobody changes them.
var (
	specVersion  = []byte("1.0")
	typeUpserted = []byte(TypeUpserted)
	typeDeleted  = []byte(TypeDeleted)
	contentType  = []byte("application/json")
	again        = []byte("true")
)

// EncodeEvent makes the record of an event for topic. An event that no
// decoder would take is a Permanent error.
func EncodeEvent(topic string, e leat.Event) (bus.Record, error) {
	switch {
	case e.ID == "" || !utf8.ValidString(e.ID):
		return bus.Record{}, leat.Permanent(fmt.Errorf("codec: event of %s: id %q is empty or not UTF-8", e.Source, e.ID))
	case e.Source == "":
		return bus.Record{}, leat.Permanent(fmt.Errorf("codec: event of %s has no source", e.ID))
	case e.Time.UTC().Year() < 0 || e.Time.UTC().Year() > 9999:
		return bus.Record{}, leat.Permanent(fmt.Errorf("codec: event of %s: RFC 3339 has no year %d", e.ID, e.Time.UTC().Year()))
	case e.Version > maxVersion:
		return bus.Record{}, leat.Permanent(fmt.Errorf("codec: event of %s: version %d is past %d", e.ID, e.Version, uint64(maxVersion)))
	}
	// One allocation holds everything but the slice of headers.
	size := 2*len(e.ID) + len(e.Source) + 100
	if d := e.Document; d != nil {
		size += len(d.Title) + len(d.Body) + len(d.Body)/16 + 48*len(d.Metadata) + 100
	}
	b := make([]byte, 0, size)
	cut := func() []byte { // what was appended since the last cut
		v := b[:len(b):len(b)]
		b = b[len(b):]
		return v
	}
	b = append(b, e.ID...)
	key := cut()
	b = append(b, e.ID...)
	b = append(b, '@')
	at := len(b)
	b = strconv.AppendUint(b, e.Version, 10)
	id := cut()
	version := id[at:]
	b = append(b, sourcePrefix...)
	b = append(b, e.Source...)
	source := cut()
	b = e.Time.UTC().AppendFormat(b, time.RFC3339Nano)
	stamp := cut()

	r := bus.Record{Topic: topic, Key: key, Headers: make([]bus.Header, 6, 8)}
	r.Headers[0] = bus.Header{Key: headerSpecVersion, Value: specVersion}
	r.Headers[1] = bus.Header{Key: headerID, Value: id}
	r.Headers[2] = bus.Header{Key: headerSource, Value: source}
	r.Headers[3] = bus.Header{Key: headerType, Value: typeDeleted}
	r.Headers[4] = bus.Header{Key: headerTime, Value: stamp}
	r.Headers[5] = bus.Header{Key: headerVersion, Value: version}
	if e.Again {
		r.Headers = append(r.Headers, bus.Header{Key: headerAgain, Value: again})
	}
	if e.Document == nil {
		return r, nil
	}
	var err error
	if b, err = appendDocument(b, e.Document); err != nil {
		return bus.Record{}, leat.Permanent(fmt.Errorf("codec: event of %s: %w", e.ID, err))
	}
	r.Value = cut()
	r.Headers[3].Value = typeUpserted
	r.Headers = append(r.Headers, bus.Header{Key: headerContentType, Value: contentType})
	return r, nil
}

// MarkAgain marks the record of an event, see leat.Event.
func MarkAgain(r bus.Record) bus.Record {
	r.Headers = slices.DeleteFunc(slices.Clone(r.Headers), func(h bus.Header) bool { return h.Key == headerAgain })
	r.Headers = append(r.Headers, bus.Header{Key: headerAgain, Value: again})
	return r
}

// ContentTag identifies the content of the document that an event's record
// carries: the tag of its ref, or a digest of all of it (22 characters of
// URL-safe base64, of SHA-256).
func ContentTag(d *leat.Document, record bus.Record) string {
	if d.Ref != nil {
		return d.Ref.Tag
	}
	sum := sha256.Sum256(record.Value)
	return base64.RawURLEncoding.EncodeToString(sum[:])[:22]
}

func appendDocument(b []byte, d *leat.Document) ([]byte, error) {
	o := object{b: append(b, '{')}
	o.string("title", d.Title)
	o.string("media_type", d.MediaType)
	o.string("body", d.Body)
	if d.Ref != nil {
		o.key("ref")
		ref := object{b: append(o.b, '{')}
		ref.key("name")
		ref.b = appendString(ref.b, d.Ref.Name)
		ref.key("tag")
		ref.b = appendString(ref.b, d.Ref.Tag)
		ref.int("size", d.Ref.Size)
		o.b = append(ref.b, '}')
	}
	if err := o.metadata(d.Metadata); err != nil {
		return nil, err
	}
	return append(o.b, '}'), nil
}

// DecodeEvent reads an event's record. Every error is Permanent, says what is
// wrong, and hints at how to publish it right. Numbers in metadata come back as
// json.Number: a 64-bit key stays what it was.
func DecodeEvent(r bus.Record) (leat.Event, error) {
	e, err := decodeEvent(&r)
	if err == nil {
		return e, nil
	}
	err = fmt.Errorf("codec: event %q at %s/%d offset %d: %w", r.Key, r.Topic, r.Partition, r.Offset, err)
	if leat.HintOf(err) == "" {
		err = leat.Hint(err, "publish events as docs/formats.md lays them out")
	}
	return leat.Event{}, leat.Permanent(err)
}

func decodeEvent(r *bus.Record) (leat.Event, error) {
	e := leat.Event{ID: string(r.Key)}
	if e.ID == "" || !utf8.ValidString(e.ID) {
		return e, leat.Hint(errors.New("the key is empty or not UTF-8"), "the key of an event is the document's id")
	}
	h, err := eventHeaders(r.Headers)
	if err != nil {
		return e, err
	}
	if h.specVersion != string(specVersion) {
		return e, fmt.Errorf("header %s is %q, want %q", headerSpecVersion, h.specVersion, specVersion)
	}
	v, err := strconv.ParseUint(h.version, 10, 64)
	if err != nil || v > maxVersion {
		return e, leat.Hint(fmt.Errorf("header %s is %q", headerVersion, h.version),
			"a version is a decimal number from 0 to %d that rises with every change of the document", uint64(maxVersion))
	}
	e.Version = v
	if want := e.ID + "@" + strconv.FormatUint(v, 10); h.id != want {
		return e, leat.Hint(fmt.Errorf("header %s is %q, want %q", headerID, h.id, want),
			"%s is the key, an @ and %s", headerID, headerVersion)
	}
	if h.subject != "" && h.subject != e.ID {
		return e, leat.Hint(fmt.Errorf("header %s is %q, not the key", headerSubject, h.subject), "leave %s out, or give it the document's id", headerSubject)
	}
	source, ok := strings.CutPrefix(h.source, sourcePrefix)
	if !ok || source == "" {
		return e, leat.Hint(fmt.Errorf("header %s is %q", headerSource, h.source),
			"%s is %s and the kind and name of the source, such as %smysql:shop", headerSource, sourcePrefix, sourcePrefix)
	}
	e.Source = source
	if e.Time, err = time.Parse(time.RFC3339Nano, h.time); err != nil {
		return e, leat.Hint(fmt.Errorf("header %s is %q", headerTime, h.time), "a time is written as in 2006-01-02T15:04:05.999Z (RFC 3339)")
	}
	e.Time = e.Time.UTC()
	if h.again != "" && h.again != string(again) {
		return e, leat.Hint(fmt.Errorf("header %s is %q", headerAgain, h.again), "leave it out, or write %s", again)
	}
	e.Again = h.again != ""
	switch {
	case h.kind == TypeDeleted && r.Value == nil:
		return e, nil
	case h.kind == TypeDeleted:
		return e, leat.Hint(fmt.Errorf("header %s is %q and there is a value", headerType, h.kind), "a delete has a null value, an upsert the type %s", TypeUpserted)
	case h.kind != TypeUpserted:
		return e, fmt.Errorf("header %s is %q, want %q or %q", headerType, h.kind, TypeUpserted, TypeDeleted)
	case r.Value == nil:
		return e, leat.Hint(fmt.Errorf("header %s is %q and the value is null", headerType, h.kind), "an upsert has a document as its value, a delete the type %s", TypeDeleted)
	}
	if t, _, _ := strings.Cut(h.contentType, ";"); t != "" && t != string(contentType) {
		return e, fmt.Errorf("header %s is %q, want %q", headerContentType, h.contentType, contentType)
	}
	e.Document = new(leat.Document)
	if err := decodeJSON(r.Value, e.Document); err != nil {
		return e, leat.Hint(fmt.Errorf("the value is not the JSON of a document: %w", err), `the value is an object such as {"title": "…", "body": "…"}`)
	}
	if d := e.Document; d.Ref != nil && d.Body != "" {
		return e, leat.Hint(errors.New("the document has both a body and a ref"), "give the text inline as body, or where it stands as ref")
	} else if d.Ref != nil && d.Ref.Name == "" {
		return e, errors.New("the document's ref has no name")
	}
	return e, nil
}

// headers of an event; "" for one that is absent and may be.
type headers struct {
	specVersion, id, source, kind, time, version string
	subject, again, contentType                  string
}

func eventHeaders(all []bus.Header) (headers, error) {
	var h headers
	fields := [...]struct {
		key      string
		to       *string
		required bool
	}{
		{headerSpecVersion, &h.specVersion, true},
		{headerID, &h.id, true},
		{headerSource, &h.source, true},
		{headerType, &h.kind, true},
		{headerTime, &h.time, true},
		{headerVersion, &h.version, true},
		{headerSubject, &h.subject, false},
		{headerAgain, &h.again, false},
		{headerContentType, &h.contentType, false},
	}
	for i := range all {
		for j := range fields {
			if f := &fields[j]; f.key == all[i].Key && *f.to == "" {
				*f.to = string(all[i].Value)
				break
			}
		}
	}
	var missing []string
	for _, f := range fields {
		if f.required && *f.to == "" {
			missing = append(missing, f.key)
		}
	}
	if len(missing) > 0 {
		return h, leat.Hint(fmt.Errorf("no header %s", strings.Join(missing, ", ")), "publish events in the binary mode of CloudEvents, with the headers of docs/formats.md")
	}
	return h, nil
}

// decodeJSON decodes one JSON value, with numbers in any as json.Number.
func decodeJSON(b []byte, v any) error {
	if !utf8.Valid(b) {
		return errors.New("not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is more after the first value")
	}
	return nil
}
