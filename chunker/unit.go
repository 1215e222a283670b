package chunker

import (
	"bytes"
	"hash/fnv"
	"unicode"
	"unicode/utf8"

	"github.com/clipperhouse/uax29/v2/graphemes"

	"leat"
	"leat/chunker/extract"
)

const (
	maxPending  = 16 << 10 // bytes of an element that wait for their sentence's end
	maxSentence = 4 << 10  // bytes; a longer one is divided before its end is known
	maxBlank    = 512      // bytes of white space inside a chunk; more ends it
	maxHeading  = 200      // bytes of a heading in a path
)

// unit is what a chunk is made of: a sentence, a row, or a piece of an overlong
// one.
type unit struct {
	start, end int64 // of its text without white space around it, in the extracted text
	tokens     int
	before     gap
	level      int    // of the heading that it begins, 0: none
	title      bool   // it is (a part of) a heading: what follows belongs to it
	forced     bool   // a chunk must begin here
	code       bool   // the gap before it is inside an element that is better kept whole
	hash       uint32 // of the text around the gap before it
	heading    []string
	page       int
}

// units divides blocks into units. It holds the text from base on.
type units struct {
	tok     leat.Tokenizer
	largest int // tokens of a unit

	text []byte // the extracted text from base on
	base int64

	pending int // in text: where what is not yet a unit begins
	kind    extract.Kind
	begins  bool // no unit of the element was made yet
	block   extract.Block
	path    []string
	levels  []int
	next    gap // before the next unit

	out  []unit
	tail [hashed]byte // the last bytes of the unit before
}

const hashed = 24

// add takes the next block.
func (u *units) add(b extract.Block) {
	blank := len(bytes.TrimSpace([]byte(b.Text))) == 0
	if !blank && (!b.Continued || b.Kind != u.kind) {
		u.flush(true)
		u.element(b)
	}
	u.text = append(u.text, b.Text...)
	if len(u.text)-u.pending > maxPending {
		u.flush(false)
	}
}

// element begins a new one.
func (u *units) element(b extract.Block) {
	before := gapParagraph
	switch {
	case b.Kind == extract.Heading && !b.Continued:
		before = gapSection
		n := len(u.levels)
		for n > 0 && u.levels[n-1] >= b.Level {
			n--
		}
		u.levels = append(u.levels[:n:n], b.Level)
		u.path = append(u.path[:n:n], clip(b.Title, maxHeading))
	case b.Continued:
		before = gapLine
	case b.Kind == extract.List && u.kind == extract.List:
		before = gapLine
	}
	if b.Page != u.block.Page {
		before = max(before, gapLine)
	}
	u.kind, u.block, u.begins = b.Kind, b, true
	u.next = max(u.next, before)
}

// flush makes units of what is pending: all of it if final, else but for the
// last sentence, whose end is not known.
func (u *units) flush(final bool) {
	rows := u.kind == extract.Table || u.kind == extract.Code
	for u.pending < len(u.text) {
		rest := u.text[u.pending:]
		if n := spaceEnd(rest, 0); n > 0 {
			if n == len(rest) && !final && n < maxBlank {
				return
			}
			u.pending += n
			continue
		}
		n, after := sentence(rest, rows, final)
		if n == 0 {
			if len(rest) < maxSentence {
				return
			}
			n, after = len(rest), gapInside
		}
		if u.kind == extract.Heading { // one unit, however it is punctuated
			n, after = len(rest), gapLine
		}
		u.pending = u.divide(u.pending+n, after != gapInside)
		u.next = max(u.next, after)
	}
}

// divide makes one unit of the text up to end, or several if it has too many
// tokens, and returns where they end. Unless the text is whole, a rest is left
// to grow.
func (u *units) divide(end int, whole bool) int {
	a := u.pending
	for {
		a += spaceEnd(u.text[a:end], 0)
		rest := bytes.TrimRightFunc(u.text[a:end], unicode.IsSpace)
		if len(rest) == 0 {
			return end
		}
		if !whole && len(rest) < maxSentence/2 {
			return a
		}
		if whole && len(rest) <= 6*u.largest {
			if n := u.tok.Count(string(rest)); n <= u.largest {
				u.emit(a, a+len(rest), n)
				return end
			}
		}
		for hi := 4 * u.largest; ; hi /= 2 {
			n := cut(rest, hi)
			body := bytes.TrimRightFunc(rest[:n], unicode.IsSpace)
			if c := u.tok.Count(string(body)); c <= u.largest || hi <= 8 {
				u.emit(a, a+len(body), c)
				a += n
				u.next = cutGap(rest[:n])
				break
			}
		}
	}
}

// cut returns where to divide s, at most after hi bytes: after a clause, else a
// word, else a grapheme, and among equal places the one whose neighbourhood has
// the smallest hash, so that the choice depends on the text around it alone.
func cut(s []byte, hi int) int {
	hi = min(hi, len(s))
	lo := hi / 4
	best, bestGap, bestHash := 0, gapInside, uint32(0)
	g := graphemes.FromBytes(s[:hi])
	for g.Next() {
		e := g.End()
		if e < lo || e == len(s) {
			continue
		}
		if e == hi { // the grapheme may go on
			break
		}
		k := cutGap(s[:e])
		if best > 0 && k < bestGap {
			continue
		}
		if h := around(s[max(0, e-8):e], s[e:min(len(s), e+8)]); best == 0 || k > bestGap || h < bestHash {
			best, bestGap, bestHash = e, k, h
		}
	}
	if best > 0 {
		return best
	}
	for best = hi; best > 1 && best < len(s) && !utf8.RuneStart(s[best]); best-- { // no grapheme ends: hostile combining marks
	}
	return best
}

// cutGap tells what s ends with.
func cutGap(s []byte) gap {
	r, n := utf8.DecodeLastRune(s)
	if !unicode.IsSpace(r) {
		switch r {
		case '，', '、', '：', '；', '）', '」', '”':
			return gapClause
		}
		return gapInside
	}
	switch r, _ = utf8.DecodeLastRune(bytes.TrimRightFunc(s[:len(s)-n], unicode.IsSpace)); r {
	case ',', ';', ':', ')', '—', '–':
		return gapClause
	}
	return gapWord
}

// emit makes a unit of text[a:b].
func (u *units) emit(a, b, tokens int) {
	s := u.text[a:b]
	start := u.base + int64(a)
	x := unit{
		start: start, end: start + int64(len(s)), tokens: tokens,
		before: u.next, heading: u.path, page: u.block.Page, title: u.kind == extract.Heading,
		hash: around(u.tail[:], s),
	}
	if u.begins && x.title {
		x.level = u.block.Level
	}
	x.code = !u.begins && (u.kind == extract.Table || u.kind == extract.Code)
	if n := len(u.out); n > 0 && x.start-u.out[n-1].end > maxBlank {
		x.forced = true
	}
	u.begins, u.next = false, gapInside
	clear(u.tail[:])
	copy(u.tail[:], s[max(0, len(s)-hashed):])
	u.out = append(u.out, x)
}

// forget drops the text before an offset.
func (u *units) forget(before int64) {
	n := int(before - u.base)
	if n < cap(u.text)/2 && n < maxPending { // copy seldom
		return
	}
	u.text = append(u.text[:0], u.text[n:]...)
	u.base += int64(n)
	u.pending -= n
}

// around hashes the text on both sides of a place.
func around(before, after []byte) uint32 {
	h := fnv.New32a()
	h.Write(before[max(0, len(before)-hashed):])
	h.Write(after[:min(len(after), hashed)])
	return h.Sum32()
}

// clip shortens s to at most n bytes, whole runes.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
