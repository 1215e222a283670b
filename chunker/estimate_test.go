package chunker_test

import (
	"testing"

	"leat/chunker"
)

func TestEstimate(t *testing.T) {
	for text, want := range map[string]int{
		"": 0, " \n\t": 0, "a": 1, "word": 1, "words": 2, "Word": 1, "NASA": 2,
		"a b c": 3, "2026": 2, "x=1;": 4, "你好世界": 4, "Привет": 3, "👍": 1,
	} {
		if got := chunker.Estimate.Count(text); got != want {
			t.Errorf("%q: %d tokens, want %d", text, got, want)
		}
	}
}
