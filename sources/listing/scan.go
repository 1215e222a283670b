package listing

import (
	"context"
	"fmt"
	"iter"

	"leat"
)

// Scan merges the sorted list of an origin's items with the sorted list of what
// the index holds, and has every item looked at in which the two differ: one
// that the index lacks or holds under another tag, one that it holds and that
// was not listed. Deletes thus rest on a look at the item itself, never on its
// absence from a list.
type Scan struct {
	teller *Teller
	name   func(id string) (string, bool)
	number uint64

	next  func() (leat.DocumentState, error, bool)
	stop  func()
	known leat.DocumentState
	more  bool // known is one

	hints []Hint
}

// Scan begins one of the documents whose ids have the prefix. name is the name
// of the item that an id speaks of, and whether there can be one. Close the scan.
func (t *Teller) Scan(ctx context.Context, prefix string, name func(id string) (string, bool)) (*Scan, error) {
	t.mu.Lock()
	t.scan++
	s := &Scan{teller: t, name: name, number: t.scan}
	t.mu.Unlock()
	s.next, s.stop = iter.Pull2(t.Session.Known(ctx, prefix))
	if err := s.advance(); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

// Close ends the scan; what [Scan.End] has not looked at is left to the next.
func (s *Scan) Close() { s.stop() }

// Knows reports whether the index holds more documents that are not yet merged.
// Where it does not, the order in which items are found does not matter.
func (s *Scan) Knows() bool { return s.more }

func (s *Scan) advance() (err error) {
	s.known, err, s.more = s.next()
	if err != nil {
		return fmt.Errorf("list what the index holds of %s: %w", s.teller.Source, err)
	}
	if s.more {
		s.teller.mu.Lock()
		s.teller.clock.above(s.known.Version)
		s.teller.mu.Unlock()
	}
	return nil
}

// Found takes the next item of the listing, in ascending byte order of ids.
func (s *Scan) Found(ctx context.Context, id, name, tag string) error {
	for s.more && s.known.ID < id {
		if err := s.missing(ctx); err != nil {
			return err
		}
	}
	if s.more && s.known.ID == id {
		held := s.known.Tag
		if err := s.advance(); err != nil {
			return err
		}
		if held == tag {
			return nil
		}
	}
	return s.differs(ctx, Hint{ID: id, Name: name})
}

// End looks at what remains once everything has been found.
func (s *Scan) End(ctx context.Context) error {
	for s.more {
		if err := s.missing(ctx); err != nil {
			return err
		}
	}
	return s.tell(ctx)
}

// missing takes a document that the index holds and that was not listed.
func (s *Scan) missing(ctx context.Context) error {
	name, ok := s.name(s.known.ID)
	if !ok {
		name = ""
	}
	if err := s.differs(ctx, Hint{ID: s.known.ID, Name: name}); err != nil {
		return err
	}
	return s.advance()
}

func (s *Scan) differs(ctx context.Context, h Hint) error {
	h.scan = s.number
	if s.hints = append(s.hints, h); len(s.hints) < Batch {
		return nil
	}
	return s.tell(ctx)
}

func (s *Scan) tell(ctx context.Context) error {
	err := s.teller.Tell(ctx, s.hints)
	s.hints = s.hints[:0]
	return err
}
