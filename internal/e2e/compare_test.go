package e2e

import (
	"encoding/binary"
	"math"
	"strings"
	"testing"

	"leat/embedder/embeddertest"
)

// TestCompareFindsWhatIsWrong breaks a store on purpose in every way that the
// other tests look for.
func TestCompareFindsWhatIsWrong(t *testing.T) {
	want := map[string]expectedDocument{
		"a": {title: "A", tag: "t", text: "one two\n\nthree", metadata: map[string]any{"price": "1.50", "stock": uint64(3)}},
	}
	split := map[string][]string{"a": {"one two", "three"}}
	store := func() map[string]*storedDocument {
		return map[string]*storedDocument{
			"a": {version: 7, title: "A", tag: "t", stated: 2, metadata: map[string]any{"stock": float64(3), "price": "1.50"}, chunks: []storedChunk{
				{id: chunkID("a", "one two", 0), version: 7, ordinal: 0, from: 0, to: 7, data: []byte("one two")},
				{id: chunkID("a", "three", 0), version: 7, ordinal: 1, from: 9, to: 14, data: []byte("three")},
			}},
			"gone": {version: 3, deleted: true},
		}
	}
	if diff := compare(want, store(), split); len(diff) > 0 {
		t.Fatalf("equal stores differ: %v", diff)
	}
	for says, spoil := range map[string]func(map[string]*storedDocument){
		"missing":                    func(s map[string]*storedDocument) { delete(s, "a") },
		"a: missing":                 func(s map[string]*storedDocument) { s["a"].deleted = true },
		"orphaned":                   func(s map[string]*storedDocument) { s["b"] = &storedDocument{version: 1} },
		"has 1 chunks":               func(s map[string]*storedDocument) { s["gone"].chunks = s["a"].chunks[:1] },
		"title":                      func(s map[string]*storedDocument) { s["a"].title = "old" },
		"metadata":                   func(s map[string]*storedDocument) { s["a"].metadata["price"] = "1.5" },
		"version 6 beside version 7": func(s map[string]*storedDocument) { s["a"].chunks[0].version = 6 },
		"is not the text":            func(s map[string]*storedDocument) { s["a"].chunks[0].data = []byte("one too") },
		"no chunk holds the end":     func(s map[string]*storedDocument) { s["a"].chunks = s["a"].chunks[:1] },
		"no chunk holds \"one":       func(s map[string]*storedDocument) { s["a"].chunks = s["a"].chunks[1:] },
		"are not the 2":              func(s map[string]*storedDocument) { s["a"].chunks = s["a"].chunks[:1] },
		"says 3 chunks":              func(s map[string]*storedDocument) { s["a"].stated = 3 },
		"tag":                        func(s map[string]*storedDocument) { s["a"].tag = "old" },
		"has the id":                 func(s map[string]*storedDocument) { s["a"].chunks[1].id = s["a"].chunks[0].id },
		"ordinal 5":                  func(s map[string]*storedDocument) { s["a"].chunks[1].ordinal = 5 },
	} {
		s := store()
		spoil(s)
		if diff := strings.Join(compare(want, s, split), "\n"); !strings.Contains(diff, says) {
			t.Errorf("%q is not noticed: %q", says, diff)
		}
	}
	for says, spoil := range map[string]func(*storedDocument){
		"of different versions": func(d *storedDocument) { d.version = 6 },
		"of different chunks":   func(d *storedDocument) { d.chunks[1].id = "other" },
		"of different places":   func(d *storedDocument) { d.chunks[1].from = 8 },
	} {
		vectors := store()
		spoil(vectors["a"])
		if len(sameIndexes(store(), vectors)) == 0 {
			t.Errorf("indexes %s are not noticed", says)
		}
	}
	vectors := store()
	for i, text := range []string{"one two", "three"} {
		var data []byte
		for _, x := range embeddertest.Vector("A\n"+text, 8) {
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(x))
		}
		vectors["a"].chunks[i].data = data
	}
	if diff := compareVectors(store(), vectors, 8); len(diff) > 0 {
		t.Errorf("equal vectors differ: %v", diff)
	}
	if len(compareVectors(store(), vectors, 9)) != 2 {
		t.Error("vectors of another dimension are not noticed")
	}
	vectors["a"].chunks[1].data = vectors["a"].chunks[0].data
	if len(compareVectors(store(), vectors, 8)) != 1 {
		t.Error("a vector of another text is not noticed")
	}
}
