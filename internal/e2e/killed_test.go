package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"leat/internal/testenv"
)

func seed(t *testing.T) uint64 {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("LEAT_E2E_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("LEAT_E2E_SEED: %v", err)
		}
	}
	t.Logf("repeat with LEAT_E2E_SEED=%d", seed)
	return seed
}

// TestNothingIsLostWhenKilled changes rows and files while `leat run` is
// killed and started again, and then compares the store with the sources, as
// this package's own code reads them (I1–I5, I7). LEAT_E2E_SEED repeats a run.
func TestNothingIsLostWhenKilled(t *testing.T) {
	t.Run("null model", func(t *testing.T) {
		shop, old := testenv.MySQL(t), testenv.MariaDB(t)
		churn{model: nullModel(t), rows: 2000, files: 300, kills: 10, first: 150}.run(t, shop, old)
	})
	t.Run("built-in model", func(t *testing.T) {
		shop, old := testenv.MySQL(t), testenv.MariaDB(t)
		churn{model: builtinModel(t), rows: 200, files: 40, kills: 3, first: 10}.run(t, shop, old)
	})
}

// churn is a run of changes under kills.
type churn struct {
	model string // of pipeline.yaml
	rows  int    // changes to two tables of the first server; the second gets a quarter
	files int    // changes to files
	kills int
	first int // products, articles and a fifth of files that are there before the start
}

func (c churn) run(t *testing.T, first, second *testenv.DB) {
	began, seed := time.Now(), seed(t)
	random := func(n uint64) writer { return writer{rand.New(rand.NewPCG(seed, n))} }
	shop, old := newTables(t, first, "shop", random(1)), newTables(t, second, "old", random(2))
	notes := &files{t: t, writer: random(3), name: "notes", dir: t.TempDir(), outside: t.TempDir()}
	p := newPipeline(t, c.model, shop.config(), old.config(), notes.config())

	// What is there before the first start comes through the snapshot.
	shop.fill(c.first)
	old.fill(c.first / 3)
	for range c.first / 5 {
		notes.create()
	}
	watch := watchStore(t, p.store(), shop, old)

	p.start()
	chance, before := random(4), watch.rises.Load()
	for i := range c.rows {
		shop.step()
		if i%4 == 0 {
			old.step()
		}
		if i*c.files/c.rows != (i+1)*c.files/c.rows {
			notes.step()
		}
		time.Sleep(time.Duration(chance.IntN(10)) * time.Millisecond)
		if (i+1)%(c.rows/c.kills) > 0 {
			continue
		}
		// One kill comes whenever it comes, the next in the middle of work.
		switch kill := (i + 1) * c.kills / c.rows; {
		case kill == c.kills/2: // what comes later is read from the binlog alone
			shop.awaitSnapshot(p)
			old.awaitSnapshot(p)
		case kill%2 == 0:
			watch.progress(before)
		default:
			time.Sleep(time.Duration(chance.IntN(500)) * time.Millisecond)
		}
		p.kill()
		before = watch.rises.Load()
		p.start()
	}
	t.Logf("changes made after %v", time.Since(began))

	want := map[string]expectedDocument{}
	for _, documents := range []map[string]expectedDocument{shop.expected(), old.expected(), notes.expected()} {
		for id, d := range documents {
			want[id] = d
		}
	}
	split := p.split(want)
	var text map[string]*storedDocument
	until(t, 3*time.Minute, "the store equals the sources", func() error {
		var err error
		if text, err = readStore(p.store(), "text1"); err != nil {
			return err
		}
		vectors, err := readStore(p.store(), "vectors1")
		if err != nil {
			return err
		}
		return differences(append(compare(want, text, split), sameIndexes(text, vectors)...))
	})
	t.Logf("equal after %v: %d documents", time.Since(began), len(want))
	watch.stop()
	p.noDeadLetters()
	p.stop()
	noOrphans(t, p.store(), "text1")
	noOrphans(t, p.store(), "vectors1")
	for _, x := range []*tables{shop, old} {
		x.checkVersions(text)
	}

	// Whatever was still under way at the end must not change anything.
	if _, code := p.output("", "run", "--once"); code != 0 {
		t.Errorf("run --once: exit code %d", code)
	}
	text, err := readStore(p.store(), "text1")
	if err != nil {
		t.Fatal(err)
	}
	if err := differences(compare(want, text, split)); err != nil {
		t.Errorf("after another run: %v", err)
	}
}

func differences(diff []string) error {
	if len(diff) == 0 {
		return nil
	}
	return fmt.Errorf("%d differences:\n%s", len(diff), strings.Join(diff[:min(len(diff), 10)], "\n"))
}

// sameIndexes compares what the text index and the vector index hold.
func sameIndexes(text, vectors map[string]*storedDocument) (diff []string) {
	for id, a := range text {
		b := vectors[id]
		same := func(x, y storedChunk) bool {
			return x.id == y.id && x.ordinal == y.ordinal && x.from == y.from && x.to == y.to
		}
		if b == nil || a.version != b.version || a.deleted != b.deleted || !slices.EqualFunc(a.chunks, b.chunks, same) {
			diff = append(diff, id+": differs between the text and the vector index")
		}
	}
	if len(vectors) != len(text) {
		diff = append(diff, fmt.Sprintf("%d documents in the vector index, %d in the text index", len(vectors), len(text)))
	}
	return diff
}

// checkVersions checks that the version of each document that changed after
// the snapshot is the place in the binlog of its last change. A row that the
// snapshot gave has a place before the end of the snapshot; snapshots of one
// place are told apart by less than a transaction's first event, 32 bytes.
func (x *tables) checkVersions(got map[string]*storedDocument) {
	x.t.Helper()
	const placeBits = 52 // below the epoch: file number and offset
	exact, epochs, snapshotted := 0, map[uint64]int{}, x.snapshotted
	for id, w := range x.changed {
		d := got[id]
		if d == nil {
			continue // deleted before anything of it was read
		}
		epochs[d.version>>placeBits]++
		switch place := d.version & (1<<placeBits - 1); {
		case place >= w.from && place < w.to:
			exact++
		case w.to > snapshotted:
			x.t.Errorf("%s: version %d is not of its last change (%d to %d), which is after the snapshot (%d)", id, place, w.from, w.to, snapshotted)
		case place > snapshotted+32:
			x.t.Errorf("%s: version %d is of a place after its last change (%d to %d) and after the snapshot (%d)", id, place, w.from, w.to, snapshotted)
		}
	}
	if len(epochs) != 1 {
		x.t.Errorf("%s: versions of several epochs: %v", x.name, epochs)
	}
	x.t.Logf("%s: %d of %d versions stand at the place of their last change", x.name, exact, len(x.changed))
}
