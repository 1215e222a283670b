package elastic

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"leat"
)

// failing is a network over which one process's requests go until it ends:
// before the n-th leaves, or before its answer comes back. Those beside it come to
// their end, so that none arrives after what the next process does.
type failing struct {
	under    http.RoundTripper
	end      context.CancelFunc // of what the process does: else it would try again for a while
	answered bool               // the n-th is carried out
	mu       sync.Mutex
	left     int
	failed   bool
	healed   bool
}

var errEnded = errors.New("the process has ended")

func (f *failing) RoundTrip(r *http.Request) (*http.Response, error) {
	f.mu.Lock()
	if f.healed {
		f.mu.Unlock()
		return f.under.RoundTrip(r)
	}
	f.left--
	left := f.left
	f.failed = f.failed || left <= 0
	f.mu.Unlock()
	if left >= 0 {
		r = r.WithContext(context.WithoutCancel(r.Context()))
	}
	if left > 0 {
		return f.under.RoundTrip(r)
	}
	if left == 0 && f.answered {
		res, err := f.under.RoundTrip(r)
		if err == nil {
			res.Body.Close()
		}
	}
	f.end()
	return nil, errEnded
}

func textRevision(id string, version uint64, texts ...string) leat.Revision {
	r := leat.Revision{Document: id, Version: version, Last: true, Title: "Title of " + id, Tag: fmt.Sprint("tag", version)}
	var at int64
	for i, t := range texts {
		r.Chunks = append(r.Chunks, leat.Chunk{ID: leat.ChunkID(id, t, i), Ordinal: i, Start: at, End: at + int64(len(t)), Text: t})
		at += int64(len(t))
	}
	return r
}

// cut makes two parts of a revision.
func cut(r leat.Revision) (first, last leat.Revision) {
	first, last = r, r
	n := len(r.Chunks) / 2
	first.Last, first.Chunks = false, r.Chunks[:n]
	last.Part, last.Chunks = 1, r.Chunks[n:]
	return first, last
}

func mustApply(t testing.TB, x leat.Sink, r ...leat.Revision) {
	t.Helper()
	if _, err := x.Apply(t.Context(), r); err != nil {
		t.Fatalf("%v (%s)", err, leat.HintOf(err))
	}
}

// contents is what an index shows of the documents of a prefix, and how many
// Elasticsearch documents of each kind it keeps for them.
type contents struct {
	Texts                 map[string][]string // with "ID@VERSION" as key
	States, Chunks, Marks int
}

func holding(t testing.TB, x *Index, prefix string) contents {
	t.Helper()
	c := contents{Texts: map[string][]string{}}
	for d, err := range x.Documents(t.Context(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		chunks, err := x.Chunks(t.Context(), d.ID)
		if err != nil {
			t.Fatal(err)
		}
		texts := []string{}
		for _, ch := range chunks {
			texts = append(texts, ch.Text)
		}
		c.Texts[fmt.Sprint(d.ID, "@", d.Version)] = texts
	}
	return c
}

// kept counts what Elasticsearch keeps of the documents.
func (c contents) kept(t testing.TB, x *Index, ids ...string) contents {
	t.Helper()
	var hashes []string
	for _, id := range ids {
		hashes = append(hashes, hash(id))
	}
	hits, err := x.search(t.Context(), path(x.target), map[string]any{"size": window, "_source": false, "query": some(
		map[string]any{"terms": map[string]any{"_routing": hashes}}, map[string]any{"ids": map[string]any{"values": hashes}})})
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range hits {
		switch strings.Count(h.ID, ".") {
		case 0:
			c.States++
		case 1:
			c.Marks++
		case 2:
			c.Chunks++
		}
	}
	return c
}

// TestEndBetweenCalls ends a process before or after each of its requests, and
// has another one apply the batch again, or what came after it (I7).
func TestEndBetweenCalls(t *testing.T) {
	cfg := config(t)
	name := nameOf(t.TempDir())
	drop(t, cfg, name)
	after := open(t, cfg, name)
	for _, how := range []struct{ answered, newer bool }{{false, false}, {true, false}, {true, true}} {
		answered, newer := how.answered, how.newer
		for n := 1; ; n++ {
			what := fmt.Sprintf("request %d, answered %v, then newer versions %v", n, answered, newer)
			prefix := fmt.Sprintf("%d-%v-%v/", n, answered, newer)
			id := func(s string) string { return prefix + s }
			first, last := cut(textRevision(id("parts"), 2, "p1", "p2", "p3", "p4"))
			waiting, rest := cut(textRevision(id("waiting"), 3, "w1", "w2", "w3"))
			outlived, _ := cut(textRevision(id("changed"), 2, "never", "ended"))
			mustApply(t, after, textRevision(id("changed"), 1, "old 1", "old 2", "old 3"), textRevision(id("parts"), 1, "old"),
				textRevision(id("deleted"), 1, "gone"), first, outlived)
			// Versions that are held come again, after damage.
			damaged := textRevision(id("damaged"), 1, "d1", "d2", "d3")
			begun, ends := cut(textRevision(id("begun"), 1, "b1", "b2", "b3"))
			cleared := leat.Revision{Document: id("cleared"), Version: 1, Deleted: true, Last: true}
			mustApply(t, after, textRevision(id("damaged"), 1, "d1", "x", "y", "z"), textRevision(id("begun"), 1, "b1", "b2", "b3", "b4"), cleared)
			for _, r := range []*leat.Revision{&damaged, &begun, &ends, &cleared} {
				r.Again = true
			}
			behind := raw{t, after}
			behind.remove(behind.chunk(id("damaged"), 1))
			h := hash(id("damaged"))
			behind.copied(chunkID(h, 1, 0), h, chunkID(h, 1, 9), h)
			behind.remove(behind.chunk(id("begun"), 2))
			h = hash(id("cleared"))
			behind.put(chunkID(h, 1, 0), h, map[string]any{"version": 1, "text": "back"})
			mustApply(t, after, begun)
			batch := []leat.Revision{
				textRevision(id("changed"), 3, "new 1", "new 2"), last, waiting, textRevision(id("new"), 1, "new"),
				{Document: id("deleted"), Version: 2, Deleted: true, Last: true}, damaged, ends, cleared,
			}

			x, err := Open(t.Context(), cfg, name, 1, discard)
			if err != nil {
				t.Fatal(err)
			}
			ctx, end := context.WithCancel(t.Context())
			f := &failing{under: x.http, end: end, answered: answered, left: n}
			if err := x.over(cfg, f); err != nil {
				t.Fatal(err)
			}
			_, err = x.Apply(ctx, batch)
			end()
			x.Close()
			if !f.failed {
				if n < 6 || err != nil {
					t.Fatalf("a batch of %d requests: %v", n-1, err)
				}
				break
			}
			if !errors.Is(err, errEnded) && !errors.Is(err, context.Canceled) || leat.IsPermanent(err) {
				t.Fatalf("%s: %v", what, err)
			}

			// Another process, which has not been there all the time.
			x = open(t, cfg, name)
			want := contents{Texts: map[string][]string{
				id("parts@2"): {"p1", "p2", "p3", "p4"}, id("new@1"): {"new"}, id("changed@3"): {"new 1", "new 2"},
				id("damaged@1"): {"d1", "d2", "d3"}, id("begun@1"): {"b1", "b2", "b3"},
			}, States: 7, Chunks: 4 + 1 + 2 + 1 + 3 + 3, Marks: 1}
			if newer { // each document comes at its newest version only
				batch[0] = textRevision(id("changed"), 4, "newest")
				batch[2] = textRevision(id("waiting"), 4, "w")
				batch[3] = textRevision(id("new"), 2, "newer")
				batch[4] = textRevision(id("deleted"), 3, "back")
				batch[5] = textRevision(id("damaged"), 2, "d")
				batch[6] = textRevision(id("begun"), 2, "b")
				batch[7] = textRevision(id("cleared"), 2, "c")
				batch[5].Again, batch[7].Again = true, true
				want = contents{Texts: map[string][]string{
					id("parts@2"): {"p1", "p2", "p3", "p4"}, id("new@2"): {"newer"}, id("changed@4"): {"newest"},
					id("waiting@4"): {"w"}, id("deleted@3"): {"back"}, id("damaged@2"): {"d"}, id("begun@2"): {"b"}, id("cleared@2"): {"c"},
				}, States: 8, Chunks: 4 + 1 + 1 + 1 + 1 + 3}
			}
			mustApply(t, x, batch...)
			got := holding(t, x, prefix).kept(t, x, id("changed"), id("parts"), id("waiting"), id("new"), id("deleted"), id("damaged"), id("begun"), id("cleared"))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("%s: the index differs (-want +got):\n%s", what, diff)
			}
			if !newer {
				mustApply(t, x, rest)
			}
		}
	}
}

// TestTriedAgain cuts a process off before or after each of its requests, and
// has it apply the batch once more (I7).
func TestTriedAgain(t *testing.T) {
	cfg := config(t)
	name := nameOf(t.TempDir())
	drop(t, cfg, name)
	for _, answered := range []bool{false, true} {
		for n, whole := 1, false; !whole; n++ {
			x := open(t, cfg, name)
			x.leftUntil.Store(0)
			id := func(s string) string { return fmt.Sprint(n, answered, "/", s) }
			mustApply(t, x, textRevision(id("changed"), 1, "old 1", "old 2"), textRevision(id("deleted"), 1, "gone"))
			// As long as searches were shown a batch just now they are not shown the next.
			mustApply(t, x, textRevision(id("another"), 1, "one"))
			batch := []leat.Revision{textRevision(id("changed"), 2, "new"), {Document: id("deleted"), Version: 2, Deleted: true, Last: true}}
			ctx, end := context.WithCancel(t.Context())
			f := &failing{under: x.http, end: end, answered: answered, left: n}
			if err := x.over(cfg, f); err != nil {
				t.Fatal(err)
			}
			_, err := x.Apply(ctx, batch)
			end()
			if whole = !f.failed; whole != (err == nil) || whole && n < 4 {
				t.Fatalf("a batch that was cut off at request %d: %v, and Apply says %v", n, f.failed, err)
			}
			f.mu.Lock()
			f.healed = true
			f.mu.Unlock()
			mustApply(t, x, batch...)
			if err := x.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
			want := contents{Texts: map[string][]string{}, States: 2, Chunks: 1}
			if diff := cmp.Diff(want, contents{Texts: map[string][]string{}}.kept(t, x, id("changed"), id("deleted"))); diff != "" {
				t.Errorf("cut off at request %d, answered %v: the index differs (-want +got):\n%s", n, answered, diff)
			}
		}
	}
}

// TestHandover: what a process had written of a version when it ended is removed
// by one that has been there all the time and is given what comes after it,
// however soon.
func TestHandover(t *testing.T) {
	cfg := config(t)
	name := nameOf(t.TempDir())
	drop(t, cfg, name)
	after := open(t, cfg, name)
	after.leftUntil.Store(0)
	for n := range uint64(5) {
		id := fmt.Sprint("d", n)
		mustApply(t, after, textRevision(id, 1, "old"))
		between := textRevision(id, 2, "1", "2", "3")
		p := group([]leat.Revision{between})[0]
		if err := p.make([]leat.Revision{between}, make([]leat.Outcome, 1)); err != nil {
			t.Fatal(err)
		}
		chunks, _, err := p.items(nil, nil, time.Now())
		if err == nil {
			err = after.bulk(t.Context(), chunks) // and then the process that is to do it ends
		}
		if err != nil {
			t.Fatal(err)
		}
		mustApply(t, after, between, leat.Revision{Document: id, Version: 3, Deleted: true, Last: true})
		// Where searches were shown a batch just now, the next one that they are shown sees to it.
		time.Sleep(showEvery)
		mustApply(t, after, textRevision("next", n+1, "batch"))
		if err := after.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		want := contents{Texts: map[string][]string{}, States: 1}
		if diff := cmp.Diff(want, contents{Texts: map[string][]string{}}.kept(t, after, id)); diff != "" {
			t.Fatalf("%s: the index differs (-want +got):\n%s", id, diff)
		}
	}
}
