package milvus

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/milvus-io/milvus/client/v2/column"
	"github.com/milvus-io/milvus/client/v2/entity"
	"github.com/milvus-io/milvus/client/v2/milvusclient"
	"google.golang.org/grpc"

	"leat"
	"leat/internal/testenv"
	"leat/sinks/sinktest"
)

// vandal changes the chunks of an index with the client's library alone.
type vandal struct {
	client     *milvusclient.Client
	collection string
}

func newVandal(t testing.TB, p *pool, name string) vandal {
	t.Helper()
	client, err := milvusclient.New(t.Context(), &milvusclient.ClientConfig{Address: p.cfg.Address})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(context.Background()) })
	return vandal{client, collectionNames(name, 1).chunks}
}

// row reads one row that the filter matches.
func (v vandal) row(t testing.TB, filter string) map[string]column.Column {
	t.Helper()
	r, err := v.client.Query(t.Context(), milvusclient.NewQueryOption(v.collection).WithFilter(filter).WithOutputFields(chunkFields...).
		WithConsistencyLevel(entity.ClStrong))
	if err != nil || r.ResultCount == 0 {
		t.Fatalf("%d rows match %s (%v)", r.ResultCount, filter, err)
	}
	row := map[string]column.Column{}
	for _, f := range chunkFields {
		row[f] = r.GetColumn(f).Slice(0, 1)
	}
	return row
}

// put writes a row with some fields changed.
func (v vandal) put(t testing.TB, row map[string]column.Column, changed ...column.Column) {
	t.Helper()
	for _, c := range changed {
		row[c.Name()] = c
	}
	columns := make([]column.Column, len(chunkFields))
	for i, f := range chunkFields {
		columns[i] = row[f]
	}
	if _, err := v.client.Upsert(t.Context(), milvusclient.NewColumnBasedInsertOption(v.collection, columns...)); err != nil {
		t.Fatal(err)
	}
}

func (v vandal) remove(t testing.TB, filter string) {
	t.Helper()
	if _, err := v.client.Delete(t.Context(), milvusclient.NewDeleteOption(v.collection).WithExpr(filter)); err != nil {
		t.Fatal(err)
	}
}

func texts(field string, value string) column.Column {
	return column.NewColumnVarChar(field, []string{value})
}
func numbers(field string, value int64) column.Column {
	return column.NewColumnInt64(field, []int64{value})
}

func where(document string, ordinal int) string {
	return fmt.Sprintf("document == %q && ordinal == %d", escape(document), ordinal)
}

// alter turns the vector of a chunk.
func (v vandal) alter(t testing.TB, document string, ordinal int) {
	t.Helper()
	row := v.row(t, where(document, ordinal))
	value, err := row[vectorField].Get(0)
	if err != nil {
		t.Fatal(err)
	}
	turned := slices.Clone(value.(entity.FloatVector))
	slices.Reverse(turned)
	v.put(t, row, column.NewColumnFloatVector(vectorField, len(turned), [][]float32{turned}))
}

// add copies the first chunk that it finds to another place.
func (v vandal) add(t testing.TB, document string, ordinal int) {
	t.Helper()
	row := v.row(t, fmt.Sprintf("document == %q && ordinal < %d", escape(document), ordinal))
	version, err := row["version"].GetAsInt64(0)
	if err != nil {
		t.Fatal(err)
	}
	name, _ := digest(document)
	v.put(t, row, texts(keyField, chunkKey(name, uint64(version), ordinal)), numbers("ordinal", int64(ordinal)))
}

// leave makes a chunk of a document that is not there, out of one that is.
func (v vandal) leave(t testing.TB, document string) (key string) {
	t.Helper()
	name, hash := digest(document)
	key = chunkKey(name, 1, 0)
	v.put(t, v.row(t, "ordinal == 0"), texts(keyField, key), numbers(hashField, hash), texts("document", escape(document)))
	return key
}

func TestDamage(t *testing.T) {
	p := newPool(t, testenv.Milvus(t).Addr(), 2)
	vandalOf := func(t testing.TB, dir string) vandal { return newVandal(t, p, p.name(t, dir)) }
	sinktest.RunDamage(t, sinktest.DamageHarness{
		Open: func(t testing.TB, dir string) leat.Sink { return p.open(t, dir) },
		Delete: func(t testing.TB, dir, document string, ordinal int) {
			vandalOf(t, dir).remove(t, where(document, ordinal))
		},
		Alter:   func(t testing.TB, dir, document string, ordinal int) { vandalOf(t, dir).alter(t, document, ordinal) },
		Add:     func(t testing.TB, dir, document string) { vandalOf(t, dir).add(t, document, 5) },
		Stray:   func(t testing.TB, dir string) { vandalOf(t, dir).leave(t, "unknown") },
		Vectors: true,
	})
}

// inventory lists what is damaged, by document, and the strays.
func inventory(t *testing.T, x *Index, prefix string) (damage map[string]string, strays []string) {
	t.Helper()
	damage = map[string]string{}
	for h, err := range x.Inventory(t.Context(), prefix) {
		switch {
		case err != nil:
			t.Fatal(err)
		case h.Stray != "":
			strays = append(strays, h.Stray)
		case h.Damage != "":
			damage[h.ID] = h.Damage
		}
	}
	return damage, strays
}

// TestInventory names what it finds, whatever field of a row it is in, and all
// of it can be mended.
func TestInventory(t *testing.T) {
	p := newPool(t, testenv.Milvus(t).Addr(), 1)
	name := p.take(t)
	x, err := Open(t.Context(), p.cfg, name, 1, testModel, discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close() })
	v := newVandal(t, p, name)
	want := map[string]string{
		"missing": "chunk 1 is missing", "last": "chunk 3 is missing", "all": "chunks 0 to 3 are missing", "vector": "chunk 2 is altered",
		"added": "chunk 4 is past the last", "far": "chunk 900 is past the last", "stale": "1 chunks of older versions are left",
		"state": "1 states of older versions are left", "sparse": "1 chunks are missing", "gap": "its chunks are not those that were written",
		"version": "chunk 0 is altered", "foreign": "chunk 0 is altered", "hash": "chunk 1 is missing", "many": "chunk 0 is altered; chunk 1 is altered; chunk 2 is altered; 2 more",
	}
	var batch []leat.Revision
	for id := range want {
		r := revision(id, 5, 4)
		if id == "sparse" || id == "gap" { // a model refused some
			r.Chunks = slices.Delete(r.Chunks, 1, 2)
		}
		batch = append(batch, r)
	}
	batch = append(batch, revision("sound", 5, 2), deletion("deleted", 5), revision("empty", 5, 0), revision("unseen", 5, 4))
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	apply := func(batch []leat.Revision) {
		t.Helper()
		_, err := x.Apply(t.Context(), batch)
		must(err)
	}
	apply(batch)
	if damage, strays := inventory(t, x, ""); len(damage)+len(strays) > 0 {
		t.Fatal(damage, strays)
	}
	v.remove(t, where("missing", 1))
	v.remove(t, where("last", 3))
	v.remove(t, `document == "all"`)
	v.alter(t, "vector", 2)
	v.add(t, "added", 4)
	v.add(t, "far", 900)
	must(x.write(t.Context(), planned(t, x, revision("stale", 3, 2))[:1], nil))
	_, hash := digest("state")
	must(x.write(t.Context(), nil, []state{{key: stateKey("state", 4), hash: hash, part: -1}}))
	v.remove(t, where("sparse", 2))
	row := v.row(t, where("gap", 2)) // moved, as if it had been written there
	_, hash = digest("gap")
	moved := chunkRow{key: chunkKeyOf("gap", 5, 1), hash: hash, document: "gap", version: 5, chunk: &leat.Chunk{Ordinal: 1, Vector: batch[0].Chunks[0].Vector}}
	v.put(t, row, chunkColumns([]chunkRow{moved}, sinktest.Dimension)...)
	v.remove(t, where("gap", 2))
	v.put(t, v.row(t, where("version", 0)), numbers("version", 6))
	v.put(t, v.row(t, where("foreign", 0)), texts("document", "sound"))
	v.put(t, v.row(t, where("hash", 1)), numbers(hashField, 7))
	for i := range 4 {
		v.alter(t, "many", i)
	}
	_, hash = digest("unseen")
	must(x.write(t.Context(), nil, []state{{key: stateKey("unseen", 5), hash: hash + 1, part: -1, end: 4, DocumentState: leat.DocumentState{Chunks: 4}}}))
	v.add(t, "many", 4)
	strays := []string{v.leave(t, "unknown"), v.leave(t, "deleted"), `of "someone's" \else`}
	v.put(t, v.row(t, where("sound", 1)), texts(keyField, strays[2]))
	strays = append(strays, chunkKeyOf("hash", 5, 1)) // by its hash it is of no document
	for i := range 4 {
		strays = append(strays, chunkKeyOf("unseen", 5, i))
	}
	for i := range strays {
		strays[i] = x.names.chunks + " " + strays[i]
	}
	slices.Sort(strays)
	damage, found := inventory(t, x, "")
	if diff := cmp.Diff(want, damage); diff != "" {
		t.Fatal(diff)
	}
	if diff := cmp.Diff(strays, found); diff != "" {
		t.Fatal(diff)
	}
	if damage, found := inventory(t, x, "a"); len(damage) != 2 || len(found) != 0 {
		t.Fatal(damage, found)
	}
	for i := range batch {
		batch[i].Again = true
	}
	apply(batch)
	must(x.Discard(t.Context(), found))
	if damage, strays := inventory(t, x, ""); len(damage)+len(strays) > 0 {
		t.Fatal(damage, strays)
	}
	if _, states := rowCount(t, x, "state"); states != 1 {
		t.Fatalf("%d states are there", states)
	}
	must(x.Discard(t.Context(), found))
	if err := x.Discard(t.Context(), []string{"elsewhere " + strays[0]}); err == nil || !strings.Contains(err.Error(), x.names.chunks) {
		t.Fatalf("something elsewhere is discarded: %v", err)
	}
	// What was stray may belong to a document by now.
	apply([]leat.Revision{revision("unknown", 1, 1)})
	must(x.Discard(t.Context(), found))
	if damage, strays := inventory(t, x, ""); len(damage)+len(strays) > 0 {
		t.Fatal(damage, strays)
	}
}

func chunkKeyOf(id string, version uint64, ordinal int) string {
	name, _ := digest(id)
	return chunkKey(name, version, ordinal)
}

// TestInventoryWhileWriting finds nothing wrong for long while documents
// change, come and go.
func TestInventoryWhileWriting(t *testing.T) {
	p := newPool(t, testenv.Milvus(t).Addr(), 1)
	name := p.take(t)
	w, err := Open(t.Context(), p.cfg, name, 1, testModel, discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	r, err := OpenReader(t.Context(), p.cfg, name, 1, discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	const stay, come = 40, 20
	batch := func(version uint64) (all []leat.Revision) {
		for i := range stay + come {
			d := revision(fmt.Sprintf("d%02d", i), version, 1+(i+int(version))%4)
			if i >= stay && i%2 == int(version)%2 {
				d = deletion(d.Document, version)
			}
			d.Again = i%3 == 0
			all = append(all, d)
		}
		return all
	}
	if _, err := w.Apply(t.Context(), batch(1)); err != nil {
		t.Fatal(err)
	}
	done, stop := make(chan error, 1), make(chan struct{})
	go func() {
		for version := uint64(2); ; version++ {
			if _, err := w.Apply(context.WithoutCancel(t.Context()), batch(version)); err != nil {
				done <- err
				return
			}
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
		}
	}()
	again := 0
	for range 15 {
		listed := map[string]bool{}
		for h, err := range r.Inventory(t.Context(), "") {
			if err != nil {
				t.Fatal(err)
			}
			listed[h.ID] = true
			for deadline := time.Now().Add(time.Minute); h.Damage != "" && time.Now().Before(deadline); again++ {
				damage, _ := inventory(t, r, h.ID)
				h.Damage = damage[h.ID]
			}
			if h.Damage != "" {
				t.Fatalf("%+v", h)
			}
		}
		for i := range stay {
			if id := fmt.Sprintf("d%02d", i); !listed[id] {
				t.Fatalf("%s is not listed", id)
			}
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Logf("%d documents were compared again", again)
	if damage, strays := inventory(t, r, ""); len(damage)+len(strays) > 0 {
		t.Fatal(damage, strays)
	}
}

// TestAgainCutBetweenCalls ends a writer that mends between any two calls to
// the server, and then replays what it was at or goes on with newer versions.
func TestAgainCutBetweenCalls(t *testing.T) {
	p := newPool(t, testenv.Milvus(t).Addr(), 1)
	name := p.take(t)
	y, err := Open(t.Context(), p.cfg, name, 1, testModel, discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { y.Close() })
	v := newVandal(t, p, name)
	apply := func(batch ...leat.Revision) {
		t.Helper()
		if _, err := y.Apply(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	again := func(revisions ...leat.Revision) []leat.Revision {
		for i := range revisions {
			revisions[i].Again = true
		}
		return revisions
	}
	cut := func(n int, after, replay bool) (reached bool) {
		prefix := fmt.Sprintf("%d/%v/%v/", n, after, replay)
		whole, parts, gone := revision(prefix+"whole", 2, 5), revision(prefix+"parts", 2, 7), deletion(prefix+"gone", 2)
		apply(whole, parts, gone)
		mend := again(inParts(parts, 2)...)
		for _, id := range []string{whole.Document, parts.Document} {
			v.alter(t, id, 1)
			v.remove(t, where(id, 0))
			v.add(t, id, 7)
		}
		apply(mend[:2]...)
		batch := append(again(whole, gone), mend[2:]...)

		f := &faulty{after: after}
		x, err := open(t.Context(), p.cfg, name, 1, testModel, discard, grpc.WithUnaryInterceptor(f.intercept))
		if err != nil {
			t.Fatal(err)
		}
		f.at.Store(f.calls.Load() + int64(n))
		_, err = x.Apply(t.Context(), batch)
		if closed := x.db.close(); closed != nil { // it was killed
			t.Fatal(closed)
		}
		if reached = f.calls.Load() >= f.at.Load(); reached == (err == nil) {
			t.Fatalf("call %d was cut: %v, Apply says %v", n, reached, err)
		}
		// What was sound is found all the while.
		refresh(t, y)
		for _, r := range []leat.Revision{whole, parts} {
			matches, err := y.SearchVector(t.Context(), r.Chunks[3].Vector, 1000)
			if err != nil || !slices.ContainsFunc(matches, func(m leat.Match) bool {
				return m.Document == r.Document && m.Version == 2 && m.Chunk == r.Chunks[3].ID && m.Score > 0.999
			}) {
				t.Fatalf("call %d cut: a chunk of %s is not found (%v)", n, r.Document, err)
			}
		}
		want := map[string]uint64{"whole": 2, "parts": 2}
		if replay {
			apply(batch...)
		} else {
			apply(revision(whole.Document, 3, 5), revision(parts.Document, 3, 7), deletion(gone.Document, 3))
			want = map[string]uint64{"whole": 3, "parts": 3}
		}
		if diff := cmp.Diff(want, versions(t, y, prefix)); diff != "" {
			t.Fatalf("call %d cut: %s", n, diff)
		}
		if damage, strays := inventory(t, y, ""); len(damage)+len(strays) > 0 {
			t.Fatalf("call %d cut: %v, %v", n, damage, strays)
		}
		if chunks, states := rowCount(t, y, whole.Document, parts.Document, gone.Document); chunks != 12 || states != 3 {
			t.Fatalf("call %d cut: %d rows of chunks and %d of states are there, not 12 and 3", n, chunks, states)
		}
		return reached
	}
	for _, after := range []bool{false, true} {
		for _, replay := range []bool{false, true} {
			n := 1
			for cut(n, after, replay) {
				n++
			}
			if n < 7 {
				t.Fatalf("an Apply of %d calls: what was cut?", n-1)
			}
		}
	}
}

// TestAgainUnderSearches: a document that is written again and again, whole and
// in parts, never disappears, nor does a chunk of it.
func TestAgainUnderSearches(t *testing.T) {
	p := newPool(t, testenv.Milvus(t).Addr(), 1)
	dir := t.TempDir()
	w, r := p.open(t, dir), p.open(t, dir)
	d := revision("d", 1, 6)
	if _, err := w.Apply(t.Context(), []leat.Revision{d}); err != nil {
		t.Fatal(err)
	}
	refresh(t, r)
	d.Again = true
	done, stop := make(chan error, 1), make(chan struct{})
	go func() {
		for n := 0; ; n++ {
			batch := []leat.Revision{d}
			if n%2 == 1 {
				batch = inParts(d, 2)
			}
			for _, part := range batch {
				if _, err := w.Apply(context.WithoutCancel(t.Context()), []leat.Revision{part}); err != nil {
					done <- err
					return
				}
			}
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
		}
	}()
	for i := range 100 {
		m, err := r.SearchVector(t.Context(), d.Chunks[i%6].Vector, 20)
		if err != nil || len(m) != 6 || m[0].Chunk != d.Chunks[i%6].ID || m[0].Score < 0.999 {
			t.Errorf("%d matches, %+v first, of the 6 chunks (%v)", len(m), m[:min(1, len(m))], err)
			break
		}
		if chunks, err := r.Chunks(t.Context(), "d"); err != nil || len(chunks) != 6 {
			t.Errorf("%d chunks of 6 (%v)", len(chunks), err)
			break
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
