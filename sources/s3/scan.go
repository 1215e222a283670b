package s3

import (
	"context"

	"github.com/minio/minio-go/v7"

	"leat"
	"leat/sources/listing"
)

// scan merges the list of the bucket with the list of what the index holds.
//
// A bucket is listed in the order of keys, the index in that of ids, where keys
// are percent-encoded: "é" is before "a" there. So the list is sorted first,
// unless the index is empty and there is nothing to merge it with.
func (s *session) scan(ctx context.Context) error {
	scan, err := s.teller.Scan(ctx, s.prefix(), s.key)
	if err != nil {
		return err
	}
	if !scan.Knows() {
		defer scan.Close()
		if err := s.list(ctx, func(key, tag string) error { return scan.Found(ctx, s.id(key), key, tag) }); err != nil {
			return err
		}
		return scan.End(ctx)
	}
	scan.Close() // the index is not kept waiting while the bucket is listed

	sorter := listing.NewSorter()
	defer sorter.Close()
	if err := s.list(ctx, func(key, tag string) error { return sorter.Add(listing.Item{ID: s.id(key), Tag: tag}) }); err != nil {
		return err
	}
	if scan, err = s.teller.Scan(ctx, s.prefix(), s.key); err != nil {
		return err
	}
	defer scan.Close()
	for item, err := range sorter.Sorted() {
		if err != nil {
			return err
		}
		key, _ := s.key(item.ID)
		if err := scan.Found(ctx, item.ID, key, item.Tag); err != nil {
			return err
		}
	}
	return scan.End(ctx)
}

// list finds the objects that are documents, in pages of a thousand.
func (s *session) list(ctx context.Context, found func(key, tag string) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var done int64
	owner := false
	opts := minio.ListObjectsOptions{Prefix: s.cfg.Prefix, Recursive: true, FetchOwner: &owner}
	for o := range s.client.ListObjectsIter(ctx, s.cfg.Bucket, opts) {
		if o.Err != nil {
			return s.explain("list the bucket", o.Err)
		}
		if !s.cfg.selects(o.Key) {
			continue
		}
		if done++; done%1000 == 0 {
			s.Report(leat.Progress{Phase: "scanning", Position: o.Key, Done: done, Total: max(s.objects, done)})
		}
		if err := found(o.Key, o.ETag); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err // the list stops without an error there
	}
	s.objects = done
	s.report("scanning")
	return nil
}
