package chunker_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"leat"
	"leat/chunker"
)

func TestConfig(t *testing.T) {
	for _, tt := range []struct {
		name  string
		cfg   chunker.Config
		limit int
		field string // of the error; "": none
	}{
		{"default", chunker.Config{}, 500, ""},
		{"default for a small model", chunker.Config{}, 128, ""},
		{"both", chunker.Config{TargetTokens: 100, MaxTokens: 200}, 500, ""},
		{"max alone", chunker.Config{MaxTokens: 64}, 500, ""},
		{"target alone", chunker.Config{TargetTokens: 64}, 500, ""},
		{"tiny", chunker.Config{TargetTokens: 3}, 500, "target_tokens"},
		{"negative", chunker.Config{TargetTokens: -1, MaxTokens: 100}, 500, "target_tokens"},
		{"no room", chunker.Config{TargetTokens: 100, MaxTokens: 100}, 500, "max_tokens"},
		{"past the model", chunker.Config{MaxTokens: 480}, 500, "max_tokens"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := chunker.New(tt.cfg, chunker.Estimate, tt.limit)
			var f *leat.FieldError
			if errors.As(err, &f); (err != nil) != (tt.field != "") || err != nil && (f.Field != tt.field || f.Hint == "") {
				t.Errorf("got %v", err)
			}
		})
	}
	if _, err := chunker.New(chunker.Config{}, chunker.Estimate, 10); err == nil {
		t.Error("a model of 10 tokens was accepted")
	}
}

func TestNoText(t *testing.T) {
	c := newChunker(t, chunker.Config{}, 500)
	for _, mediaType := range []string{"", "text/plain", "text/markdown", "text/html"} {
		for _, body := range []string{"", " \n\t\r\n", "\ufeff", "\u3000\n"} {
			if got, info := chunks(t, c, mediaType, strings.NewReader(body)); len(got) != 0 || info.MediaType == "" {
				t.Errorf("%s %q: %v, %+v", mediaType, body, got, info)
			}
		}
	}
	if got, _ := chunks(t, c, "text/plain", nil); len(got) != 0 { // an inline body that is empty
		t.Errorf("%v", got)
	}
}

func TestHeadings(t *testing.T) {
	c := newChunker(t, chunker.Config{TargetTokens: 16, MaxTokens: 32}, 128)
	prose := "This sentence is here to fill the section with some words. "
	src := "# Guide\n\n## Install\n\n" + strings.Repeat(prose, 3) + "\n\n### Linux\n\n" + strings.Repeat(prose, 3) + "\n\n## Use\n\n" + prose
	got, info := chunks(t, c, "text/markdown", strings.NewReader(src))
	if info.Title != "Guide" {
		t.Errorf("title %q", info.Title)
	}
	var paths []string
	for _, k := range got {
		if p := strings.Join(k.Heading, "/"); len(paths) == 0 || paths[len(paths)-1] != p {
			paths = append(paths, p)
		}
		if strings.HasSuffix(k.Text, "Install") || strings.HasSuffix(k.Text, "Linux") || strings.HasSuffix(k.Text, "Use") {
			t.Errorf("a heading is cut off what follows it: %q", k.Text)
		}
	}
	if d := cmp.Diff([]string{"Guide/Install", "Guide/Install/Linux", "Guide/Use"}, paths); d != "" {
		t.Error(d)
	}
}

func TestTitle(t *testing.T) {
	long := strings.Repeat("endless title ", 500)
	far := strings.Repeat("Some words before it. ", 400) + "\n\n# Late\n\ntext"
	for _, tt := range []struct {
		name, mediaType, stated, body, want string
	}{
		{"stated wins", "text/markdown", " Stated\ntwice ", "# Own\n\ntext", "Stated twice"},
		{"first heading", "text/markdown", "", "intro\n\n# Own\n\ntext", "Own"},
		{"front matter", "text/markdown", "", "---\ntitle: Front\n---\n# Own\n\ntext", "Front"},
		{"html title", "text/html", "", "<title>Head</title><h1>Own</h1>text", "Head"},
		{"html heading", "text/html", "", "<h1>Own</h1>text", "Own"},
		{"only a second level", "text/markdown", "", "## Part\n\ntext", ""},
		{"too far in", "text/markdown", "", far, ""},
		{"plain text has none", "text/plain", "", "# Own\n\ntext", ""},
		{"clipped", "text/plain", long, "text", "endless title endless"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newChunker(t, chunker.Config{}, 500)
			var first chunker.Info
			doc := leat.Document{MediaType: tt.mediaType, Title: tt.stated, Body: tt.body}
			info, err := c.Chunk(t.Context(), "d", doc, nil, func(i chunker.Info, k leat.Chunk) error {
				if n := chunker.Estimate.Count(leat.Embeddable(i.Title, k.Text)); n > 500 {
					t.Errorf("%d tokens with the title", n)
				}
				if k.Ordinal == 0 {
					first = i
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if info.Title != first.Title {
				t.Errorf("the title was %q with the first chunk and is %q now", first.Title, info.Title)
			}
			if tt.name == "clipped" {
				if !strings.HasPrefix(info.Title, tt.want) || len(info.Title) > 300 {
					t.Errorf("got %q", info.Title)
				}
			} else if info.Title != tt.want {
				t.Errorf("got %q", info.Title)
			}
		})
	}
}

func TestCodeStaysWhole(t *testing.T) {
	c := newChunker(t, chunker.Config{TargetTokens: 100, MaxTokens: 160}, 256)
	code := "```go\nfunc f() {\n" + strings.Repeat("\tcall(this, that)\n", 8) + "}\n```"
	src := strings.Repeat("A sentence of prose stands here. ", 12) + "\n\n" + code + "\n\n" + strings.Repeat("More prose comes after it. ", 12)
	got, _ := chunks(t, c, "text/markdown", strings.NewReader(src))
	if !slices.ContainsFunc(got, func(k leat.Chunk) bool { return strings.Contains(k.Text, code) }) {
		for _, k := range got {
			t.Logf("%q", k.Text)
		}
		t.Error("fenced code that fits was cut")
	}
}

func TestYieldErrorEndsIt(t *testing.T) {
	c := newChunker(t, chunker.Config{}, 500)
	stop := errors.New("stop")
	n := 0
	_, err := c.Chunk(t.Context(), "d", leat.Document{Body: strings.Repeat("Some words. ", 5000)}, nil, func(chunker.Info, leat.Chunk) error {
		n++
		return stop
	})
	if !errors.Is(err, stop) || n != 1 {
		t.Errorf("%d chunks, %v", n, err)
	}
}

func TestFaultsNameThemselves(t *testing.T) {
	c := newChunker(t, chunker.Config{}, 500)
	for _, tt := range []struct {
		doc  leat.Document
		want error
	}{
		{leat.Document{Body: "caf\xe9", Ref: &leat.Ref{Name: "menu.txt"}}, leat.ErrMalformed},
		{leat.Document{Body: "\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", Ref: &leat.Ref{Name: "x.png"}}, leat.ErrUnsupported},
		{leat.Document{Body: "a\x00b", Ref: &leat.Ref{Name: "x.txt"}}, leat.ErrUnsupported},
	} {
		_, err := c.Chunk(t.Context(), "d", tt.doc, nil, func(chunker.Info, leat.Chunk) error { return nil })
		if !errors.Is(err, tt.want) || leat.HintOf(err) == "" {
			t.Errorf("%s: %v", tt.doc.Ref.Name, err)
		}
	}
}

// prose writes n sentences of words, in paragraphs.
func prose(rng *rand.Rand, n int, chinese bool) []string {
	const han = "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对成会可主发年动同工也能下过子说产种面而方后多定行学法所民得经"
	runes := []rune(han)
	out := make([]string, n)
	for i := range out {
		var b strings.Builder
		if chinese {
			for range 12 + rng.IntN(30) {
				b.WriteRune(runes[rng.IntN(len(runes))])
			}
			b.WriteString("。")
		} else {
			for j := range 6 + rng.IntN(18) {
				w := make([]byte, 2+rng.IntN(8))
				for k := range w {
					w[k] = byte('a' + rng.IntN(26))
				}
				if j == 0 {
					w[0] -= 'a' - 'A'
				} else {
					b.WriteByte(' ')
				}
				b.Write(w)
			}
			b.WriteString(". ")
		}
		if rng.IntN(6) == 0 {
			b.WriteString("\n\n")
		}
		out[i] = b.String()
	}
	return out
}

// An edit renews the chunks around it and no others: that is what saves
// embedding a document again.
func TestEditsStayLocal(t *testing.T) {
	c := newChunker(t, chunker.Config{}, 500)
	for _, chinese := range []bool{false, true} {
		t.Run(fmt.Sprintf("chinese=%v", chinese), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, 2))
			sentences := prose(rng, 1500, chinese)
			old := map[string]bool{}
			before, _ := chunks(t, c, "text/plain", strings.NewReader(strings.Join(sentences, "")))
			for _, k := range before {
				old[k.ID] = true
			}
			var counts []int
			sum := 0
			for i := range 120 {
				at := rng.IntN(len(sentences))
				edited := slices.Clone(sentences)
				switch i % 4 {
				case 0:
					edited = slices.Insert(edited, at, prose(rng, 1, chinese)...)
				case 1:
					edited = slices.Delete(edited, at, at+1)
				case 2:
					edited[at] = "X" + edited[at]
				case 3:
					edited = slices.Insert(edited, at, append(prose(rng, 5, chinese), "\n\n")...)
				}
				n := 0
				after, _ := chunks(t, c, "text/plain", strings.NewReader(strings.Join(edited, "")))
				for _, k := range after {
					if !old[k.ID] {
						n++
					}
				}
				counts = append(counts, n)
				sum += n
			}
			slices.Sort(counts)
			mean, p90 := float64(sum)/float64(len(counts)), counts[len(counts)*9/10]
			t.Logf("%d chunks; new ones an edit: mean %.2f, p90 %d, most %d", len(before), mean, p90, counts[len(counts)-1])
			if mean > 2.2 || p90 > 4 {
				t.Errorf("an edit renews %.2f chunks, p90 %d", mean, p90)
			}
		})
	}
}

// endless gives a text again and again, n bytes in all, and looks at the
// memory in use as it goes.
type endless struct {
	text string
	n    int64
	at   int

	most uint64 // bytes of heap
	next int64  // value of n at which to look again
}

func (e *endless) Read(p []byte) (int, error) {
	if e.n == 0 {
		return 0, io.EOF
	}
	if e.n <= e.next {
		e.next = e.n - 1<<20
		e.most = max(e.most, heap())
	}
	p = p[:min(int64(len(p)), e.n)]
	n := 0
	for n < len(p) {
		m := copy(p[n:], e.text[e.at:])
		n += m
		e.at = (e.at + m) % len(e.text)
	}
	e.n -= int64(n)
	return n, nil
}

// quarter takes four bytes for a token: counting is not what is tested.
type quarter struct{}

func (quarter) Count(text string) int { return (len(text) + 3) / 4 }

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// I8: memory does not grow with the document, whatever it looks like.
func TestMemoryIsBounded(t *testing.T) {
	const size = 12 << 20
	c, err := chunker.New(chunker.Config{}, quarter{}, 500)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(3, 4))
	for _, tt := range []struct {
		name, mediaType, text string
		size                  int64
	}{
		{"prose", "text/plain", strings.Join(prose(rng, 20_000, false), ""), size},
		{"markdown", "text/markdown", "# Title\n\n" + strings.Join(prose(rng, 5_000, false), "") + "\n- item\n- item\n\n```\ncode\n```\n\n", size / 8},
		{"one line", "text/plain", strings.ReplaceAll(strings.Join(prose(rng, 20_000, false), ""), "\n", ""), size / 8},
		{"no sentence", "text/plain", strings.Repeat("word and ", 1000), size / 8},
		{"no word", "text/plain", strings.Repeat("QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZn", 1000), size / 8},
		{"no punctuation", "text/plain", "的一是在不了有和人这中大为上个国我以要他", size / 8},
		{"blank", "text/plain", strings.Repeat(" ", 1<<16), size},
		{"line ends", "text/markdown", strings.Repeat("\n", 1<<10), size / 8},
		{"combining marks", "text/plain", strings.Repeat("\u0301", 1000), size / 8},
		{"full stops", "text/plain", strings.Repeat(".", 1000), size / 8},
		{"never closed fence", "text/markdown", strings.Repeat("```\n~~~ a\n", 100), size / 8},
		{"headings", "text/markdown", strings.Repeat("# A\n", 1000), size / 8},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := int64(len(tt.text))
			body := &endless{text: tt.text, n: tt.size / n * n}
			body.next = body.n / 2 // not before what is cached is warm
			start := heap()
			info, err := c.Chunk(t.Context(), "d", leat.Document{MediaType: tt.mediaType}, body, func(chunker.Info, leat.Chunk) error { return nil })
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d MiB, %d chunks: %d KiB of memory", info.Bytes>>20, info.Chunks, (int64(body.most)-int64(start))>>10)
			if body.most > start+4<<20 {
				t.Errorf("%d MiB of memory", (body.most-start)>>20)
			}
		})
	}
}

func TestTitleWithoutText(t *testing.T) {
	c := newChunker(t, chunker.Config{}, 500)
	for _, tt := range []struct {
		name string
		doc  leat.Document
		want int // chunks
	}{
		{"a row with a name only", leat.Document{Title: "Red umbrella", Body: " \n"}, 1},
		{"an empty file", leat.Document{Ref: &leat.Ref{Name: "empty.txt"}}, 0},
		{"nothing", leat.Document{}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []leat.Chunk
			info, err := c.Chunk(t.Context(), "d", tt.doc, nil, func(_ chunker.Info, k leat.Chunk) error {
				got = append(got, k)
				return nil
			})
			if err != nil || len(got) != tt.want || info.Chunks != tt.want {
				t.Fatalf("%d chunks, info %+v, error %v; want %d", len(got), info, err, tt.want)
			}
			for _, k := range got {
				if k.ID == "" || k.Start != 0 || k.End != 0 || k.Text != "" {
					t.Errorf("chunk %+v: want an empty one with an id", k)
				}
			}
		})
	}
}
