package mysql

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strconv"
	"strings"

	"golang.org/x/text/encoding"
)

// kind is how a column's values look in a cell and in a document. Both readers,
// of binlog rows and of SELECT, fill the same cells: whatever a value becomes
// is decided here only, and so is the same from either.
type kind uint8

const (
	absent       kind = iota // the row's table had no such column
	signed                   // n is an int64
	unsigned                 // n: also of BIT and YEAR
	float                    // n is a float64 that came from a float32
	double                   // n is a float64
	decimal                  // b is decimal digits
	text                     // b in the column's charset: also of ENUM and SET
	binaryKind               // b
	date                     // b is YYYY-MM-DD
	clock                    // b is [-]HHH:MM:SS[.ffffff]
	datetime                 // b is YYYY-MM-DD HH:MM:SS[.ffffff]
	timestamp                // the same, in UTC
	jsonDocument             // b is compact JSON, as appendJSON or appendJSONB writes it
)

// cell is one value of a row. Its bytes belong to the reader and are valid
// until the next row only.
type cell struct {
	null bool
	n    uint64
	b    []byte
}

// column is how one column's values are read.
type column struct {
	kind    kind
	scale   int               // digits after the point, of decimals and fractions of seconds
	charset encoding.Encoding // of text; nil: UTF-8 already
}

// appendText appends what a title, a body or a key shows of a value: nothing
// for NULL, hexadecimal digits for binary.
func (c column) appendText(dst []byte, v cell) []byte {
	if v.null {
		return dst
	}
	switch c.kind {
	case signed:
		return strconv.AppendInt(dst, int64(v.n), 10)
	case unsigned:
		return strconv.AppendUint(dst, v.n, 10)
	case float:
		return strconv.AppendFloat(dst, floatOf(v.n), 'g', -1, 32)
	case double:
		return strconv.AppendFloat(dst, floatOf(v.n), 'g', -1, 64)
	case text:
		return c.appendUTF8(dst, v.b)
	case binaryKind:
		return hex.AppendEncode(dst, v.b)
	case datetime, timestamp:
		if zeroDate(v.b) {
			return dst
		}
		i := len(dst)
		dst = append(dst, v.b...)
		if len(v.b) > 10 {
			dst[i+10] = 'T'
		}
		if c.kind == timestamp {
			dst = append(dst, 'Z')
		}
		return dst
	case date:
		if zeroDate(v.b) {
			return dst
		}
	}
	return append(dst, v.b...)
}

func (c column) appendUTF8(dst, b []byte) []byte {
	if c.charset == nil || len(b) == 0 {
		return append(dst, b...)
	}
	utf8, err := c.charset.NewDecoder().Bytes(b)
	if err != nil { // charset decoders replace what they cannot read
		return append(dst, strings.ToValidUTF8(string(b), "\uFFFD")...)
	}
	return append(dst, utf8...)
}

// value is what a document's metadata holds: nil, int64, uint64, float64,
// json.Number, string or json.RawMessage.
func (c column) value(v cell, scratch []byte) any {
	if v.null {
		return nil
	}
	switch c.kind {
	case absent:
		return nil
	case signed:
		return int64(v.n)
	case unsigned:
		return v.n
	case float: // its shortest decimal form, rather than the double's 17 digits
		return json.Number(c.appendText(scratch[:0], v))
	case double:
		return floatOf(v.n)
	case binaryKind:
		return base64.StdEncoding.EncodeToString(v.b)
	case jsonDocument:
		return json.RawMessage(append([]byte(nil), v.b...))
	case date, datetime, timestamp:
		if zeroDate(v.b) {
			return nil
		}
	}
	return string(c.appendText(scratch[:0], v))
}

// zeroDate reports MySQL's 0000-00-00, which stands for "no date".
func zeroDate(b []byte) bool {
	return strings.HasPrefix(string(b), "0000-00-00")
}
