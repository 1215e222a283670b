// Package chunker measures the chunker beside the plain way, packing sentences
// until a chunk is full: how fast it cuts, how many chunks an edit renews, and
// how well questions find what answers them.
//
//	LEAT_BENCH_DATA=FOLDER go test -count=1 -v -timeout 60m -bench . ./bench/chunker
//
// The folder's subfolder chunking holds the corpora and questions.csv of
// chunking_evaluation (github.com/brandonstarxel/chunking_evaluation, MIT;
// Smith and Troynikov 2024, "Evaluating Chunking Strategies for Retrieval").
// What lacks its data or the model is left out, with a line that says so.
package chunker

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/clipperhouse/uax29/v2/sentences"

	"leat"
	"leat/chunker"
	"leat/embedder/builtin"
)

var corpora = []string{"finance", "pubmed", "wikitexts", "state_of_the_union", "chatlogs"}

func folder(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("LEAT_BENCH_DATA")
	if dir == "" {
		t.Skip("LEAT_BENCH_DATA does not name the folder that holds chunking/")
	}
	return filepath.Join(dir, "chunking")
}

func corpus(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(folder(t), name+".md"))
	if err != nil {
		t.Skipf("left out: %v", err)
	}
	return string(b)
}

// way is a way to cut a text: it returns the chunks' byte offsets.
type way struct {
	name string
	cut  func(t testing.TB, text string) [][2]int
}

func ways(t testing.TB) []way {
	t.Helper()
	tok, err := builtin.NewTokenizer(builtin.Config{})
	if err != nil {
		t.Skipf("left out: %v (%s)", err, leat.HintOf(err))
	}
	c, err := chunker.New(chunker.Config{}, tok, 500)
	if err != nil {
		t.Fatal(err)
	}
	return []way{{"leat", func(t testing.TB, text string) [][2]int {
		var out [][2]int
		doc := leat.Document{MediaType: "text/plain", Body: text}
		if _, err := c.Chunk(context.Background(), "d", doc, nil, func(_ chunker.Info, k leat.Chunk) error {
			out = append(out, [2]int{int(k.Start), int(k.End)})
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return out
	}}, {"sentences packed to 256 tokens", func(_ testing.TB, text string) [][2]int {
		return pack(tok, text, 256)
	}}}
}

// pack fills chunks with the sentences of UAX 29, one after the other.
func pack(tok leat.Tokenizer, text string, most int) (out [][2]int) {
	start, end, sum := 0, 0, 0
	for s := sentences.FromString(text); s.Next(); {
		n := tok.Count(s.Value())
		if sum > 0 && sum+n > most {
			out = append(out, [2]int{start, end})
			start, sum = end, 0
		}
		end += len(s.Value())
		sum += n
	}
	if sum > 0 {
		out = append(out, [2]int{start, end})
	}
	return out
}

func BenchmarkChunk(b *testing.B) {
	text := corpus(b, "pubmed")
	for _, w := range ways(b) {
		b.Run(w.name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				w.cut(b, text)
			}
		})
	}
	c, err := chunker.New(chunker.Config{}, chunker.Estimate, 500)
	if err != nil {
		b.Fatal(err)
	}
	for _, mediaType := range []string{"text/plain", "text/markdown", "text/html"} {
		b.Run("leat, estimated tokens, "+mediaType, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				if _, err := c.Chunk(b.Context(), "d", leat.Document{MediaType: mediaType, Body: text}, nil,
					func(chunker.Info, leat.Chunk) error { return nil }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkEdits counts the chunks that edits at random places renew.
func BenchmarkEdits(b *testing.B) {
	word := regexp.MustCompile(`\w+`)
	kinds := []func(t string, at int) string{
		func(t string, at int) string { // a word replaced
			m := word.FindStringIndex(t[at:])
			return t[:at+m[0]] + strings.Repeat("x", m[1]-m[0]) + t[at+m[1]:]
		},
		func(t string, at int) string { // a sentence inserted
			at = next(t, at)
			return t[:at] + "This newly added sentence explains one more thing, of about eighty characters. " + t[at:]
		},
		func(t string, at int) string { // a paragraph inserted
			at = next(t, at)
			return t[:at] + "\n\n" + strings.Repeat("A new paragraph says many things about the matter. ", 7) + "\n\n" + t[at:]
		},
		func(t string, at int) string { // a sentence deleted
			at = next(t, at)
			return t[:at] + t[next(t, at):]
		},
	}
	for _, name := range []string{"finance", "pubmed", "state_of_the_union"} {
		text := corpus(b, name)
		text = text[:min(len(text), 150_000)]
		for _, w := range ways(b) {
			b.Run(name+"/"+w.name, func(b *testing.B) {
				old := map[string]bool{}
				for _, k := range w.cut(b, text) {
					old[text[k[0]:k[1]]] = true
				}
				var counts []int
				for _, edit := range kinds {
					rng := rand.New(rand.NewPCG(1, 1))
					for range 40 {
						at := rng.IntN(len(text) - 1000)
						for text[at]&0xC0 == 0x80 {
							at--
						}
						edited, n := edit(text, at), 0
						for _, k := range w.cut(b, edited) {
							if !old[edited[k[0]:k[1]]] {
								n++
							}
						}
						counts = append(counts, n)
					}
				}
				slices.Sort(counts)
				sum := 0
				for _, n := range counts {
					sum += n
				}
				b.ReportMetric(float64(sum)/float64(len(counts)), "mean-new")
				b.ReportMetric(float64(counts[len(counts)*9/10]), "p90-new")
				b.ReportMetric(float64(counts[len(counts)-1]), "max-new")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

func next(t string, at int) int {
	if i := strings.Index(t[at:], ". "); i >= 0 {
		return at + i + 2
	}
	return len(t)
}

type question struct {
	text, corpus string
	answers      [][2]int // in characters
}

func questions(t testing.TB) []question {
	t.Helper()
	f, err := os.Open(filepath.Join(folder(t), "questions.csv"))
	if err != nil {
		t.Skipf("left out: %v", err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var out []question
	for _, r := range rows[1:] {
		var refs []struct {
			Start int `json:"start_index"`
			End   int `json:"end_index"`
		}
		if err := json.Unmarshal([]byte(r[1]), &refs); err != nil {
			t.Fatal(err)
		}
		q := question{text: r[0], corpus: r[2]}
		for _, x := range refs {
			q.answers = append(q.answers, [2]int{x.Start, x.End})
		}
		out = append(out, q)
	}
	return out
}

// BenchmarkRetrieval measures, over the five chunks nearest to each question of all
// corpora together, how much of the characters that answer it they hold
// (recall), and that over all characters of answer or chunks (IoU).
func BenchmarkRetrieval(b *testing.B) {
	qs := questions(b)
	e, err := builtin.New(builtin.Config{})
	if err != nil {
		b.Skipf("left out: %v (%s)", err, leat.HintOf(err))
	}
	defer e.Close()
	embed := func(kind leat.Kind, texts []string) [][]float32 {
		v, err := e.Embed(b.Context(), kind, texts)
		if err != nil {
			b.Fatal(err)
		}
		return v
	}
	var texts []string
	for _, q := range qs {
		texts = append(texts, q.text)
	}
	asked := embed(leat.Query, texts)
	type piece struct {
		corpus     string
		start, end int // in characters
	}
	for _, w := range ways(b) {
		var pieces []piece
		var texts []string
		for _, name := range corpora {
			text := corpus(b, name)
			byteAt, runeAt := 0, 0
			runes := func(at int) int {
				runeAt += len([]rune(text[byteAt:at]))
				byteAt = at
				return runeAt
			}
			for _, k := range w.cut(b, text) {
				pieces = append(pieces, piece{name, runes(k[0]), runes(k[1])})
				texts = append(texts, text[k[0]:k[1]])
			}
		}
		stored := embed(leat.Passage, texts)
		var recall, iou, size float64
		for i, q := range qs {
			score := make([]float64, len(stored))
			order := make([]int, len(stored))
			for j, v := range stored {
				order[j] = j
				for d := range v {
					score[j] += float64(v[d]) * float64(asked[i][d])
				}
			}
			slices.SortFunc(order, func(a, b int) int { return int(math.Copysign(1, score[b]-score[a])) })
			answer := map[int]bool{}
			for _, a := range q.answers {
				for p := a[0]; p < a[1]; p++ {
					answer[p] = true
				}
			}
			hit, miss := 0, 0
			for _, j := range order[:5] {
				for p := pieces[j].start; p < pieces[j].end; p++ {
					if pieces[j].corpus == q.corpus && answer[p] {
						hit++
					} else {
						miss++
					}
				}
			}
			recall += float64(hit) / float64(len(answer)) / float64(len(qs))
			iou += float64(hit) / float64(len(answer)+miss) / float64(len(qs))
		}
		for _, p := range pieces {
			size += float64(p.end-p.start) / float64(len(pieces))
		}
		b.Run(w.name, func(b *testing.B) {
			b.ReportMetric(100*recall, "recall@5-%")
			b.ReportMetric(100*iou, "IoU@5-%")
			b.ReportMetric(size, "characters")
			b.ReportMetric(0, "ns/op")
		})
	}
}
