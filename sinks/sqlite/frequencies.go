package sqlite

import (
	"cmp"
	"database/sql"
	"errors"
	"slices"
	"sync"
)

// frequencies remembers in how many contents a word occurs. FTS5 computes the
// score of every content that has any word asked for, and the words that most
// of them have decide least: a query goes by its rarest words, as many as
// together occur in maxRows contents and a hundredth of all. Nearly all of BM25's weight is in
// them (docs/adr/002-embedded-store.md has what this costs in recall and saves
// in time).
type frequencies struct {
	mu    sync.Mutex
	at    int64 // contents in the index when the first was counted
	words map[string]int64
}

const (
	maxRows       = 1000
	maxWords      = 64     // of a query
	maxRemembered = 50_000 // words: some MB (I8)
)

// rarest returns the words to search by; none where no word occurs.
func (f *frequencies) rarest(c *conn, asked []string) ([]string, error) {
	contents, err := c.int("SELECT contents FROM $_totals")
	if err != nil {
		return nil, err
	}
	type counted struct {
		word string
		rows int64
	}
	var all []counted
	for _, w := range asked {
		rows, err := f.of(c, w, contents)
		if err != nil {
			return nil, err
		}
		if rows > 0 {
			all = append(all, counted{w, rows})
		}
	}
	slices.SortStableFunc(all, func(a, b counted) int { return cmp.Compare(a.rows, b.rows) })
	var words []string
	var rows int64
	for i, w := range all {
		if rows += w.rows; i > 0 && rows > maxRows+contents/100 || len(words) == maxWords {
			break
		}
		words = append(words, w.word)
	}
	return words, nil
}

// of counts a word, or tells what it counted before unless the index has
// changed by a tenth since.
func (f *frequencies) of(c *conn, word string, contents int64) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if changed := contents - f.at; f.words == nil || max(changed, -changed) > f.at/10 || len(f.words) >= maxRemembered {
		f.at, f.words = contents, map[string]int64{}
	}
	if n, ok := f.words[word]; ok && n > 0 {
		return n, nil
	}
	n, err := c.int("SELECT doc FROM $_vocabulary WHERE term = ?", word)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, err
	}
	f.words[word] = n
	return n, nil
}
