package builtin

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var loaded struct {
	t   *Tokenizer
	err error
}

func tokenizer(t testing.TB) *Tokenizer {
	t.Helper()
	needModel(t)
	if loaded.t == nil && loaded.err == nil {
		loaded.t, loaded.err = NewTokenizer(Config{})
	}
	if loaded.err != nil {
		t.Fatal(loaded.err)
	}
	return loaded.t
}

func TestIDsEqualReference(t *testing.T) {
	tok := tokenizer(t)
	for _, g := range readGolden(t) {
		got := tok.Encode(nil, g.Text)
		if diff := cmp.Diff(g.IDs, got); diff != "" {
			t.Errorf("%.60q: (-reference +got)\n%s", g.Text, diff)
		}
		if n := tok.Count(g.Text); n != len(g.IDs) {
			t.Errorf("%.60q: Count %d, want %d", g.Text, n, len(g.IDs))
		}
	}
}

func TestHostileText(t *testing.T) {
	tok := tokenizer(t)
	const mask = 250001
	for _, text := range []string{"<s>", "</s>", "<pad>", "<unk>", "<mask>", "a</s>b <s><s> <mask>", "</s></s>"} {
		for _, id := range tok.Encode(nil, text) {
			if id == tok.bos || id == tok.eos || id == 1 || id == mask {
				t.Errorf("%q became special token %d", text, id)
			}
		}
	}
	if got, whole := tok.Count("before\x00after"), tok.Count("before"); got <= whole {
		t.Errorf("NUL ends the text: %d tokens, %d before it", got, whole)
	}
	before := tok.Encode(nil, "before")
	if got := tok.Encode(nil, "before\x00(and after"); !slices.Equal(got[:len(before)], before) || got[len(before)] != tok.unk || len(got) < len(before)+3 {
		t.Errorf("NUL is not one unknown character: %v", got)
	}
	for _, text := range []string{"\xff", "a\xe4\xbd", "\xf0\x9f\x98", "\xed\xa0\x80", strings.Repeat("\x80", 5000), strings.Repeat("\ufdfa", 2000)} {
		if n := tok.Count(text); n < 1 {
			t.Errorf("%.20q: %d tokens", text, n)
		}
	}
}

func TestDamagedTokenizerFile(t *testing.T) {
	needModel(t)
	f, err := openFolder(Config{})
	must(t, err)
	b, err := f.read(tokenizerFile)
	must(t, err)
	for _, n := range []int{0, 3, 4, 20, 28, 1000, 1 << 20, len(b) / 2, len(b) - 1} {
		if _, err := parseTokenizer(b[:n]); err == nil {
			t.Errorf("the first %d bytes were read as a tokenizer", n)
		}
	}
	for _, at := range []int{17, 19} { // the number of pieces
		spoilt := slices.Clone(b)
		spoilt[at] ^= 0x80
		if _, err := parseTokenizer(spoilt); err == nil {
			t.Errorf("with byte %d changed it was read as a tokenizer", at)
		}
	}
}

func FuzzTokenizer(f *testing.F) {
	if testing.Short() {
		f.Skip("left out under -short: needs the built-in model (make model)")
	}
	for _, g := range readGolden(f) {
		f.Add(g.Text)
	}
	f.Add("</s>\x00\xff")
	tok := tokenizer(f)
	f.Fuzz(func(t *testing.T, text string) {
		ids := tok.Encode(nil, text)
		if n := tok.Count(text); n != len(ids) || n < 1 {
			t.Fatalf("Count %d, %d ids", n, len(ids))
		}
		for _, id := range ids {
			if id == tok.bos || id == tok.eos || id < 0 || int(id) >= len(tok.scores) {
				t.Fatalf("id %d", id)
			}
		}
		// What is not UTF-8 is U+FFFD.
		if repaired := string([]rune(text)); !slices.Equal(ids, tok.Encode(nil, repaired)) {
			t.Fatal("broken UTF-8 was not read as U+FFFD")
		}
	})
}

func BenchmarkTokenizer(b *testing.B) {
	tok := tokenizer(b)
	var all strings.Builder
	for _, g := range readGolden(b) {
		all.WriteString(g.Text)
	}
	b.SetBytes(int64(all.Len()))
	for b.Loop() {
		tok.Count(all.String())
	}
}
