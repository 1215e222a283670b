package mysql

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
	"time"

	gomysql "github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/replication"

	"leat"
)

// Rows of the binlog are decoded here rather than by go-mysql: straight into
// cells, without boxing, the columns that no document needs skipped by their
// length. Format: https://dev.mysql.com/doc/dev/mysql-server/latest/classbinary__log_1_1Rows__event.html

// Column types as table maps and opaque JSON values name them.
const (
	typeTimestamp  = gomysql.MYSQL_TYPE_TIMESTAMP
	typeDate       = gomysql.MYSQL_TYPE_DATE
	typeTime       = gomysql.MYSQL_TYPE_TIME
	typeDatetime   = gomysql.MYSQL_TYPE_DATETIME
	typeNewDecimal = gomysql.MYSQL_TYPE_NEWDECIMAL
)

var errRow = errors.New("malformed row in the binlog")

// mapLayout is how rows are read under one table map: the schema of the rows'
// own time, whatever the table looks like now.
type mapLayout struct {
	layout
	table *table
	steps []step
}

// step reads or skips one column of a row.
type step struct {
	cell     int // -1: no document needs it
	typ      byte
	meta     uint16
	unsigned bool
	pad      int      // of BINARY(n), whose trailing zeros the binlog leaves out
	values   [][]byte // of ENUM and SET, in UTF-8
	column   column
}

// newMapLayout prepares for the rows of a captured table's map.
func newMapLayout(t *table, e *replication.TableMapEvent, charsetOf map[uint64]string) (*mapLayout, error) {
	if len(e.ColumnName) != int(e.ColumnCount) || len(e.PrimaryKey) == 0 && len(e.ColumnName) == 0 {
		return nil, leat.Hint(fmt.Errorf("the binlog has no column names for table %s", t.name),
			"SET GLOBAL binlog_row_metadata=FULL (and in sessions that set it otherwise), then leat reindex --from-source: changes logged before cannot be told apart from a renamed column")
	}
	if len(e.PrimaryKey) == 0 {
		return nil, leat.Hint(fmt.Errorf("table %s has no primary key in the binlog", t.name), "ALTER TABLE %s ADD PRIMARY KEY (…)", t.quoted())
	}
	l := &mapLayout{table: t, steps: make([]step, e.ColumnCount)}
	l.columns = make([]column, len(t.columns))
	unsignedOf, collations, enumCollations := e.UnsignedMap(), e.CollationMap(), e.EnumSetCollationMap()
	enums, sets := e.EnumStrValueMap(), e.SetStrValueMap()
	for i := range l.steps {
		s := &l.steps[i]
		s.cell, s.typ, s.meta, s.unsigned = -1, e.ColumnType[i], e.ColumnMeta[i], unsignedOf[i]
		if s.typ == gomysql.MYSQL_TYPE_STRING && s.meta >= 256 { // ENUM, SET, and lengths past 255
			if b0 := byte(s.meta >> 8); b0&0x30 != 0x30 {
				s.meta = s.meta&0xFF | uint16(b0&0x30^0x30)<<4
			} else {
				s.typ, s.meta = b0, s.meta&0xFF
			}
		}
		for j, name := range t.columns {
			if strings.EqualFold(name, string(e.ColumnName[i])) {
				s.cell = j
			}
		}
	}
	for _, k := range e.PrimaryKey {
		if k >= e.ColumnCount {
			return nil, fmt.Errorf("table map of %s: key column %d: %w", t.name, k, errRow)
		}
		s := &l.steps[k]
		if s.cell < 0 {
			s.cell = len(l.columns)
			l.columns = append(l.columns, column{})
		}
		l.key = append(l.key, s.cell)
	}
	for i := range l.steps {
		s := &l.steps[i]
		if s.cell < 0 {
			continue
		}
		var err error
		switch s.typ {
		case gomysql.MYSQL_TYPE_ENUM:
			s.values, err = utf8Values(enums[i], charsetOf[enumCollations[i]])
		case gomysql.MYSQL_TYPE_SET:
			s.values, err = utf8Values(sets[i], charsetOf[enumCollations[i]])
		}
		if err == nil {
			s.column, err = s.columnOf(charsetOf[collations[i]])
		}
		if err != nil {
			return nil, fmt.Errorf("column %s of table %s: %w", e.ColumnName[i], t.name, err)
		}
		if s.typ == gomysql.MYSQL_TYPE_STRING && s.column.kind == binaryKind {
			s.pad = int(s.meta)
		}
		l.columns[s.cell] = s.column
	}
	l.fingerprint()
	return l, nil
}

func utf8Values(values []string, charset string) ([][]byte, error) {
	how, err := textColumn(charset)
	if err != nil {
		return nil, err
	}
	out := make([][]byte, len(values))
	for i, v := range values {
		out[i] = how.appendUTF8(nil, []byte(v))
	}
	return out, nil
}

func (s *step) columnOf(charset string) (column, error) {
	switch s.typ {
	case gomysql.MYSQL_TYPE_TINY, gomysql.MYSQL_TYPE_SHORT, gomysql.MYSQL_TYPE_INT24, gomysql.MYSQL_TYPE_LONG, gomysql.MYSQL_TYPE_LONGLONG:
		if s.unsigned {
			return column{kind: unsigned}, nil
		}
		return column{kind: signed}, nil
	case gomysql.MYSQL_TYPE_YEAR, gomysql.MYSQL_TYPE_BIT:
		return column{kind: unsigned}, nil
	case gomysql.MYSQL_TYPE_FLOAT:
		return column{kind: float}, nil
	case gomysql.MYSQL_TYPE_DOUBLE:
		return column{kind: double}, nil
	case gomysql.MYSQL_TYPE_NEWDECIMAL:
		return column{kind: decimal, scale: int(s.meta & 0xFF)}, nil
	case gomysql.MYSQL_TYPE_DATE:
		return column{kind: date}, nil
	case gomysql.MYSQL_TYPE_TIME2:
		return column{kind: clock, scale: int(s.meta)}, nil
	case gomysql.MYSQL_TYPE_DATETIME2:
		return column{kind: datetime, scale: int(s.meta)}, nil
	case gomysql.MYSQL_TYPE_TIMESTAMP2:
		return column{kind: timestamp, scale: int(s.meta)}, nil
	case gomysql.MYSQL_TYPE_JSON:
		return column{kind: jsonDocument}, nil
	case gomysql.MYSQL_TYPE_ENUM, gomysql.MYSQL_TYPE_SET:
		return column{kind: text}, nil // its values were decoded already
	case gomysql.MYSQL_TYPE_GEOMETRY, gomysql.MYSQL_TYPE_VECTOR:
		return column{kind: binaryKind}, nil
	case gomysql.MYSQL_TYPE_VARCHAR, gomysql.MYSQL_TYPE_VAR_STRING, gomysql.MYSQL_TYPE_STRING, gomysql.MYSQL_TYPE_BLOB:
		return textColumn(charset)
	case gomysql.MYSQL_TYPE_TIMESTAMP, gomysql.MYSQL_TYPE_DATETIME, gomysql.MYSQL_TYPE_TIME:
		return column{}, leat.Hint(errors.New("it is stored in the format of before MySQL 5.6"), "ALTER TABLE … FORCE rewrites the table in the present one")
	}
	return column{}, fmt.Errorf("binlog type %d is not supported", s.typ)
}

// full reports whether a row image has all columns.
func full(bitmap []byte, columns int) bool {
	n := 0
	for _, b := range bitmap {
		n += bits.OnesCount8(b)
	}
	return n >= columns
}

// decode reads one row image into cells and returns the bytes that follow it.
// Bytes of cells lie in data or in scratch, which is returned grown.
func (l *mapLayout) decode(data []byte, cells []cell, scratch []byte) (rest, grown []byte, err error) {
	defer func() { // a length past the end
		if r := recover(); r != nil {
			err = fmt.Errorf("table %s: %v: %w", l.table.name, r, errRow)
		}
	}()
	for i := range cells {
		cells[i] = cell{null: true}
	}
	nulls := data[:(len(l.steps)+7)/8]
	data = data[len(nulls):]
	for i := range l.steps {
		if nulls[i>>3]&(1<<(i&7)) != 0 {
			continue
		}
		s := &l.steps[i]
		if s.cell < 0 {
			n, err := s.length(data)
			if err != nil {
				return nil, scratch, fmt.Errorf("table %s: %w", l.table.name, err)
			}
			data = data[n:]
			continue
		}
		c := &cells[s.cell]
		c.null = false
		var n int
		if n, scratch, err = s.value(data, c, scratch); err != nil {
			return nil, scratch, fmt.Errorf("table %s: %w", l.table.name, err)
		}
		data = data[n:]
	}
	return data, scratch, nil
}

// prefixed is the length of a value after a little-endian length of width bytes.
func prefixed(data []byte, width int) int {
	switch width {
	case 1:
		return int(data[0])
	case 2:
		return int(binary.LittleEndian.Uint16(data))
	case 3:
		return int(data[0]) | int(data[1])<<8 | int(data[2])<<16
	}
	return int(binary.LittleEndian.Uint32(data))
}

// prefix is the width of the length before a value, or 0.
func (s *step) prefix() int {
	switch s.typ {
	case gomysql.MYSQL_TYPE_VARCHAR, gomysql.MYSQL_TYPE_VAR_STRING, gomysql.MYSQL_TYPE_STRING:
		if s.meta < 256 {
			return 1
		}
		return 2
	case gomysql.MYSQL_TYPE_BLOB, gomysql.MYSQL_TYPE_JSON, gomysql.MYSQL_TYPE_GEOMETRY, gomysql.MYSQL_TYPE_VECTOR:
		return int(s.meta)
	}
	return 0
}

// length of a value in bytes.
func (s *step) length(data []byte) (int, error) {
	if w := s.prefix(); w > 0 {
		return w + prefixed(data, w), nil
	}
	frac := int(s.meta+1) / 2
	switch s.typ {
	case gomysql.MYSQL_TYPE_NULL:
		return 0, nil
	case gomysql.MYSQL_TYPE_TINY, gomysql.MYSQL_TYPE_YEAR:
		return 1, nil
	case gomysql.MYSQL_TYPE_SHORT:
		return 2, nil
	case gomysql.MYSQL_TYPE_INT24, gomysql.MYSQL_TYPE_DATE, gomysql.MYSQL_TYPE_NEWDATE, gomysql.MYSQL_TYPE_TIME:
		return 3, nil
	case gomysql.MYSQL_TYPE_LONG, gomysql.MYSQL_TYPE_FLOAT, gomysql.MYSQL_TYPE_TIMESTAMP:
		return 4, nil
	case gomysql.MYSQL_TYPE_LONGLONG, gomysql.MYSQL_TYPE_DOUBLE, gomysql.MYSQL_TYPE_DATETIME:
		return 8, nil
	case gomysql.MYSQL_TYPE_TIME2:
		return 3 + frac, nil
	case gomysql.MYSQL_TYPE_TIMESTAMP2:
		return 4 + frac, nil
	case gomysql.MYSQL_TYPE_DATETIME2:
		return 5 + frac, nil
	case gomysql.MYSQL_TYPE_BIT:
		return (int(s.meta>>8)*8 + int(s.meta&0xFF) + 7) / 8, nil
	case gomysql.MYSQL_TYPE_ENUM, gomysql.MYSQL_TYPE_SET:
		return int(s.meta & 0xFF), nil
	case gomysql.MYSQL_TYPE_NEWDECIMAL:
		return decimalSize(int(s.meta>>8), int(s.meta&0xFF)), nil
	}
	return 0, fmt.Errorf("binlog type %d is not supported", s.typ)
}

// value reads a value that is not NULL and returns its length in bytes.
func (s *step) value(data []byte, c *cell, scratch []byte) (int, []byte, error) {
	n, err := s.length(data)
	if err != nil {
		return 0, scratch, err
	}
	v := data[:n]
	from := len(scratch)
	switch s.typ {
	case gomysql.MYSQL_TYPE_VARCHAR, gomysql.MYSQL_TYPE_VAR_STRING, gomysql.MYSQL_TYPE_STRING,
		gomysql.MYSQL_TYPE_BLOB, gomysql.MYSQL_TYPE_GEOMETRY, gomysql.MYSQL_TYPE_VECTOR:
		c.b = v[s.prefix():]
		if len(c.b) < s.pad {
			scratch = append(scratch, c.b...)
			scratch = append(scratch, make([]byte, s.pad-len(c.b))...)
			c.b = scratch[from:]
		}
	case gomysql.MYSQL_TYPE_TINY:
		if c.n = uint64(v[0]); !s.unsigned {
			c.n = uint64(int8(v[0]))
		}
	case gomysql.MYSQL_TYPE_SHORT:
		u := binary.LittleEndian.Uint16(v)
		if c.n = uint64(u); !s.unsigned {
			c.n = uint64(int16(u))
		}
	case gomysql.MYSQL_TYPE_INT24:
		u := uint32(v[0]) | uint32(v[1])<<8 | uint32(v[2])<<16
		if c.n = uint64(u); !s.unsigned {
			c.n = uint64(int32(u<<8) >> 8)
		}
	case gomysql.MYSQL_TYPE_LONG:
		u := binary.LittleEndian.Uint32(v)
		if c.n = uint64(u); !s.unsigned {
			c.n = uint64(int32(u))
		}
	case gomysql.MYSQL_TYPE_LONGLONG:
		c.n = binary.LittleEndian.Uint64(v)
	case gomysql.MYSQL_TYPE_YEAR:
		if v[0] != 0 {
			c.n = 1900 + uint64(v[0])
		}
	case gomysql.MYSQL_TYPE_FLOAT:
		c.n = math.Float64bits(float64(math.Float32frombits(binary.LittleEndian.Uint32(v))))
	case gomysql.MYSQL_TYPE_DOUBLE:
		c.n = binary.LittleEndian.Uint64(v)
	case gomysql.MYSQL_TYPE_BIT:
		c.n = bigEndian(v)
	case gomysql.MYSQL_TYPE_NEWDECIMAL:
		if scratch, _, err = appendDecimal(scratch, v, int(s.meta>>8), int(s.meta&0xFF)); err != nil {
			return 0, scratch, err
		}
		c.b = scratch[from:]
	case gomysql.MYSQL_TYPE_DATE:
		d := prefixed(v, 3)
		scratch = appendDate(scratch, d>>9, d>>5&15, d&31)
		c.b = scratch[from:]
	case gomysql.MYSQL_TYPE_TIMESTAMP2:
		scratch = appendTimestamp(scratch, v, int(s.meta))
		c.b = scratch[from:]
	case gomysql.MYSQL_TYPE_DATETIME2:
		packed := int64(bigEndian(v[:5])-0x8000000000)<<24 + int64(fraction(v[5:], int(s.meta)))
		scratch = appendPackedDatetime(scratch, packed, int(s.meta))
		c.b = scratch[from:]
	case gomysql.MYSQL_TYPE_TIME2:
		scratch = appendPackedTime(scratch, packedTime(v, int(s.meta)), int(s.meta))
		c.b = scratch[from:]
	case gomysql.MYSQL_TYPE_ENUM:
		// 0 is the empty string that stands for an invalid value
		if i := prefixed(v, n); i > 0 {
			c.b = s.values[i-1]
		}
	case gomysql.MYSQL_TYPE_SET:
		for i, set := 0, littleEndian(v); set != 0; i, set = i+1, set>>1 {
			if set&1 != 0 {
				if len(scratch) > from {
					scratch = append(scratch, ',')
				}
				scratch = append(scratch, s.values[i]...)
			}
		}
		c.b = scratch[from:]
	case gomysql.MYSQL_TYPE_JSON:
		if scratch, err = appendJSONB(scratch, v[s.meta:]); err != nil {
			return 0, scratch, err
		}
		c.b = scratch[from:]
	}
	return n, scratch, nil
}

func bigEndian(b []byte) (n uint64) {
	for _, c := range b {
		n = n<<8 | uint64(c)
	}
	return n
}

func littleEndian(b []byte) (n uint64) {
	for i := len(b) - 1; i >= 0; i-- {
		n = n<<8 | uint64(b[i])
	}
	return n
}

// fraction of a second in microseconds, stored big-endian in as many bytes as
// its digits need.
func fraction(b []byte, digits int) uint64 {
	f := bigEndian(b[:(digits+1)/2])
	switch (digits + 1) / 2 {
	case 1:
		return f * 10000
	case 2:
		return f * 100
	}
	return f
}

func appendDigits(dst []byte, n, width int) []byte {
	for div := pow10[width-1]; div > 0; div /= 10 {
		dst = append(dst, byte('0'+n/div%10))
	}
	return dst
}

var pow10 = [...]int{1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000, 1000000000}

func appendDate(dst []byte, year, month, day int) []byte {
	dst = append(appendDigits(dst, year, 4), '-')
	dst = append(appendDigits(dst, month, 2), '-')
	return appendDigits(dst, day, 2)
}

func appendClock(dst []byte, hour, minute, second, micro, digits int) []byte {
	if hour > 99 {
		dst = strconv.AppendInt(dst, int64(hour), 10)
	} else {
		dst = appendDigits(dst, hour, 2)
	}
	dst = appendDigits(append(dst, ':'), minute, 2)
	dst = appendDigits(append(dst, ':'), second, 2)
	if digits > 0 {
		dst = appendDigits(append(dst, '.'), micro/pow10[6-digits], digits)
	}
	return dst
}

func appendTimestamp(dst, v []byte, digits int) []byte {
	seconds, micro := bigEndian(v[:4]), fraction(v[4:], digits)
	if seconds == 0 {
		return append(dst, "0000-00-00 00:00:00"...)
	}
	t := time.Unix(int64(seconds), 0).UTC()
	dst = append(appendDate(dst, t.Year(), int(t.Month()), t.Day()), ' ')
	return appendClock(dst, t.Hour(), t.Minute(), t.Second(), int(micro), digits)
}

// appendPackedDatetime: (year*13+month)<<22 | day<<17 | hour<<12 | minute<<6 |
// second, then 24 bits of microseconds.
func appendPackedDatetime(dst []byte, packed int64, digits int) []byte {
	micro, ymdhms := packed&(1<<24-1), packed>>24
	ym, hms := ymdhms>>22, int(ymdhms&(1<<17-1))
	dst = append(appendDate(dst, int(ym/13), int(ym%13), int(ymdhms>>17&31)), ' ')
	return appendClock(dst, hms>>12, hms>>6&63, hms&63, int(micro), digits)
}

// packedTime widens a stored TIME to its value with 24 bits of microseconds.
// Negative ones are stored so that bytes compare as values do.
func packedTime(v []byte, digits int) int64 {
	width := (digits + 1) / 2
	stored := int64(bigEndian(v[:3+width])) - 1<<(23+8*width)
	scale := int64(1)
	switch width {
	case 1:
		scale = 10000
	case 2:
		scale = 100
	}
	sign := int64(1)
	if stored < 0 {
		sign, stored = -1, -stored
	}
	return sign * (stored>>(8*width)<<24 + stored&(1<<(8*width)-1)*scale)
}

func appendPackedTime(dst []byte, packed int64, digits int) []byte {
	if packed < 0 {
		dst, packed = append(dst, '-'), -packed
	}
	hms := int(packed >> 24)
	return appendClock(dst, hms>>12&1023, hms>>6&63, hms&63, int(packed&(1<<24-1)), digits)
}

// decimalBytes holds how many bytes a group of 0 to 9 digits takes.
var decimalBytes = [...]int{0, 1, 1, 2, 2, 3, 3, 4, 4, 4}

func decimalSize(precision, scale int) int {
	whole := precision - scale
	return whole/9*4 + decimalBytes[whole%9] + scale/9*4 + decimalBytes[scale%9]
}

// appendDecimal appends a packed decimal's digits and returns its size: groups
// of nine digits in four bytes, big-endian, the first and last group shorter,
// the first bit inverted, all bits inverted if negative.
func appendDecimal(dst, data []byte, precision, scale int) ([]byte, int, error) {
	if precision < scale || precision > 81 {
		return dst, 0, errRow
	}
	size := decimalSize(precision, scale)
	if len(data) < size || size == 0 {
		return dst, 0, errRow
	}
	var mask byte
	if data[0]&0x80 == 0 {
		mask = 0xFF
		dst = append(dst, '-')
	}
	at := 0
	group := func(digits int) int {
		n := 0
		for range decimalBytes[digits] {
			b := data[at] ^ mask
			if at == 0 {
				b ^= 0x80
			}
			n = n<<8 | int(b)
			at++
		}
		return n
	}
	whole, start := precision-scale, len(dst)
	for digits := whole % 9; whole > 0; whole, digits = whole-digits, 9 {
		if digits == 0 {
			digits = 9
		}
		if n := group(digits); len(dst) > start {
			dst = appendDigits(dst, n, digits)
		} else if n > 0 {
			dst = strconv.AppendInt(dst, int64(n), 10)
		}
	}
	if len(dst) == start {
		dst = append(dst, '0')
	}
	if scale > 0 {
		dst = append(dst, '.')
	}
	for scale > 0 {
		digits := min(scale, 9)
		dst = appendDigits(dst, group(digits), digits)
		scale -= digits
	}
	return dst, size, nil
}
