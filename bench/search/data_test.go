package search

import (
	"context"
	"encoding/gob"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"leat"
	"leat/embedder/builtin"
	"leat/sinks/sqlite"
)

// set is a collection of paragraphs and questions that one paragraph answers.
type set struct {
	name       string
	paragraphs []string
	questions  []question
}

type question struct {
	text      string
	paragraph int
}

// load reads a file in SQuAD's format and keeps at most so many questions,
// evenly spread. It skips the benchmark where the file is absent.
func load(b testing.TB, name, file string, most int) set {
	b.Helper()
	dir := os.Getenv("LEAT_BENCH_DATA")
	if dir == "" {
		b.Skip("LEAT_BENCH_DATA does not name the folder of xquad.en.json and drcd_dev.json (docs/benchmarks.md tells where they are)")
	}
	raw, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		b.Skipf("left out: %v", err)
	}
	var squad struct {
		Data []struct {
			Paragraphs []struct {
				Context string
				QAs     []struct{ Question string }
			}
		}
	}
	if err := json.Unmarshal(raw, &squad); err != nil {
		b.Fatalf("%s: %v", file, err)
	}
	s := set{name: name}
	var all []question
	for _, d := range squad.Data {
		for _, p := range d.Paragraphs {
			for _, q := range p.QAs {
				all = append(all, question{q.Question, len(s.paragraphs)})
			}
			s.paragraphs = append(s.paragraphs, p.Context)
		}
	}
	n := min(most, len(all))
	for i := range n {
		s.questions = append(s.questions, all[i*(len(all)-1)/max(n-1, 1)])
	}
	return s
}

func both(b testing.TB) []set {
	return []set{
		load(b, "XQuAD English", "xquad.en.json", 1190),
		load(b, "DRCD dev", "drcd_dev.json", 2000),
	}
}

// remembering keeps what the model answered, in the file that LEAT_BENCH_CACHE
// names where it is set, so that a second run need not embed everything again.
type remembering struct {
	leat.Embedder
	file  string
	known map[string][]float32
}

func model(b testing.TB) *remembering {
	b.Helper()
	e, err := builtin.New(builtin.Config{})
	if err != nil {
		b.Skipf("the built-in model is absent (`make model` gets it): %v", err)
	}
	r := &remembering{e, os.Getenv("LEAT_BENCH_CACHE"), map[string][]float32{}}
	if f, err := os.Open(r.file); err == nil {
		if err := gob.NewDecoder(f).Decode(&r.known); err != nil {
			b.Fatalf("%s: %v", r.file, err)
		}
		f.Close()
	}
	b.Cleanup(func() {
		if r.file != "" {
			f, err := os.Create(r.file)
			if err == nil {
				err = gob.NewEncoder(f).Encode(r.known)
			}
			if err != nil {
				b.Error(err)
			}
			f.Close()
		}
		if err := e.Close(); err != nil {
			b.Error(err)
		}
	})
	return r
}

func (r *remembering) Embed(ctx context.Context, kind leat.Kind, texts []string) ([][]float32, error) {
	var missing []string
	for _, t := range texts {
		if r.known[string(kind)+t] == nil {
			missing = append(missing, t)
		}
	}
	if len(missing) > 0 {
		vectors, err := r.Embedder.Embed(ctx, kind, missing)
		if err != nil {
			return nil, err
		}
		for i, t := range missing {
			r.known[string(kind)+t] = vectors[i]
		}
	}
	out := make([][]float32, len(texts))
	for i, t := range texts {
		out[i] = r.known[string(kind)+t]
	}
	return out, nil
}

// revision is a document of the given chunks.
func revision(id string, version uint64, texts []string, vectors [][]float32) leat.Revision {
	r := leat.Revision{Document: id, Version: version, Last: true}
	var at int64
	for i, t := range texts {
		ch := leat.Chunk{ID: leat.ChunkID(id, t, 0), Ordinal: i, Start: at, End: at + int64(len(t)), Text: t}
		if vectors != nil {
			ch.Vector = vectors[i]
		}
		r.Chunks = append(r.Chunks, ch)
		at += int64(len(t)) + 1
	}
	return r
}

// stores opens an empty store.
func stores(b testing.TB, dir string, m leat.Model) (*sqlite.TextIndex, *sqlite.VectorIndex) {
	b.Helper()
	s, err := sqlite.Open(filepath.Join(dir, "store.db"), sqlite.Config{}, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	t, err := s.Text(1)
	if err != nil {
		b.Fatal(err)
	}
	v, err := s.Vectors(1, m)
	if err != nil {
		b.Fatal(err)
	}
	return t, v
}

// many makes n revisions of one chunk of about 500 bytes, of sentences of the
// sets' paragraphs in new combinations, with random vectors: as large as real
// ones and as slow to search.
func many(sets []set, n, dimension int) []leat.Revision {
	rnd := rand.New(rand.NewPCG(1, 2))
	var sentences [][]string
	for _, s := range sets {
		var all []string
		for _, p := range s.paragraphs {
			for _, x := range strings.FieldsFunc(p, func(r rune) bool { return r == '.' || r == '。' }) {
				all = append(all, strings.TrimSpace(x)+".")
			}
		}
		sentences = append(sentences, all)
	}
	out := make([]leat.Revision, n)
	for i := range out {
		from := sentences[i%len(sentences)]
		var text strings.Builder
		for text.Len() < 450 {
			text.WriteString(from[rnd.IntN(len(from))] + " ")
		}
		out[i] = revision(fmt.Sprintf("folder:bench/%06d.md", i), 1, []string{text.String()}, [][]float32{unit(rnd, dimension)})
	}
	return out
}
