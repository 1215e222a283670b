package folder

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"leat"
)

// List implements [leat.Source]: what a walk finds, each looked at as Run does.
// Folders and files that could not be looked at are an error, after all others.
func (s *Source) List(ctx context.Context) iter.Seq2[leat.Event, error] {
	return func(yield func(leat.Event, error) bool) {
		err := s.list(ctx, func(e leat.Event) bool { return yield(e, nil) })
		if err != nil && !errors.Is(err, errStopped) {
			yield(leat.Event{}, err)
		}
	}
}

var errStopped = errors.New("no more is wanted")

func (s *Source) list(ctx context.Context, yield func(leat.Event) bool) error {
	v, err := s.view(nil)
	if err != nil {
		return err
	}
	defer v.root.Close()
	var unlisted error // the first one
	w := v.walker()
	w.unlisted = func(rel string, err error) {
		v.warn(rel, err)
		if unlisted == nil {
			unlisted = v.cannotLook(rel, err)
		}
	}
	w.found = func(f found) error {
		doc, modified, err := v.document(ctx, f.rel)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			w.unlisted(f.rel, err)
		case doc != nil && !yield(leat.Event{ID: s.id(f.rel), Source: kind + ":" + s.name, Time: modified, Document: doc}):
			return errStopped
		}
		return nil
	}
	if err := w.walk(ctx, ""); err != nil {
		return err
	}
	if err := v.sameRoot(); err != nil {
		return err
	}
	return unlisted
}

func (v *view) cannotLook(rel string, err error) error {
	return leat.Hint(fmt.Errorf("folder %s: look at %q: %w", v.name, rel, err), "%s", v.hint(rel, err))
}

// Look implements [leat.Source].
func (s *Source) Look(ctx context.Context, l leat.Look) ([]leat.Event, error) {
	v, err := s.view(l.Position)
	if err != nil {
		return nil, err
	}
	defer v.root.Close()
	looker := v.looker()
	looker.Look = func(ctx context.Context, rel string) (*leat.Document, time.Time, error) {
		doc, modified, err := v.look(ctx, rel)
		if err != nil {
			err = v.cannotLook(rel, err)
		}
		return doc, modified, err
	}
	looker.Gone = func(context.Context) error {
		if err := v.rootMounted(); err != nil {
			return err
		}
		return v.sameRoot()
	}
	return looker.Answer(ctx, l)
}
