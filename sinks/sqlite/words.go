package sqlite

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// purpose says what words are made for.
type purpose int

const (
	indexed purpose = iota
	asked
)

// words cuts text into the words that are indexed and searched: runs of letters
// and digits, folded (NFKC, lower case, no accents). Scripts that set no spaces
// between words give every pair of neighbouring characters; where text is
// indexed the last character of a run follows alone, so that every character
// begins a word and one asked for alone is found by prefix.
func words(text string, p purpose) []string {
	var out []string
	var run []byte   // of a script with spaces
	var pair [2]rune // the last characters of a run without
	n := 0           // how many
	flush := func() {
		if len(run) > 0 {
			out = append(out, string(run))
			run = run[:0]
		}
		if n == 1 || n > 1 && p == indexed {
			out = append(out, string(pair[1]))
		}
		n = 0
	}
	for _, r := range fold(text) {
		switch {
		case unspaced(r):
			if len(run) > 0 {
				flush()
			}
			pair[0], pair[1] = pair[1], r
			if n++; n > 1 {
				out = append(out, string(pair[:]))
			}
		case unicode.IsLetter(r) || unicode.IsNumber(r) || unicode.IsMark(r):
			if n > 0 {
				flush()
			}
			run = append(run, string(r)...)
		default:
			flush()
		}
	}
	flush()
	return out
}

// unspaced tells characters of scripts that are written without spaces.
func unspaced(r rune) bool {
	return r >= 0x0E00 && unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Thai,
		unicode.Lao, unicode.Khmer, unicode.Myanmar)
}

// fold brings the spellings of a word together.
func fold(text string) string {
	var b strings.Builder
	b.Grow(len(text))
	base := rune(0)
	for _, r := range norm.NFKD.String(text) {
		// Accents of alphabets go; marks that are a part of the letter (kana,
		// Thai, Indic) stay.
		if unicode.Is(unicode.Mn, r) && base < 0x0590 {
			continue
		}
		if !unicode.Is(unicode.Mn, r) {
			base = r
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return norm.NFKC.String(b.String())
}

// maxWords bounds a query: the rest of a longer one is not looked at.
const maxWords = 64

// matchExpression makes an FTS5 query of any text: its distinct words, one of
// which must occur. "" when there are none.
func matchExpression(query string) string {
	seen := map[string]bool{}
	var b strings.Builder
	for _, w := range words(bounded(query), asked) {
		if seen[w] {
			continue
		}
		if len(seen) == maxWords {
			break
		}
		if seen[w] = true; b.Len() > 0 {
			b.WriteString(" OR ")
		}
		// Words hold letters, digits and marks only: no quote can end one.
		b.WriteString(`"` + w + `"`)
		if r := []rune(w); len(r) == 1 && unspaced(r[0]) {
			b.WriteByte('*')
		}
	}
	return b.String()
}

// maxQuery is how much of a query is read, in bytes.
const maxQuery = 4096

func bounded(query string) string {
	return strings.ToValidUTF8(query[:min(len(query), maxQuery)], " ")
}
