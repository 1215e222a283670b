package e2e

import (
	"strings"
	"testing"
)

// TestCompareFindsWhatIsWrong breaks a store on purpose in every way that the
// other tests look for.
func TestCompareFindsWhatIsWrong(t *testing.T) {
	want := map[string]expectedDocument{
		"a": {title: "A", text: "one two\n\nthree", metadata: map[string]any{"price": "1.50", "stock": uint64(3)}},
	}
	split := map[string][]string{"a": {"one two", "three"}}
	store := func() map[string]*storedDocument {
		return map[string]*storedDocument{
			"a": {version: 7, title: "A", stated: 2, metadata: map[string]any{"stock": float64(3), "price": "1.50"}, chunks: []storedChunk{
				{version: 7, ordinal: 0, from: 0, to: 7, data: []byte("one two")},
				{version: 7, ordinal: 1, from: 9, to: 14, data: []byte("three")},
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
		"ordinal 5":                  func(s map[string]*storedDocument) { s["a"].chunks[1].ordinal = 5 },
	} {
		s := store()
		spoil(s)
		if diff := strings.Join(compare(want, s, split), "\n"); !strings.Contains(diff, says) {
			t.Errorf("%q is not noticed: %q", says, diff)
		}
	}
	vectors := store()
	vectors["a"].version = 6
	if len(sameIndexes(store(), vectors)) == 0 {
		t.Error("indexes of different versions are not noticed")
	}
}
