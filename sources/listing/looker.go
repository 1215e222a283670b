package listing

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"leat"
)

// Looker looks at the items of an origin.
type Looker struct {
	Source string // Event.Source, such as "folder:notes"
	// Name is the name of the item that an id speaks of, and whether there can be one.
	Name func(id string) (string, bool)
	// Look returns what an item is now and when it was modified; nil if it is
	// no document, or no longer, or its name is "".
	Look     func(ctx context.Context, name string) (*leat.Document, time.Time, error)
	Parallel int // looks at a time; where it is above 1, Look must be safe for that
	// Gone is asked before events are given that delete documents; an error
	// keeps them back.
	Gone func(ctx context.Context) error
}

// look is one at one item.
type look struct {
	name     string
	hint     Hint // that led to it, in a session
	document *leat.Document
	modified time.Time
	failed   bool
}

// name of the item that an id speaks of, or "".
func (l *Looker) name(id string) string {
	name, ok := l.Name(id)
	if !ok {
		return ""
	}
	return name
}

// looks makes them. failed says whether an error of one ends it.
func (l *Looker) looks(ctx context.Context, looks []look, failed func(name string, err error) error) error {
	if l.Parallel <= 1 {
		for i := range looks {
			if err := l.look(ctx, &looks[i], failed); err != nil {
				return err
			}
		}
		return nil
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(l.Parallel)
	for i := range looks {
		g.Go(func() error { return l.look(gctx, &looks[i], failed) })
	}
	err := g.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func (l *Looker) look(ctx context.Context, k *look, failed func(name string, err error) error) error {
	err := ctx.Err()
	if err == nil {
		k.document, k.modified, err = l.Look(ctx, k.name)
	}
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	k.failed = true
	return failed(k.name, err)
}

// event reports a look.
func (k *look) event(source, id string, version uint64) leat.Event {
	e := leat.Event{ID: id, Version: version, Source: source, Time: k.modified, Document: k.document}
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	return e
}

// Answer is [leat.Source]'s Look: all items are looked at, or it is an error.
func (l *Looker) Answer(ctx context.Context, asked leat.Look) ([]leat.Event, error) {
	now := at(asked.Epoch, time.Now()) // before the looks, see doc.go (I2)
	looks := make([]look, len(asked.IDs))
	for i, id := range asked.IDs {
		looks[i].name = l.name(id)
	}
	if err := l.looks(ctx, looks, func(_ string, err error) error { return err }); err != nil {
		return nil, err
	}
	events := make([]leat.Event, len(looks))
	deletes := false
	for i, k := range looks {
		events[i] = k.event(l.Source, asked.IDs[i], max(above(asked.Above[i]), now))
		deletes = deletes || k.document == nil
	}
	if deletes {
		if err := l.Gone(ctx); err != nil {
			return nil, err
		}
	}
	return events, nil
}
