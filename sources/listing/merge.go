package listing

import "iter"

// Merge steps through sequences together that are in ascending byte order of ids,
// in constant memory. each is called with every id that one of them has, once, in
// that order, and with what each of them has of it, nil for nothing; that is valid
// until each returns. The first error, of a sequence or of each, ends it.
func Merge[T any](seqs []iter.Seq2[T, error], id func(*T) string, each func(id string, at []*T) error) error {
	type head struct {
		next func() (T, error, bool)
		now  T
		more bool // now is one
	}
	heads := make([]head, len(seqs))
	advance := func(h *head) (err error) {
		h.now, err, h.more = h.next()
		return err
	}
	for i, seq := range seqs {
		next, stop := iter.Pull2(seq)
		defer stop()
		heads[i].next = next
		if err := advance(&heads[i]); err != nil {
			return err
		}
	}
	at := make([]*T, len(seqs))
	for {
		least, any := "", false
		for i := range heads {
			if h := &heads[i]; h.more {
				if x := id(&h.now); !any || x < least {
					least, any = x, true
				}
			}
		}
		if !any {
			return nil
		}
		for i := range heads {
			at[i] = nil
			if h := &heads[i]; h.more && id(&h.now) == least {
				at[i] = &h.now
			}
		}
		if err := each(least, at); err != nil {
			return err
		}
		for i := range heads {
			if at[i] != nil {
				if err := advance(&heads[i]); err != nil {
					return err
				}
			}
		}
	}
}
