package e2e

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/milvus-io/milvus/client/v2/entity"
	"github.com/milvus-io/milvus/client/v2/milvusclient"
	"github.com/panjf2000/ants/v2"
)

// The client's library starts a pool of goroutines that nothing uses.
func init() { ants.Release() }

// milvusIndex reads an index of Milvus by the server's own client.
type milvusIndex struct{ address, name string }

// milvusRow is a row of an answer.
type milvusRow struct {
	page milvusclient.ResultSet
	i    int
	err  error
}

func (r *milvusRow) text(field string) string {
	v, err := r.page.GetColumn(field).Get(r.i)
	r.err = errors.Join(r.err, err)
	return fmt.Sprint(v)
}

func (r *milvusRow) number(field string) int64 {
	v, err := r.page.GetColumn(field).GetAsInt64(r.i)
	r.err = errors.Join(r.err, err)
	return v
}

// vector is a vector's numbers, little-endian.
func (r *milvusRow) vector(field string) (data []byte) {
	v, err := r.page.GetColumn(field).Get(r.i)
	r.err = errors.Join(r.err, err)
	numbers, _ := v.(entity.FloatVector)
	for _, n := range numbers {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(n))
	}
	return data
}

// rows calls each with every row of a collection.
func (x milvusIndex) rows(ctx context.Context, collection, filter string, each func(*milvusRow) error, fields ...string) error {
	c, err := milvusclient.New(ctx, &milvusclient.ClientConfig{Address: x.address})
	if err != nil {
		return err
	}
	defer c.Close(context.WithoutCancel(ctx))
	it, err := c.QueryIterator(ctx, milvusclient.NewQueryIteratorOption(collection).WithFilter(filter).
		WithBatchSize(1000).WithOutputFields(fields...).WithConsistencyLevel(entity.ClStrong))
	if err != nil {
		return err
	}
	for {
		page, err := it.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for i := range page.ResultCount {
			r := &milvusRow{page: page, i: i}
			if err := errors.Join(each(r), r.err); err != nil {
				return err
			}
		}
	}
}

// collection holds the chunks; that of the documents' states is named after it.
func (x milvusIndex) collection() string { return strings.ReplaceAll(x.name, "-", "_") }

// version is the highest of a document's states.
func (x milvusIndex) version(ctx context.Context, id string) (version uint64, err error) {
	filter := fmt.Sprintf(`id > "%s " && id < "%[1]s!"`, id)
	return version, x.rows(ctx, x.collection()+"_documents", filter, func(r *milvusRow) error {
		version = max(version, uint64(r.number("version")))
		return nil
	}, "version")
}

// documents makes documents of the rows, and says what belongs to none. Of
// several states of a document the highest version counts.
func (x milvusIndex) documents(ctx context.Context) (all map[string]*storedDocument, orphans []string, err error) {
	all = map[string]*storedDocument{}
	err = x.rows(ctx, x.collection()+"_documents", "", func(r *milvusRow) error {
		id, rest, _ := strings.Cut(r.text("id"), " ")
		version := uint64(r.number("version"))
		d := all[id]
		if strings.Contains(rest, "+") { // a part of a version that is not there as a whole
			orphans = append(orphans, r.text("id"))
			return nil
		}
		if d != nil {
			orphans = append(orphans, fmt.Sprintf("a second state of %s", id))
			if d.version > version {
				return nil
			}
		}
		all[id] = &storedDocument{version: version, deleted: r.text("deleted") == "true", title: r.text("title"), tag: r.text("tag"), stated: int(r.number("chunks"))}
		return nil
	}, "id", "version", "deleted", "title", "tag", "chunks")
	if err != nil {
		return nil, nil, err
	}
	err = x.rows(ctx, x.collection(), "", func(r *milvusRow) error {
		id, version := r.text("document"), uint64(r.number("version"))
		d := all[id]
		if d == nil || d.deleted || d.version != version {
			orphans = append(orphans, fmt.Sprintf("%s (%s)", r.text("id"), id))
			return nil
		}
		d.chunks = append(d.chunks, storedChunk{id: r.text("chunk"), version: version, ordinal: int(r.number("ordinal")),
			from: int(r.number("start")), to: int(r.number("end")), data: r.vector("vector")})
		return nil
	}, "id", "document", "chunk", "version", "ordinal", "start", "end", "vector")
	for _, d := range all {
		slices.SortFunc(d.chunks, func(a, b storedChunk) int { return a.ordinal - b.ordinal })
	}
	return all, orphans, err
}
