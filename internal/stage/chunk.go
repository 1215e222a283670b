package stage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"

	"golang.org/x/sync/errgroup"

	"leat"
	"leat/chunker"
	"leat/internal/bus"
	"leat/internal/codec"
)

// A revision is cut into parts of at most this many chunks or bytes of text, so
// that a document of any size costs bounded memory in every stage (I8).
const (
	partChunks = 64
	partBytes  = 256 << 10
)

// Chunks turns document events into revisions.
type Chunks struct {
	Common
	Chunker *chunker.Chunker
	Openers map[string]leat.Opener // by Event.Source
	Topic   string                 // of the revisions
}

// Handle is the chunker stage: it returns once the revisions of every event of
// the batch are durable. Documents are chunked in parallel; a document has at
// most one event in work, so its changes stay in order (I3).
func (s *Chunks) Handle(ctx context.Context, batch []bus.Record) error {
	type event struct {
		leat.Event
		record bus.Record
	}
	events := make([]event, 0, len(batch))
	for _, r := range batch {
		e, err := codec.DecodeEvent(r)
		if err != nil {
			if err := s.Dead.Put(ctx, s.Name, r, string(r.Key), e.Version, err); err != nil {
				return err
			}
			continue
		}
		events = append(events, event{e, r})
	}
	events = newest(events, func(e event) string { return e.ID }, func(e event) uint64 { return e.Version })
	var out acks
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, e := range events {
		g.Go(func() error {
			err := s.untilHealed(gctx, func() error {
				err := s.chunk(gctx, e.Event, e.record, &out)
				if errors.Is(err, leat.ErrNotFound) || errors.Is(err, leat.ErrChanged) {
					// Superseded: the event of what happened since is on its way (I5).
					s.Log.Debug("superseded", "document", e.ID, "version", e.Version, "reason", err)
					return nil
				}
				return err
			})
			switch {
			case err == nil:
				return nil
			case gctx.Err() != nil:
				return gctx.Err()
			}
			return s.Dead.Put(gctx, s.Name, e.record, e.ID, e.Version, err)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return out.wait()
}

func (s *Chunks) chunk(ctx context.Context, e leat.Event, record bus.Record, out *acks) error {
	w := partWriter{s: s, ctx: ctx, out: out, rev: leat.Revision{
		Document: e.ID, Version: e.Version, Source: e.Source, Time: e.Time, Again: e.Again,
	}}
	if e.Document == nil {
		w.rev.Deleted = true
		return w.flush(true)
	}
	body, err := s.open(ctx, e)
	if err != nil {
		return err
	}
	defer body.Close()
	w.rev.Tag = codec.ContentTag(e.Document, record)
	w.rev.Metadata = e.Document.Metadata
	info, err := s.Chunker.Chunk(ctx, e.ID, *e.Document, body, w.add)
	if err != nil {
		return err
	}
	w.rev.Title, w.rev.MediaType = info.Title, info.MediaType
	return w.flush(true)
}

func (s *Chunks) open(ctx context.Context, e leat.Event) (io.ReadCloser, error) {
	if e.Document.Ref == nil {
		return io.NopCloser(strings.NewReader(e.Document.Body)), nil
	}
	o, ok := s.Openers[e.Source]
	if !ok {
		return nil, leat.Hint(leat.Permanent(fmt.Errorf("%s refers to %q at source %q, which is not configured here", e.ID, e.Document.Ref.Name, e.Source)),
			"add the source to pipeline.yaml of the process that runs the chunker, then `leat dlq retry`")
	}
	return o.Open(ctx, *e.Document.Ref)
}

// partWriter gathers a revision's chunks and enqueues them part by part.
type partWriter struct {
	s     *Chunks
	ctx   context.Context
	out   *acks
	rev   leat.Revision
	bytes int
}

func (w *partWriter) add(info chunker.Info, c leat.Chunk) error {
	w.rev.Title, w.rev.MediaType = info.Title, info.MediaType
	if len(w.rev.Chunks) > 0 && (len(w.rev.Chunks) == partChunks || w.bytes+len(c.Text) > partBytes) {
		if err := w.flush(false); err != nil {
			return err
		}
	}
	w.rev.Chunks = append(w.rev.Chunks, c)
	w.bytes += len(c.Text)
	return nil
}

func (w *partWriter) flush(last bool) error {
	w.rev.Last = last
	r, err := codec.EncodeRevision(w.s.Topic, w.rev)
	if err != nil {
		return err
	}
	w.rev.Part, w.rev.Chunks, w.bytes = w.rev.Part+1, w.rev.Chunks[:0], 0
	return w.out.enqueue(w.ctx, w.s.Out, r)
}
