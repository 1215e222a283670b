package markdown_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"leat/chunker/extract"
	"leat/chunker/extract/markdown"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// outline shows blocks, one a line: kind, "+" if continued, text.
func outline(t testing.TB, src string) string {
	t.Helper()
	c, err := markdown.Extract(t.Context(), strings.NewReader(src), extract.Options{})
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[extract.Kind]string{extract.Paragraph: "p", extract.Heading: "h", extract.List: "li", extract.Table: "tr", extract.Code: "code"}
	var b, text strings.Builder
	for x, err := range c.Blocks {
		if err != nil {
			t.Fatal(err)
		}
		text.WriteString(x.Text)
		s := strings.TrimRight(x.Text, "\r\n")
		if s == "" {
			continue
		}
		k := kinds[x.Kind]
		if x.Level > 0 {
			k = fmt.Sprintf("h%d(%s)", x.Level, x.Title)
		}
		if x.Continued {
			k = "+" + k
		}
		fmt.Fprintf(&b, "%s: %s\n", k, s)
	}
	if d := cmp.Diff(src, text.String()); d != "" {
		t.Fatalf("the blocks are not the text: %s", d)
	}
	return b.String()
}

func TestStructure(t *testing.T) {
	for _, tt := range []struct{ name, src, want string }{
		{"headings", "# A #\ntext\n### B ##\n#hashtag\n####### seven\n", "h1(A): # A #\np: text\nh3(B): ### B ##\np: #hashtag\n+p: ####### seven\n"},
		{"empty heading", "#\nx\n", "h1(): #\np: x\n"},
		{"heading that ends in a sign", "# C#\n", "h1(C#): # C#\n"},
		{"setext", "Title\n=====\ntext\n\nPart\n---\n", "h1(Title): Title\n+h: =====\np: text\nh2(Part): Part\n+h: ---\n"},
		{"rule, not setext", "a\n\n---\nb\n", "p: a\np: ---\n+p: b\n"},
		{"only a first line is underlined", "a\nb\n---\n", "p: a\n+p: b\n+p: ---\n"},
		{"paragraphs", "a\nb\n\nc", "p: a\n+p: b\np: c\n"},
		{"fence", "a\n```go\nx := 1\n\n# no heading\n```\nb\n", "p: a\ncode: ```go\n+code: x := 1\n+code: # no heading\n+code: ```\np: b\n"},
		{"fence in a fence", "````\n```\n````\nx\n", "code: ````\n+code: ```\n+code: ````\np: x\n"},
		{"tilde fence never closed", "~~~\na\n", "code: ~~~\n+code: a\n"},
		{"inline code is no fence", "```a``` b\n", "p: ```a``` b\n"},
		{"indented code", "a\n\n    x = 1\n    y = 2\n\nb\n", "p: a\ncode:     x = 1\n+code:     y = 2\np: b\n"},
		{"list", "- a\n  more\n- b\n\n  para\n1. c\n   - d\n\nend\n", "li: - a\n+li:   more\nli: - b\n+li:   para\nli: 1. c\nli:    - d\np: end\n"},
		{"emphasis is no list", "*a* b\n-x\n", "p: *a* b\n+p: -x\n"},
		{"table", "| a | b |\n|---|---|\n| 1 | 2 |\n\nx\n", "tr: | a | b |\n+tr: |---|---|\n+tr: | 1 | 2 |\np: x\n"},
		{"table without outer bars", "a | b\n--|--\n1 | 2\n", "p: a | b\n+tr: --|--\n+tr: 1 | 2\n"},
		{"front matter", "---\ntitle: x\n---\n# A\n", "code: ---\n+code: title: x\n+code: ---\nh1(A): # A\n"},
		{"no front matter", "---\na\n\nb\n", "p: ---\n+p: a\np: b\n"},
		{"crlf", "# A\r\n\r\ntext\r\n", "h1(A): # A\np: text\n"},
		{"quote", "> a\n> b\n", "p: > a\n+p: > b\n"},
		{"long line", strings.Repeat("x", 20000) + "\n- a\n", "p: " + strings.Repeat("x", 16383) + "\n+p: " + strings.Repeat("x", 3617) + "\nli: - a\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if d := cmp.Diff(tt.want, outline(t, tt.src)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestFrontMatterTitle(t *testing.T) {
	for src, want := range map[string]string{
		"---\nlayout: post\ntitle: \"A: b\"\n---\nx": "A: b",
		"+++\ntitle = 'C'\n+++\nx":                   "C",
		"---\ntags: []\n---\n# H\n":                  "",
		"title: no\n":                                "",
	} {
		c, err := markdown.Extract(t.Context(), strings.NewReader(src), extract.Options{})
		if err != nil || c.Title != want {
			t.Errorf("%q: title %q, %v", src, c.Title, err)
		}
	}
}

func FuzzExtract(f *testing.F) {
	for _, s := range []string{"# A\n\nb\n", "---\ntitle: x\n---\n", "```\na\n", "a\n===\n", "| a |\n|--|\n", "- a\n\n  b\n", "\ufeff\t- x\r\n", strings.Repeat("x", 17000)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, src string) {
		read := func(c extract.Content, err error) (blocks []extract.Block, text string) {
			if err != nil {
				return nil, ""
			}
			for b, err := range c.Blocks {
				if err != nil {
					return nil, ""
				}
				if b.Text == "" || b.Level > 0 != (b.Kind == extract.Heading && !b.Continued) {
					t.Fatalf("block %+v", b)
				}
				blocks, text = append(blocks, b), text+b.Text
			}
			return blocks, text
		}
		blocks, text := read(markdown.Extract(context.Background(), strings.NewReader(src), extract.Options{}))
		if blocks == nil {
			return // not text, or empty
		}
		if text != src && "\ufeff"+text != src && src[0] < 0xFE {
			t.Fatalf("the text is not the source")
		}
		slow, _ := read(markdown.Extract(context.Background(), iotest.OneByteReader(strings.NewReader(src)), extract.Options{}))
		if d := cmp.Diff(blocks, slow); d != "" {
			t.Fatal(d)
		}
	})
}
