package sinktest

import (
	"flag"
	"fmt"
	"testing"

	"leat"

	"pgregory.net/rapid"
)

// anySequence applies any sequence of revisions, parts, replays and reopens
// and compares with a map after each (I2, I4, I7).
func anySequence(t *testing.T, open opener) {
	// Each sequence opens a store of its own, which takes a real one a good part
	// of a second: fewer than rapid's 100, unless -rapid.checks asks for more.
	if checks := flag.Lookup("rapid.checks"); checks.Value.String() == checks.DefValue {
		if err := checks.Value.Set("20"); err != nil {
			t.Fatal(err)
		}
	}
	rapid.Check(t, func(rt *rapid.T) {
		dir := t.TempDir()
		x := open(t, dir)
		held := map[string]leat.Revision{}
		under := map[string]map[uint64]int{} // parts received, by document and version
		made := map[string]leat.Revision{}   // a version has one content
		var past []leat.Revision

		one := func(r leat.Revision) leat.Outcome {
			h, known := held[r.Document]
			if known && h.Version > r.Version {
				return leat.Superseded
			}
			if !known || h.Version < r.Version {
				u := under[r.Document]
				if u == nil {
					u = map[uint64]int{}
					under[r.Document] = u
				}
				u[r.Version] = max(u[r.Version], r.Part+1)
				if r.Last {
					held[r.Document] = made[fmt.Sprint(r.Document, " ", r.Version)]
				}
			}
			return leat.Applied
		}
		draw := func() []leat.Revision {
			id := rapid.SampledFrom([]string{"a", "b", "ü/%41'"}).Draw(rt, "document")
			version := rapid.Uint64Range(1, 8).Draw(rt, "version")
			key := fmt.Sprint(id, " ", version)
			r, ok := made[key]
			if !ok {
				if rapid.IntRange(0, 4).Draw(rt, "kind") == 0 {
					r = tombstone(id, version)
				} else {
					words := rapid.SliceOfN(rapid.SampledFrom([]string{"ash", "birch", "cedar", "捷運", "elm"}), 0, 6).Draw(rt, "texts")
					r = revision(id, version, words...)
					r = titled(r, rapid.SampledFrom([]string{"", "Fir"}).Draw(rt, "title"))
				}
				made[key] = r
			}
			r.Again = rapid.IntRange(0, 2).Draw(rt, "again") == 0
			size := rapid.IntRange(1, 6).Draw(rt, "part size")
			if len(r.Chunks) <= size {
				return []leat.Revision{r}
			}
			cut := parts(r, size)
			// From the start, or from where an earlier attempt with this cut
			// stopped; to the end or not.
			from := 0
			if n := under[id][version]; n > 0 && n < len(cut) && past != nil {
				last := past[len(past)-1]
				if last.Document == id && last.Version == version && !last.Last && len(last.Chunks) == size {
					from = rapid.IntRange(0, last.Part+1).Draw(rt, "from")
				}
			}
			return cut[from : from+rapid.IntRange(1, len(cut)-from).Draw(rt, "parts")]
		}
		rt.Repeat(map[string]func(*rapid.T){
			"apply": func(*rapid.T) {
				var batch []leat.Revision
				var want []leat.Outcome
				for range rapid.IntRange(1, 3).Draw(rt, "runs") {
					for _, r := range draw() {
						want = append(want, one(r))
						batch = append(batch, r)
						past = append(past, r)
					}
				}
				got, err := x.Apply(t.Context(), batch)
				if err != nil {
					rt.Fatalf("Apply: %v", err)
				}
				if fmt.Sprint(got) != fmt.Sprint(want) {
					rt.Fatalf("outcomes %v, not %v", got, want)
				}
			},
			"reopen": func(*rapid.T) { x = open(t, dir) },
			"": func(*rapid.T) {
				var all []leat.Revision
				for id, r := range held {
					if r.Deleted {
						d, err := x.Document(t.Context(), id)
						if err != nil || !d.Deleted || d.Version != r.Version {
							rt.Fatalf("state of deleted %s: %+v, %v", id, d, err)
						}
						continue
					}
					all = append(all, r)
				}
				x.holds(rt, all...)
				x.sound(rt, "")
			},
		})
	})
}
