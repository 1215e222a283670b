package milvus

import (
	"context"
	"slices"

	"github.com/milvus-io/milvus/client/v2/milvusclient"
)

// warnOfSharedChannels tells of collections whose rows come by the same physical
// channel as the index's own: a server that is killed can then lose rows of the
// earlier one that it has acknowledged, seen with Milvus 2.3.5
// (docs/operations.md). It sees those of its own database.
func (x *Index) warnOfSharedChannels(ctx context.Context) {
	shared, err := x.sharedChannels(ctx)
	if err != nil {
		x.log.DebugContext(ctx, "cannot see which collections share a channel", "error", err)
		return
	}
	if len(shared) > 0 {
		x.log.WarnContext(ctx, "collections share a channel: where Milvus is killed it can lose rows of the earlier one",
			"pairs", shared, "hint", "set rootCoord.dmlChannelNum of Milvus to no less than its collections, and run `leat reindex`")
	}
}

// sharedChannels returns pairs of collections, the first of them the index's.
func (x *Index) sharedChannels(ctx context.Context) (pairs [][2]string, err error) {
	var all []string
	err = x.db.call(ctx, "list collections", func(ctx context.Context) (err error) {
		all, err = x.db.client.ListCollections(ctx, milvusclient.NewListCollectionOption())
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(all)
	channels := map[string][]string{} // of collections
	for _, name := range all {
		c, err := x.db.describe(ctx, name)
		if err != nil {
			continue // it has been dropped since, or is not for this account
		}
		channels[name] = c.PhysicalChannels
	}
	for i, own := range []string{x.names.chunks, x.names.documents} {
		for _, other := range all {
			if other == own || i == 1 && other == x.names.chunks {
				continue
			}
			if slices.ContainsFunc(channels[other], func(c string) bool { return slices.Contains(channels[own], c) }) {
				pairs = append(pairs, [2]string{own, other})
			}
		}
	}
	return pairs, nil
}
