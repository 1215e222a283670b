package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"leat/embedder/embeddertest"
	"leat/internal/testenv"
)

// trial is a small oracle on the embedded set and a MySQL database. Its runs
// return what is wrong.
type trial struct {
	t       *testing.T
	shop    *tables
	p       *pipeline
	model   *embeddertest.Server
	refused map[string]bool // documents that belong in deadletters
}

const trialDimension = 64

func newTrial(t *testing.T, db *testenv.DB, seed uint64) *trial {
	x := &trial{t: t, model: embeddertest.Start(trialDimension), refused: map[string]bool{}}
	t.Cleanup(x.model.Close)
	x.shop = newTables(t, db, "shop", writer{rand.New(rand.NewPCG(seed, 1))})
	x.p = newPipeline(t, x.yaml("hash"), x.shop.config())
	return x
}

func (x *trial) yaml(model string) string {
	return fmt.Sprintf("embedder:\n  openai: {url: %s, model: %s, dimension: %d}\nchunker: {target_tokens: 60}\n",
		x.model.BaseURL, model, trialDimension)
}

// start returns once the program runs.
func (x *trial) start() {
	x.p.start()
	v := victim{Process: x.p.process}
	until(x.t, time.Minute, "leat runs", func() error {
		x.p.alive()
		if !v.running() {
			return errors.New("it does not say so")
		}
		return nil
	})
}

const tableRead = "snapshot of the table is complete" // in the log

// awaitSnapshot waits, changing rows, until both tables are read and a position
// is saved after that: no start reads them again.
func (x *trial) awaitSnapshot() {
	var read time.Time
	until(x.t, 2*time.Minute, "the snapshot is over", func() error {
		x.p.alive()
		x.shop.step()
		switch {
		case strings.Count(x.p.process.LogTail(1<<20), tableRead) < 2:
			return errors.New("tables are being read")
		case read.IsZero():
			read = time.Now()
		case x.p.status().Sources[0].Saved.After(read):
			return nil
		}
		return errors.New("no position was saved")
	})
}

// killed kills the program while it works off changes.
func (x *trial) killed() error {
	x.shop.fill(20)
	x.start()
	x.awaitSnapshot()
	for end := time.Now().Add(1500 * time.Millisecond); time.Now().Before(end); {
		x.shop.step()
	}
	x.p.kill()
	return x.compared(1)
}

// snapshotRace changes rows while the snapshot reads them, a few at a time.
func (x *trial) snapshotRace() error {
	const rows, classes = 3000, 600
	x.shop.fill(0)
	x.insertProducts(rows, 1)
	x.start()
	for i := 0; !strings.Contains(x.p.process.LogTail(1<<20), tableRead); i++ {
		x.p.alive()
		_, err := x.shop.db.Root().Exec("UPDATE "+x.shop.base+".products SET stock=stock+1 WHERE id % ? = ?", classes, i%classes)
		x.shop.check(err)
	}
	x.awaitSnapshot()
	return x.compared(1)
}

// largeDocuments has documents that are cut into several parts.
func (x *trial) largeDocuments() error {
	x.insertArticles(10, x.shop.writer.paragraphs(250))
	return x.compared(1)
}

// refusedTexts has documents that the model refuses.
func (x *trial) refusedTexts() error {
	const word = "unspeakable"
	x.shop.fill(10)
	x.model.Refuse(word)
	for i := range uint64(3) {
		x.refused[x.insertProduct(2_000_000+i, "an "+word+" word")] = true
	}
	return x.compared(1)
}

// reindexed builds the index anew, with a model that is slow at first, while known
// documents are searched. Since nothing changes, the new generation equals the
// source as soon as it is live.
func (x *trial) reindexed() error {
	x.insertProducts(1000, 2)
	var all []known
	for i, animal := range []string{"okapi", "tapir", "axolotl"} {
		all = append(all, known{x.insertProduct(2_000_000+uint64(i), "the "+animal), "the " + animal})
	}
	if err := x.once(); err != nil {
		return err
	}
	x.start()
	search := x.p.search(all, 20)
	x.p.configure(x.yaml("another hash"))
	for range 4 {
		x.model.Fail(embeddertest.Change(func(*embeddertest.Reply) { time.Sleep(3 * time.Second) }))
	}
	err := errors.Join(x.reindex(), x.unlike(2))
	close(search.done)
	search.ended.Wait()
	return errors.Join(err, differences(search.failed), x.compared(2))
}

// reindex runs the command until it ends well: without its guard it may come
// before the new generation's index is there.
func (x *trial) reindex() error {
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if _, code := x.p.output("", "reindex"); code == 0 {
			return nil
		} else if time.Now().After(end) {
			return fmt.Errorf("reindex: exit code %d", code)
		}
	}
}

// backlog has far more documents wait, for a model that does not answer, than may
// be held in memory.
func (x *trial) backlog() (err error) {
	const most = 180 << 20
	x.insertArticles(150, x.shop.writer.paragraphs(2000)) // 600 kB each, and in the chunks topic once more
	for range 1000 {
		x.model.Fail(embeddertest.Hang)
	}
	x.t.Setenv("GOGC", "25") // so that what is taken is what is held
	run := x.p.beside("run", "--stages", "sources,chunker,embedder")
	defer func() { err = errors.Join(err, run.Kill()) }()
	var waiting time.Time // since when all waits for the model
	for waiting.IsZero() || time.Since(waiting) < 3*time.Second {
		peak, err := peakMemory(run.PID())
		if err != nil {
			return err
		}
		if peak > most {
			return fmt.Errorf("%d MiB of memory are taken, and %d should do", peak>>20, most>>20)
		}
		if waiting.IsZero() && x.cut() {
			waiting = time.Now()
		}
		time.Sleep(500 * time.Millisecond)
	}
	return nil
}

// cut reports whether the chunker has nothing left to do and the embedder has.
func (x *trial) cut() bool {
	backlog := map[string]int64{}
	for _, s := range jsonLines[struct {
		Stages []struct {
			Name    string
			Backlog int64
		}
	}](x.p, "", "status")[0].Stages {
		backlog[s.Name] = s.Backlog
	}
	return backlog["chunker"] == 0 && backlog["embedder"] > 0
}

var highWater = regexp.MustCompile(`(?m)^VmHWM:\s+(\d+) kB$`)

// peakMemory is the most memory that a process has had, in bytes, as Linux tells it.
func peakMemory(pid int) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	found := highWater.FindSubmatch(status)
	if found == nil {
		return 0, fmt.Errorf("no peak of memory in %s", status)
	}
	kib, err := strconv.ParseInt(string(found[1]), 10, 64)
	return kib << 10, err
}

// insertProduct inserts a product with a description and returns its document's id.
func (x *trial) insertProduct(key uint64, description string) string {
	id := x.shop.productID(key)
	x.shop.insertProductAs(key)
	x.shop.change([]string{id}, do("UPDATE $.products SET description=? WHERE id=?", description, key))
	return id
}

// insertProducts inserts products of so many paragraphs in one transaction.
func (x *trial) insertProducts(n, paragraphs int) {
	var all []statement
	var ids []string
	for range n {
		key := x.shop.nextKey()
		x.shop.products = append(x.shop.products, key)
		ids = append(ids, x.shop.productID(key))
		all = append(all, do("INSERT INTO $.products (id, name, description, stock) VALUES (?, ?, ?, 0)",
			key, x.shop.writer.title(), x.shop.writer.paragraphs(paragraphs)))
	}
	x.shop.change(ids, all...)
}

// insertArticles inserts articles of nearly the same text.
func (x *trial) insertArticles(n int, text string) {
	for i := range n {
		key := x.shop.newSlug()
		x.shop.change([]string{x.shop.articleID(key)}, do("INSERT INTO $.articles VALUES (?, ?, ?, ?, NULL)",
			key[0], key[1], x.shop.writer.title(), fmt.Sprint(i, ". ", text)))
	}
}

// once stops the program and has it work off all that there is.
func (x *trial) once() (err error) {
	if x.p.process != nil {
		if err := x.p.process.Stop(); err != nil {
			return err
		}
	}
	run := x.p.beside("run", "--once")
	defer func() { err = errors.Join(err, run.Kill()) }()
	select {
	case <-run.Done():
	case <-time.After(5 * time.Minute):
		return errors.New("run --once does not end")
	}
	if code, _ := run.ended(); code != 0 && code != 4 { // 4: there are dead letters
		return fmt.Errorf("run --once: exit code %d: %s", code, lastLines(run.LogTail(4000), 5))
	}
	return nil
}

// compared works off all that there is and says how a generation is unlike the source.
func (x *trial) compared(generation int) error {
	if err := x.once(); err != nil {
		return err
	}
	return x.unlike(generation)
}

// unlike says how a generation differs from the source. Documents that belong in
// deadletters may differ if they are there.
func (x *trial) unlike(generation int) error {
	want := x.shop.expected()
	text, vectors, diff, err := fileStore{x.p.store()}.read(x.t.Context(), generation)
	if err != nil {
		return err
	}
	for _, letter := range jsonLines[struct{ Document, Reason string }](x.p, "", "dlq", "list") {
		if !x.refused[letter.Document] {
			diff = append(diff, fmt.Sprintf("%s: in deadletters: %s", letter.Document, letter.Reason))
			continue
		}
		delete(want, letter.Document)
		delete(text, letter.Document)
		delete(vectors, letter.Document)
	}
	return differences(slices.Concat(diff, compare(want, text, x.p.split(want)), sameIndexes(text, vectors), compareVectors(text, vectors, trialDimension)))
}
