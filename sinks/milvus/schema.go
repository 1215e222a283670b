package milvus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strconv"

	"github.com/milvus-io/milvus/client/v2/entity"
	"github.com/milvus-io/milvus/client/v2/index"
	"github.com/milvus-io/milvus/client/v2/milvusclient"
	"github.com/milvus-io/milvus/pkg/v2/util/merr"
	"golang.org/x/sync/errgroup"

	"leat"
)

// format of the collections. Raise it with any change of their fields: there
// are no migrations, the index is rebuilt from its sources.
const format = 2

// Fields of both collections, and the vector's. See chunkRow and state for the others.
const (
	keyField      = "id"
	hashField     = "hash"
	vectorField   = "vector"
	checksumField = "checksum" // of chunks only
)

// The graph of the vector index, and how far a search looks in it for k
// neighbours: 2k rows, but at least minEF.
const (
	graphDegree = 16
	graphEF     = 200
	minEF       = 128
	maxEF       = 32768 // the server's limit
	maxTopK     = 16384 // the server's limit on the rows of one answer
)

// description is kept with the collections as their description.
type description struct {
	Format int        `json:"leat"`
	Model  leat.Model `json:"model"`
}

func text(name string, most int) *entity.Field {
	return entity.NewField().WithName(name).WithDataType(entity.FieldTypeVarChar).WithMaxLength(int64(most))
}

func number(name string) *entity.Field {
	return entity.NewField().WithName(name).WithDataType(entity.FieldTypeInt64)
}

func vectors(dimension int) *entity.Field {
	return entity.NewField().WithName(vectorField).WithDataType(entity.FieldTypeFloatVector).WithDim(int64(dimension))
}

// schema of a collection with the fields that chunkColumns and stateColumns fill.
func (x *Index) schema(collection string) *entity.Schema {
	s := entity.NewSchema().WithName(collection)
	if collection == x.names.chunks {
		s.WithField(text(keyField, maxChunkKey).WithIsPrimaryKey(true))
		for _, f := range []*entity.Field{
			number(hashField), text("document", maxVarChar), number("version"), number("ordinal"), text("chunk", maxChunkID),
			number("start"), number("end"), number("tokens"), number("page"), text("heading", maxVarChar), number(checksumField),
			vectors(x.model.Dimension),
		} {
			s.WithField(f)
		}
		return s
	}
	s.WithField(text(keyField, maxVarChar).WithIsPrimaryKey(true))
	for _, f := range []*entity.Field{
		number(hashField), number("version"), entity.NewField().WithName("deleted").WithDataType(entity.FieldTypeBool),
		text("tag", maxVarChar), text("title", maxVarChar), number("chunks"), number("end"), number("digest"), number("applied"),
		vectors(2), // a collection must have one
	} {
		s.WithField(f)
	}
	return s
}

// prepare makes the collections with their indexes where they are missing,
// each step also where an earlier try got no further, and has them loaded. It
// fails with leat.ErrMismatch, before anything is changed, where they hold
// vectors of another model.
func (x *Index) prepare(ctx context.Context) error {
	there := map[string]bool{x.names.documents: true, x.names.chunks: true}
	for name := range there {
		err := x.describe(ctx, name)
		if errors.Is(err, fs.ErrNotExist) {
			there[name] = false
		} else if err != nil {
			return err
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	for name, there := range there {
		g.Go(func() error {
			if !there {
				if err := x.create(gctx, name); err != nil {
					return err
				}
			}
			return x.prepareCollection(gctx, name)
		})
	}
	return g.Wait()
}

func (x *Index) create(ctx context.Context, name string) error {
	about, err := json.Marshal(description{Format: format, Model: x.model})
	if err != nil {
		return err
	}
	schema := x.schema(name).WithDescription(string(about))
	err = x.db.call(ctx, "create collection "+name, func(ctx context.Context) error {
		// One shard: the states of a batch are then written at once.
		return x.db.client.CreateCollection(ctx, milvusclient.NewCreateCollectionOption(name, schema).
			WithShardNum(1).WithConsistencyLevel(entity.ClStrong))
	})
	// Another process may have been faster, with whatever model.
	if there := x.describe(ctx, name); !errors.Is(there, fs.ErrNotExist) {
		return there
	}
	return err
}

// prepareCollection indexes and loads it.
func (x *Index) prepareCollection(ctx context.Context, name string) error {
	indexes := map[string]index.Index{vectorField: index.NewFlatIndex(entity.L2), hashField: index.NewSortedIndex()}
	if name == x.names.chunks {
		indexes[vectorField] = index.NewHNSWIndex(entity.COSINE, graphDegree, graphEF)
	}
	for field, kind := range indexes {
		err := x.db.call(ctx, "index "+name, func(ctx context.Context) error {
			if _, err := x.metric(ctx, name, field); !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			task, err := x.db.client.CreateIndex(ctx, milvusclient.NewCreateIndexOption(name, field, kind))
			if err != nil {
				return err
			}
			return task.Await(ctx)
		})
		if err != nil {
			return err
		}
	}
	return x.db.call(ctx, "load "+name, func(ctx context.Context) error {
		state, err := x.db.client.GetLoadState(ctx, milvusclient.NewGetLoadStateOption(name))
		if err != nil || state.State == entity.LoadStateLoaded {
			return err
		}
		task, err := x.db.client.LoadCollection(ctx, milvusclient.NewLoadCollectionOption(name))
		if err != nil {
			return err
		}
		return task.Await(ctx)
	})
}

// describe compares what is there with what is configured; a reader takes the
// model that is there. It fails with fs.ErrNotExist where nothing is there.
func (x *Index) describe(ctx context.Context, name string) error {
	c, err := x.db.describe(ctx, name)
	if errors.Is(err, merr.ErrCollectionNotFound) {
		return fmt.Errorf("%s: collection %s: %w", x.db.at, name, fs.ErrNotExist)
	}
	if err != nil {
		return err
	}
	var d description
	if json.Unmarshal([]byte(c.Schema.Description), &d) != nil || d.Format != format {
		return leat.Hint(fmt.Errorf("%s: collection %s has not the format %d of this program: %w", x.db.at, name, format, leat.ErrMismatch),
			"use the leat that wrote it, or drop it and run `leat reindex` to build it again")
	}
	if x.reader {
		x.model = d.Model
	}
	dimension := d.Model.Dimension
	for _, f := range c.Schema.Fields {
		if f.Name == vectorField && name == x.names.chunks {
			dimension, _ = strconv.Atoi(f.TypeParams[entity.TypeParamDim])
		}
	}
	if d.Model.Name != x.model.Name || dimension != x.model.Dimension {
		return leat.Hint(fmt.Errorf("%s: collection %s holds vectors of %s (%d dimensions), not of %s (%d): %w",
			x.db.at, name, d.Model.Name, dimension, x.model.Name, x.model.Dimension, leat.ErrMismatch),
			"run `leat reindex` to embed everything with the new model, or configure %s again", d.Model.Name)
	}
	if name != x.names.chunks {
		return nil
	}
	metric, err := x.metric(ctx, name, vectorField)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // not yet
	}
	if err == nil && metric != string(entity.COSINE) {
		err = leat.Hint(fmt.Errorf("%s: collection %s is searched by %s, not %s: %w", x.db.at, name, metric, entity.COSINE, leat.ErrMismatch),
			"release it and drop the index of its field %s: leat makes it anew", vectorField)
	}
	return err
}

// metric of a field's index, fs.ErrNotExist where there is none.
func (x *Index) metric(ctx context.Context, name, field string) (metric string, err error) {
	err = x.db.call(ctx, "describe index of "+name, func(ctx context.Context) error {
		d, err := x.db.client.DescribeIndex(ctx, milvusclient.NewDescribeIndexOption(name, field))
		if errors.Is(err, merr.ErrIndexNotFound) {
			return fs.ErrNotExist
		}
		if err == nil {
			metric = d.Params()[index.MetricTypeKey]
		}
		return err
	})
	return metric, err
}
