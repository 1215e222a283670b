package elastic

import (
	"fmt"
	"net/http"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"leat"
)

// neighbours are two other routings: to the shard of this one, and to another.
func neighbours(t testing.TB, cfg Config, routing string) (near, far string) {
	t.Helper()
	name := nameOf(t.TempDir())
	drop(t, cfg, name)
	x := open(t, cfg, name)
	shard := func(routing string) int {
		var answer struct{ Shards [][]struct{ Shard int } }
		if err := x.call(t.Context(), http.MethodGet, path(x.target, "_search_shards")+"?routing="+routing, nil, &answer); err != nil {
			t.Fatal(err)
		}
		return answer.Shards[0][0].Shard
	}
	own := shard(routing)
	for i := 0; near == "" || far == ""; i++ {
		if other := fmt.Sprint("routing", i); shard(other) == own {
			near = other
		} else {
			far = other
		}
	}
	return near, far
}

// TestMend damages an index of several shards in more ways, each of which is
// told, and mended by Discard and, before or after it, the same versions marked
// Again, or higher ones.
func TestMend(t *testing.T) {
	cfg := config(t)
	cfg.Shards = 3
	name := nameOf(t.TempDir())
	drop(t, cfg, name)
	x := open(t, cfg, name)
	version := uint64(1) // of all documents
	ha, hb := hash("a"), hash("b")
	near, far := neighbours(t, cfg, ha)
	row := func(hash string, ordinal int) string { return chunkID(hash, version, ordinal) }
	at := func(id, routing string) string { return id + "?routing=" + routing }
	for what, tt := range map[string]struct {
		damage func(r raw)
		want   func() wrong
	}{
		"a title": {
			func(r raw) { r.update(row(ha, 1), ha, map[string]any{"title": "another"}) },
			func() wrong { return wrong{Damage: map[string]string{"a": "chunk 1 is altered"}} },
		},
		"words beside those in Chinese": {
			func(r raw) { r.update(row(hash("中"), 0), hash("中"), map[string]any{"text": "spam"}) },
			func() wrong { return wrong{Damage: map[string]string{"中": "chunk 0 is altered"}} },
		},
		"a page and a place of another type": {
			func(r raw) {
				r.update(row(ha, 0), ha, map[string]any{"place": map[string]any{"page": 7}})
				r.update(row(ha, 2), ha, map[string]any{"place": map[string]any{"end": "far"}})
			},
			func() wrong { return wrong{Damage: map[string]string{"a": "chunk 0 is altered (and 1 more)"}} },
		},
		"chunks of one another": {
			func(r raw) { r.copied(row(ha, 0), ha, row(hb, 0), hb); r.copied(row(ha, 1), ha, row(ha, 2), ha) },
			func() wrong {
				return wrong{Damage: map[string]string{"a": "chunk 2 is altered", "b": "chunk 0 is altered"}}
			},
		},
		"one missing here, one too many there": {
			func(r raw) { r.remove(row(ha, 2), ha); r.copied(row(hb, 0), hb, row(hb, 2), hb) },
			func() wrong {
				return wrong{Damage: map[string]string{"a": "chunk 2 is missing", "b": "chunk 2 is one too many"}}
			},
		},
		"a state removed": {
			func(r raw) { r.remove(ha, "") },
			func() wrong { return wrong{} }, // a verification against the source tells it
		},
		"a state's metadata": {
			func(r raw) { r.update(ha, "", map[string]any{"state": map[string]any{"metadata": `{"n":1}`}}) },
			func() wrong { return wrong{Damage: map[string]string{"a": "its state is altered"}} },
		},
		"a state of another type": {
			func(r raw) { r.update(ha, "", map[string]any{"state": map[string]any{"title": 1}}) },
			func() wrong { return wrong{Damage: map[string]string{"a": "its state is altered"}} },
		},
		"a state's count": {
			func(r raw) { r.update(ha, "", map[string]any{"chunks": 1 << 40}) },
			func() wrong { return wrong{Damage: map[string]string{"a": "its state is altered"}} },
		},
		"a state of another document's id": {
			func(r raw) { r.update(ha, "", map[string]any{"document": "c"}) },
			func() wrong { return wrong{Strays: []string{ha}} },
		},
		"a second state": {
			func(r raw) { r.copied(ha, "", hash("other"), "") },
			func() wrong { return wrong{Strays: []string{hash("other")}} },
		},
		"a tombstone's chunk": {
			func(r raw) {
				h := hash("gone")
				r.put(row(h, 0), h, map[string]any{"version": version, "chunk": "c", "start": 0, "text": "back"})
			},
			func() wrong { return wrong{Strays: []string{at(row(hash("gone"), 0), hash("gone"))}} },
		},
		"an older chunk and mark": {
			func(r raw) {
				r.put(chunkID(ha, 0, 7), ha, map[string]any{"version": 0, "chunk": "c", "start": 0, "text": "old"})
				r.put(markID(ha, 0), ha, map[string]any{"version": 0, "mark": map[string]any{"parts": 1}})
			},
			func() wrong { return wrong{Strays: []string{at(chunkID(ha, 0, 7), ha), at(markID(ha, 0), ha)}} },
		},
		"a chunk in another shard too": {
			func(r raw) { r.copied(row(ha, 0), ha, row(ha, 0), far) },
			func() wrong { return wrong{Strays: []string{at(row(ha, 0), far)}} },
		},
		"chunks out of place": {
			func(r raw) { r.copied(row(ha, 0), ha, row(ha, 0), near); r.copied(row(ha, 1), ha, row(ha, 3), near) },
			func() wrong {
				return wrong{Damage: map[string]string{"a": "chunk 0 is altered"}, Strays: []string{at(row(ha, 0), near), at(row(ha, 3), near)}}
			},
		},
		"something else": {
			func(r raw) { r.put("what/is this?", "", map[string]any{"version": version, "text": "a0 foreign"}) },
			func() wrong { return wrong{Strays: []string{"what%2Fis%20this%3F"}} },
		},
	} {
		for _, first := range []string{"Again", "Discard", "Higher"} {
			t.Run(what+", "+first+" first", func(t *testing.T) {
				version += 10
				all := func() []leat.Revision {
					return []leat.Revision{
						textRevision("a", version, "a0", "a1", "a2"), textRevision("b", version, "b0", "b1"), textRevision("中", version, "数据库的索引"),
						{Document: "gone", Version: version, Deleted: true, Last: true},
					}
				}
				mustApply(t, x, all()...)
				tt.damage(raw{t, x})
				want := tt.want()
				if want.Damage == nil {
					want.Damage = map[string]string{}
				}
				got := wrongOf(t, x)
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatalf("the inventory differs (-want +got):\n%s", diff)
				}
				search(t, x, "a0")
				steps := []func(){
					func() {
						if first == "Higher" {
							version++
						}
						again := all()
						for i := range again {
							again[i].Again = true
						}
						mustApply(t, x, again...)
					},
					func() {
						if err := x.Discard(t.Context(), got.Strays); err != nil {
							t.Fatal(err)
						}
					},
				}
				if first == "Discard" {
					slices.Reverse(steps)
				}
				for _, step := range steps {
					step()
				}
				if diff := cmp.Diff(wrong{Damage: map[string]string{}}, wrongOf(t, x)); diff != "" {
					t.Fatalf("after the mending (-want +got):\n%s", diff)
				}
				after := map[string][]string{}
				for id, texts := range map[string][]string{"a": {"a0", "a1", "a2"}, "b": {"b0", "b1"}, "中": {"数据库的索引"}} {
					after[fmt.Sprint(id, "@", version)] = texts
				}
				if diff := cmp.Diff(after, holding(t, x, "").Texts); diff != "" {
					t.Fatalf("after the mending the index differs (-want +got):\n%s", diff)
				}
				refresh(t, x)
				if got := search(t, x, "a0"); !slices.Equal(got, []string{"a"}) {
					t.Errorf("after the mending a search finds %v", got)
				}
				// What comes next is counted from what leat wrote, not from the damage.
				next := textRevision("a", version+1, "next")
				mustApply(t, x, next)
				if _, there := holding(t, x, "").Texts[fmt.Sprint("a@", version+1)]; !there {
					t.Error("the next version is not taken")
				}
			})
		}
	}
}
