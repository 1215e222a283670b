package e2e

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"leat/internal/testenv"
)

// TestRunRefusesOtherSettings changes what the index is made with: `leat run`
// does not start, search goes on, and `leat reindex`, which it names, takes the
// new settings up where nothing else runs.
func TestRunRefusesOtherSettings(t *testing.T) {
	notes := &files{t: t, writer: writer{rand.New(rand.NewPCG(seed(t), 1))}, name: "notes", dir: t.TempDir(), outside: t.TempDir()}
	for range 20 {
		notes.create()
	}
	const quaint = "A sentence on a wugglefant.\n"
	if err := os.WriteFile(filepath.Join(notes.dir, "quaint.md"), []byte(quaint), 0o644); err != nil {
		t.Fatal(err)
	}
	first, chunks := nullModel(t), "chunker: {target_tokens: 100}\n"
	p := newPipeline(t, first+chunks, notes.config())
	stores := fileStore{p.store()}
	once := func() {
		t.Helper()
		if _, code := p.output("", "run", "--once"); code != 0 {
			t.Fatalf("run --once: exit code %d", code)
		}
	}
	finds := func() {
		t.Helper()
		if out, code := p.output("", "search", "wugglefant"); code != 0 || !strings.Contains(out, "quaint.md") {
			t.Errorf("search: exit code %d: %s", code, out)
		}
	}
	// equal compares a generation with the files.
	equal := func(n, dimension int) {
		t.Helper()
		want := notes.expected()
		if _, err := unlike(t.Context(), stores, n, want, p.split(want), dimension); err != nil {
			t.Errorf("generation %d: %v", n, err)
		}
	}
	once()
	equal(1, 64)
	newest := 1
	for _, change := range []struct {
		name, settings string
		says           []string
		dimension      int
	}{
		{"the chunker", first + "chunker: {target_tokens: 50}\n", []string{"chunks of 50"}, 64},
		{"the model", nullModelNamed(t, "other", 64) + chunks, []string{"the model other"}, 64},
		{"the dimension", nullModelNamed(t, "hash-64", 32) + chunks, []string{"32 dimensions"}, 32},
	} {
		t.Run(change.name, func(t *testing.T) {
			newest++
			p.configure(first + chunks)
			p.configure(change.settings)
			p.ends(append(change.says, "leat reindex")...)
			finds()
			if _, code := p.output("", "reindex"); code != 0 {
				t.Fatalf("reindex: exit code %d", code)
			}
			if n, err := stores.live(t.Context()); err != nil || n != newest {
				t.Fatalf("generation %d is live, not %d (%v)", n, newest, err)
			}
			finds()
			once()
			equal(newest, change.dimension)
			p.noDeadLetters()
			// What was there before is there still, and fits again.
			p.configure(first + chunks)
			once()
			equal(1, 64)
			finds()
		})
	}
	t.Run("given up", func(t *testing.T) {
		newest++
		away := strings.ReplaceAll(nullModelNamed(t, "away", 64), "http://127.0.0.1:", "http://127.0.0.2:") // nobody answers there
		p.configure(away + chunks)
		j := p.beside("reindex")
		until(t, time.Minute, "the generation is being built", func() error {
			if code, ended := j.ended(); ended {
				t.Fatalf("reindex has ended with exit code %d: %s", code, j.LogTail(2000))
			}
			if log := j.LogTail(4000); !strings.Contains(log, fmt.Sprintf("test.g%d.vectors", newest)) {
				return errors.New(log)
			}
			return nil
		})
		if err := j.Kill(); err != nil {
			t.Fatal(err)
		}
		if all := p.generations(); all[len(all)-1].Generation != newest || all[len(all)-1].State != "building" {
			t.Errorf("generation %d is not being built: %+v", newest, all)
		}
		if _, code := p.output("", "reindex", "--abort"); code != 0 {
			t.Errorf("reindex --abort: exit code %d", code)
		}
		if err := stores.gone(t.Context(), newest); err != nil {
			t.Error(err)
		}
		p.ends("leat reindex")
		p.configure(first + chunks)
		once()
		equal(1, 64)
		finds()
		p.noDeadLetters()
	})
}

// TestBrokersDataIsLost removes the embedded broker's files, which hold how far
// sources were read and which version of every document is the last: read again,
// the sources and the index are equal.
func TestBrokersDataIsLost(t *testing.T) {
	seed := seed(t)
	random := func(n uint64) writer { return writer{rand.New(rand.NewPCG(seed, n))} }
	shop, store := newTables(t, testenv.MySQL(t), "shop", random(1)), testenv.MinIO(t)
	bucket := newObjects(t, store, store.URL(), "bucket", random(2))
	p := newPipeline(t, nullModel(t), shop.config(), bucket.config())
	step := func(n int) {
		for range n {
			shop.step()
			shop.step()
			bucket.step()
		}
	}
	equal := func() {
		t.Helper()
		want := shop.expected()
		maps.Copy(want, bucket.expected())
		split := p.split(want)
		until(t, 3*time.Minute, "the store equals the sources", func() error {
			p.alive()
			_, err := unlike(t.Context(), fileStore{p.store()}, 1, want, split, 64)
			return err
		})
	}
	shop.fill(50)
	step(20)
	for range 3 { // so that each source has been led more than once
		p.start()
		step(20)
		equal()
		p.stop()
	}
	step(20) // nobody reads this from the binlog
	if err := os.RemoveAll(filepath.Join(p.dir, "data", "broker")); err != nil {
		t.Fatal(err)
	}
	p.start()
	if out, code := p.output("", "reindex", "--from-source"); code != 0 {
		t.Fatalf("reindex --from-source: exit code %d: %s", code, out)
	}
	equal()
	step(20)
	equal()
	p.noDeadLetters()
	want := shop.expected()
	maps.Copy(want, bucket.expected())
	p.verified(len(want))
	p.stop()
}
