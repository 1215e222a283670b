package mysql

import (
	"context"
	"encoding/hex"
	"fmt"
	"math"
	"net/url"
	"strconv"
	"strings"

	gomysql "github.com/go-mysql-org/go-mysql/mysql"
)

// selectRows reads rows of a table into cells, which are valid during the call
// of each only.
func (c *conn) selectRows(ctx context.Context, t *table, r *readLayout, where string, each func([]cell) error) (int, error) {
	defer c.until(ctx)()
	query := "SELECT " + strings.Join(r.selects, ",") + " FROM " + t.quoted() + " " + where
	cells := make([]cell, len(r.columns))
	var scratch []byte
	n := 0
	var result gomysql.Result
	err := c.ExecuteSelectStreaming(query, &result, func(row []gomysql.FieldValue) error {
		n++
		scratch = scratch[:0]
		for i := range row {
			var err error
			if scratch, err = cells[i].set(r.columns[i].kind, &row[i], scratch); err != nil {
				return fmt.Errorf("table %s, column %s: %w", t.name, r.selects[i], err)
			}
		}
		return each(cells)
	}, nil)
	if err != nil {
		return n, fmt.Errorf("reading table %s: %w", t.name, causeOf(ctx, err))
	}
	return n, nil
}

// set takes a value of the text protocol.
func (c *cell) set(k kind, v *gomysql.FieldValue, scratch []byte) ([]byte, error) {
	*c = cell{}
	switch v.Type {
	case gomysql.FieldValueTypeNull:
		c.null = true
		return scratch, nil
	case gomysql.FieldValueTypeUnsigned, gomysql.FieldValueTypeSigned:
		c.n = v.AsUint64()
		return scratch, nil
	case gomysql.FieldValueTypeFloat:
		c.n = math.Float64bits(v.AsFloat64())
		return scratch, nil
	}
	b := v.AsString()
	switch k {
	case unsigned: // BIT
		c.n = bigEndian(b)
	case decimal: // ZEROFILL pads with zeros, which the binlog does not know
		for len(b) > 1 && b[0] == '0' && b[1] != '.' {
			b = b[1:]
		}
		c.b = b
	case jsonDocument:
		from := len(scratch)
		var err error
		if scratch, err = appendJSON(scratch, b); err != nil {
			return scratch, err
		}
		c.b = scratch[from:]
	default:
		c.b = b
	}
	return scratch, nil
}

// selectByID reads the rows of documents of a table, as far as there are any.
func (c *conn) selectByID(ctx context.Context, t *table, ids []string, each func([]cell) error) error {
	var keys [][]string
	for _, id := range ids {
		if key, ok := t.parseKey(strings.TrimPrefix(id, t.idPrefix)); ok {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	_, err := c.selectRows(ctx, t, t.read, "WHERE "+keyEquals(t.read, keys), each)
	return err
}

// keyEquals is the condition of rows with one of the keys, given as literals.
func keyEquals(r *readLayout, keys [][]string) string {
	tuples := make([]string, len(keys))
	for i, k := range keys {
		tuples[i] = "(" + strings.Join(k, ",") + ")"
	}
	return "(" + strings.Join(r.keyNames, ",") + ") IN (" + strings.Join(tuples, ",") + ")"
}

// keyAfter is the condition of rows past a key, written out so that the
// primary key's index serves it: a >= 1 AND (a > 1 OR (a = 1 AND b > 2)).
func keyAfter(r *readLayout, key []string) string {
	cond := ""
	for i := len(key) - 1; i >= 0; i-- {
		greater := r.keyNames[i] + ">" + key[i]
		if cond == "" {
			cond = greater
		} else {
			cond = "(" + greater + " OR (" + r.keyNames[i] + "=" + key[i] + " AND " + cond + "))"
		}
	}
	if len(key) > 1 {
		cond = r.keyNames[0] + ">=" + key[0] + " AND " + cond
	}
	return cond
}

// parseKey turns the key parts of a document's id back into SQL literals; ok
// is false where they are no key of the present table.
func (t *table) parseKey(escaped string) (key []string, ok bool) {
	if t.read == nil {
		return nil, false
	}
	parts := strings.Split(escaped, "/")
	if len(parts) != len(t.read.key) {
		return nil, false
	}
	for i, p := range parts {
		v, err := url.PathUnescape(p)
		if err != nil {
			return nil, false
		}
		switch k := t.read.keyKinds[i].kind; k {
		case signed, unsigned:
			if _, err := strconv.ParseInt(v, 10, 64); err != nil {
				if _, err := strconv.ParseUint(v, 10, 64); err != nil {
					return nil, false
				}
			}
		case decimal:
			if _, err := strconv.ParseFloat(v, 64); err != nil || strings.Trim(v, "-.0123456789") != "" {
				return nil, false
			}
		case binaryKind:
			if _, err := hex.DecodeString(v); err != nil {
				return nil, false
			}
			v = "X'" + v + "'"
		case text:
			v = quoteText(v)
		default: // dates
			v = quoteText(strings.TrimSuffix(strings.Replace(v, "T", " ", 1), "Z"))
		}
		key = append(key, v)
	}
	return key, true
}
