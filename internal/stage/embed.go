package stage

import (
	"context"
	"fmt"

	"leat"
	"leat/internal/bus"
	"leat/internal/codec"
)

// Vectors adds vectors to revisions.
type Vectors struct {
	Common
	Model leat.Embedder
	Topic string // of the revisions with vectors
}

type revision struct {
	leat.Revision
	record bus.Record
}

// decode reads the revisions of a batch; what cannot be read becomes a dead letter.
func (c *Common) decode(ctx context.Context, batch []bus.Record) ([]revision, error) {
	revs := make([]revision, 0, len(batch))
	for _, r := range batch {
		rev, err := codec.DecodeRevision(r)
		if err != nil {
			if err := c.Dead.Put(ctx, c.Name, r, string(r.Key), rev.Version, err); err != nil {
				return nil, err
			}
			continue
		}
		revs = append(revs, revision{rev, r})
	}
	return newest(revs, func(r revision) string { return r.Document }, func(r revision) uint64 { return r.Version }), nil
}

// Handle is the embedder stage: it returns once the vectors of every revision
// of the batch are durable. The texts of all of them are embedded together.
func (s *Vectors) Handle(ctx context.Context, batch []bus.Record) error {
	revs, err := s.decode(ctx, batch)
	if err != nil {
		return err
	}
	var texts []string
	for _, r := range revs {
		for _, c := range r.Chunks {
			texts = append(texts, leat.Embeddable(r.Title, c.Text))
		}
	}
	vectors, err := s.embed(ctx, texts)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil { // permanent: find the texts that the model refuses
		vectors = make([][]float32, len(texts))
		i := 0
		for _, r := range revs {
			for range r.Chunks {
				if vectors[i], err = s.embedOne(ctx, r, texts[i]); err != nil {
					return err
				}
				i++
			}
		}
	}
	var out acks
	for _, r := range revs {
		rev := leat.Revision{
			Document: r.Document, Version: r.Version, Source: r.Source, Time: r.Time,
			Again: r.Again, Deleted: r.Deleted, Tag: r.Tag, Part: r.Part, Last: r.Last,
		}
		for i, c := range r.Chunks {
			if vectors[i] == nil { // in deadletters
				continue
			}
			rev.Chunks = append(rev.Chunks, leat.Chunk{ID: c.ID, Ordinal: c.Ordinal, Start: c.Start, End: c.End, Vector: vectors[i]})
		}
		vectors = vectors[len(r.Chunks):]
		record, err := codec.EncodeRevision(s.Topic, rev)
		if err != nil {
			return err
		}
		if err := out.enqueue(ctx, s.Out, record); err != nil {
			return err
		}
	}
	return out.wait()
}

func (s *Vectors) embed(ctx context.Context, texts []string) (vectors [][]float32, err error) {
	if len(texts) == 0 {
		return nil, nil
	}
	err = s.untilHealed(ctx, func() error {
		vectors, err = s.Model.Embed(ctx, leat.Passage, texts)
		return err
	})
	return vectors, err
}

// embedOne embeds one text; a refused one becomes a dead letter of its document
// and a nil vector, so that its neighbours are found all the same.
func (s *Vectors) embedOne(ctx context.Context, r revision, text string) ([]float32, error) {
	v, err := s.embed(ctx, []string{text})
	if err == nil {
		return v[0], nil
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return nil, s.Dead.Put(ctx, s.Name, r.record, r.Document, r.Version, fmt.Errorf("a chunk is without a vector: %w", err))
}
