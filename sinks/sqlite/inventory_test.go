package sqlite

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"leat"

	"github.com/google/go-cmp/cmp"
)

// TestInventoryDamage damages what the conformance suite cannot know of.
func TestInventoryDamage(t *testing.T) {
	const content = "(SELECT content FROM $_chunks WHERE doc = (SELECT no FROM $_documents WHERE id = 'd') AND ordinal = 1)"
	for _, damage := range []struct{ name, kinds, query string }{
		{"title", "text", "UPDATE $_documents SET title = 'other' WHERE id = 'd'"},
		{"count", "text vectors", "UPDATE $_documents SET chunks = 2 WHERE id = 'd'"},
		{"digest", "text vectors", "UPDATE $_contents SET digest = x'00' WHERE no = " + content},
		{"data", "text vectors", "UPDATE $_contents SET data = (SELECT data FROM $_contents WHERE no <> " + content + ") WHERE no = " + content},
		{"id", "text", "UPDATE $_contents SET chunk = 'other' WHERE no = " + content},
		{"no content", "text vectors", "DELETE FROM $_contents WHERE no = " + content},
		{"no words", "text", "DELETE FROM $_words WHERE rowid = " + content},
		{"of another", "text vectors", "UPDATE $_chunks SET content = (SELECT max(no) FROM $_contents) WHERE content = " + content},
		{"heading", "text", "UPDATE $_chunks SET heading = '[\"other\"]' WHERE content = " + content},
		{"no JSON", "text vectors", "UPDATE $_chunks SET heading = 'no JSON' WHERE content = " + content},
		{"ordinal", "text", "UPDATE $_chunks SET ordinal = 7 WHERE content = " + content},
	} {
		for kind := range strings.FieldsSeq(damage.kinds) {
			t.Run(kind+"/"+damage.name, func(t *testing.T) {
				dir := t.TempDir()
				s := openStore(t, dir)
				var x leat.Sink = mustText(t, s)
				if kind == "vectors" {
					x = mustVectors(t, s, 1)
				}
				rnd := rand.New(rand.NewPCG(3, 3))
				one := func(id string) leat.Revision {
					r := textRevision(id, 1, "one of "+id, "two of "+id, "three of "+id)
					r.Title = "title"
					for i := range r.Chunks {
						r.Chunks[i].Vector = randomVector(rnd, testModel.Dimension)
						r.Chunks[i].Heading = []string{"heading"}
					}
					return r
				}
				mustApply(t, x, one("c"), one("d"), one("e"))
				change(t, dir, kind+"1", damage.query)
				check := func(damaged bool) {
					t.Helper()
					n := 0
					for h, err := range x.Inventory(t.Context(), "") {
						if err != nil || h.Stray != "" || (h.Damage != "") != (damaged && h.ID == "d") {
							t.Fatalf("%+v, %v", h, err)
						}
						n++
					}
					if n != 3 {
						t.Fatalf("%d documents, not 3", n)
					}
				}
				check(true)
				r := one("d")
				r.Again = true
				mustApply(t, x, r)
				check(false)
			})
		}
	}
}

// TestStrays has more strays than one transaction lists, of every sort.
func TestStrays(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	x := mustText(t, s)
	parts := textRevision("d", 7, "under", "way")
	parts.Last = false
	mustApply(t, x, textRevision("d", 5, "one", "two"), parts, leat.Revision{Document: "gone", Version: 3, Deleted: true, Last: true})
	const of = "SELECT no, ?, 0, 9, 1, 0, 1, 1, 0, NULL FROM $_documents WHERE id = ?"
	for _, version := range []int{1, 6, 8, -6} { // neither held nor under way
		change(t, dir, "text1", "INSERT INTO $_chunks "+of, version, "d")
	}
	change(t, dir, "text1", "INSERT INTO $_chunks "+of, 3, "gone")
	const many = 25_000
	change(t, dir, "text1", `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
		INSERT INTO $_contents SELECT NULL, 1000000 + i * 1000, 'c', x'00', 'stray' FROM n`, many)
	list := func() (strays []string) {
		t.Helper()
		for h, err := range x.Inventory(t.Context(), "") {
			if err != nil || h.Damage != "" {
				t.Fatal(h, err)
			}
			if h.Stray != "" {
				strays = append(strays, h.Stray)
			}
		}
		return strays
	}
	want := []string{"text1_chunks 1/-6", "text1_chunks 1/1", "text1_chunks 1/6", "text1_chunks 1/8", "text1_chunks 2/3"}
	for i := range many {
		want = append(want, fmt.Sprint("text1_contents ", 1_000_000+(i+1)*1000))
	}
	strays := list()
	if diff := cmp.Diff(want, strays); diff != "" {
		t.Fatal(diff)
	}
	for _, bad := range []string{"vectors1_chunks 1/1", "text1_chunks", "text1_chunks 1", "text1_contents x", ""} {
		if err := x.Discard(t.Context(), []string{bad}); err == nil {
			t.Errorf("%q was discarded", bad)
		}
	}
	// What belongs to something stays, whatever it is called.
	if err := x.Discard(t.Context(), append(strays, "text1_chunks 1/5", "text1_chunks 1/7", "text1_contents 1")); err != nil {
		t.Fatal(err)
	}
	if left := list(); left != nil {
		t.Fatalf("%d strays are left", len(left))
	}
	if chunks, err := x.Chunks(t.Context(), "d"); err != nil || len(chunks) != 2 {
		t.Error(chunks, err)
	}
	err := s.read.tx(t.Context(), "text1", func(c *conn) error {
		n, err := c.int("SELECT contents FROM $_totals")
		if n != 4 {
			t.Errorf("%d contents are counted, not 4", n)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	end := leat.Revision{Document: "d", Version: 7, Part: 1, Last: true}
	mustApply(t, x, end)
	if m, err := x.SearchText(t.Context(), "under", 5); err != nil || len(m) != 1 {
		t.Error(m, err)
	}
}

// TestLostDocument loses a document's row, the newest too, whose number comes
// again: its chunks are strays until it is applied again.
func TestLostDocument(t *testing.T) {
	for _, lost := range []string{"c", "d", "e"} {
		dir := t.TempDir()
		s := openStore(t, dir)
		x := mustText(t, s)
		one := textRevision(lost, 3, "old one", "two", "three")
		for _, id := range []string{"c", "d", "e"} {
			mustApply(t, x, textRevision(id, 3, "one", "two", "three"))
		}
		change(t, dir, "text1", "DELETE FROM $_documents WHERE id = ?", lost)
		var strays []string
		documents := 0
		for h, err := range x.Inventory(t.Context(), "") {
			if err != nil || h.Damage != "" || h.ID == lost {
				t.Fatal(h, err)
			}
			if h.Stray != "" {
				strays = append(strays, h.Stray)
			} else {
				documents++
			}
		}
		if documents != 2 || len(strays) != 2 {
			t.Fatalf("%d documents and the strays %q", documents, strays)
		}
		one.Again = true
		mustApply(t, x, one)
		if err := x.Discard(t.Context(), strays); err != nil {
			t.Fatal(err)
		}
		for h, err := range x.Inventory(t.Context(), "") {
			if err != nil || h.Damage != "" || h.Stray != "" {
				t.Error(h, err)
			}
		}
		if st, err := x.Stats(t.Context()); err != nil || st != (leat.Stats{Documents: 3, Chunks: 9}) {
			t.Error(st, err)
		}
		err := s.read.tx(t.Context(), "text1", func(c *conn) error {
			n, err := c.int("SELECT contents FROM $_totals")
			if n != 9 {
				t.Errorf("%d contents are counted, not 9", n)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// TestInventoryLargeDocuments has documents of more chunks than a page.
func TestInventoryLargeDocuments(t *testing.T) {
	x := mustText(t, openStore(t, t.TempDir()))
	var want []leat.Holding
	for i, chunks := range []int{1, pageChunks + 1, pageChunks, 0, 3, pageChunks - 1, 2} {
		var texts []string
		for j := range chunks {
			texts = append(texts, fmt.Sprint(j/2)) // each twice
		}
		r := textRevision(fmt.Sprint("d", i), 1, texts...)
		h := leat.Holding{DocumentState: leat.DocumentState{ID: r.Document, Version: 1, Chunks: chunks}}
		for j := range r.Chunks {
			r.Chunks[j].ID = leat.ChunkID(r.Document, texts[j], j%2)
			h.Digest = h.Digest.Add(&r.Chunks[j])
		}
		mustApply(t, x, r)
		want = append(want, h)
	}
	var got []leat.Holding
	for h, err := range x.Inventory(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		h.Applied = time.Time{}
		got = append(got, h)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

var inventoried = flag.Int("documents", 20_000, "how many BenchmarkInventory makes, of two chunks each")

// BenchmarkInventory takes inventory of a sound index. Its chunks have about
// 800 bytes of text, or vectors of 384 dimensions.
func BenchmarkInventory(b *testing.B) {
	model := leat.Model{Name: "m", Dimension: 384}
	for _, kind := range kinds {
		b.Run(kind, func(b *testing.B) {
			s := openStore(b, b.TempDir())
			var x leat.Sink
			var err error
			if x, err = s.Text(1); kind == "vectors" {
				x, err = s.Vectors(1, model)
			}
			if err != nil {
				b.Fatal(err)
			}
			fill(b, x, *inventoried, model.Dimension)
			var peak uint64
			used := processorTime(b)
			for b.Loop() {
				n := 0
				for h, err := range x.Inventory(context.Background(), "") {
					if err != nil || h.Damage != "" || h.Stray != "" {
						b.Fatal(h, err)
					}
					if n++; n%10_000 == 0 {
						var m runtime.MemStats
						runtime.ReadMemStats(&m)
						peak = max(peak, m.HeapInuse)
					}
				}
				if n != *inventoried {
					b.Fatalf("%d documents, not %d", n, *inventoried)
				}
			}
			b.ReportMetric(float64(*inventoried*b.N)/b.Elapsed().Seconds(), "documents/s")
			used = processorTime(b) - used
			b.ReportMetric(float64(used.Nanoseconds())/1000/float64(*inventoried*b.N), "cpu-µs/document")
			b.ReportMetric(float64(peak)/(1<<20), "heap-MiB")
		})
	}
}

// processorTime is what the process has used: unlike the time that a loop takes
// it hardly depends on what else the machine does.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// fill applies documents of two chunks.
func fill(t testing.TB, x leat.Sink, documents, dimension int) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(1, 1))
	var batch []leat.Revision
	for i := range documents {
		var texts []string
		for j := range 2 {
			texts = append(texts, strings.Repeat(fmt.Sprintf("some words of document %d and chunk %d; ", i, j), 20))
		}
		r := textRevision(leat.DocumentID("mysql", "shop", "store.products", fmt.Sprint(i)), 1, texts...)
		r.Title = fmt.Sprint("Document ", i)
		for j := range r.Chunks {
			r.Chunks[j].Heading = []string{"Part one", "Introduction"}
			r.Chunks[j].Vector = randomVector(rnd, dimension)
		}
		if batch = append(batch, r); len(batch) == 1000 || i == documents-1 {
			mustApply(t, x, batch...)
			batch = batch[:0]
		}
	}
}
