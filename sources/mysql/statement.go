package mysql

import (
	"context"
	"regexp"
	"strings"
)

// query takes a statement of the binlog: the frame of a transaction, a change
// of schema, or, where a session turned row format off, a change of data.
func (r *run) query(ctx context.Context, schema, query string) error {
	q := strings.TrimSpace(query)
	word, rest := firstWord(q)
	if r.body {
		switch word {
		case "COMMIT":
			return r.commit(ctx)
		case "ROLLBACK":
			// All or, back to a savepoint, some of the rows just read are void.
			for t := range r.captured {
				r.resyncs[t] = "a transaction with changes that cannot be undone was rolled back"
			}
			if next, _ := firstWord(rest); next == "TO" {
				return nil
			}
			return r.commit(ctx)
		case "INSERT", "UPDATE", "DELETE", "REPLACE", "LOAD", "WITH", "CALL":
			r.mentioned(q, schema, func(t *table) {
				r.resyncs[t] = "a statement was logged in place of its rows: binlog_format is not ROW in some session"
			})
		}
		return nil
	}
	switch word {
	case "BEGIN":
		r.body = true
		return nil
	case "XA":
		switch next, _ := firstWord(rest); next {
		case "START", "BEGIN":
			r.body, r.xa = true, true
			return nil
		case "ROLLBACK", "COMMIT":
			r.endPrepared(next == "ROLLBACK")
		}
	case "ALTER", "CREATE", "DROP", "RENAME", "TRUNCATE":
		r.mentioned(q, schema, func(t *table) { r.changes = append(r.changes, schemaChange{t, word, q}) })
		if strings.HasSuffix(q, "START TRANSACTION") { // CREATE TABLE … SELECT: its rows follow
			r.body = true
			return nil
		}
	}
	return r.commit(ctx)
}

// endPrepared: rows of a prepared XA transaction were given when it was
// prepared. Rolled back, they were wrong; committed during a snapshot, its
// chunks may have shown the rows as they were before.
func (r *run) endPrepared(rolledBack bool) {
	for name, p := range r.state.Tables {
		if t := r.tables[name]; p.Prepared && t != nil {
			if rolledBack || !p.Done {
				r.resyncs[t] = "a prepared XA transaction ended"
			}
			p.Prepared = false
		}
	}
}

// Online schema changes make a copy of the table, row for row, and swap it in.
var onlineCopy = regexp.MustCompile("(?i)[`. ]_([^` ,]+)_(gho|new)`? +TO ")

var replacesRows = regexp.MustCompile(`(?i)\b(TRUNCATE|DROP|EXCHANGE|COALESCE|REORGANIZE|IMPORT)\s+(PARTITION|TABLESPACE)\b|\bRENAME\s+(TO\s|AS\s|[^CIK\s])`)

// redefines matches the clauses of ALTER TABLE that give a column of the
// configuration other values or another meaning, though its kind may stay.
func (t *table) redefines(clauses string) bool {
	names := make([]string, len(t.columns))
	for i, c := range t.columns {
		names[i] = regexp.QuoteMeta(c)
	}
	name := "`?(" + strings.Join(names, "|") + ")`?(\\W|$)"
	const column = `\s+(COLUMN\b\s*)?(IF\s+(NOT\s+)?EXISTS\s+)?`
	return regexp.MustCompile(`(?i)\b((MODIFY|CHANGE|ADD|DROP|RENAME)` + column + `\(?\s*` + name +
		`|CHANGE` + column + `\S+\s+` + name + `|TO\s+` + name + `|CONVERT\s+TO\b)`).MatchString(clauses)
}

// schemaChange is a statement about a captured table; word is its first one.
type schemaChange struct {
	table       *table
	word, query string
}

// judge decides whether the table is still what its documents say. It is to be
// called after the statement's transaction, and once that is visible.
func (r *run) judge(ctx context.Context, c schemaChange) {
	t, word, query, why := c.table, c.word, c.query, ""
	switch {
	case word == "TRUNCATE":
		why = "it was truncated"
	case word == "RENAME":
		if m := onlineCopy.FindStringSubmatch(query); m == nil || !strings.EqualFold(m[1], t.base) {
			why = "a table was renamed"
		}
	case word == "DROP" && !strings.Contains(strings.ToUpper(query), " INDEX "):
		why = "it was dropped"
	case word == "ALTER" && replacesRows.MatchString(query):
		why = "its rows were replaced"
	case word == "ALTER" && t.redefines(query):
		why = "a column of the configuration was changed"
	}
	if why == "" {
		// Only the present schema can be asked for, which may be ahead of this
		// statement: rows that come before it gets there show by Seen that they
		// are older.
		probe, p := newTable(r.s.name, t.cfg), r.state.Tables[t.name]
		if err := probe.load(ctx, r.c); err != nil || probe.read == nil || p == nil ||
			probe.read.shape != p.Shape || p.Seen != "" && probe.read.shape != p.Seen {
			why = "columns of the configuration have changed"
		}
	}
	if why != "" {
		r.resyncs[t] = why
	}
}

// mentioned calls f for the captured tables whose name, or whose database in a
// statement about databases, stands in the statement.
func (r *run) mentioned(query, schema string, f func(*table)) {
	q := strings.ToLower(query)
	for _, t := range r.order {
		if strings.Contains(q, strings.ToLower(t.base)) && (strings.EqualFold(schema, t.schema) || strings.Contains(q, strings.ToLower(t.schema))) {
			f(t)
		} else if strings.Contains(q, "database") && strings.Contains(q, strings.ToLower(t.schema)) {
			f(t)
		}
	}
}

// firstWord of a statement in upper case, comments left out, and what follows.
func firstWord(q string) (word, rest string) {
	q = strings.TrimSpace(q)
	for strings.HasPrefix(q, "/*") {
		_, after, ok := strings.Cut(q, "*/")
		if !ok {
			return "", ""
		}
		q = strings.TrimSpace(after)
	}
	i := strings.IndexFunc(q, func(c rune) bool { return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z') })
	if i < 0 {
		return strings.ToUpper(q), ""
	}
	return strings.ToUpper(q[:i]), q[i:]
}
