// Package milvus keeps a vector index in a Milvus server.
//
// A pipeline NAME has for its generation N a collection NAME_gN with a row a
// chunk and a collection NAME_gN_documents with a row a document, its state; the
// alias NAME leads to the chunks of the live generation. Milvus has neither
// transactions nor conditional writes, so nothing is ever overwritten with other
// content: each version of a document has rows of its own, and the version whose
// state is the highest is the one that is held. See docs/adr/005-milvus.md.
package milvus

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/milvus-io/milvus/client/v2/entity"
	"github.com/milvus-io/milvus/client/v2/milvusclient"
	"google.golang.org/grpc"

	"leat"
)

// Index is a vector index in a Milvus server. Safe for concurrent use, in one
// process and by several.
type Index struct {
	db     *conn
	names  names
	model  leat.Model
	log    *slog.Logger
	reader bool
	seen   atomic.Uint64 // a time that no search lags behind

	doubtful atomic.Bool // a try may just have failed, here or in another process
	mu       sync.Mutex
	recheck  []string // documents that the last batches wrote, see Apply
}

var (
	_ leat.VectorIndex = (*Index)(nil)
	_ leat.Checker     = (*Index)(nil)
)

// Open opens generation N of the index of the pipeline name for writing, and
// makes and loads its collections where they are missing, which takes some
// seconds. It fails with leat.ErrMismatch where they hold vectors of another
// model.
func Open(ctx context.Context, cfg Config, name string, generation int, model leat.Model, log *slog.Logger) (*Index, error) {
	return open(ctx, cfg, name, generation, model, log)
}

func open(ctx context.Context, cfg Config, name string, generation int, model leat.Model, log *slog.Logger, opts ...grpc.DialOption) (*Index, error) {
	if model.Dimension <= 0 {
		return nil, fmt.Errorf("model %q: %d is not a dimension", model.Name, model.Dimension)
	}
	c, err := dial(ctx, cfg, opts...)
	if err != nil {
		return nil, err
	}
	x := &Index{db: c, names: collectionNames(name, generation), model: model, log: log}
	x.doubtful.Store(true)
	err = x.prepare(ctx)
	if err == nil {
		err = x.Refresh(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, c.close())
	}
	x.warnOfSharedChannels(ctx)
	return x, nil
}

// OpenReader opens generation N of the index of the pipeline name for reading,
// with the model that is there, and changes nothing. It fails with
// fs.ErrNotExist where nothing is there yet.
func OpenReader(ctx context.Context, cfg Config, name string, generation int, log *slog.Logger) (*Index, error) {
	c, err := dial(ctx, cfg)
	if err != nil {
		return nil, err
	}
	x := &Index{db: c, names: collectionNames(name, generation), log: log, reader: true}
	err = x.present(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		err = leat.Hint(err, "nothing has been indexed here yet: start `leat run` first")
	}
	if err == nil {
		err = x.Refresh(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, c.close())
	}
	return x, nil
}

// present checks that the collections are as they should be, and loaded.
func (x *Index) present(ctx context.Context) error {
	for _, name := range []string{x.names.chunks, x.names.documents} {
		if err := x.describe(ctx, name); err != nil {
			return err
		}
		err := x.db.call(ctx, "ask whether "+name+" is loaded", func(ctx context.Context) error {
			state, err := x.db.client.GetLoadState(ctx, milvusclient.NewGetLoadStateOption(name))
			if err == nil && state.State != entity.LoadStateLoaded && state.State != entity.LoadStateLoading {
				err = leat.Hint(errors.New("it is not"), "start `leat run`, which loads it, or load it with another client")
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Model returns the model whose vectors the index holds.
func (x *Index) Model() leat.Model { return x.model }

// Check implements [leat.Checker]: the server answers, and the collections are
// there, loaded, and hold vectors of the model.
func (x *Index) Check(ctx context.Context) error {
	if _, err := x.db.now(ctx); err != nil {
		return err
	}
	return x.present(ctx)
}

// writable fails for a reader.
func (x *Index) writable() error {
	if x.reader {
		return fmt.Errorf("%s: collection %s is open for reading only", x.db.at, x.names.chunks)
	}
	return nil
}

// closeLimit bounds what Close still does for tidiness.
const closeLimit = 5 * time.Second

// Close removes what a process that wrote the same documents at the same time
// may have left, and closes the connection.
func (x *Index) Close() error {
	if !x.reader {
		ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
		defer cancel()
		if _, err := x.Apply(ctx, nil); err != nil {
			x.log.Debug("rows of superseded versions may be left; they go when their document changes", "error", err)
		}
	}
	return x.db.close()
}

// cut shortens s to what a string field holds, at a character's border; Milvus
// takes nothing but UTF-8.
func cut(s string) string {
	if s = strings.ToValidUTF8(s, "\uFFFD"); len(s) > maxVarChar {
		s = strings.ToValidUTF8(s[:maxVarChar], "")
	}
	return s
}
