package stage

import (
	"context"

	"leat"
	"leat/internal/bus"
)

// Index applies revisions to a sink.
type Index struct {
	Common
	Sink leat.Sink
}

// Handle is the text-indexer and the vector-indexer stage: it returns once
// every revision of the batch is durable in the store.
func (s *Index) Handle(ctx context.Context, batch []bus.Record) error {
	revs, err := s.decode(ctx, batch)
	if err != nil || len(revs) == 0 {
		return err
	}
	plain := make([]leat.Revision, len(revs))
	for i, r := range revs {
		plain[i] = r.Revision
	}
	err = s.apply(ctx, plain)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil {
		return nil
	}
	for i, r := range revs { // permanent: find the revisions that the store refuses
		err := s.apply(ctx, plain[i:i+1])
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			if err := s.Dead.Put(ctx, s.Name, r.record, r.Document, r.Version, err); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Index) apply(ctx context.Context, revs []leat.Revision) error {
	return s.untilHealed(ctx, func() error {
		_, err := s.Sink.Apply(ctx, revs)
		return err
	})
}
