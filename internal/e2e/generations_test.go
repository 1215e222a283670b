package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/milvus-io/milvus/client/v2/milvusclient"

	"leat/internal/testenv/local"
)

// generation is what `leat reindex list` says of one.
type generation struct {
	Generation int
	State      string // live, building, kept or dropping
	Model      string
	Dimension  int
}

func (p *pipeline) generations() []generation {
	p.t.Helper()
	return jsonLines[generation](p, "", "reindex", "list")
}

// live is the number of the live one; 0 where there is none.
func live(all []generation) int {
	for _, g := range all {
		if g.State == "live" {
			return g.Generation
		}
	}
	return 0
}

// ready are those that hold everything: the live one and those that are kept.
func ready(all []generation) (numbers []int) {
	for _, g := range all {
		if g.State == "live" || g.State == "kept" {
			numbers = append(numbers, g.Generation)
		}
	}
	return numbers
}

// backend are the stores of a pipeline's generations, read with their own clients.
type backend interface {
	// read gives what a generation holds, and what belongs to no document.
	read(ctx context.Context, generation int) (text, vectors map[string]*storedDocument, orphans []string, err error)
	// live is the generation that the alias of both indexes leads to.
	live(ctx context.Context) (int, error)
	// gone is nil where nothing is left of a generation.
	gone(ctx context.Context, generation int) error
}

// unlike says how a generation differs from what the sources hold: split are
// the texts of the chunks that it should be cut into, dimension is that of the
// null model that made its vectors. It returns what its text index holds.
func unlike(ctx context.Context, stores backend, generation int, want map[string]expectedDocument, split map[string][]string, dimension int) (map[string]*storedDocument, error) {
	text, vectors, orphans, err := stores.read(ctx, generation)
	if err != nil {
		return nil, err
	}
	for i := range orphans {
		orphans[i] = "an orphan: " + orphans[i]
	}
	return text, differences(slices.Concat(compare(want, text, split), sameIndexes(text, vectors), compareVectors(text, vectors, dimension), orphans))
}

// serverStores are Elasticsearch and Milvus.
type serverStores struct{ elastic, milvus string }

func (s serverStores) indexes(generation int) indexes {
	name := fmt.Sprintf("test-g%d", generation)
	return indexes{elasticIndex{s.elastic, name}, milvusIndex{s.milvus, name}}
}

func (s serverStores) read(ctx context.Context, generation int) (text, vectors map[string]*storedDocument, orphans []string, err error) {
	return s.indexes(generation).read(ctx)
}

func (s serverStores) live(ctx context.Context) (int, error) {
	var led map[string]any // by index
	if err := (elasticIndex{url: s.elastic}).call(http.MethodGet, "/_alias/test", nil, &led); err != nil {
		return 0, err
	}
	c, err := milvusclient.New(ctx, &milvusclient.ClientConfig{Address: s.milvus})
	if err != nil {
		return 0, err
	}
	defer c.Close(context.WithoutCancel(ctx))
	alias, err := c.DescribeAlias(ctx, milvusclient.NewDescribeAliasOption("test"))
	if err != nil {
		return 0, err
	}
	n := 0
	if _, err := fmt.Sscanf(alias.CollectionName, "test_g%d", &n); err != nil {
		return 0, fmt.Errorf("milvus: the alias leads to %s: %w", alias.CollectionName, err)
	}
	if _, same := led[fmt.Sprintf("test-g%d", n)]; !same || len(led) != 1 {
		return 0, fmt.Errorf("the alias leads to %v in Elasticsearch and to %s in Milvus", led, alias.CollectionName)
	}
	return n, nil
}

func (s serverStores) gone(ctx context.Context, generation int) error {
	x := s.indexes(generation)
	var found []struct{ Index string }
	if err := x.elastic.call(http.MethodGet, "/_cat/indices/test*?format=json&expand_wildcards=all", nil, &found); err != nil {
		return err
	}
	for _, f := range found {
		if f.Index == x.elastic.name {
			return fmt.Errorf("elasticsearch: %s is there", f.Index)
		}
	}
	c, err := milvusclient.New(ctx, &milvusclient.ClientConfig{Address: s.milvus})
	if err != nil {
		return err
	}
	defer c.Close(context.WithoutCancel(ctx))
	collections, err := c.ListCollections(ctx, milvusclient.NewListCollectionOption())
	for _, name := range collections {
		if name == x.milvus.collection() || strings.HasPrefix(name, x.milvus.collection()+"_") {
			err = errors.Join(err, fmt.Errorf("milvus: %s is there", name))
		}
	}
	return err
}

// fileStore is the embedded store.
type fileStore struct{ path string }

func (s fileStore) read(_ context.Context, generation int) (text, vectors map[string]*storedDocument, stray []string, err error) {
	for index, into := range map[string]*map[string]*storedDocument{"text": &text, "vectors": &vectors} {
		index = fmt.Sprint(index, generation)
		if *into, err = readStore(s.path, index); err != nil {
			return nil, nil, nil, err
		}
		more, err := orphans(s.path, index)
		if err != nil {
			return nil, nil, nil, err
		}
		stray = append(stray, more...)
	}
	return text, vectors, stray, nil
}

func (s fileStore) live(ctx context.Context) (n int, err error) {
	db, err := openStore(s.path)
	if err != nil {
		return 0, err
	}
	defer db.Close()
	return n, db.QueryRowContext(ctx, "SELECT generation FROM alias").Scan(&n)
}

func (s fileStore) gone(ctx context.Context, generation int) error {
	db, err := openStore(s.path)
	if err != nil {
		return err
	}
	defer db.Close()
	var found int
	err = db.QueryRowContext(ctx, "SELECT COUNT(*) FROM sqlite_master WHERE name GLOB ? OR name GLOB ?",
		fmt.Sprintf("text%d_*", generation), fmt.Sprintf("vectors%d_*", generation)).Scan(&found)
	if err == nil && found > 0 {
		err = fmt.Errorf("%d tables and indexes of generation %d are there", found, generation)
	}
	return err
}

// job is a leat command that runs beside the test.
type job struct {
	*local.Process
	cmd *exec.Cmd
}

// beside starts a command, its output going to a log; end it with Kill.
func (p *pipeline) beside(args ...string) *job {
	p.t.Helper()
	j := &job{}
	var err error
	j.Process, err = local.Start(context.Background(), local.Spec{
		Name: "leat " + strings.Join(args, " "),
		Command: func() *exec.Cmd {
			j.cmd = p.command(args...)
			return j.cmd
		},
		Ready: func(context.Context) error { return nil },
		Log:   filepath.Join(p.dir, args[0]+".log"),
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return j
}

// ended says whether the command has ended, and with which exit code.
func (j *job) ended() (code int, ended bool) {
	select {
	case <-j.Done():
		return j.cmd.ProcessState.ExitCode(), true
	default:
		return 0, false
	}
}
