package extract

import (
	"bytes"
	"io"
	"unicode/utf8"
)

// maxPiece bounds the text of a block of a line-based format, and with it the
// memory that a text without line ends costs.
const maxPiece = 16 << 10

// Lines cuts a UTF-8 text into its lines. How it cuts depends on the text
// alone, not on how r hands it over.
type Lines struct {
	r    io.Reader
	buf  []byte
	a, z int // buf[a:z] is read and not given
	err  error
	mid  bool // the next piece goes on with a line
}

// NewLines reads lines from r.
func NewLines(r io.Reader) *Lines { return &Lines{r: r, buf: make([]byte, 4*maxPiece)} }

// Next returns a line with its line end, or a piece of a line longer than
// 16 KiB; begins tells whether it is a line's first piece. io.EOF ends it.
func (l *Lines) Next() (line string, begins bool, err error) {
	searched := 0
	for {
		b := l.buf[l.a:l.z]
		n := bytes.IndexByte(b[searched:], '\n')
		switch {
		case n >= 0 && searched+n < maxPiece:
			return l.give(searched+n+1, false)
		case len(b) >= maxPiece:
			n := maxPiece
			for !utf8.RuneStart(b[n-1]) {
				n--
			}
			return l.give(n-1, true) // at least 16 KiB less a rune
		case l.err == nil:
			searched = len(b)
			l.fill()
		case len(b) > 0:
			return l.give(len(b), true)
		default:
			return "", false, l.err
		}
	}
}

func (l *Lines) give(n int, mid bool) (string, bool, error) {
	s, begins := string(l.buf[l.a:l.a+n]), !l.mid
	l.a += n
	l.mid = mid
	return s, begins, nil
}

func (l *Lines) fill() {
	if l.a > 0 && len(l.buf)-l.z < maxPiece {
		l.z = copy(l.buf, l.buf[l.a:l.z])
		l.a = 0
	}
	n, err := l.r.Read(l.buf[l.z:])
	l.z += n
	l.err = err
}

// Peek returns the first bytes of what is still to come, at most 16 KiB.
func (l *Lines) Peek() string {
	for l.z-l.a < maxPiece && l.err == nil {
		l.fill()
	}
	return string(l.buf[l.a:min(l.z, l.a+maxPiece)])
}
