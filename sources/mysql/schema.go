package mysql

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"leat"
)

// table is a configured table and what was last read of its schema.
type table struct {
	cfg       TableConfig
	name      string // database.table
	schema    string
	base      string
	idPrefix  string // of its documents
	tableLen  int    // of the part of idPrefix that names the table
	config    string // fingerprint of cfg
	mediaType string
	columns   []string // those the configuration names, each once: the first cells of a row
	roles     roles

	read *readLayout // nil: the table does not exist
}

// readLayout is how rows are read by SELECT.
type readLayout struct {
	layout
	selects  []string // expression of each cell
	charsets []string // the server's name of each text cell's charset
	keyNames []string // quoted columns of the primary key
	keyKinds []column
}

func newTable(source string, cfg TableConfig) *table {
	t := &table{cfg: cfg, name: cfg.Table, mediaType: cfg.MediaType}
	t.schema, t.base, _ = strings.Cut(cfg.Table, ".")
	if t.mediaType == "" {
		t.mediaType = "text/plain"
	}
	t.idPrefix = leat.DocumentID("mysql", source, cfg.Table) + "/"
	t.tableLen = len(leat.DocumentID("", "", cfg.Table)) - len(leat.DocumentID("", "", ""))
	sum := sha256.Sum256(fmt.Appendf(nil, "%q", cfg))
	t.config = hex.EncodeToString(sum[:8])
	use := func(name string) int {
		for i, have := range t.columns {
			if strings.EqualFold(have, name) {
				return i
			}
		}
		t.columns = append(t.columns, name)
		return len(t.columns) - 1
	}
	t.roles.title = -1
	if cfg.Title != "" {
		t.roles.title = use(cfg.Title)
	}
	for _, c := range cfg.Body {
		t.roles.body = append(t.roles.body, use(c))
	}
	for _, c := range cfg.Metadata {
		t.roles.meta = append(t.roles.meta, use(c))
	}
	return t
}

func (t *table) quoted() string { return quoteName(t.schema) + "." + quoteName(t.base) }

func quoteName(s string) string { return "`" + strings.ReplaceAll(s, "`", "``") + "`" }

// schemaColumn is a row of information_schema.COLUMNS.
type schemaColumn struct {
	name, dataType, columnType, charset string
	scale                               int
}

// load reads the table's present schema. It returns every problem, joined.
func (t *table) load(ctx context.Context, c *conn) error {
	rows, err := c.rows(ctx, "SELECT COLUMN_NAME, LOWER(DATA_TYPE), LOWER(COLUMN_TYPE), LOWER(COALESCE(CHARACTER_SET_NAME,'')), "+
		"COALESCE(DATETIME_PRECISION, NUMERIC_SCALE, 0) "+
		"FROM information_schema.COLUMNS WHERE TABLE_SCHEMA="+quoteText(t.schema)+" AND TABLE_NAME="+quoteText(t.base)+" ORDER BY ORDINAL_POSITION")
	if err != nil {
		return fmt.Errorf("reading the columns of %s: %w", t.name, err)
	}
	t.read = nil
	if len(rows) == 0 {
		return nil
	}
	var columns []schemaColumn
	for _, r := range rows {
		scale, err := strconv.Atoi(r[4])
		if err != nil {
			return fmt.Errorf("column %s of %s: scale %q: %w", r[0], t.name, r[4], err)
		}
		columns = append(columns, schemaColumn{r[0], r[1], r[2], r[3], scale})
	}
	rows, err = c.rows(ctx, "SELECT COLUMN_NAME FROM information_schema.STATISTICS WHERE TABLE_SCHEMA="+quoteText(t.schema)+
		" AND TABLE_NAME="+quoteText(t.base)+" AND INDEX_NAME='PRIMARY' ORDER BY SEQ_IN_INDEX")
	if err != nil {
		return fmt.Errorf("reading the primary key of %s: %w", t.name, err)
	}
	if len(rows) == 0 {
		return leat.Hint(fmt.Errorf("table %s has no primary key", t.name),
			"a document needs an id that stays: ALTER TABLE %s ADD PRIMARY KEY (…)", t.quoted())
	}
	r := &readLayout{}
	var errs []error
	use := func(name string) (int, bool) {
		for i, have := range t.columns {
			if i < len(r.columns) && strings.EqualFold(have, name) {
				return i, true
			}
		}
		for _, col := range columns {
			if !strings.EqualFold(col.name, name) {
				continue
			}
			how, expr, err := columnOf(col)
			if err != nil {
				errs = append(errs, fmt.Errorf("column %s of table %s: %w", name, t.name, err))
			}
			r.columns, r.selects, r.charsets = append(r.columns, how), append(r.selects, expr), append(r.charsets, col.charset)
			return len(r.columns) - 1, true
		}
		return 0, false
	}
	for _, name := range t.columns {
		if _, ok := use(name); !ok {
			names := make([]string, len(columns))
			for i, col := range columns {
				names[i] = col.name
			}
			errs = append(errs, leat.Hint(fmt.Errorf("table %s has no column %q", t.name, name), "its columns are %s", strings.Join(names, ", ")))
			r.columns, r.selects, r.charsets = append(r.columns, column{}), append(r.selects, "NULL"), append(r.charsets, "")
		}
	}
	for _, k := range rows {
		i, ok := use(k[0])
		if !ok {
			errs = append(errs, fmt.Errorf("the primary key of %s names a column it does not have: %s", t.name, k[0]))
			continue
		}
		r.key = append(r.key, i)
		r.keyNames = append(r.keyNames, quoteName(k[0]))
		r.keyKinds = append(r.keyKinds, r.columns[i])
		switch dataType(columns, k[0]) {
		case "float", "double", "enum", "set", "bit", "json", "time":
			errs = append(errs, leat.Hint(fmt.Errorf("the primary key of %s has column %s of type %s", t.name, k[0], dataType(columns, k[0])),
				"keys of integers, decimals, texts, binaries and dates can be captured"))
		}
	}
	for _, i := range t.roles.body {
		if i < len(r.columns) && r.columns[i].kind == binaryKind {
			errs = append(errs, leat.Hint(fmt.Errorf("body column %s of table %s is binary", t.columns[i], t.name), "a body is text: name a CHAR, VARCHAR, TEXT or JSON column"))
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	r.fingerprint()
	t.read = r
	return nil
}

func dataType(columns []schemaColumn, name string) string {
	for _, c := range columns {
		if strings.EqualFold(c.name, name) {
			return c.dataType
		}
	}
	return ""
}

// columnOf says how a column is read and by which expression.
func columnOf(c schemaColumn) (column, string, error) {
	name := quoteName(c.name)
	is := func(k kind) (column, string, error) { return column{kind: k}, name, nil }
	switch c.dataType {
	case "tinyint", "smallint", "mediumint", "int", "bigint":
		if strings.Contains(c.columnType, "unsigned") {
			return is(unsigned)
		}
		return is(signed)
	case "year", "bit":
		return is(unsigned)
	case "float": // as text, FLOAT shows 6 digits only; its double shows all
		return column{kind: float}, name + "+0E0", nil
	case "double":
		return is(double)
	case "decimal":
		return column{kind: decimal, scale: c.scale}, name, nil
	case "date":
		return is(date)
	case "time":
		return column{kind: clock, scale: c.scale}, name, nil
	case "datetime":
		return column{kind: datetime, scale: c.scale}, name, nil
	case "timestamp":
		return column{kind: timestamp, scale: c.scale}, name, nil
	case "json":
		return is(jsonDocument)
	case "char", "varchar", "tinytext", "text", "mediumtext", "longtext", "enum", "set":
		how, err := textColumn(c.charset)
		return how, name, err
	case "binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob", "vector",
		"geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon", "geomcollection", "geometrycollection":
		return is(binaryKind)
	}
	return column{}, name, fmt.Errorf("type %s is not supported", c.dataType)
}

// quoteText makes a string literal that no sql_mode reads otherwise.
func quoteText(s string) string { return fmt.Sprintf("_utf8mb4 X'%x'", s) }
