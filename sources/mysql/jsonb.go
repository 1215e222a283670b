package mysql

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"

	"leat"
)

// JSON columns reach us in two forms: as text from SELECT and, of MySQL, in the
// server's binary format from the binlog
// (https://dev.mysql.com/doc/dev/mysql-server/latest/json__binary_8h.html).
// Both become the same compact text: members in the order they come (the
// server sorts them), numbers with a fraction or an exponent as the shortest
// form that reads back as the same double, integers as they stand.

// Types of values in the binary format.
const (
	jsonSmallObject = iota
	jsonLargeObject
	jsonSmallArray
	jsonLargeArray
	jsonLiteral
	jsonInt16
	jsonUint16
	jsonInt32
	jsonUint32
	jsonInt64
	jsonUint64
	jsonDouble
	jsonString
	jsonOpaque = 15
)

// maxJSONDepth is above the 100 levels that MySQL allows.
const maxJSONDepth = 128

var errJSONB = fmt.Errorf("binary JSON: %w", leat.ErrMalformed)

// appendJSONB appends the compact text of a document in the binary format.
func appendJSONB(dst, data []byte) ([]byte, error) {
	if len(data) == 0 { // what INSERT IGNORE leaves for NULL in a NOT NULL column
		return append(dst, "null"...), nil
	}
	return appendJSONBValue(dst, data[0], data[1:], 0)
}

func appendJSONBValue(dst []byte, typ byte, data []byte, depth int) ([]byte, error) {
	need := func(n int) bool { return len(data) >= n }
	if depth > maxJSONDepth {
		return nil, errJSONB
	}
	switch typ {
	case jsonSmallObject, jsonLargeObject, jsonSmallArray, jsonLargeArray:
		return appendJSONBContainer(dst, typ, data, depth)
	case jsonLiteral:
		if !need(1) || data[0] > 2 {
			return nil, errJSONB
		}
		return append(dst, [...]string{"null", "true", "false"}[data[0]]...), nil
	case jsonInt16, jsonUint16:
		if !need(2) {
			return nil, errJSONB
		}
		v := binary.LittleEndian.Uint16(data)
		if typ == jsonInt16 {
			return strconv.AppendInt(dst, int64(int16(v)), 10), nil
		}
		return strconv.AppendUint(dst, uint64(v), 10), nil
	case jsonInt32, jsonUint32:
		if !need(4) {
			return nil, errJSONB
		}
		v := binary.LittleEndian.Uint32(data)
		if typ == jsonInt32 {
			return strconv.AppendInt(dst, int64(int32(v)), 10), nil
		}
		return strconv.AppendUint(dst, uint64(v), 10), nil
	case jsonInt64, jsonUint64, jsonDouble:
		if !need(8) {
			return nil, errJSONB
		}
		v := binary.LittleEndian.Uint64(data)
		switch typ {
		case jsonInt64:
			return strconv.AppendInt(dst, int64(v), 10), nil
		case jsonUint64:
			return strconv.AppendUint(dst, v, 10), nil
		}
		f := math.Float64frombits(v)
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return nil, errJSONB
		}
		return appendJSONDouble(dst, f), nil
	case jsonString:
		s, err := jsonBytes(data)
		if err != nil {
			return nil, err
		}
		return appendJSONString(dst, s), nil
	case jsonOpaque:
		if !need(1) {
			return nil, errJSONB
		}
		s, err := jsonBytes(data[1:])
		if err != nil {
			return nil, err
		}
		return appendOpaque(dst, data[0], s)
	}
	return nil, errJSONB
}

// appendJSONBContainer: count and size, the keys' offsets and lengths, the
// values' types and offsets (or, of short values, the values), then the bytes.
func appendJSONBContainer(dst []byte, typ byte, data []byte, depth int) ([]byte, error) {
	width := 2
	if typ == jsonLargeObject || typ == jsonLargeArray {
		width = 4
	}
	object := typ == jsonSmallObject || typ == jsonLargeObject
	number := func(at int) int {
		if width == 2 {
			return int(binary.LittleEndian.Uint16(data[at:]))
		}
		return int(binary.LittleEndian.Uint32(data[at:]))
	}
	if len(data) < 2*width {
		return nil, errJSONB
	}
	count, size := number(0), number(width)
	if size > len(data) {
		return nil, errJSONB
	}
	data = data[:size]
	keys, values := 2*width, 2*width
	if object {
		values += count * (width + 2)
	}
	if values+count*(1+width) > len(data) {
		return nil, errJSONB
	}
	opening, closing := byte('['), byte(']')
	if object {
		opening, closing = '{', '}'
	}
	dst = append(dst, opening)
	for i := range count {
		if i > 0 {
			dst = append(dst, ',')
		}
		if object {
			at := keys + i*(width+2)
			from, n := number(at), int(binary.LittleEndian.Uint16(data[at+width:]))
			if from+n > len(data) {
				return nil, errJSONB
			}
			dst = append(appendJSONString(dst, data[from:from+n]), ':')
		}
		at := values + i*(1+width)
		vt, v := data[at], data[at+1:at+1+width]
		inline := vt == jsonLiteral || vt == jsonInt16 || vt == jsonUint16 ||
			width == 4 && (vt == jsonInt32 || vt == jsonUint32)
		if !inline {
			from := number(at + 1)
			if from > len(data) {
				return nil, errJSONB
			}
			v = data[from:]
		}
		var err error
		if dst, err = appendJSONBValue(dst, vt, v, depth+1); err != nil {
			return nil, err
		}
	}
	return append(dst, closing), nil
}

// jsonBytes reads a length, seven bits a byte, and that many bytes.
func jsonBytes(data []byte) ([]byte, error) {
	n, width := binary.Uvarint(data)
	if width <= 0 || n > uint64(len(data)-width) {
		return nil, errJSONB
	}
	return data[width : width+int(n)], nil
}

// appendOpaque writes a value of an SQL type inside JSON as the server does.
func appendOpaque(dst []byte, typ byte, data []byte) ([]byte, error) {
	switch typ {
	case typeNewDecimal:
		if len(data) < 2 {
			return nil, errJSONB
		}
		digits, _, err := appendDecimal(nil, data[2:], int(data[0]), int(data[1]))
		if err != nil {
			return nil, err
		}
		return appendJSONNumber(dst, string(digits))
	case typeDate, typeDatetime, typeTimestamp, typeTime:
		if len(data) < 8 {
			return nil, errJSONB
		}
		packed := int64(binary.LittleEndian.Uint64(data))
		dst = append(dst, '"')
		switch typ {
		case typeTime:
			dst = appendPackedTime(dst, packed, 6)
		case typeDate:
			dst = appendPackedDatetime(dst, packed, 0)[:len(dst)+10]
		default:
			dst = appendPackedDatetime(dst, packed, 6)
		}
		return append(dst, '"'), nil
	}
	dst = append(dst, `"base64:type`...)
	dst = append(strconv.AppendUint(dst, uint64(typ), 10), ':')
	return append(base64.StdEncoding.AppendEncode(dst, data), '"'), nil
}

// appendJSON appends the compact form of JSON text.
func appendJSON(dst, text []byte) ([]byte, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	type level struct {
		object bool
		n      int // tokens so far: of an object keys and values
	}
	var levels []level
	for {
		token, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("JSON: %w: %w", err, leat.ErrMalformed)
		}
		if end, ok := token.(json.Delim); ok && (end == ']' || end == '}') {
			dst = append(dst, byte(end))
			levels = levels[:len(levels)-1]
		} else {
			if n := len(levels); n > 0 {
				switch at := &levels[n-1]; {
				case at.object && at.n%2 == 1:
					dst = append(dst, ':')
				case at.n > 0:
					dst = append(dst, ',')
				}
				levels[n-1].n++
			}
			switch v := token.(type) {
			case json.Delim:
				dst = append(dst, byte(v))
				levels = append(levels, level{object: v == '{'})
			case string:
				dst = appendJSONString(dst, []byte(v))
			case json.Number:
				if dst, err = appendJSONNumber(dst, string(v)); err != nil {
					return nil, err
				}
			case bool:
				dst = strconv.AppendBool(dst, v)
			case nil:
				dst = append(dst, "null"...)
			}
		}
		if len(levels) == 0 {
			return dst, nil
		}
	}
}

func appendJSONNumber(dst []byte, s string) ([]byte, error) {
	for i := range len(s) {
		if c := s[i]; c == '.' || c == 'e' || c == 'E' {
			f, err := strconv.ParseFloat(s, 64)
			if err != nil {
				return nil, fmt.Errorf("JSON number %s: %w", s, leat.ErrMalformed)
			}
			return appendJSONDouble(dst, f), nil
		}
	}
	return append(dst, s...), nil
}

func appendJSONDouble(dst []byte, f float64) []byte {
	if f == math.Trunc(f) && math.Abs(f) < 1e15 {
		return strconv.AppendFloat(dst, f, 'f', 1, 64)
	}
	return strconv.AppendFloat(dst, f, 'g', -1, 64)
}

func appendJSONString(dst, s []byte) []byte {
	const digits = "0123456789abcdef"
	dst = append(dst, '"')
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < 0x20:
			dst = append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		case c >= utf8.RuneSelf:
			r, n := utf8.DecodeRune(s[i:])
			dst = utf8.AppendRune(dst, r) // U+FFFD where the bytes are no UTF-8
			i += n
			continue
		default:
			dst = append(dst, c)
		}
		i++
	}
	return append(dst, '"')
}
