package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"leat/internal/testenv"
)

// verdict is what `leat verify` says.
type verdict struct {
	OK                                  bool
	Checked                             int
	Missing, Stale, Orphaned, Differing []string
	Reasons                             map[string]string
}

// faults gives each id with what is wrong with it.
func (v verdict) faults() map[string]string {
	all := map[string]string{}
	for _, l := range []struct {
		what string
		ids  []string
	}{{"missing", v.Missing}, {"stale", v.Stale}, {"orphaned", v.Orphaned}, {"differing", v.Differing}} {
		for _, id := range l.ids {
			all[id] = strings.TrimPrefix(all[id]+", "+l.what, ", ")
		}
	}
	return all
}

// verify runs `leat verify`: exit code 0 where all is well, 1 where not.
func (p *pipeline) verify(args ...string) (v verdict) {
	p.t.Helper()
	out, code := p.output("", append([]string{"verify", "--output", "json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		p.t.Fatalf("leat verify: exit code %d, %v in %q", code, err, out)
	}
	if v.OK != (code == 0) || code > 1 || v.OK != (len(v.faults()) == 0) {
		p.t.Fatalf("leat verify: exit code %d with %s", code, out)
	}
	return v
}

// verified checks that `leat verify` finds nothing wrong with so many documents.
func (p *pipeline) verified(documents int) {
	p.t.Helper()
	if v := p.verify(); !v.OK || v.Checked != documents {
		p.t.Errorf("leat verify finds %v in %d documents of %d: %v", v.faults(), v.Checked, documents, v.Reasons)
	}
}

// TestVerifyFindsPlantedDamage damages every index in every way, and changes
// sources so that leat cannot know: `leat verify` says what is wrong, neither
// less nor more, and `--repair` mends it (I6).
func TestVerifyFindsPlantedDamage(t *testing.T) {
	t.Run("embedded", func(t *testing.T) {
		d := newDamaged(t, "", testenv.MySQL(t), testenv.MinIO(t))
		store := d.p.store()
		d.stores = fileStore{store}
		d.text, d.vectors = sqliteIndex{store, "text1"}, sqliteIndex{store, "vectors1"}
		copies := t.TempDir()
		d.keep = func() { d.copyStore(filepath.Dir(store), copies) }
		d.setBack = func() { d.copyStore(copies, filepath.Dir(store)) }
		d.run()
	})
	t.Run("on servers", func(t *testing.T) {
		es, milvus, kafka := testenv.Elasticsearch(t), testenv.Milvus(t), testenv.Kafka(t)
		d := newDamaged(t, fmt.Sprintf("kafka: {brokers: [%q]}\nelasticsearch: {urls: [%q], replicas: 0}\nmilvus: {address: %q}\n",
			kafka.Addr(), es.URL(), milvus.Addr()), testenv.MySQL(t), testenv.MinIO(t))
		index := elasticIndex{es.URL(), "test-g1"}
		d.stores = serverStores{es.URL(), milvus.Addr()}
		d.text, d.vectors = index, milvusIndex{milvus.Addr(), "test-g1"}
		d.keep = func() { d.check(index.clone("kept", "")) }
		d.setBack = func() {
			var ignored any
			d.check(index.call("DELETE", "/test-g1", nil, &ignored))
			d.check(elasticIndex{index.url, "kept"}.clone("test-g1", "test"))
		}
		d.run()
	})
}

// clone makes a copy of the index under another name, with an alias unless it is "".
func (x elasticIndex) clone(name, alias string) error {
	var ignored any
	block := func(index string, value any) error {
		return x.call("PUT", "/"+index+"/_settings", map[string]any{"index.blocks.write": value}, &ignored)
	}
	if err := block(x.name, true); err != nil {
		return err
	}
	body := map[string]any{"settings": map[string]any{"index.number_of_replicas": 0}}
	if alias != "" {
		body["aliases"] = map[string]any{alias: map[string]any{}}
	}
	if err := x.call("PUT", "/"+x.name+"/_clone/"+name+"?wait_for_active_shards=1", body, &ignored); err != nil {
		return err
	}
	for _, index := range []string{x.name, name} {
		if err := block(index, nil); err != nil {
			return err
		}
	}
	return nil
}

// damaged is a pipeline whose indexes are damaged.
type damaged struct {
	t             *testing.T
	shop          *tables
	bucket        *objects
	p             *pipeline
	stores        backend
	text, vectors damager
	keep, setBack func() // an old copy of the text index, at least, while leat is stopped
}

func newDamaged(t *testing.T, servers string, db *testenv.DB, store *testenv.ObjectStore) *damaged {
	seed := seed(t)
	random := func(n uint64) writer { return writer{rand.New(rand.NewPCG(seed, n))} }
	d := &damaged{t: t, shop: newTables(t, db, "shop", random(1)), bucket: newObjects(t, store, store.URL(), "bucket", random(2))}
	d.shop.fill(30)
	for n := 0; n < 15 || len(d.bucket.have) < 2; n++ { // changeEach takes two that are known
		d.bucket.step()
	}
	d.p = newPipeline(t, nullModel(t)+"chunker: {target_tokens: 60}\n"+servers, d.shop.config(), d.bucket.config())
	return d
}

func (d *damaged) check(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

// copyStore copies the embedded store's files to another directory.
func (d *damaged) copyStore(from, to string) {
	d.t.Helper()
	for _, old := range d.files(to) {
		d.check(os.Remove(old))
	}
	for _, path := range d.files(from) {
		data, err := os.ReadFile(path)
		d.check(err)
		d.check(os.WriteFile(filepath.Join(to, filepath.Base(path)), data, 0o600))
	}
}

func (d *damaged) files(dir string) []string {
	all, err := filepath.Glob(filepath.Join(dir, "index.db*"))
	d.check(err)
	return all
}

func (d *damaged) want() map[string]expectedDocument {
	want := d.shop.expected()
	maps.Copy(want, d.bucket.expected())
	return want
}

// unlike says how the indexes differ from the sources.
func (d *damaged) unlike() error {
	want := d.want()
	_, err := unlike(d.t.Context(), d.stores, 1, want, d.p.split(want), 64)
	return err
}

// equal waits until the indexes equal the sources.
func (d *damaged) equal() {
	d.t.Helper()
	until(d.t, 3*time.Minute, "the indexes equal the sources", func() error {
		d.p.alive()
		return d.unlike()
	})
}

// found checks that `leat verify` finds exactly this wrong, by ids of documents
// and what the names of strays contain.
func (d *damaged) found(when string, want map[string]string) {
	d.t.Helper()
	v := d.p.verify()
	got := v.faults()
	for id, fault := range want {
		found := ""
		for name := range got {
			if name == id || !strings.Contains(id, ":") && strings.Contains(name, id) {
				found = got[name]
				delete(got, name)
				break
			}
		}
		if found != fault {
			d.t.Errorf("%s: %s is %q to leat verify, not %q (%s)", when, id, found, fault, v.Reasons[id])
		}
	}
	for id, fault := range got {
		d.t.Errorf("%s: to leat verify %s is %s: %s", when, id, fault, v.Reasons[id])
	}
	d.t.Logf("%s: %d found in %d documents", when, len(want), v.Checked)
}

// repaired has everything mended, and compares.
func (d *damaged) repaired(when string) {
	d.t.Helper()
	if v := d.p.verify("--repair"); !v.OK {
		d.t.Fatalf("%s: leat verify --repair leaves %v: %v", when, v.faults(), v.Reasons)
	}
	if err := d.unlike(); err != nil {
		d.t.Fatalf("%s: after the repair: %v", when, err)
	}
	d.p.verified(len(d.want()))
	d.p.noDeadLetters()
}

func (d *damaged) run() {
	d.p.start()
	d.equal()
	d.shop.awaitSnapshot(d.p)
	d.equal()
	d.p.verified(len(d.want()))

	const chunks = "chunks deleted, altered and added, a document deleted"
	d.found(chunks, d.damageChunks())
	d.repaired(chunks)

	const hidden = "changes that no binlog tells"
	d.found(hidden, d.changeUnseen())
	d.repaired(hidden)

	// What changes while leat is down is found without it, and mended when it runs.
	d.p.stop()
	d.found("changes while leat is down", d.changeEach())
	d.p.start()
	d.equal()
	d.p.verified(len(d.want()))

	const old = "an old copy of the index"
	d.p.stop()
	d.keep()
	d.p.start()
	faults := d.changeRows()
	d.equal()
	d.p.stop()
	d.setBack()
	d.p.start()
	d.found(old, faults)
	d.repaired(old)
	d.p.stop()
}

// damageChunks damages a document in each index in each way.
func (d *damaged) damageChunks() map[string]string {
	d.t.Helper()
	text, _, _, err := d.stores.read(d.t.Context(), 1)
	d.check(err)
	var rows []string // with text
	for id, doc := range text {
		if strings.HasPrefix(id, "mysql:") && len(doc.chunks) > 0 && len(doc.chunks[0].data) > 0 {
			rows = append(rows, id)
		}
	}
	slices.Sort(rows)
	next := func() string {
		if len(rows) == 0 {
			d.t.Fatal("there are too few rows to damage")
		}
		id := rows[0]
		rows = rows[1:]
		return id
	}
	faults, ctx := map[string]string{}, d.t.Context()
	if _, embedded := d.stores.(fileStore); embedded { // a store of a process: whoever writes to it has stopped leat
		d.p.stop()
		defer d.p.start()
	}
	sound := next()
	for _, x := range []damager{d.text, d.vectors} {
		for fault, damage := range map[string]map[string]func(id string) error{
			"differing": {
				"delete a chunk": func(id string) error { return x.deleteChunk(ctx, id) },
				"alter a chunk":  func(id string) error { return x.alterChunk(ctx, id, sound) },
				"add a chunk":    func(id string) error { return x.addChunk(ctx, id) },
			},
			"missing": {"delete a document": func(id string) error { return x.deleteDocument(ctx, id) }},
		} {
			for what, plant := range damage {
				id := next()
				if err := plant(id); err != nil {
					d.t.Fatalf("%s: %v", what, err)
				}
				faults[id] = fault
			}
		}
		name, err := x.addStray(ctx)
		d.check(err)
		faults[name] = "orphaned"
	}
	if d.unlike() == nil {
		d.t.Fatal("the damage is not to be seen")
	}
	return faults
}

// changeUnseen changes rows so that the binlog does not tell.
func (d *damaged) changeUnseen() map[string]string {
	d.t.Helper()
	ctx := context.Background()
	conn, err := d.shop.db.Root().Conn(ctx)
	d.check(err)
	defer conn.Close()
	x := d.shop
	exec := func(query string, args ...any) {
		d.t.Helper()
		_, err := conn.ExecContext(ctx, strings.ReplaceAll(query, "$", x.base), args...)
		d.check(err)
	}
	exec("SET SESSION sql_log_bin = 0")
	defer exec("SET SESSION sql_log_bin = 1")
	exec("UPDATE $.products SET description = 'nobody was told' WHERE id = ?", x.products[0])
	exec("UPDATE $.articles SET author = 'Nobody' WHERE lang = ? AND slug = ?", x.articles[0][0], x.articles[0][1])
	exec("DELETE FROM $.products WHERE id = ?", x.products[1])
	exec("UPDATE $.products SET id = 3000000 WHERE id = ?", x.products[2])
	exec("INSERT INTO $.articles VALUES ('en', 'unseen', 'Unseen', 'An article that no binlog tells of.', NULL)")
	faults := map[string]string{
		x.productID(x.products[0]): "stale", x.articleID(x.articles[0]): "stale",
		x.productID(x.products[1]): "orphaned", x.productID(x.products[2]): "orphaned",
		x.productID(3_000_000): "missing", x.articleID([2]string{"en", "unseen"}): "missing",
	}
	x.products = x.products[3:]
	return faults
}

// changeRows changes rows and says what a store that has not seen it holds.
func (d *damaged) changeRows() map[string]string {
	x := d.shop
	updated, deleted, moved, created := x.products[0], x.products[1], x.products[2], uint64(4_000_000+x.serial)
	x.products = append(x.products[3:], updated)
	x.change([]string{x.productID(updated)}, do("UPDATE $.products SET name='changed', stock=stock+1 WHERE id=?", updated))
	x.change([]string{x.productID(deleted)}, do("DELETE FROM $.products WHERE id=?", deleted))
	x.change([]string{x.productID(moved), x.productID(created)}, do("UPDATE $.products SET id=? WHERE id=?", created, moved))
	x.serial++
	return map[string]string{
		x.productID(updated): "stale", x.productID(deleted): "orphaned", x.productID(moved): "orphaned", x.productID(created): "missing",
	}
}

// changeEach changes rows and objects.
func (d *damaged) changeEach() map[string]string {
	faults := d.changeRows()
	b := d.bucket
	deleted, overwritten, created := b.have[0], b.have[1], "made while leat was down.md"
	b.have = append(b.have[1:], created)
	b.remove(deleted)
	b.put(overwritten, []byte("overwritten while leat was down"))
	b.put(created, []byte("made while leat was down"))
	faults[b.id(deleted)], faults[b.id(overwritten)], faults[b.id(created)] = "orphaned", "stale", "missing"
	return faults
}
