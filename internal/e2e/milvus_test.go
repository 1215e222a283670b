package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/milvus-io/milvus/client/v2/entity"
	"github.com/milvus-io/milvus/client/v2/milvusclient"
	"github.com/panjf2000/ants/v2"
)

// The client's library starts a pool of goroutines that nothing uses.
func init() { ants.Release() }

// milvusIndex reads an index of Milvus by the server's own client.
type milvusIndex struct{ address, name string }

// rows calls each with every row of a collection.
func (x milvusIndex) rows(ctx context.Context, collection, filter string, each func(text func(string) string, number func(string) int64) error, fields ...string) error {
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
			var failed error
			text := func(field string) string {
				v, err := page.GetColumn(field).Get(i)
				failed = errors.Join(failed, err)
				return fmt.Sprint(v)
			}
			number := func(field string) int64 {
				v, err := page.GetColumn(field).GetAsInt64(i)
				failed = errors.Join(failed, err)
				return v
			}
			if err := errors.Join(each(text, number), failed); err != nil {
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
	return version, x.rows(ctx, x.collection()+"_documents", filter, func(_ func(string) string, number func(string) int64) error {
		version = max(version, uint64(number("version")))
		return nil
	}, "version")
}

// documents makes documents of the rows, and says what belongs to none. Of
// several states of a document the highest version counts.
func (x milvusIndex) documents(ctx context.Context) (all map[string]*storedDocument, orphans []string, err error) {
	all = map[string]*storedDocument{}
	err = x.rows(ctx, x.collection()+"_documents", "", func(text func(string) string, number func(string) int64) error {
		id, rest, _ := strings.Cut(text("id"), " ")
		version := uint64(number("version"))
		d := all[id]
		if strings.Contains(rest, "+") { // a part of a version that is not there as a whole
			orphans = append(orphans, text("id"))
			return nil
		}
		if d != nil {
			orphans = append(orphans, fmt.Sprintf("a second state of %s", id))
			if d.version > version {
				return nil
			}
		}
		all[id] = &storedDocument{version: version, deleted: text("deleted") == "true", title: text("title"), stated: int(number("chunks"))}
		return nil
	}, "id", "version", "deleted", "title", "chunks")
	if err != nil {
		return nil, nil, err
	}
	err = x.rows(ctx, x.collection(), "", func(text func(string) string, number func(string) int64) error {
		id, version := text("document"), uint64(number("version"))
		d := all[id]
		if d == nil || d.deleted || d.version != version {
			orphans = append(orphans, fmt.Sprintf("%s (%s)", text("id"), id))
			return nil
		}
		d.chunks = append(d.chunks, storedChunk{version: version, ordinal: int(number("ordinal")), from: int(number("start")), to: int(number("end"))})
		return nil
	}, "id", "document", "version", "ordinal", "start", "end")
	return all, orphans, err
}
