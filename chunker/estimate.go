package chunker

import (
	"unicode"

	"leat"
)

// Estimate counts tokens without a model's vocabulary, for models behind a
// server. It errs on the side of too many: for English prose it counts about a
// tenth more than cl100k (OpenAI) and XLM-R do, for Chinese about as many as
// cl100k. It counts a token for every four letters of a word begun, every
// three digits, every ideograph and every other sign.
var Estimate leat.Tokenizer = estimate{}

type estimate struct{}

func (estimate) Count(text string) int {
	n, run := 0, 0
	var last runClass
	for _, r := range text {
		class, per := classOf(r)
		if class != last || run == per {
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
	letter
	foreign
	digit
	sign
)

// classOf returns a rune's class and how many of the class make a token.
func classOf(r rune) (runClass, int) {
	switch {
	case r == ' ' || unicode.IsSpace(r):
		return space, 1
	case r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z':
		return letter, 4
	case unicode.IsDigit(r):
		return digit, 3
	case r >= 0x2E80:
		return sign, 1
	case unicode.IsLetter(r):
		return foreign, 2
	}
	return sign, 1
}
