package codec

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"leat"
	"leat/internal/bus"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// equal takes an empty slice or map for an absent one: JSON leaves both out.
var equal = cmpopts.EquateEmpty()

func text() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.String(),
		rapid.SampledFrom([]string{"", `"quoted\"`, "line\nline\r\t", "\x00\x1f\x7f", "中文，混合 text", "<&>  ", "😀"}),
	).Filter(func(s string) bool { return strings.ToValidUTF8(s, "") == s })
}

// metadata as it comes back: numbers as json.Number.
func metadata() *rapid.Generator[map[string]any] {
	number := rapid.Map(rapid.Uint64(), func(n uint64) any { return json.Number(json.Number(jsonOf(n))) })
	float := rapid.Map(rapid.Float64Range(-1e15, 1e15), func(f float64) any { return json.Number(jsonOf(f)) })
	scalar := rapid.OneOf(rapid.Map(text(), func(s string) any { return s }), rapid.Map(rapid.Bool(), func(b bool) any { return b }), number, float, rapid.Just[any](nil))
	value := rapid.OneOf(scalar,
		rapid.Map(rapid.SliceOfN(scalar, 0, 3), func(s []any) any { return append([]any{}, s...) }),
		rapid.Map(rapid.MapOfN(text(), scalar, 0, 3), func(m map[string]any) any { return m }))
	return rapid.MapOfN(text(), value, 0, 4)
}

func jsonOf(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func moment() *rapid.Generator[time.Time] {
	return rapid.Map(rapid.Int64Range(0, 1<<61), func(ns int64) time.Time { return time.Unix(0, ns).UTC() })
}

func event() *rapid.Generator[leat.Event] {
	return rapid.Custom(func(t *rapid.T) leat.Event {
		e := leat.Event{
			ID:      "mysql:shop/" + text().Draw(t, "id"),
			Version: rapid.Uint64Range(0, math.MaxInt64).Draw(t, "version"),
			Source:  "mysql:" + text().Draw(t, "source"),
			Time:    moment().Draw(t, "time"),
		}
		if rapid.Bool().Draw(t, "deleted") {
			return e
		}
		e.Document = &leat.Document{
			Title: text().Draw(t, "title"), MediaType: text().Draw(t, "type"), Metadata: metadata().Draw(t, "metadata"),
		}
		if rapid.Bool().Draw(t, "by reference") {
			e.Document.Ref = &leat.Ref{Name: "n" + text().Draw(t, "name"), Tag: text().Draw(t, "tag"), Size: rapid.Int64().Draw(t, "size")}
		} else {
			e.Document.Body = text().Draw(t, "body")
		}
		return e
	})
}

func TestEventRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := event().Draw(t, "event")
		r, err := EncodeEvent("documents", want)
		if err != nil {
			t.Fatal(err)
		}
		if (r.Value == nil) != (want.Document == nil) {
			t.Fatal("a null value is a delete and nothing else")
		}
		got, err := DecodeEvent(r)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got, equal); d != "" {
			t.Fatal(d)
		}
		if want.Document == nil {
			return
		}
		// What encoding/json makes of the document means the same.
		var std leat.Document
		if err := decodeJSON([]byte(jsonOf(want.Document)), &std); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(*got.Document, std, equal); d != "" {
			t.Fatal(d)
		}
	})
}

func TestMetadataOfSources(t *testing.T) {
	e := leat.Event{ID: "a", Source: "s", Document: &leat.Document{Metadata: map[string]any{
		"int": int64(math.MinInt64), "uint": uint64(math.MaxUint64), "plain": 7, "float": 0.1, "time": time.Unix(0, 5).UTC(), "raw": json.RawMessage(`{"a":1}`),
	}}}
	r, err := EncodeEvent("t", e)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"metadata":{"float":0.1,"int":-9223372036854775808,"plain":7,"raw":{"a":1},"time":"1970-01-01T00:00:00.000000005Z","uint":18446744073709551615}}`
	if d := cmp.Diff(want, string(r.Value)); d != "" {
		t.Fatal(d)
	}
}

func TestStringsThatAreNotUTF8(t *testing.T) {
	const s = "a\xffb\xc3"
	if got, want := string(appendString(nil, s)), jsonOf(s); strings.ReplaceAll(want, `\ufffd`, "\ufffd") != got {
		t.Fatalf("got %s, encoding/json gives %s", got, want)
	}
}

// TestEncodeRefuses lists the events that would end in dead letters at once.
func TestEncodeRefuses(t *testing.T) {
	good := leat.Event{ID: "a", Source: "s", Version: 1, Document: &leat.Document{}}
	for name, change := range map[string]func(*leat.Event){
		"no id":            func(e *leat.Event) { e.ID = "" },
		"id not UTF-8":     func(e *leat.Event) { e.ID = "\xff" },
		"no source":        func(e *leat.Event) { e.Source = "" },
		"version":          func(e *leat.Event) { e.Version = 1 << 63 },
		"year":             func(e *leat.Event) { e.Time = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"metadata no JSON": func(e *leat.Event) { e.Document.Metadata = map[string]any{"x": math.NaN()} },
	} {
		e, d := good, *good.Document
		e.Document = &d
		change(&e)
		if _, err := EncodeEvent("t", e); !leat.IsPermanent(err) {
			t.Errorf("%s: got %v, want a permanent error", name, err)
		}
	}
	if _, err := EncodeEvent("t", good); err != nil {
		t.Error(err)
	}
}

// TestDecodeRefuses is the table of what strangers may publish.
func TestDecodeRefuses(t *testing.T) {
	base := leat.Event{ID: "mysql:shop/t/1", Version: 5, Source: "mysql:shop", Time: time.Unix(1, 0), Document: &leat.Document{Body: "b"}}
	set := func(key, value string) func(*bus.Record) {
		return func(r *bus.Record) {
			for i := range r.Headers {
				if r.Headers[i].Key == key {
					r.Headers[i].Value = []byte(value)
					return
				}
			}
			r.Headers = append(r.Headers, bus.Header{Key: key, Value: []byte(value)})
		}
	}
	drop := func(key string) func(*bus.Record) { return set(key, "") }
	both := func(f ...func(*bus.Record)) func(*bus.Record) {
		return func(r *bus.Record) {
			for _, f := range f {
				f(r)
			}
		}
	}
	value := func(s string) func(*bus.Record) { return func(r *bus.Record) { r.Value = []byte(s) } }
	for _, c := range []struct {
		name   string
		change func(*bus.Record)
		says   string
	}{
		{"no key", func(r *bus.Record) { r.Key = nil }, "key is empty"},
		{"key not UTF-8", func(r *bus.Record) { r.Key = []byte{0xff} }, "not UTF-8"},
		{"no headers", func(r *bus.Record) { r.Headers = nil }, "ce_specversion, ce_id, ce_source, ce_type, ce_time, ce_leatversion"},
		{"no version", drop(headerVersion), "no header ce_leatversion"},
		{"spec", set(headerSpecVersion, "0.3"), `"0.3"`},
		{"version a word", set(headerVersion, "five"), `"five"`},
		{"version negative", set(headerVersion, "-5"), `"-5"`},
		{"version past 63 bits", set(headerVersion, "9223372036854775808"), `"9223372036854775808"`},
		{"id of another version", set(headerID, "mysql:shop/t/1@6"), "ce_id"},
		{"id of another document", set(headerID, "mysql:shop/t/2@5"), "ce_id"},
		{"subject of another document", set(headerSubject, "mysql:shop/t/2"), "ce_subject"},
		{"source without prefix", set(headerSource, "mysql:shop"), "ce_source"},
		{"source empty", set(headerSource, "/leat/"), "ce_source"},
		{"type", set(headerType, "document"), `"document"`},
		{"delete with a value", set(headerType, TypeDeleted), "there is a value"},
		{"upsert without a value", func(r *bus.Record) { r.Value = nil }, "the value is null"},
		{"time", set(headerTime, "yesterday"), `"yesterday"`},
		{"content type", set(headerContentType, "text/plain"), `"text/plain"`},
		{"empty value", value(""), "JSON"},
		{"truncated", value(`{"body":"x`), "JSON"},
		{"more after it", value(`{"body":"x"} {}`), "more after"},
		{"a list", value(`[]`), "JSON"},
		{"body no string", value(`{"body":7}`), "body"},
		{"not UTF-8", value("{\"body\":\"\xff\"}"), "UTF-8"},
		{"body and ref", value(`{"body":"x","ref":{"name":"n","tag":"t"}}`), "both"},
		{"ref without name", value(`{"ref":{"tag":"t"}}`), "no name"},
		{"two mistakes", both(set(headerTime, "x"), set(headerType, "y")), "ce_t"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := EncodeEvent("shop.documents", base)
			if err != nil {
				t.Fatal(err)
			}
			r.Partition, r.Offset = 3, 77
			c.change(&r)
			_, err = DecodeEvent(r)
			if !leat.IsPermanent(err) || leat.HintOf(err) == "" {
				t.Fatalf("got %v with hint %q, want a permanent error with a hint", err, leat.HintOf(err))
			}
			if !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "shop.documents/3 offset 77") {
				t.Fatalf("%v does not say %q and where", err, c.says)
			}
		})
	}
}

// TestDecodeTakes lists what other publishers may do differently.
func TestDecodeTakes(t *testing.T) {
	want := leat.Event{ID: "x", Version: 5, Source: "crm", Time: time.Unix(1, 0).UTC(), Document: &leat.Document{Body: "b"}}
	r := bus.Record{Key: []byte("x"), Value: []byte(` {"body":"b","later":1} `), Headers: []bus.Header{
		{Key: "traceparent", Value: []byte("00-1-2-01")},
		{Key: headerContentType, Value: []byte("application/json; charset=utf-8")},
		{Key: headerSubject, Value: []byte("x")},
		{Key: headerVersion, Value: []byte("5")}, {Key: headerID, Value: []byte("x@5")},
		{Key: headerSpecVersion, Value: []byte("1.0")}, {Key: headerType, Value: typeUpserted},
		{Key: headerSource, Value: []byte("/leat/crm")}, {Key: headerTime, Value: []byte("1970-01-01T01:00:01+01:00")},
	}}
	got, err := DecodeEvent(r)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatal(d)
	}
}

func revision() *rapid.Generator[leat.Revision] {
	chunk := rapid.Custom(func(t *rapid.T) leat.Chunk {
		return leat.Chunk{
			ID: text().Draw(t, "id"), Ordinal: rapid.Int().Draw(t, "ordinal"), Start: rapid.Int64().Draw(t, "start"), End: rapid.Int64().Draw(t, "end"),
			Tokens: rapid.Int().Draw(t, "tokens"), Heading: rapid.SliceOfN(text(), 0, 3).Draw(t, "heading"), Page: rapid.Int().Draw(t, "page"),
			Text: text().Draw(t, "text"), Vector: rapid.SliceOfN(rapid.Float32(), 0, 5).Draw(t, "vector"),
		}
	})
	return rapid.Custom(func(t *rapid.T) leat.Revision {
		return leat.Revision{
			Document: "d" + text().Draw(t, "document"), Version: rapid.Uint64Range(0, math.MaxInt64).Draw(t, "version"), Source: text().Draw(t, "source"),
			Time: moment().Draw(t, "time"), Deleted: rapid.Bool().Draw(t, "deleted"), Title: text().Draw(t, "title"), MediaType: text().Draw(t, "type"),
			Tag: text().Draw(t, "tag"), Metadata: metadata().Draw(t, "metadata"), Part: rapid.Int().Draw(t, "part"), Last: rapid.Bool().Draw(t, "last"),
			Chunks: rapid.SliceOfN(chunk, 0, 4).Draw(t, "chunks"),
		}
	})
}

func TestRevisionRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := revision().Draw(t, "revision")
		r, err := EncodeRevision("chunks", want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeRevision(r)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got, equal); d != "" {
			t.Fatal(d)
		}
	})
}

// TestRevisionSize: what the chunker is told before there are vectors is never
// less than what the embedder's record takes, and no more than a little.
func TestRevisionSize(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rev := revision().Draw(t, "revision")
		dim := rapid.IntRange(0, 20).Draw(t, "dimension")
		for i := range rev.Chunks {
			rev.Chunks[i].Vector = make([]float32, dim)
		}
		says, err := RevisionSize(rev, dim)
		if err != nil {
			t.Fatal(err)
		}
		r, err := EncodeRevision("vectors", rev)
		if err != nil {
			t.Fatal(err)
		}
		if is := len(r.Key) + len(r.Value); is > says || says > is+recordOverhead {
			t.Fatalf("says %d, is %d", says, is)
		}
	})
}

func TestDecodeRevisionRefuses(t *testing.T) {
	for name, r := range map[string]bus.Record{
		"no JSON":       {Key: []byte("a"), Value: []byte("{")},
		"null":          {Key: []byte("a")},
		"other key":     {Key: []byte("b"), Value: []byte(`{"document":"a"}`)},
		"no document":   {Value: []byte(`{}`)},
		"version":       {Key: []byte("a"), Value: []byte(`{"document":"a","version":9223372036854775808}`)},
		"vector":        {Key: []byte("a"), Value: []byte(`{"document":"a","chunks":[{"vector":"AAA="}]}`)},
		"vector base64": {Key: []byte("a"), Value: []byte(`{"document":"a","chunks":[{"vector":"?"}]}`)},
	} {
		if _, err := DecodeRevision(r); !leat.IsPermanent(err) || leat.HintOf(err) == "" {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := EncodeRevision("t", leat.Revision{}); !leat.IsPermanent(err) {
		t.Errorf("no document: got %v", err)
	}
}

// FuzzDecodeEvent: whatever is published, decoding ends in an event that
// encodes to an equal one, or in a permanent error with a hint.
func FuzzDecodeEvent(f *testing.F) {
	f.Add("k", `{"body":"b"}`, true, "1.0", "k@1", "/leat/s", TypeUpserted, "2026-01-02T03:04:05Z", "1")
	f.Add("k", ``, false, "1.0", "k@1", "/leat/s", TypeDeleted, "2026-01-02T03:04:05.123456789+08:00", "1")
	f.Add("k", `{"metadata":{"a":[1e400,{"b":null}]}}`, true, "1.0", "k@1", "/leat/s", TypeUpserted, "2026-01-02T03:04:05Z", "01")
	f.Fuzz(func(t *testing.T, key, value string, hasValue bool, spec, id, source, kind, stamp, version string) {
		r := bus.Record{Key: []byte(key), Headers: []bus.Header{
			{Key: headerSpecVersion, Value: []byte(spec)}, {Key: headerID, Value: []byte(id)}, {Key: headerSource, Value: []byte(source)},
			{Key: headerType, Value: []byte(kind)}, {Key: headerTime, Value: []byte(stamp)}, {Key: headerVersion, Value: []byte(version)},
		}}
		if hasValue {
			r.Value = []byte(value)
		}
		e, err := DecodeEvent(r)
		if err != nil {
			if !leat.IsPermanent(err) || leat.HintOf(err) == "" {
				t.Fatalf("%v is not permanent or has no hint", err)
			}
			return
		}
		again, err := EncodeEvent("", e)
		if err != nil {
			if y := e.Time.Year(); y < 0 || y > 9999 { // 9999 in another zone
				return
			}
			t.Fatal(err)
		}
		got, err := DecodeEvent(again)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(e, got, equal); d != "" {
			t.Fatal(d)
		}
	})
}

func FuzzDecodeRevision(f *testing.F) {
	f.Add("a", `{"document":"a","version":3,"chunks":[{"id":"x","vector":"AACAPw=="}],"last":true}`)
	f.Fuzz(func(t *testing.T, key, value string) {
		rev, err := DecodeRevision(bus.Record{Key: []byte(key), Value: []byte(value)})
		if err != nil {
			if !leat.IsPermanent(err) {
				t.Fatal(err)
			}
			return
		}
		if y := rev.Time.Year(); y < 0 || y > 9999 {
			return
		}
		r, err := EncodeRevision("", rev)
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeRevision(r)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(rev, got, equal, cmpopts.EquateNaNs()); d != "" {
			t.Fatal(d)
		}
	})
}

func BenchmarkEvent(b *testing.B) {
	e := leat.Event{
		ID: leat.DocumentID("mysql", "shop", "store.products", "123456"), Version: 1<<52 + 7, Source: "mysql:shop", Time: time.Unix(1700000000, 123456000),
		Document: &leat.Document{Title: "Mechanical keyboard", MediaType: "text/plain", Body: strings.Repeat("quick \"brown\" foxes; ", 22),
			Metadata: map[string]any{"price": "19.99", "stock": int64(7), "brand": "Acme"}},
	}
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := EncodeEvent("t", e); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encoding-json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := json.Marshal(e.Document); err != nil {
				b.Fatal(err)
			}
		}
	})
	r, err := EncodeEvent("t", e)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := DecodeEvent(r); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkRevision(b *testing.B) {
	rev := leat.Revision{Document: "d", Version: 1, Last: true}
	for i := range 10 {
		v := make([]float32, 384)
		for j := range v {
			v[j] = float32(i*j) / 1000
		}
		rev.Chunks = append(rev.Chunks, leat.Chunk{ID: leat.ChunkID("d", "t", i), Ordinal: i, Text: strings.Repeat("quick brown foxes ", 50), Vector: v})
	}
	r, err := EncodeRevision("t", rev)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("encode", func(b *testing.B) {
		for b.Loop() {
			if _, err := EncodeRevision("t", rev); err != nil {
				b.Fatal(errors.Unwrap(err))
			}
		}
	})
	b.Run("decode", func(b *testing.B) {
		for b.Loop() {
			if _, err := DecodeRevision(r); err != nil {
				b.Fatal(err)
			}
		}
	})
}
