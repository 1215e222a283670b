package demo

import (
	"context"
	"fmt"
	"time"
)

// What changes while leat is killed. Every row and file carries a word that
// says which it is and at which revision.
const (
	crashRows  = 120
	crashFiles = 20
	crashKills = 3
)

// expectation is what a search must give for one document in the end.
type expectation struct {
	document string
	word     string   // that its text has now; "": it is deleted
	gone     []string // words that it had
}

// crash kills leat again and again in the middle of changes, lets it come up,
// and counts what the index has and what it should have.
func (d *demo) crash(ctx context.Context) error {
	d.heading("Killed with SIGKILL in the middle of changes")
	changes := d.fileChanges()
	if d.database != nil {
		changes = append(d.rowChanges(), changes...)
	}
	// Rows and files take turns, and so do their revisions.
	total, done, kills := 0, 0, 0
	for _, c := range changes {
		total += len(c.steps)
	}
	for round := 0; done < total; round++ {
		for i := range changes {
			c := &changes[i]
			if round >= len(c.steps) {
				continue
			}
			if err := c.steps[round](); err != nil {
				return fmt.Errorf("change %s: %w", c.document, err)
			}
			if done++; done%(total/(crashKills+1)) == 0 && kills < crashKills {
				p := d.leat[kills%len(d.leat)]
				kills++
				killed := time.Now()
				if err := p.restart(ctx); err != nil {
					return err
				}
				d.row("SIGKILL", fmt.Sprintf("%s, after %d of %d changes", p.Name(), done, total), "up again after "+millis(time.Since(killed)))
			}
			if err := ctx.Err(); err != nil {
				return err
			}
		}
	}
	began := time.Now()
	want, err := d.documentsInSources()
	if err != nil {
		return err
	}
	var st status
	took, err := d.until(ctx, began, fmt.Sprintf("the index has the %d documents of the sources", want), func() (bool, error) {
		st, err = d.status(ctx)
		return st.Index.Text.Documents == want && st.Index.Vectors.Documents == want, err
	})
	if err != nil {
		return fmt.Errorf("%w\nthe text index has %d, the vector index %d", err, st.Index.Text.Documents, st.Index.Vectors.Documents)
	}
	current, deleted := 0, 0
	for _, c := range changes {
		after, err := d.until(ctx, began, c.document+" is as its source has it", func() (bool, error) { return d.holds(c.expectation) })
		if err != nil {
			return err
		}
		took = max(took, after)
		if c.word == "" {
			deleted++
		} else {
			current++
		}
	}
	if st, err = d.status(ctx); err != nil {
		return err
	}
	if len(st.DeadLetters) > 0 {
		return fmt.Errorf("documents are in deadletters: %v", st.DeadLetters)
	}
	d.row("counted", fmt.Sprintf("%d documents in the sources", want), fmt.Sprintf("%d in the index, %d dead letters", st.Index.Text.Documents, len(st.DeadLetters)))
	d.row("compared", fmt.Sprintf("%d documents changed, %d deleted", current, deleted), "every last revision found, no older one")
	d.row("caught up", "after the last change", seconds(took))
	return nil
}

// holds reports whether searches give what is expected of a document.
func (d *demo) holds(e expectation) (bool, error) {
	if e.word != "" {
		if found, err := d.text.finds(e.word, e.document, e.word); !found || err != nil {
			return false, err
		}
	}
	for _, word := range e.gone {
		if found, err := d.text.finds(word, e.document, word); found || err != nil {
			return false, err
		}
	}
	return true, nil
}

// documentsInSources counts the rows and files as they are now.
func (d *demo) documentsInSources() (n int64, err error) {
	if d.database != nil {
		if err := d.shop.QueryRow("SELECT COUNT(*) FROM products").Scan(&n); err != nil {
			return 0, err
		}
	}
	documents, err := d.place.count()
	return n + documents, err
}

// crashChange is what happens to one document, step by step.
type crashChange struct {
	expectation
	steps []func() error
}

func (d *demo) rowChanges() []crashChange {
	var all []crashChange
	for i := range crashRows {
		id := 1000 + i
		word := func(revision int) string { return fmt.Sprintf("row%drev%d", id, revision) }
		exec := func(query string, args ...any) func() error {
			return func() error {
				_, err := d.shop.Exec(query, args...)
				return err
			}
		}
		c := crashChange{expectation: expectation{document: productID(id), word: word(1)}}
		c.steps = append(c.steps, exec("INSERT INTO products (id, name, description) VALUES (?, ?, ?)",
			id, fmt.Sprintf("Spare part %d", id), "Spare part with the mark "+word(1)+", kept in drawer seven."))
		if i%2 == 0 {
			c.gone, c.word = append(c.gone, word(1)), word(2)
			c.steps = append(c.steps, exec("UPDATE products SET description = ? WHERE id = ?", "Spare part with the mark "+word(2)+", moved to drawer nine.", id))
		}
		if i%3 == 0 {
			c.gone, c.word = append(c.gone, c.word), ""
			c.steps = append(c.steps, exec("DELETE FROM products WHERE id = ?", id))
		}
		all = append(all, c)
	}
	return all
}

func (d *demo) fileChanges() []crashChange {
	var all []crashChange
	for i := range crashFiles {
		name := fmt.Sprintf("零件 %d.md", i)
		word := func(revision int) string { return fmt.Sprintf("file%drev%d", i, revision) }
		write := func(revision int) func() error {
			return func() error {
				return d.place.put(name, fmt.Sprintf("# 零件 %d\n\n这个零件的记号是 %s ，放在第七个抽屉里。\n", i, word(revision)))
			}
		}
		c := crashChange{expectation: expectation{document: d.document(name), word: word(2), gone: []string{word(1)}}}
		c.steps = append(c.steps, write(1), write(2))
		if i%3 == 0 {
			c.gone, c.word = append(c.gone, word(2)), ""
			c.steps = append(c.steps, func() error { return d.place.remove(name) })
		}
		all = append(all, c)
	}
	return all
}
