package chunker_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"leat"
	"leat/chunker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newChunker(t testing.TB, cfg chunker.Config, limit int) *chunker.Chunker {
	t.Helper()
	c, err := chunker.New(cfg, chunker.Estimate, limit)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// chunks cuts a body that is read as mediaType.
func chunks(t testing.TB, c *chunker.Chunker, mediaType string, body io.Reader) ([]leat.Chunk, chunker.Info) {
	t.Helper()
	var out []leat.Chunk
	info, err := c.Chunk(t.Context(), "doc", leat.Document{MediaType: mediaType}, body, func(_ chunker.Info, k leat.Chunk) error {
		out = append(out, k)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out, info
}

func extracted(t testing.TB, mediaType string, body io.Reader) string {
	t.Helper()
	content, err := chunker.Open(context.Background(), leat.Document{MediaType: mediaType}, body)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for block, err := range content.Blocks {
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString(block.Text)
	}
	return b.String()
}

// check asserts what holds for the chunks of every document.
func check(t interface{ Fatalf(string, ...any) }, text string, info chunker.Info, got []leat.Chunk, maxTokens, limit int) {
	if info.Bytes != int64(len(text)) || info.Chunks != len(got) {
		t.Fatalf("info %+v for %d bytes, %d chunks", info, len(text), len(got))
	}
	ids := map[string]bool{}
	end := int64(0)
	titleOnly := len(got) == 1 && strings.TrimSpace(text) == ""
	for i, k := range got {
		if k.Ordinal != i || k.Start < end || k.End < k.Start || k.End == k.Start && !titleOnly || k.End > int64(len(text)) {
			t.Fatalf("chunk %d: ordinal %d, [%d,%d) after %d", i, k.Ordinal, k.Start, k.End, end)
		}
		if k.Text != text[k.Start:k.End] {
			t.Fatalf("chunk %d is not the text at its offsets", i)
		}
		if k.Text != strings.TrimSpace(k.Text) {
			t.Fatalf("chunk %d has white space around it: %q", i, k.Text)
		}
		if between := strings.TrimSpace(text[end:k.Start]); between != "" {
			t.Fatalf("%q before chunk %d is in none", between, i)
		}
		if n := chunker.Estimate.Count(k.Text); n != k.Tokens || n > maxTokens {
			t.Fatalf("chunk %d has %d tokens, says %d, limit %d", i, n, k.Tokens, maxTokens)
		}
		if n := chunker.Estimate.Count(leat.Embeddable(info.Title, k.Text)); n > limit {
			t.Fatalf("chunk %d has %d tokens with its title, limit %d", i, n, limit)
		}
		if ids[k.ID] {
			t.Fatalf("chunk %d repeats an id", i)
		}
		ids[k.ID] = true
		end = k.End
	}
	if rest := strings.TrimSpace(text[end:]); rest != "" {
		t.Fatalf("%q at the end is in no chunk", rest)
	}
}

// documents draws texts that mix everything that decides a boundary.
func documents() *rapid.Generator[string] {
	part := rapid.OneOf(
		rapid.SampledFrom([]string{"\n", "\n\n", "\r\n", " ", "\t", "# Title\n", "## Part\n\n", "- item\n", "  - sub item\n", "1. one\n",
			"| a | b |\n|---|---|\n| 1 | 2 |\n", "```go\n", "```\n", "~~~\n", "---\n", "===\n", "> quote\n", "\f", "\u2028", "　", strings.Repeat(" ", 700),
			"Dr. Smith paid 3.5 million. ", "e.g. this", "“你好。”他说：", "一二三四五六七八九十，", "。", "！？", "……", "e\u0301", "👩‍👩‍👧‍👦", "ก็", "<p>hi</p>"}),
		rapid.StringMatching(`[a-zA-Z]{1,12}[ ,.!?]{1,2}`),
		rapid.StringMatching(`([A-Z][a-z]{1,8} ){5,60}[a-z]+\. `),
		rapid.StringMatching(`[一-龥]{1,80}[，。]`),
		rapid.StringMatching(`[A-Za-z0-9+/]{200,900}`),
		rapid.StringMatching(`[一-龥]{200,900}`),
		rapid.StringOf(rapid.Rune()),
	)
	return rapid.Custom(func(t *rapid.T) string {
		return strings.TrimPrefix(strings.Join(rapid.SliceOfN(part, 0, 60).Draw(t, "parts"), ""), "\ufeff")
	})
}

func TestProperties(t *testing.T) {
	c := newChunker(t, chunker.Config{TargetTokens: 40, MaxTokens: 64}, 96)
	rapid.Check(t, func(rt *rapid.T) {
		mediaType := rapid.SampledFrom([]string{"text/plain", "text/markdown"}).Draw(rt, "type")
		text := strings.ReplaceAll(strings.ToValidUTF8(documents().Draw(rt, "text"), ""), "\x00", "")
		got, info := chunks(t, c, mediaType, strings.NewReader(text))
		check(rt, text, info, got, 64, 96)
		again, _ := chunks(t, c, mediaType, iotest.OneByteReader(strings.NewReader(text)))
		if d := cmp.Diff(got, again); d != "" {
			rt.Fatalf("read byte by byte it is cut otherwise: %s", d)
		}
	})
}

func TestFormatsAgreeOnText(t *testing.T) {
	src := "# A\n\nSome *text* here.\n\n" + fmt.Sprint(strings.Repeat("More of it follows, as it must. ", 400))
	if d := cmp.Diff(src, extracted(t, "text/markdown", strings.NewReader(src))); d != "" {
		t.Fatal(d)
	}
	if d := cmp.Diff(src, extracted(t, "text/plain", strings.NewReader("\ufeff"+src))); d != "" {
		t.Fatal(d)
	}
}

func FuzzChunk(f *testing.F) {
	for _, s := range []string{"", "One. Two.", "# A\n\n- b\n", "<p>a<ul><li>b", "```\nx\n", "你好。世界！", "\xff\xfea\x00", strings.Repeat("x", 3000), strings.Repeat("e\u0301", 900)} {
		f.Add(s, uint8(0), "title")
	}
	types := []string{"", "text/plain", "text/markdown", "text/html"}
	f.Fuzz(func(t *testing.T, body string, mediaType uint8, title string) {
		c := newChunker(t, chunker.Config{TargetTokens: 32, MaxTokens: 50}, 80)
		doc := leat.Document{MediaType: types[int(mediaType)%len(types)], Title: title, Body: body}
		var got []leat.Chunk
		info, err := c.Chunk(t.Context(), "doc", doc, nil, func(_ chunker.Info, k leat.Chunk) error {
			got = append(got, k)
			return nil
		})
		if err != nil {
			if !leat.IsPermanent(err) {
				t.Fatal(err)
			}
			return
		}
		check(t, extracted(t, doc.MediaType, strings.NewReader(body)), info, got, 50, 80)
	})
}
