package e2e

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"leat/internal/stage"
	"leat/internal/testenv"
)

// TestOracle changes rows and objects at random while the index is built anew
// twice and set back once, and every process is killed now and then. In the end
// each generation is compared with the sources, and all the time known
// documents are searched for (I1–I7). LEAT_E2E_SEED repeats a run,
// LEAT_E2E_ORACLE=long makes it a long one.
func TestOracle(t *testing.T) {
	seed, sizes := seed(t), oracleSizes(t)
	o := newOracle(t, sizes, seed, testenv.MySQL(t), testenv.MinIO(t))
	o.prepare("")
	o.stores = fileStore{o.p.store()}
	o.start = func() {
		o.p.start()
		o.victims = []*victim{{Process: o.p.process}}
	}
	o.run()
}

// TestOracleOnServers is the same on Kafka, Elasticsearch and Milvus, each stage
// a process of its own; each of the servers is killed once.
func TestOracleOnServers(t *testing.T) {
	seed, sizes := seed(t), oracleSizes(t)
	s := startServers(t)
	o := newOracle(t, sizes, seed, s.database, s.objects)
	o.prepare(s.config())
	o.stores = serverStores{s.elastic.URL(), s.milvus.Addr()}
	o.start = func() {
		f := newFleet(o.p, sizes.processes)
		for _, name := range stage.Names {
			for _, m := range f.stages[name] {
				o.victims = append(o.victims, &victim{Process: m})
			}
		}
	}
	each := s.each()
	for _, name := range []string{"kafka", "elasticsearch", "milvus"} {
		o.at(o.chance.IntN(sizes.rows), func() { o.crash(name, each[name]) })
	}
	o.run()
}

// sizes of a run.
type sizes struct {
	first     int // rows of each table that are there before the start
	rows      int // changes
	objects   int // changes
	kills     int // of processes of `leat run`
	commands  int // kills of each command that works on generations
	searches  int // a second
	processes map[string]int
}

func oracleSizes(t *testing.T) sizes {
	switch s := os.Getenv("LEAT_E2E_ORACLE"); s {
	case "":
		each := map[string]int{}
		for _, name := range stage.Names {
			each[name] = 1
		}
		return sizes{first: 100, rows: 800, objects: 40, kills: 5, commands: 1, searches: 10, processes: each}
	case "long":
		return sizes{first: 300, rows: 10_000, objects: 300, kills: 27, commands: 3, searches: 20, processes: map[string]int{
			stage.Sources: 2, stage.Chunker: 2, stage.Embedder: 2, stage.TextIndexer: 2, stage.VectorIndexer: 2,
		}}
	default:
		t.Fatalf("LEAT_E2E_ORACLE=%s: want long, or nothing", s)
		return sizes{}
	}
}

// oracle is a run.
type oracle struct {
	sizes
	t      *testing.T
	began  time.Time
	chance writer
	shop   *tables
	bucket *objects
	known  []known
	p      *pipeline
	rest   string // of pipeline.yaml: the servers
	models map[int]string
	stores backend
	start  func() // the processes of `leat run`

	victims   []*victim
	deck      []*victim // those that are killed next
	changes   int
	events    []event // in the order of their places
	disturbed bool    // the broker or a store was killed since the command began
	search    *searching
	settings  settings         // of pipeline.yaml
	built     map[int]settings // by generation
	live      int
	former    int // the generation that was live before
	killed    int // commands
	documents int // of the sources, at last
}

// settings that make a generation.
type settings struct {
	dimension int
	target    int // of the chunker, in tokens
}

func newOracle(t *testing.T, n sizes, seed uint64, db *testenv.DB, store *testenv.ObjectStore) *oracle {
	random := func(n uint64) writer { return writer{rand.New(rand.NewPCG(seed, n))} }
	o := &oracle{sizes: n, t: t, began: time.Now(), chance: random(3), built: map[int]settings{}, models: map[int]string{}}
	o.shop = newTables(t, db, "shop", random(1))
	o.shop.most = 500
	o.bucket = newObjects(t, store, store.URL(), "bucket", random(2))
	o.shop.fill(n.first)
	for range n.objects / 4 {
		o.bucket.step()
	}
	for i, animal := range []string{"okapi", "tapir", "axolotl", "pangolin", "quokka"} {
		key, han := uint64(2_000_000+i), []string{"麒麟", "饕餮", "鲲鹏", "狻猊", "貔貅"}[i]
		o.shop.insertProductAs(key)
		o.shop.change([]string{o.shop.productID(key)}, do("UPDATE $.products SET name=?, description=? WHERE id=?",
			"The "+animal, fmt.Sprintf("The %s stays where it is, and so does %s. %s", animal, han, o.shop.writer.paragraphs(1)), key))
		name := fmt.Sprintf("known/%s %d.md", han, i)
		o.bucket.put(name, fmt.Appendf(nil, "# %s\n\n%s在山海经里。A note on an animal %sine.\n", han, han, animal))
		o.known = append(o.known, known{o.shop.productID(key), "the " + animal + " stays where it is"},
			known{o.bucket.id(name), han + "在山海经里"})
	}
	return o
}

// prepare makes the pipeline on servers.
func (o *oracle) prepare(servers string) {
	o.rest = servers
	for _, dimension := range []int{64, 96} {
		o.models[dimension] = nullModelOf(o.t, dimension)
	}
	o.settings = settings{dimension: 64, target: 225}
	o.built[1], o.live = o.settings, 1
	o.p = newPipeline(o.t, o.yaml(o.settings), o.shop.config(), o.bucket.config())
}

func (o *oracle) yaml(s settings) string {
	return fmt.Sprintf("%schunker: {target_tokens: %d}\n%s", o.models[s.dimension], s.target, o.rest)
}

func (o *oracle) check(err error) {
	o.t.Helper()
	if err != nil {
		o.t.Fatal(err)
	}
}

func (o *oracle) logf(format string, args ...any) {
	o.t.Helper()
	o.t.Logf("%6.1fs %s", time.Since(o.began).Seconds(), fmt.Sprintf(format, args...))
}

// at has something happen after so many changes.
func (o *oracle) at(changes int, do func()) { o.events = append(o.events, event{changes, do}) }

func (o *oracle) run() {
	for range o.kills {
		o.at(o.chance.IntN(o.rows), o.kill)
	}
	slices.SortStableFunc(o.events, func(a, b event) int { return cmp.Compare(a.after, b.after) })

	o.start()
	o.churn(o.rows / 8)
	o.awaitKnown()
	o.search = o.p.search(o.known, o.searches)
	o.churn(o.rows / 8)
	o.shop.awaitSnapshot(o.p)
	o.logf("the first generation is there")

	// Another dimension and another chunker, in any order; set back after the
	// first of them or after the second.
	dimension := func() { o.settings.dimension = 96 }
	chunker := func() { o.settings.target = 60 }
	steps := []func(){func() { o.reindex(dimension) }, func() { o.reindex(chunker) }}
	o.chance.Shuffle(len(steps), func(i, j int) { steps[i], steps[j] = steps[j], steps[i] })
	steps = slices.Insert(steps, 1+o.chance.IntN(2), o.rollback)
	for _, step := range steps {
		step()
	}
	o.churn(0) // what is still to happen
	if o.killed == 0 {
		o.t.Error("no command was killed: each ended before")
	}
	o.logf("%d changes of rows and %d of objects are made", o.changes, o.changes*o.objects/o.rows)
	if all := o.equal(); !slices.Contains(all, o.former) {
		o.t.Errorf("generation %d was live before %d, and is not among those kept: %v", o.former, o.live, all)
	}
	o.search.follows()
	o.p.verified(o.documents)
	o.drop()
	o.equal()
	o.search.stop()
}

// awaitKnown waits until the known documents are in both indexes.
func (o *oracle) awaitKnown() {
	until(o.t, 5*time.Minute, "the known documents are indexed", func() error {
		o.p.alive()
		text, vectors, _, err := o.stores.read(o.t.Context(), 1)
		if err != nil {
			return err
		}
		for _, k := range o.known {
			for _, index := range []map[string]*storedDocument{text, vectors} {
				if d := index[k.id]; d == nil || len(d.chunks) == 0 {
					return fmt.Errorf("%s is not there", k.id)
				}
			}
		}
		return nil
	})
}

// equal waits until every generation equals the sources, and returns them all.
func (o *oracle) equal() (generations []int) {
	o.t.Helper()
	want := o.shop.expected()
	maps.Copy(want, o.bucket.expected())
	split := map[int]map[string][]string{} // by what the chunker is set to
	for _, s := range o.built {
		if split[s.target] == nil {
			split[s.target] = o.p.configured(fmt.Sprintf("chunks-of-%d.yaml", s.target), o.yaml(s)).split(want)
		}
	}
	var text map[string]*storedDocument // of the live one
	until(o.t, 10*time.Minute, "every generation equals the sources", func() error {
		o.p.alive()
		all := o.p.generations()
		leads, err := o.stores.live(o.t.Context())
		if err != nil || leads != o.live || live(all) != o.live {
			return fmt.Errorf("generation %d should be live; the stores say %d (%w), and leat %+v", o.live, leads, err, all)
		}
		generations = ready(all)
		for _, n := range generations {
			got, err := unlike(o.t.Context(), o.stores, n, want, split[o.built[n].target], o.built[n].dimension)
			if err != nil {
				return fmt.Errorf("generation %d: %w", n, err)
			}
			if n == o.live {
				text = got
			}
		}
		return nil
	})
	o.documents = len(want)
	o.logf("generations %v equal the sources: %d documents, 0 lost, 0 stale, 0 orphaned", generations, len(want))
	o.p.noDeadLetters()
	o.shop.checkVersions(text)
	o.bucket.checkVersions(text)
	return generations
}

// drop removes a generation that is kept: nothing of it is left.
func (o *oracle) drop() {
	o.t.Helper()
	for _, n := range ready(o.p.generations()) {
		if n == o.live {
			continue
		}
		if _, code := o.p.output("", "reindex", "drop", fmt.Sprint(n)); code != 0 {
			o.t.Fatalf("reindex drop %d: exit code %d", n, code)
		}
		until(o.t, time.Minute, "the generation is gone", func() error {
			if all := o.p.generations(); slices.ContainsFunc(all, func(g generation) bool { return g.Generation == n }) {
				return fmt.Errorf("it is listed: %+v", all)
			}
			return o.stores.gone(o.t.Context(), n)
		})
	}
}
