package s3

import (
	"context"
	"iter"

	"github.com/minio/minio-go/v7"

	"leat"
	"leat/sources/listing"
)

// scan merges the list of the bucket with the list of what the index holds.
func (s *session) scan(ctx context.Context) error {
	if err := s.merge(ctx); err != nil {
		return err
	}
	return s.teller.Complete(ctx)
}

// merge sorts the list of the bucket where it has to.
//
// A bucket is listed in the order of keys, the index in that of ids, where keys
// are percent-encoded: "é" is before "a" there. So the list is sorted first,
// unless the index is empty and there is nothing to merge it with.
func (s *session) merge(ctx context.Context) error {
	known, err := s.teller.Knows(ctx, s.prefix())
	if err != nil {
		return err
	}
	if !known {
		return s.teller.Scan(ctx, s.prefix(), s.items(ctx))
	}
	sorter := listing.NewSorter()
	defer sorter.Close()
	for item, err := range s.items(ctx) { // the index is not kept waiting meanwhile
		if err != nil {
			return err
		}
		if err := sorter.Add(item); err != nil {
			return err
		}
	}
	return s.teller.Scan(ctx, s.prefix(), sorter.Sorted())
}

// items lists the objects that are documents and tells how far it is.
func (s *session) items(ctx context.Context) iter.Seq2[listing.Item, error] {
	return func(yield func(listing.Item, error) bool) {
		var done int64
		for o, err := range s.documents(ctx) {
			if err != nil {
				yield(listing.Item{}, err)
				return
			}
			if done++; done%1000 == 0 {
				s.Report(leat.Progress{Phase: "scanning", Position: o.Key, Done: done, Total: max(s.objects, done)})
			}
			if !yield(listing.Item{ID: s.id(o.Key), Tag: o.ETag}, nil) {
				return
			}
		}
		s.objects = done
		s.report("scanning")
	}
}

// documents lists the objects that are documents, in pages of a thousand.
func (s *Source) documents(ctx context.Context) iter.Seq2[minio.ObjectInfo, error] {
	return func(yield func(minio.ObjectInfo, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		owner := false
		opts := minio.ListObjectsOptions{Prefix: s.cfg.Prefix, Recursive: true, FetchOwner: &owner}
		for o := range s.client.ListObjectsIter(ctx, s.cfg.Bucket, opts) {
			if o.Err != nil {
				yield(o, s.explain("list the bucket", o.Err))
				return
			}
			if s.cfg.selects(o.Key) && !yield(o, nil) {
				return
			}
		}
		if err := ctx.Err(); err != nil {
			yield(minio.ObjectInfo{}, err) // the list stops without an error there
		}
	}
}

// List implements [leat.Source]. A listing tells no media types, and times to
// the millisecond rather than the second: such are its documents.
func (s *Source) List(ctx context.Context) iter.Seq2[leat.Event, error] {
	return func(yield func(leat.Event, error) bool) {
		for o, err := range s.documents(ctx) {
			if err != nil {
				yield(leat.Event{}, err)
				return
			}
			e := leat.Event{ID: s.id(o.Key), Source: kind + ":" + s.name, Time: o.LastModified, Document: s.document(o.Key, o.ETag, o)}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// Look implements [leat.Source].
func (s *Source) Look(ctx context.Context, l leat.Look) ([]leat.Event, error) {
	looker := s.looker()
	return looker.Answer(ctx, l)
}
