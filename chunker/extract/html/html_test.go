package html_test

import (
	"context"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/text/encoding/simplifiedchinese"

	"leat"
	"leat/chunker/extract"
	"leat/chunker/extract/html"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func read(ctx context.Context, src string) (extract.Content, string, error) {
	c, err := html.Extract(ctx, strings.NewReader(src), extract.Options{})
	if err != nil {
		return c, "", err
	}
	var b strings.Builder
	for x, err := range c.Blocks {
		if err != nil {
			return c, "", err
		}
		b.WriteString(x.Text)
	}
	return c, b.String(), nil
}

func TestExtract(t *testing.T) {
	for _, tt := range []struct{ name, src, title, want string }{
		{"page", `<!DOCTYPE html><html><head><title> A
			page </title><style>p{}</style><script>if (a<b) x("</p>")</script></head><body><nav><a href=/>Home</a></nav>
			<h1>Top</h1><p>One <b>bold</b> <a href="https://example.com/very/long">link</a> &amp; more.</p>
			<ul><li>a<li>b<ul><li>c</ul></ul><img src=data:xyz alt="a cat"><!-- gone --></body></html>`,
			"A page", "# Top\n\nOne bold link & more.\n\n- a\n- b\n  \n  - c\n\na cat"},
		{"table", "<table><tr><th>k<th colspan=99999999>v<tr><td>a<td>1</table>", "", "| k | v |\n|---|---|\n| a | 1 |"},
		{"pre", "<pre><code class=go>x := 1\n  y</code></pre>", "", "```\nx := 1\n  y\n```"},
		{"signs are not escaped", "<p>snake_case * 1. #x [y]</p>", "", "snake_case * 1. #x [y]"},
		{"no markup", "just text", "", "just text"},
		{"empty", "", "", ""},
		{"not closed", "<p>a<p>b<div>c", "", "a\n\nb\n\nc"},
		{"forms", "<form><label>Name</label><select><option>x</select><button>Go</button></form>", "", "Name"},
		{"table for layout", "<table><tr><td><table><tr><td>in<td>side</table> outer</td><td>right</table>", "", "| in | side |\n|---|---|\n\nouter\n\nright"},
		{"navigation never closed", "<p>a</p><nav><nav>gone</nav>b", "", "a\n\nb"},
		{"verbatim", "<xmp><b>x</b></xmp>y", "", "```\n<b>x</b>\n```\n\ny"},
		{"svg in text", "<p>a<svg><title>t</title><text>no</text></svg>b</p>", "", "ab"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, got, err := read(t.Context(), tt.src)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, got); d != "" || c.Title != tt.title {
				t.Errorf("title %q %s", c.Title, d)
			}
		})
	}
}

func TestCharset(t *testing.T) {
	gb, err := simplifiedchinese.GBK.NewEncoder().String("<p>中文</p>")
	if err != nil {
		t.Fatal(err)
	}
	for _, head := range []string{`<meta charset="gbk">`, `<meta http-equiv="Content-Type" content="text/html; charset=gb2312">`} {
		if _, got, err := read(t.Context(), head+gb); got != "中文" || err != nil {
			t.Errorf("%s: %q, %v", head, got, err)
		}
	}
	if _, _, err := read(t.Context(), gb); !errors.Is(err, leat.ErrMalformed) {
		t.Errorf("an undeclared charset was guessed: %v", err)
	}
}

// Hostile documents cost time and memory in proportion to what they weigh.
func TestHostile(t *testing.T) {
	rep := strings.Repeat
	for _, tt := range []struct {
		name, src string
		want      error // nil: read
	}{
		{"too long", rep("<p>some text</p>", 2<<20), leat.ErrTooLarge},
		{"too many tags", rep("<p>", 600_000), leat.ErrTooLarge},
		{"deep", rep("<div>", 100_000), leat.ErrTooLarge},
		{"deep formatting", rep("<b>", 100_000) + "x", nil},
		{"overlapping formatting", rep("<b id=1><i id=2><u id=3>", 300) + rep("<p>x</p>", 50_000), nil},
		{"overlapping formatting in plain text", "<plaintext>" + rep("<b id=1><i id=2>", 300) + rep("<p>x</p>", 50_000), nil},
		{"deep quotes", rep("<blockquote>", 20_000) + rep("<p>x</p>", 20_000), nil},
		{"deep lists", rep("<ul><li>", 200) + rep("line<br>", 50_000), nil},
		{"deep tables", rep("<table><tr><td>", 100) + "x", nil},
		{"wide table", "<table>" + rep("<tr><td>x</td></tr>", 50_000) + "<tr><td>" + rep("y", 1<<20) + "</td></tr></table>", nil},
		{"ragged table", "<table><tr>" + rep("<td>", 20_000) + rep("<tr><td>", 20_000) + "</table>", nil},
		{"a text of 8 MiB", rep("word ", 8<<20/5), nil},
		{"attributes", "<p " + rep("a=b ", 1<<20) + ">x</p>", nil},
		{"entities", rep("&lt;", 1<<20), nil},
		{"never closed comment", "a<!--" + rep("-", 4<<20), nil},
		{"never closed script", "a<script>" + rep("</scrip", 1<<19), nil},
		{"misnested", rep("<table><p><td></table>", 20_000), nil},
		{"select", rep("<select><option>", 50_000), nil},
		{"headings", rep("<h1><h2>", 200) + rep("x ", 100_000), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			_, text, err := read(ctx, tt.src)
			runtime.ReadMemStats(&after)
			t.Logf("%v, %d MiB allocated, %d bytes of text", time.Since(start).Round(time.Millisecond), (after.TotalAlloc-before.TotalAlloc)>>20, len(text))
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > 4<<30 {
				t.Errorf("%d MiB were allocated", n>>20)
			}
		})
	}
}

func TestReaderError(t *testing.T) {
	_, err := html.Extract(t.Context(), io.MultiReader(strings.NewReader("<p>"), errReader{}), extract.Options{})
	if !errors.Is(err, leat.ErrChanged) {
		t.Errorf("got %v", err)
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, leat.ErrChanged }

func FuzzExtract(f *testing.F) {
	for _, s := range []string{"<p>a", "<table><tr><td>", "<ul><li><blockquote>x", "<meta charset=gbk>", "<title>x<h1>y", "<pre>\n</pre>", "<svg><b></svg>", "&#0;", "<nav>"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, src string) {
		_, text, err := read(t.Context(), src)
		if err != nil && !leat.IsPermanent(err) {
			t.Fatal(err)
		}
		if !utf8.ValidString(text) {
			t.Fatalf("%q is not UTF-8", text)
		}
	})
}
