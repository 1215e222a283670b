package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"leat"
	"leat/internal/guard"
)

// unused selects the contents of document ?1 that no version of it has.
const unused = `SELECT no FROM $_contents AS o WHERE doc = ?1
	AND NOT EXISTS (SELECT 1 FROM $_chunks WHERE content = o.no)`

// Apply implements [leat.Sink]: one transaction, durable when it returns.
func (s *sink) Apply(ctx context.Context, revisions []leat.Revision) ([]leat.Outcome, error) {
	w, err := s.store.writer()
	if err != nil {
		return nil, err
	}
	out := make([]leat.Outcome, len(revisions))
	err = w.tx(ctx, s.table, func(c *conn) error {
		a := applier{conn: c, kind: s.kind, now: time.Now().UnixMilli()}
		for i := range revisions {
			r := &revisions[i]
			var err error
			if out[i], err = a.apply(r); err != nil {
				return fmt.Errorf("%s version %d: %w", r.Document, r.Version, err)
			}
		}
		return c.exec("UPDATE $_totals SET documents = documents + ?, chunks = chunks + ?, contents = contents + ?",
			a.documents, a.chunks, a.contents)
	})
	if err != nil {
		return nil, fmt.Errorf("store %s, %s index: %w", s.store.path, s.table, err)
	}
	return out, nil
}

// applier applies the revisions of one transaction.
type applier struct {
	*conn
	kind contentKind
	now  int64 // ms
	// How the totals change.
	documents, chunks, contents int64
}

// held is a row of documents.
type held struct {
	no      int64
	version sql.NullInt64
	deleted bool
	chunks  int64
}

func (a *applier) apply(r *leat.Revision) (leat.Outcome, error) {
	if r.Version > math.MaxInt64 {
		return 0, leat.Permanent(errors.New("the version is past 1<<63-1"))
	}
	version := int64(r.Version) // under which the parts wait
	var doc held
	err := a.scan("SELECT no, version, deleted, chunks FROM $_documents WHERE id = ?", []any{r.Document},
		&doc.no, &doc.version, &doc.deleted, &doc.chunks)
	fresh := errors.Is(err, sql.ErrNoRows)
	switch {
	case err != nil && !fresh:
		return 0, err
	case doc.version.Valid && doc.version.Int64 > version && !guard.Removed("I2"):
		return leat.Superseded, nil // I2
	case doc.version.Valid && doc.version.Int64 == version:
		if !r.Again {
			return leat.Applied, nil // a replay: versions are never used twice
		}
		version = apart(version)
	case fresh:
		doc.no, err = a.insert("INSERT INTO $_documents VALUES (NULL, ?, NULL, 0, '', '', NULL, 0, 0)", r.Document)
		if err != nil {
			return 0, err
		}
	}
	fresh = fresh && !r.Again // which may find what a lost document has left
	parts := int64(0)
	if !fresh {
		if parts, err = a.int("SELECT coalesce(max(parts), 0) FROM $_parts WHERE doc = ? AND version = ?", doc.no, version); err != nil {
			return 0, err
		}
	}
	if int64(r.Part) > parts {
		if version < 0 {
			return leat.Applied, nil // the end of what was applied again comes once more
		}
		return 0, leat.Permanent(leat.Hint(fmt.Errorf("part %d came without part %d", r.Part, parts),
			"the store was replaced while parts were under way: touch the document at its source or run `leat reindex`"))
	}
	if err := a.add(doc.no, version, r, fresh, r.Again || int64(r.Part) < parts || guard.Removed("I2")); err != nil {
		return 0, err
	}
	if !r.Last {
		return leat.Applied, a.exec("INSERT OR REPLACE INTO $_parts VALUES (?, ?, ?)",
			doc.no, version, max(parts, int64(r.Part)+1))
	}
	return leat.Applied, a.activate(&doc, version, r, fresh)
}

// apart is the version under which parts of the held one wait that are applied
// again: no document has it, so that they are not found beside those held.
func apart(version int64) int64 { return -1 - version }

// add puts the chunks of one part beside those of the version that is held,
// where no search finds them yet, in the place of what may be there of it.
func (a *applier) add(doc, version int64, r *leat.Revision, fresh, replace bool) error {
	if replace {
		if err := a.exec("DELETE FROM $_chunks WHERE doc = ? AND version = ? AND part = ?", doc, version, r.Part); err != nil {
			return err
		}
	}
	for i := range r.Chunks {
		ch := &r.Chunks[i]
		no, err := a.content(doc, r, ch, fresh)
		if err != nil {
			return fmt.Errorf("chunk %d: %w", ch.Ordinal, err)
		}
		heading := sql.NullString{}
		if len(ch.Heading) > 0 {
			b, err := json.Marshal(ch.Heading)
			if err != nil {
				return err
			}
			heading = sql.NullString{String: string(b), Valid: true}
		}
		if err := a.exec("INSERT INTO $_chunks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", doc, version, r.Part, ch.Ordinal,
			no, ch.Start, ch.End, ch.Tokens, ch.Page, heading); err != nil {
			return err
		}
	}
	return nil
}

// content returns the number of the chunk's content, which it adds unless some
// version of the document has it already. What is applied again shares nothing
// with what is there, which may be damaged.
func (a *applier) content(doc int64, r *leat.Revision, ch *leat.Chunk, fresh bool) (no int64, err error) {
	data, err := a.kind.data(ch)
	if err != nil {
		return 0, err
	}
	digest := a.kind.digest(r.Title, ch.Heading, data)
	if !fresh && !r.Again {
		err := a.scan("SELECT no FROM $_contents WHERE doc = ? AND chunk = ? AND digest = ?", []any{doc, ch.ID, digest}, &no)
		if !errors.Is(err, sql.ErrNoRows) {
			return no, err
		}
	}
	if no, err = a.insert("INSERT INTO $_contents VALUES (NULL, ?, ?, ?, ?)", doc, ch.ID, digest, data); err != nil {
		return 0, err
	}
	a.contents++
	return no, a.kind.index(a.conn, no, r, ch)
}

// activate makes the version the one that is held (I4): its chunks become
// searchable by one row's change, and what no version needs is removed.
func (a *applier) activate(doc *held, version int64, r *leat.Revision, fresh bool) error {
	var metadata sql.NullString
	n := int64(len(r.Chunks))
	if version < 0 {
		err := errors.Join(
			a.exec("DELETE FROM $_chunks WHERE doc = ? AND version = ?", doc.no, r.Version),
			a.exec("UPDATE $_chunks SET version = ? WHERE doc = ? AND version = ?", r.Version, doc.no, version))
		if err != nil {
			return err
		}
	}
	if !fresh && !guard.Removed("I4") {
		// A replay that was cut in fewer parts leaves some of the first attempt.
		err := errors.Join(
			a.exec("DELETE FROM $_chunks WHERE doc = ? AND version = ? AND part > ?", doc.no, r.Version, r.Part),
			a.exec("DELETE FROM $_chunks WHERE doc = ? AND version < ?", doc.no, r.Version),
			a.exec("DELETE FROM $_parts WHERE doc = ? AND version <= ?", doc.no, r.Version),
			a.sweep(doc.no))
		if err != nil {
			return err
		}
	}
	if r.Part > 0 {
		var err error
		if n, err = a.int("SELECT count(*) FROM $_chunks WHERE doc = ? AND version = ?", doc.no, r.Version); err != nil {
			return err
		}
	}
	if !r.Deleted && len(r.Metadata) > 0 {
		b, err := json.Marshal(r.Metadata)
		if err != nil {
			return leat.Permanent(fmt.Errorf("metadata: %w", err))
		}
		metadata = sql.NullString{String: string(b), Valid: true}
	}
	if doc.version.Valid && !doc.deleted {
		a.documents--
	}
	if !r.Deleted {
		a.documents++
	}
	a.chunks += n - doc.chunks
	return a.exec(`UPDATE $_documents SET version = ?, deleted = ?, tag = ?, title = ?, metadata = ?, chunks = ?, applied = ?
		WHERE no = ?`, r.Version, r.Deleted, r.Tag, r.Title, metadata, n, a.now, doc.no)
}

// sweep removes the contents of a document that no version of it has.
func (a *applier) sweep(doc int64) error {
	if err := a.kind.unindex(a.conn, doc); err != nil {
		return err
	}
	gone, err := a.count("DELETE FROM $_contents WHERE no IN ("+unused+")", doc)
	a.contents -= gone
	return err
}
