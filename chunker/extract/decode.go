package extract

import (
	"bytes"
	"fmt"
	"io"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/encoding/unicode/utf32"

	"leat"
)

// boms in an order that tells UTF-32LE from UTF-16LE.
var boms = []struct {
	mark []byte
	name string
	enc  encoding.Encoding // nil: UTF-8
}{
	{[]byte{0xEF, 0xBB, 0xBF}, "utf-8", nil},
	{[]byte{0xFF, 0xFE, 0, 0}, "utf-32le", utf32.UTF32(utf32.LittleEndian, utf32.IgnoreBOM)},
	{[]byte{0, 0, 0xFE, 0xFF}, "utf-32be", utf32.UTF32(utf32.BigEndian, utf32.IgnoreBOM)},
	{[]byte{0xFF, 0xFE}, "utf-16le", unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM)},
	{[]byte{0xFE, 0xFF}, "utf-16be", unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM)},
}

// Decode returns r's text in UTF-8 without a byte order mark. A mark decides
// the charset, then the argument (a WHATWG label such as "gb18030"; "" means
// UTF-8). Nothing is guessed and nothing replaced: bytes that are not of the
// charset fail the reader with leat.ErrMalformed, a NUL with leat.ErrUnsupported.
// The reader holds 64 KiB.
func Decode(r io.Reader, charset string) (io.Reader, error) {
	head := make([]byte, 4)
	n, err := io.ReadFull(r, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return nil, err
	}
	head = head[:n]
	for _, b := range boms {
		if bytes.HasPrefix(head, b.mark) {
			rest := io.MultiReader(bytes.NewReader(head[len(b.mark):]), r)
			if b.enc == nil {
				return &validator{r: rest, charset: b.name, skipped: int64(len(b.mark))}, nil
			}
			return &validator{r: b.enc.NewDecoder().Reader(rest), charset: b.name, decoded: true}, nil
		}
	}
	r = io.MultiReader(bytes.NewReader(head), r)
	if charset == "" {
		return &validator{r: r, charset: "utf-8"}, nil
	}
	enc, err := htmlindex.Get(charset)
	if err != nil {
		return nil, leat.Hint(fmt.Errorf("charset %q: %w", charset, leat.ErrMalformed),
			"name a charset that browsers know, such as utf-8, gb18030, big5 or shift_jis")
	}
	name, _ := htmlindex.Name(enc)
	if name == "utf-8" {
		return &validator{r: r, charset: name}, nil
	}
	return &validator{r: enc.NewDecoder().Reader(r), charset: name, decoded: true}, nil
}

// validator passes UTF-8 through and stops at the first byte that is not.
type validator struct {
	r       io.Reader
	charset string
	skipped int64 // bytes of the byte order mark
	decoded bool  // r comes out of a decoder, which writes U+FFFD for bytes it does not know
	buf     [32 << 10]byte
	ready   []byte // of buf: checked, not yet given
	tail    []byte // an incomplete rune at the end of what was read
	off     int64  // of the first byte after ready
	err     error
}

func (v *validator) Read(p []byte) (int, error) {
	for len(v.ready) == 0 {
		if v.err != nil {
			return 0, v.err
		}
		v.fill()
	}
	n := copy(p, v.ready)
	v.ready = v.ready[n:]
	return n, nil
}

func (v *validator) fill() {
	n := copy(v.buf[:], v.tail)
	m, err := v.r.Read(v.buf[n:])
	b := v.buf[:n+m]
	v.err = err
	good, bad := valid(b, err != nil, v.decoded)
	v.ready, v.tail = b[:good], nil
	v.off += int64(good)
	switch {
	case bad && b[good] == 0:
		v.err = leat.Hint(fmt.Errorf("a NUL byte at offset %d of a text: %w", v.off+v.skipped, leat.ErrUnsupported),
			"this is a binary file, or UTF-16 without a byte order mark: convert it to UTF-8 (iconv -f utf-16le -t utf-8) or leave it out")
	case bad && v.decoded:
		v.err = leat.Hint(fmt.Errorf("not %s at offset %d of its text: %w", v.charset, v.off, leat.ErrMalformed),
			"the charset is stated wrongly or the file is damaged: convert it to UTF-8 (iconv -f CHARSET -t utf-8)")
	case bad:
		v.err = leat.Hint(fmt.Errorf("byte 0x%02X at offset %d is not UTF-8: %w", b[good], v.off+v.skipped, leat.ErrMalformed),
			"convert the file to UTF-8 (such as iconv -f gb18030 -t utf-8), or state its charset in the media type (text/plain; charset=gb18030)")
	case err == nil:
		v.tail = b[good:] // copied to the front before buf is read into again
	}
}

// valid returns how many bytes of b are good; bad: the next one is not. What
// may be the beginning of a rune is neither, unless b is the end.
func valid(b []byte, end, decoded bool) (good int, bad bool) {
	if n := len(b); !end { // leave out an incomplete last rune
		for i := n - 1; i >= 0 && i >= n-utf8.UTFMax; i-- {
			if utf8.RuneStart(b[i]) {
				if !utf8.FullRune(b[i:]) {
					b = b[:i]
				}
				break
			}
		}
	}
	if utf8.Valid(b) && bytes.IndexByte(b, 0) < 0 && !(decoded && bytes.Contains(b, replacement)) {
		return len(b), false
	}
	for good < len(b) {
		r, n := utf8.DecodeRune(b[good:])
		if r == 0 || r == utf8.RuneError && (n == 1 || decoded) {
			return good, true
		}
		good += n
	}
	return good, false
}

var replacement = []byte(string(utf8.RuneError))
