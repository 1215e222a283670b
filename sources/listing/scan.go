package listing

import (
	"context"
	"fmt"
	"iter"

	"leat"
)

// Scan merges the list of an origin's items with the list of what the index holds
// of the documents whose ids have the prefix, and has every item looked at in which
// the two differ: one that the index lacks or holds under another tag, one that it
// holds and that is not listed. In a session that is to tell of everything, all
// are. Deletes thus rest on a look at the item itself, never on its absence from a
// list. Items come in ascending byte order of ids; where the index [Teller.Knows]
// none, any order will do.
func (t *Teller) Scan(ctx context.Context, prefix string, items iter.Seq2[Item, error]) error {
	t.mu.Lock()
	t.scan++
	number, all := t.scan, t.again
	t.mu.Unlock()
	hints := make([]Hint, 0, Batch)
	both := []iter.Seq2[leat.DocumentState, error]{states(items), t.known(ctx, prefix)}
	err := Merge(both, func(d *leat.DocumentState) string { return d.ID }, func(id string, at []*leat.DocumentState) error {
		item, known := at[0], at[1]
		if known != nil {
			t.mu.Lock()
			t.clock.above(known.Version)
			t.mu.Unlock()
			if item != nil && item.Tag == known.Tag && !all {
				return nil
			}
		}
		if hints = append(hints, Hint{ID: id, Name: t.name(id), scan: number}); len(hints) < Batch {
			return nil
		}
		err := t.Tell(ctx, hints)
		hints = hints[:0]
		return err
	})
	if err != nil {
		return err
	}
	return t.Tell(ctx, hints)
}

// Knows reports whether the index holds documents whose ids have the prefix.
func (t *Teller) Knows(ctx context.Context, prefix string) (bool, error) {
	for _, err := range t.known(ctx, prefix) {
		return err == nil, err
	}
	return false, nil
}

func (t *Teller) known(ctx context.Context, prefix string) iter.Seq2[leat.DocumentState, error] {
	return func(yield func(leat.DocumentState, error) bool) {
		for d, err := range t.Session.Known(ctx, prefix) {
			if err != nil {
				err = fmt.Errorf("list what the index holds of %s: %w", t.Source, err)
			}
			if !yield(d, err) {
				return
			}
		}
	}
}

// states are what the index would hold of items.
func states(items iter.Seq2[Item, error]) iter.Seq2[leat.DocumentState, error] {
	return func(yield func(leat.DocumentState, error) bool) {
		for i, err := range items {
			if !yield(leat.DocumentState{ID: i.ID, Tag: i.Tag}, err) {
				return
			}
		}
	}
}
