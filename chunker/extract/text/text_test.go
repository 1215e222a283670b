package text_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"leat"
	"leat/chunker/extract"
	"leat/chunker/extract/text"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func read(t *testing.T, src string) (blocks []extract.Block, err error) {
	c, err := text.Extract(t.Context(), strings.NewReader(src), extract.Options{})
	if err != nil {
		return nil, err
	}
	for b, err := range c.Blocks {
		if err != nil {
			return blocks, err
		}
		blocks = append(blocks, b)
	}
	return blocks, nil
}

func TestParagraphs(t *testing.T) {
	got, err := read(t, "one\ntwo\n\n \nthree")
	if err != nil {
		t.Fatal(err)
	}
	want := []extract.Block{{Text: "one\n"}, {Text: "two\n", Continued: true}, {Text: "\n", Continued: true}, {Text: " \n", Continued: true}, {Text: "three"}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func FuzzExtract(f *testing.F) {
	for _, s := range []string{"", "a\n\nb", "\ufeffa\r\n", "\xfe\xff\x00a", "caf\xe9", strings.Repeat("x", 17000)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, src string) {
		blocks, err := read(t, src)
		if err != nil {
			if !leat.IsPermanent(err) {
				t.Fatal(err)
			}
			return
		}
		var b strings.Builder
		for _, x := range blocks {
			b.WriteString(x.Text)
		}
		if got := b.String(); got != src && "\ufeff"+got != src && src[0] < 0xFE {
			t.Fatalf("%q became %q", src, got)
		}
	})
}
