package app

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"time"

	"leat"
	"leat/internal/bus"
	"leat/internal/codec"
	"leat/internal/stage"
)

// TailEvent is a document event as it passed.
type TailEvent struct {
	Partition int            `json:"partition"`
	Offset    int64          `json:"offset"`
	Document  string         `json:"document"`
	Version   uint64         `json:"version"`
	Source    string         `json:"source,omitempty"`
	Time      time.Time      `json:"time,omitzero"`
	Deleted   bool           `json:"deleted"`
	Content   *leat.Document `json:"content,omitempty"`
	Error     string         `json:"error,omitempty"` // the record is no document event
}

func tailEvent(r bus.Record) TailEvent {
	e, err := codec.DecodeEvent(r)
	t := TailEvent{
		Partition: r.Partition, Offset: r.Offset, Document: string(r.Key), Version: e.Version,
		Source: e.Source, Time: e.Time, Deleted: r.Value == nil, Content: e.Document,
	}
	if err != nil {
		t.Error = err.Error()
	}
	return t
}

// Tail gives fn document events as they pass, from now on or from the start of
// the topic, until ctx ends or fn fails.
func (a *App) Tail(ctx context.Context, fromStart bool, fn func(TailEvent) error) error {
	conn, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.Tail(ctx, a.topics().Documents, !fromStart, func(r bus.Record) error { return fn(tailEvent(r)) })
}

// DocumentReport says where a document is in the flow.
type DocumentReport struct {
	Event       *TailEvent          `json:"event"`   // the latest on the documents topic
	Text        *leat.DocumentState `json:"text"`    // what the text index holds
	Vectors     *leat.DocumentState `json:"vectors"` // what the vector index holds
	DeadLetters []stage.DeadLetter  `json:"dead_letters"`
	State       string              `json:"state"` // in one sentence
	Chunks      []leat.Chunk        `json:"chunks"`
}

// Document reports where a document is; leat.ErrNotFound if no part of the flow knows it.
func (a *App) Document(ctx context.Context, id string) (r DocumentReport, err error) {
	r = DocumentReport{DeadLetters: []stage.DeadLetter{}, Chunks: []leat.Chunk{}}
	conn, err := a.open(ctx)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	record, err := conn.Lookup(ctx, a.topics().Documents, []byte(id))
	switch {
	case err == nil:
		e := tailEvent(record)
		r.Event = &e
	case !errors.Is(err, leat.ErrNotFound):
		return r, err
	}
	if err := a.indexed(ctx, id, &r); err != nil {
		return r, err
	}
	letters, err := a.deadLetters(ctx, conn)
	if err != nil {
		return r, err
	}
	for _, l := range letters {
		if l.Document == id {
			r.DeadLetters = append(r.DeadLetters, l)
		}
	}
	if r.Event == nil && r.Text == nil && r.Vectors == nil {
		return r, leat.Hint(fmt.Errorf("document %q: %w", id, leat.ErrNotFound),
			"ids look like mysql:NAME/db.table/key, s3:NAME/key or folder:NAME/path; `leat search` and `leat tail --from-start` print them")
	}
	r.State = r.state()
	return r, nil
}

func (r *DocumentReport) state() string {
	switch {
	case len(r.DeadLetters) > 0:
		return "in deadletters: " + r.DeadLetters[0].Reason
	case r.Event == nil:
		return "in the index, but not on the documents topic"
	case !reached(r.Text, r.Event.Version) && !reached(r.Vectors, r.Event.Version):
		return "on its way: the latest version waits for the chunker, the embedder or the indexers"
	case !reached(r.Vectors, r.Event.Version):
		return "on its way: found by its words, waits for the embedder or the vector-indexer"
	case !reached(r.Text, r.Event.Version):
		return "on its way: found by its meaning, waits for the text-indexer"
	case r.Event.Deleted:
		return "deleted"
	}
	return "searchable"
}

func reached(s *leat.DocumentState, version uint64) bool { return s != nil && s.Version >= version }

// indexed reads what the indexes hold of a document.
func (a *App) indexed(ctx context.Context, id string, r *DocumentReport) error {
	return a.reading(ctx, func(text leat.TextIndex, vectors leat.VectorIndex) (err error) {
		if text != nil {
			if r.Text, err = state(ctx, text, id); err != nil {
				return err
			}
			if r.Text != nil && !r.Text.Deleted {
				if r.Chunks, err = text.Chunks(ctx, id); err != nil {
					return err
				}
			}
		}
		if vectors != nil {
			r.Vectors, err = state(ctx, vectors, id)
		}
		return err
	})
}

func state(ctx context.Context, s leat.Sink, id string) (*leat.DocumentState, error) {
	d, err := s.Document(ctx, id)
	if errors.Is(err, leat.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &d, nil
}

// deadLetters reads the dead letters that still stand, oldest first: those
// whose document has since been applied at a newer version are left out.
func (a *App) deadLetters(ctx context.Context, conn connection) ([]stage.DeadLetter, error) {
	var all []stage.DeadLetter
	err := conn.Latest(ctx, a.topics().DeadLetters, func(r bus.Record) error {
		if r.Value == nil {
			return nil
		}
		l, err := stage.DecodeDeadLetter(r)
		all = append(all, l)
		return err
	})
	if err != nil || len(all) == 0 {
		return all, err
	}
	all, err = a.standing(ctx, all)
	if err != nil {
		a.log.Warn("cannot see in the index which dead letters have been made good since: showing all", "error", err, "hint", leat.HintOf(err))
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Time.Before(all[j].Time) })
	return all, nil
}

// standing leaves out the letters whose document their generation, that of the
// sources' the live one, holds at a newer version. With an error come all.
func (a *App) standing(ctx context.Context, letters []stage.DeadLetter) ([]stage.DeadLetter, error) {
	by := map[int][]stage.DeadLetter{}
	for _, l := range letters {
		by[l.Generation()] = append(by[l.Generation()], l)
	}
	var kept []stage.DeadLetter
	for n, some := range by {
		look := func(text leat.TextIndex, _ leat.VectorIndex) error {
			for _, l := range some {
				var held *leat.DocumentState
				var err error
				if text != nil {
					if held, err = state(ctx, text, l.Document); err != nil {
						return err
					}
				}
				if held == nil || held.Version <= l.Version {
					kept = append(kept, l)
				}
			}
			return nil
		}
		var err error
		if n == 0 {
			err = a.reading(ctx, look)
		} else {
			err = a.readingGeneration(ctx, n, look)
		}
		if err != nil {
			return letters, err
		}
	}
	return kept, nil
}

// forgetLetters takes the letters of a generation off the topic.
func (a *App) forgetLetters(ctx context.Context, conn connection, p *bus.Producer, n int) error {
	return conn.Latest(ctx, a.topics().DeadLetters, func(r bus.Record) error {
		if r.Value == nil {
			return nil
		}
		l, err := stage.DecodeDeadLetter(r)
		if err != nil || l.Generation() != n {
			return err
		}
		return dropLetter(ctx, p, r.Topic, l)
	})
}

// DeadLetters lists the dead letters that still stand, oldest first.
func (a *App) DeadLetters(ctx context.Context) ([]stage.DeadLetter, error) {
	conn, err := a.open(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return a.deadLetters(ctx, conn)
}

// RetryDeadLetters sends the documents of letters through the flow again, at
// their latest event, and takes the letters off the topic; should one fail
// again, it comes back.
func (a *App) RetryDeadLetters(ctx context.Context, letters []stage.DeadLetter) error {
	return a.withProducer(ctx, func(conn connection, p *bus.Producer) error {
		of := make(map[string]bool, len(letters))
		for _, l := range letters {
			of[l.Document] = true
		}
		err := a.resend(ctx, conn, p, false, func(id string) bool {
			asked := of[id]
			delete(of, id)
			return asked
		})
		if err != nil {
			return err
		}
		for id := range of {
			return leat.Hint(fmt.Errorf("the documents topic holds no event of %q: %w", id, leat.ErrNotFound), "drop this dead letter: leat dlq drop")
		}
		for _, l := range letters {
			if err := dropLetter(ctx, p, a.topics().DeadLetters, l); err != nil {
				return err
			}
		}
		return nil
	})
}

// DropDeadLetters takes letters off the topic.
func (a *App) DropDeadLetters(ctx context.Context, letters []stage.DeadLetter) error {
	return a.withProducer(ctx, func(_ connection, p *bus.Producer) error {
		for _, l := range letters {
			if err := dropLetter(ctx, p, a.topics().DeadLetters, l); err != nil {
				return err
			}
		}
		return nil
	})
}

func dropLetter(ctx context.Context, p *bus.Producer, topic string, l stage.DeadLetter) error {
	return p.Produce(ctx, bus.Record{Topic: topic, Key: []byte(l.ID())})
}

func (a *App) withProducer(ctx context.Context, f func(connection, *bus.Producer) error) (err error) {
	conn, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	p := conn.NewProducer(bus.ProducerConfig{})
	defer func() { err = errors.Join(err, p.Close()) }()
	return f(conn, p)
}
