package elastic

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"leat"
	"leat/sinks/sinktest"
)

// raw reads and writes what an index keeps, behind leat's back.
type raw struct {
	testing.TB
	x *Index
}

func (r raw) do(method, what, id, routing string, in, out any) {
	r.Helper()
	at := path(r.x.target, what, id) + "?"
	if method != http.MethodGet {
		at += "refresh=true&"
	}
	if routing != "" {
		at += "routing=" + url.QueryEscape(routing)
	}
	if err := r.x.call(r.Context(), method, at, in, out); err != nil {
		r.Fatalf("%s %s: %v", method, at, err)
	}
}

func (r raw) source(id, routing string) map[string]any {
	r.Helper()
	var got struct {
		Source map[string]any `json:"_source"`
	}
	r.do(http.MethodGet, "_doc", id, routing, nil, &got)
	return got.Source
}

func (r raw) put(id, routing string, source map[string]any) {
	r.Helper()
	r.do(http.MethodPut, "_doc", id, routing, source, nil)
}

func (r raw) update(id, routing string, change map[string]any) {
	r.Helper()
	r.do(http.MethodPost, "_update", id, routing, map[string]any{"doc": change}, nil)
}

func (r raw) remove(id, routing string) {
	r.Helper()
	r.do(http.MethodDelete, "_doc", id, routing, nil, nil)
}

// chunk is the id of a chunk that is held and its routing.
func (r raw) chunk(document string, ordinal int) (id, routing string) {
	r.Helper()
	d, err := r.x.Document(r.Context(), document)
	if err != nil {
		r.Fatal(err)
	}
	return chunkID(hash(document), d.Version, ordinal), hash(document)
}

// copied puts what is kept at one place at another.
func (r raw) copied(from, routing, to, toRouting string) {
	r.Helper()
	r.put(to, toRouting, r.source(from, routing))
}

func TestDamage(t *testing.T) {
	cfg := config(t)
	name := namer(cfg)
	opened := map[string]raw{}
	behind := func(t testing.TB, dir string) raw {
		if _, ok := opened[dir]; !ok {
			opened[dir] = raw{t, open(t, cfg, name(t, dir))}
		}
		return opened[dir]
	}
	sinktest.RunDamage(t, sinktest.DamageHarness{
		Open: func(t testing.TB, dir string) leat.Sink { return open(t, cfg, name(t, dir)) },
		Delete: func(t testing.TB, dir, document string, ordinal int) {
			r := behind(t, dir)
			r.remove(r.chunk(document, ordinal))
		},
		Alter: func(t testing.TB, dir, document string, ordinal int) {
			r := behind(t, dir)
			id, routing := r.chunk(document, ordinal)
			r.update(id, routing, map[string]any{"text": "something else"})
		},
		Add: func(t testing.TB, dir, document string) {
			r := behind(t, dir)
			d, err := r.x.Document(t.Context(), document)
			if err != nil {
				t.Fatal(err)
			}
			id, routing := r.chunk(document, d.Chunks)
			r.put(id, routing, map[string]any{"version": d.Version, "chunk": "added", "start": 0, "text": "added word0"})
		},
		Stray: func(t testing.TB, dir string) {
			r := behind(t, dir)
			h := hash("unknown")
			r.put(chunkID(h, 1, 0), h, map[string]any{"version": 1, "chunk": "stray", "start": 0, "text": "stray word0"})
		},
	})
}

// wrong is what an inventory finds wrong.
type wrong struct {
	Damage map[string]string
	Strays []string
}

func wrongOf(t testing.TB, x *Index) wrong {
	t.Helper()
	w := wrong{Damage: map[string]string{}}
	for h, err := range x.Inventory(t.Context(), "") {
		switch {
		case err != nil:
			t.Fatal(err)
		case h.Stray != "":
			w.Strays = append(w.Strays, h.Stray)
		case h.Damage != "":
			w.Damage[h.ID] = h.Damage
		}
	}
	slices.Sort(w.Strays)
	return w
}

// What may be under way is neither damage nor stray, for as long as it may be.
func TestUnderWay(t *testing.T) {
	cfg := config(t)
	name := nameOf(t.TempDir())
	drop(t, cfg, name)
	x := open(t, cfg, name)
	mustApply(t, x, textRevision("a", 1, "a0", "a1"))
	put := func(document string, version uint64, written time.Time) (stray string) {
		h := hash(document)
		id := chunkID(h, version, 5)
		raw{t, x}.put(id, h, map[string]any{"version": version, "chunk": "c", "start": 0, "place": map[string]any{"written": written.Unix()}})
		return id + "?routing=" + h
	}
	old := time.Now().Add(-underWay - time.Minute)
	put("new", 1, time.Now())
	put("a", 2, old)
	inParts := hash("in parts")
	waiting := put("in parts", 1, old)
	raw{t, x}.put(markID(inParts, 1), inParts, map[string]any{"version": 1, "mark": map[string]any{"parts": 1}})
	if got := wrongOf(t, x); len(got.Damage)+len(got.Strays) > 0 {
		t.Errorf("the inventory tells %v of what is under way", got)
	}
	if err := x.Discard(t.Context(), []string{waiting}); err != nil {
		t.Fatal(err)
	}
	if got := (contents{}).kept(t, x, "in parts"); got.Chunks != 1 {
		t.Error("what is under way was discarded")
	}
	stray := put("never came", 1, old)
	if diff := cmp.Diff([]string{stray}, wrongOf(t, x).Strays); diff != "" {
		t.Errorf("the strays differ (-want +got):\n%s", diff)
	}
	// What has come meanwhile is not discarded.
	mustApply(t, x, leat.Revision{Document: "never came", Version: 1, Chunks: textRevision("never came", 1, "0", "1", "2", "3", "4", "5").Chunks})
	if err := x.Discard(t.Context(), []string{stray}); err != nil {
		t.Fatal(err)
	}
	if got := (contents{}).kept(t, x, "never came"); got.Chunks != 6 {
		t.Errorf("of 6 chunks that are under way %d are there", got.Chunks)
	}
}

// TestBesideWriters takes inventory and discards what is found stray while
// documents come, change and go: nothing that is written is harmed.
func TestBesideWriters(t *testing.T) {
	cfg := config(t)
	name := nameOf(t.TempDir())
	drop(t, cfg, name)
	x, other := open(t, cfg, name), open(t, cfg, name)
	const rounds, documents = 20, 30
	g, ctx := errgroup.WithContext(t.Context())
	done := make(chan struct{})
	want := map[string][]string{}
	g.Go(func() error {
		defer close(done)
		for n := range rounds {
			var batch []leat.Revision
			for i := range documents {
				id, version := fmt.Sprint("d", i), uint64(n+1)
				r := textRevision(id, version, fmt.Sprint("text ", n), "constant", fmt.Sprint("more ", n))
				delete(want, fmt.Sprint(id, "@", n))
				want[fmt.Sprint(id, "@", version)] = []string{fmt.Sprint("text ", n), "constant", fmt.Sprint("more ", n)}
				switch first, last := cut(r); {
				case (i+n)%5 == 0:
					batch = append(batch, first, last)
				case (i+n)%7 == 0:
					delete(want, fmt.Sprint(id, "@", version))
					batch = append(batch, leat.Revision{Document: id, Version: version, Deleted: true, Last: true})
				case (i+n)%11 == 0:
					r.Again = true
					batch = append(batch, r, r)
				default:
					batch = append(batch, r)
				}
			}
			for part := range slices.Chunk(batch, 13) { // of a document too
				if _, err := x.Apply(ctx, part); err != nil {
					return err
				}
			}
		}
		return nil
	})
	inventories := 0
	g.Go(func() error {
		for ; ; inventories++ {
			var strays []string
			for h, err := range other.Inventory(ctx, "") {
				if err != nil {
					return err
				}
				if h.Stray != "" {
					strays = append(strays, h.Stray)
				}
			}
			if err := other.Discard(ctx, strays); err != nil {
				return err
			}
			select {
			case <-done:
				return nil
			default:
			}
		}
	})
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d inventories", inventories)
	if diff := cmp.Diff(want, holding(t, x, "").Texts); diff != "" {
		t.Fatalf("the index differs (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(wrong{Damage: map[string]string{}}, wrongOf(t, x)); diff != "" {
		t.Fatalf("the inventory differs (-want +got):\n%s", diff)
	}
}

// An index of nothing but what is stray has no documents.
func TestOnlyStrays(t *testing.T) {
	cfg := config(t)
	name := nameOf(t.TempDir())
	drop(t, cfg, name)
	x := open(t, cfg, name)
	raw{t, x}.put("odd", "", map[string]any{"document": "d", "version": 1, "deleted": false})
	got := wrongOf(t, x)
	if diff := cmp.Diff(wrong{Damage: map[string]string{}, Strays: []string{"odd"}}, got); diff != "" {
		t.Fatalf("the inventory differs (-want +got):\n%s", diff)
	}
	if err := x.Discard(t.Context(), got.Strays); err != nil {
		t.Fatal(err)
	}
	if got := wrongOf(t, x); len(got.Strays) > 0 {
		t.Errorf("after Discard there are %q", got.Strays)
	}
}

// A document with more chunks than one request reads is read as any other.
func TestInventoryOfManyChunks(t *testing.T) {
	cfg := config(t)
	name := nameOf(t.TempDir())
	drop(t, cfg, name)
	x := open(t, cfg, name)
	var texts []string
	for i := range 2*page + 1 {
		texts = append(texts, fmt.Sprint("text ", i))
	}
	r := textRevision("large", 1, texts...)
	mustApply(t, x, textRevision("before", 1, "b"), r, textRevision("small", 1, "s"))
	want := map[string]leat.ChunkDigest{}
	for _, r := range []leat.Revision{r, textRevision("before", 1, "b"), textRevision("small", 1, "s")} {
		for i := range r.Chunks {
			want[r.Document] = want[r.Document].Add(&r.Chunks[i])
		}
	}
	got := map[string]leat.ChunkDigest{}
	for h, err := range x.Inventory(t.Context(), "") {
		if err != nil || h.Damage != "" || h.Stray != "" {
			t.Fatal(h, err)
		}
		got[h.ID] = h.Digest
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("digests differ (-want +got):\n%s", diff)
	}
	behind := raw{t, x}
	id, routing := behind.chunk("large", 2*page)
	behind.remove(id, routing)
	extra := chunkID(routing, 1, 2*page+7)
	behind.put(extra, routing, map[string]any{"version": 1, "chunk": "c", "start": 0})
	if got := wrongOf(t, x).Damage; !maps.Equal(got, map[string]string{"large": fmt.Sprintf("chunk %d is missing (and 1 more)", 2*page)}) {
		t.Errorf("the inventory tells %v", got)
	}
	r.Again = true
	mustApply(t, x, r)
	if got := wrongOf(t, x); len(got.Damage)+len(got.Strays) > 0 {
		t.Errorf("after the mending the inventory tells %v", got)
	}
}

// The checksum is over all that is kept of a chunk and of a state.
func TestSum(t *testing.T) {
	source := chunkSource{Of: "h", Version: 1, Chunk: "c", Start: 2, Place: place{Ordinal: 3, End: 4, Tokens: 5, Page: 6}}
	source.setWords(chunkWords{"bad \xff\xfe", []string{"a", "bc"}, "\x00 text"})
	sum := source.sum("id")
	b, err := json.Marshal(source)
	if err != nil {
		t.Fatal(err)
	}
	var back chunkSource
	if err := json.Unmarshal(b, &back); err != nil || back.sum("id") != sum {
		t.Errorf("what JSON has kept has another checksum: %v", err)
	}
	for what, change := range map[string]func(s *chunkSource){
		"of": func(s *chunkSource) { s.Of += "x" }, "version": func(s *chunkSource) { s.Version++ }, "chunk": func(s *chunkSource) { s.Chunk += "x" },
		"start": func(s *chunkSource) { s.Start++ }, "ordinal": func(s *chunkSource) { s.Place.Ordinal++ },
		"end": func(s *chunkSource) { s.Place.End++ }, "tokens": func(s *chunkSource) { s.Place.Tokens++ },
		"page": func(s *chunkSource) { s.Place.Page++ }, "title": func(s *chunkSource) { s.Title = "x" },
		"heading": func(s *chunkSource) { s.Heading = []string{"ab", "c"} }, "text": func(s *chunkSource) { s.Text = strings.ToUpper(s.Text) },
		"han": func(s *chunkSource) { s.Han = &chunkWords{} },
	} {
		s := source
		if change(&s); s.sum("id") == sum {
			t.Errorf("with another %s the checksum is the same", what)
		}
	}
	if source.sum("other") == sum {
		t.Error("at another id the checksum is the same")
	}
}
