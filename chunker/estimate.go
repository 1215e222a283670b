package chunker

import (
	"unicode"

	"leat"
)

// Estimate counts tokens without a model's vocabulary, for models behind a
// server. It errs on the side of too many: beside the tokenizer of
// multilingual-e5 it counts 12 to 32 % more for English prose and tables and 29 %
// more for Chinese, of single passages of 900 bytes 7 % fewer at worst, but a
// quarter fewer for base64. It counts a token for every four lower-case letters of a word begun, every
// two capitals, every two letters of other alphabets, every three digits, and
// every ideograph and other sign.
var Estimate leat.Tokenizer = estimate{}

type estimate struct{}

func (estimate) Count(text string) int {
	n, run := 0, 0
	var last runClass
	for _, r := range text {
		class, per := classOf(r)
		if run == per || class != last && (last != upper || class != lower || run > 1) { // "Word" is one run
			run = 0
		}
		last = class
		if class == space {
			continue
		}
		if run == 0 {
			n++
		}
		run++
	}
	return n
}

type runClass uint8

const (
	space runClass = iota
	lower
	upper
	foreign
	digit
	sign
)

// classOf returns a rune's class and how many of the class make a token.
func classOf(r rune) (runClass, int) {
	switch {
	case r == ' ' || unicode.IsSpace(r):
		return space, 1
	case r >= 'a' && r <= 'z':
		return lower, 4
	case r >= 'A' && r <= 'Z':
		return upper, 2
	case unicode.IsDigit(r):
		return digit, 3
	case r >= 0x2E80:
		return sign, 1
	case unicode.IsLetter(r):
		return foreign, 2
	}
	return sign, 1
}
