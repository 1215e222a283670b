package milvus

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/milvus-io/milvus/client/v2/milvusclient"
	"github.com/milvus-io/milvus/pkg/v2/util/merr"

	"leat"
)

// names of the collections of an index. Milvus takes letters, digits and
// underscores, a letter or underscore first.
type names struct{ alias, chunks, documents string }

func collectionNames(name string, generation int) names {
	alias := strings.ReplaceAll(name, "-", "_")
	if alias != "" && alias[0] >= '0' && alias[0] <= '9' {
		alias = "_" + alias
	}
	return names{alias, fmt.Sprintf("%s_g%d", alias, generation), fmt.Sprintf("%s_g%d_documents", alias, generation)}
}

// generations of a pipeline's index in a Milvus server.
type generations struct {
	db   *conn
	name string // of the pipeline
	log  *slog.Logger
}

// OpenGenerations opens the generations of the pipeline name. The alias is for
// other clients: leat itself reads a generation by its collections' names.
func OpenGenerations(ctx context.Context, cfg Config, name string, log *slog.Logger) (leat.Generations, error) {
	c, err := dial(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return &generations{c, name, log}, nil
}

// Live implements [leat.Generations], by what the coordinator says.
func (g *generations) Live(ctx context.Context) (int, error) {
	alias := collectionNames(g.name, 0).alias
	to, err := g.resolve(ctx, alias)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimPrefix(to, alias+"_g"))
	if err != nil || collectionNames(g.name, n).chunks != to {
		return 0, leat.Hint(fmt.Errorf("%s: the alias %s leads to %s, which is no generation of %s", g.db.at, alias, to, g.name),
			"drop the alias, or give the pipeline another name")
	}
	return n, nil
}

// resolve returns the collection that an alias leads to, fs.ErrNotExist where
// there is none.
func (g *generations) resolve(ctx context.Context, alias string) (collection string, err error) {
	err = g.db.call(ctx, "describe alias "+alias, func(ctx context.Context) error {
		a, err := g.db.client.DescribeAlias(ctx, milvusclient.NewDescribeAliasOption(alias))
		if errors.Is(err, merr.ErrAliasNotFound) {
			return fmt.Errorf("no alias %s: %w", alias, fs.ErrNotExist)
		}
		if err == nil {
			collection = a.CollectionName
		}
		return err
	})
	return collection, err
}

// A switch of the alias is tried, and proven, at this pace until the limit.
const (
	switchPace   = 100 * time.Millisecond
	switchLimit  = time.Minute
	switchProofs = 2 // in a row: what a read found before the switch may still reach the proxy's cache
)

// Switch implements [leat.Generations]. After an alias has moved, the proxy can
// go on to read the former collection, for as long as nothing moves the alias
// again, whatever the coordinator says. So a row that only generation n has is
// read through the alias, and the alias is moved again until it is found. The
// row is of no document, no search counts it, and it is removed in the end.
func (g *generations) Switch(ctx context.Context, n int) (err error) {
	x := &Index{db: g.db, names: collectionNames(g.name, n), log: g.log, reader: true}
	if err := x.present(ctx); errors.Is(err, fs.ErrNotExist) {
		return leat.Hint(fmt.Errorf("generation %d: %w", n, err), "build it with `leat reindex`")
	} else if err != nil {
		return err
	}
	mark := markOf(n, x.model.Dimension)
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeLimit)
		defer cancel()
		err = errors.Join(err, g.db.remove(ctx, x.names.chunks, []string{mark.key}))
	}()
	began := time.Now()
	for proofs := 0; ; {
		if proofs == 0 {
			if err := g.point(ctx, x.names); err != nil {
				return err
			}
			if err := g.db.upsert(ctx, x.names.chunks, chunkColumns([]chunkRow{mark}, x.model.Dimension)); err != nil {
				return err
			}
		}
		found, err := g.finds(ctx, x.names.alias, mark.key)
		switch {
		case err != nil && !passing(err):
			return err
		case !found:
			proofs = 0
		default:
			if proofs++; proofs == switchProofs {
				return nil
			}
		}
		if time.Since(began) > switchLimit {
			return leat.Hint(errors.Join(fmt.Errorf("%s: after %v reads through the alias %s do not reach %s",
				g.db.at, switchLimit, x.names.alias, x.names.chunks), err), "run it again; where that does not help, restart the server's proxies")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(switchPace):
		}
	}
}

// markOf generation n is a row that is not of any document.
func markOf(n, dimension int) chunkRow {
	vector := make([]float32, dimension)
	vector[0] = 1
	return chunkRow{key: fmt.Sprintf("generation %d", n), hash: -1, document: "~", version: math.MaxUint64, chunk: &leat.Chunk{Vector: vector}}
}

// point makes the alias lead to the chunks, even where it says that it does.
func (g *generations) point(ctx context.Context, to names) error {
	what := fmt.Sprintf("make alias %s lead to %s", to.alias, to.chunks)
	live, err := g.Live(ctx)
	if err != nil {
		return err
	}
	if live == 0 {
		err := g.db.call(ctx, what, func(ctx context.Context) error {
			return g.db.client.CreateAlias(ctx, milvusclient.NewCreateAliasOption(to.chunks, to.alias))
		})
		if err == nil {
			return nil
		}
		if live, _ := g.Live(ctx); live == 0 { // else another process was faster
			return err
		}
	}
	return g.db.call(ctx, what, func(ctx context.Context) error {
		return g.db.client.AlterAlias(ctx, milvusclient.NewAlterAliasOption(to.alias, to.chunks))
	})
}

// finds reports whether a read through the alias finds the key.
func (g *generations) finds(ctx context.Context, alias, key string) (bool, error) {
	ts, err := g.db.now(ctx)
	if err != nil {
		return false, err
	}
	r, err := g.db.queryOnce(ctx, alias, keyField+" == "+strconv.Quote(key), ts, 1, keyField)
	return r.n > 0, g.db.wrap(ctx, "read through alias "+alias, err)
}

// Drop implements [leat.Generations].
func (g *generations) Drop(ctx context.Context, n int) error {
	live, err := g.Live(ctx)
	if err != nil {
		return err
	}
	if n == live {
		return leat.Hint(fmt.Errorf("%s: generation %d of %s is the live one", g.db.at, n, g.name), "make another one live first")
	}
	of := collectionNames(g.name, n)
	for _, collection := range []string{of.chunks, of.documents} {
		err := g.db.call(ctx, "drop collection "+collection, func(ctx context.Context) error {
			err := g.db.client.DropCollection(ctx, milvusclient.NewDropCollectionOption(collection))
			if errors.Is(err, merr.ErrCollectionNotFound) {
				return nil
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (g *generations) Close() error { return g.db.close() }
