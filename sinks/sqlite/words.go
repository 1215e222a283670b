package sqlite

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/blevesearch/snowballstem"
	"github.com/blevesearch/snowballstem/english"
	"golang.org/x/text/unicode/norm"
)

// words cuts text into the words that are indexed and searched: runs of letters
// and digits, folded (NFKC, lower case, no accents), English ones to their stem
// (Porter 2, snowballstem.org). Of scripts that set no
// spaces between words it gives every character and every pair of neighbours:
// docs/adr/002-embedded-store.md has what other cuts find.
func words(text string) []string {
	var out []string
	var run []byte // of a script with spaces
	var last rune  // the character before, of a script without; 0: none
	flush := func() {
		if len(run) > 0 {
			out = append(out, stem(string(run)))
			run = run[:0]
		}
		last = 0
	}
	for _, r := range fold(text) {
		switch {
		case unspaced(r):
			if len(run) > 0 {
				flush()
			}
			if last != 0 {
				out = append(out, string([]rune{last, r}))
			}
			out = append(out, string(r))
			last = r
		case unicode.IsLetter(r) || unicode.IsNumber(r) || unicode.IsMark(r):
			last = 0
			run = utf8.AppendRune(run, r)
		default:
			flush()
		}
	}
	flush()
	return out
}

func stem(word string) string {
	for i := range len(word) {
		if c := word[i]; c < 'a' || c > 'z' {
			return word
		}
	}
	env := snowballstem.NewEnv(word)
	english.Stem(env)
	return env.Current()
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

// maxQuery is how much of a query is read, in bytes.
const maxQuery = 4096

// distinct returns the words of a query, each once.
func distinct(query string) []string {
	query = strings.ToValidUTF8(query[:min(len(query), maxQuery)], " ")
	seen := map[string]bool{}
	return slices.DeleteFunc(words(query), func(w string) bool {
		again := seen[w]
		seen[w] = true
		return again
	})
}

// matchExpression makes an FTS5 query of words, one of which must occur. Words
// hold letters, digits and marks only, so that no quote can end one.
func matchExpression(words []string) string {
	return `"` + strings.Join(words, `" OR "`) + `"`
}
