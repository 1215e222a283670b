package chunker

import (
	"bytes"
	"strings"
	"unicode"
	"unicode/utf8"
)

// gap is what stands between two units of text, from the worst place to cut to
// the best.
type gap uint8

const (
	gapInside   gap = iota // of a word, or of a run without any boundary
	gapWord                // between words
	gapClause              // after a comma, or at a line end that wraps a sentence
	gapRow                 // between lines of a table or of code
	gapSentence            // after a sentence
	gapLine                // at a line end, or before an item of a list
	gapParagraph
	gapSection // before a heading
	gaps
)

// decisive is how many bytes after a full stop decide whether it ends a
// sentence.
const decisive = 16

// sentence returns the length of the first sentence of s with the white space
// after it, and the gap that follows it. Rows says that lines are rows. Unless s
// is final, 0 means that more of the text is needed to tell.
//
// A sentence ends, in the manner of Unicode Standard Annex 29, after a
// terminator and what closes quotes and brackets: at once after an ideographic
// one, else where white space or ideographs follow. It does not after
// abbreviations, initials and the number of a list item. Unlike UAX 29 it may
// begin with a lower-case letter, and a line end divides sentences: one without
// a terminator before it and a lower-case letter after it counts as a clause's
// end only.
func sentence(s []byte, rows, final bool) (int, gap) {
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf && !asciiStop[c] {
			i++
			continue
		}
		r, n := rune(c), 1
		if c >= utf8.RuneSelf {
			if c < 0xD8 { // Latin, Greek, Cyrillic, Hebrew: no stops of their own
				i += 2
				continue
			}
			r, n = utf8.DecodeRune(s[i:])
		}
		switch kindOf(r) {
		case newline:
			end := spaceEnd(s, i)
			if end == len(s) && !final {
				return 0, 0
			}
			return end, lineGap(s[:i], s[i:end], s[end:], rows)
		case stop, wideStop:
			wide := kindOf(r) == wideStop
			j := i + n
			for j < len(s) { // "?!", "……", and what closes
				r, n := utf8.DecodeRune(s[j:])
				if k := kindOf(r); k == wideStop {
					wide = true
				} else if k != stop && k != closer {
					break
				}
				j += n
			}
			if j+decisive > len(s) && !final {
				return 0, 0
			}
			if end := spaceEnd(s, j); ends(s[:i], s[i:j], s[j:end], s[end:], wide) {
				switch {
				case end == len(s) && !final:
					return 0, 0
				case hasLineEnd(s[j:end]):
					return end, lineGap(s[:j], s[j:end], s[end:], rows)
				}
				return end, gapSentence
			}
			i = j
		default:
			i += n
		}
	}
	if final {
		return len(s), gapLine
	}
	return 0, 0
}

// ends tells whether stops, which stand after before, end a sentence.
func ends(before, stops, space, after []byte, wide bool) bool {
	if len(after) == 0 || hasLineEnd(space) {
		return true
	}
	next, _ := utf8.DecodeRune(after)
	if wide {
		return true
	}
	if len(space) == 0 { // "3.5", "e.g.", "leat.go"; Chinese with ASCII stops
		last, _ := utf8.DecodeLastRune(before)
		return ideographic(next) && (stops[0] != '.' || ideographic(last))
	}
	if stops[0] != '.' || len(stops) > 1 && stops[1] == '.' {
		return !unicode.IsLower(next)
	}
	word := before[bytes.LastIndexAny(before, " \t\n\r(\"'")+1:]
	if len(word) == 1 && unicode.IsUpper(rune(word[0])) { // an initial
		return false
	}
	if len(word) > 0 && len(word) <= 3 && len(bytes.TrimRight(before[:len(before)-len(word)], "# \t>*-")) == 0 && word[0] >= '0' && word[0] <= '9' {
		return false // "1. First item"
	}
	if len(word) <= 8 {
		switch abbreviations[strings.ToLower(string(word))] {
		case always:
			return false
		case beforeLower:
			return unicode.IsUpper(next)
		}
	}
	return true
}

type abbreviation uint8

const (
	always      abbreviation = iota + 1 // never the end of a sentence
	beforeLower                         // the end where a capital letter follows
)

var abbreviations = func() map[string]abbreviation {
	m := map[string]abbreviation{}
	for _, w := range strings.Fields("mr mrs ms dr prof rev hon gen col capt lt sgt gov sen rep st mt fig figs eq eqs sec ch pp p vs v cf e.g i.e eg ie resp incl approx ca viz") {
		m[w] = always
	}
	for _, w := range strings.Fields("no nos vol ed eds al etc inc ltd co corp dept est jr sr u.s u.k u.n e.u a.m p.m jan feb mar apr jun jul aug sept sep oct nov dec") {
		m[w] = beforeLower
	}
	return m
}()

// lineGap tells what a line end means: space holds it, before and after are the
// text around it.
func lineGap(before, space, after []byte, rows bool) gap {
	if bytes.Count(space, []byte{'\n'}) > 1 || bytes.Count(space, []byte{'\r'}) > 1 || bytes.IndexByte(space, '\f') >= 0 {
		if rows {
			return gapLine
		}
		return gapParagraph
	}
	if rows {
		return gapRow
	}
	before = bytes.TrimRight(before, " \t\r")
	last, _ := utf8.DecodeLastRune(before)
	next, _ := utf8.DecodeRune(after)
	line := before[bytes.LastIndexByte(before, '\n')+1:]
	if k := kindOf(last); k != stop && k != wideStop && k != closer &&
		unicode.IsLower(next) && len(line) >= 40 && bytes.IndexByte(line, '|') < 0 {
		return gapClause
	}
	return gapLine
}

type runeKind uint8

const (
	other runeKind = iota
	newline
	stop     // ends a sentence if white space follows
	wideStop // ends a sentence
	closer
)

var asciiStop = func() (t [utf8.RuneSelf]bool) {
	for _, c := range ".!?\n\r\f" {
		t[c] = true
	}
	return
}()

func kindOf(r rune) runeKind {
	switch r {
	case '\n', '\r', '\f', '\u2028', '\u2029':
		return newline
	case '.', '!', '?', '…', '؟', '۔', '।', '॥', '።':
		return stop
	case '。', '！', '？', '；', '｡', '．', '⋯':
		return wideStop
	case '"', '\'', ')', ']', '}', '”', '’', '»', '」', '』', '】', '）', '》', '〉', '〕', '］', '*', '_', '`':
		return closer
	}
	return other
}

// ideographic tells scripts that put no spaces between words and sentences.
func ideographic(r rune) bool {
	return r >= 0x2E80 && (unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Bopomofo) ||
		r >= 0x3000 && r <= 0x303F || r >= 0xFF00 && r <= 0xFFEF)
}

// spaceEnd returns where the white space at i ends.
func spaceEnd(s []byte, i int) int {
	for i < len(s) {
		r, n := utf8.DecodeRune(s[i:])
		if !unicode.IsSpace(r) {
			break
		}
		i += n
	}
	return i
}

func hasLineEnd(space []byte) bool { return bytes.ContainsAny(space, "\n\r\f\u2028\u2029") }
