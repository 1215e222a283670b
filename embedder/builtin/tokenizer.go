package builtin

import (
	"sync"
	"unicode/utf8"
)

// Tokenizer is the model's own SentencePiece unigram tokenizer (Kudo 2018,
// "Subword Regularization"), id for id as the reference engine has it, except
// that text which spells a special token, such as "<s>", is ordinary text
// here. It takes any bytes: what is not UTF-8 becomes U+FFFD.
type Tokenizer struct {
	bos, eos, unk int32
	scores        []float32 // log probability by piece
	unknown       float32   // score of a character that no piece begins with
	trie          trie
	norm          []uint16 // by code point: 0 unchanged, else index+1 into replacements
	replacements  [][]rune
}

// wordStart is SentencePiece's mark before a word (U+2581). In this vocabulary
// it stands at the beginning of a piece or nowhere, so no piece crosses it.
const wordStart = "\u2581"

// flushBytes of normalised text are segmented at once, or more up to the next
// word: enough to be fast, little enough to stay in the cache (I8).
const flushBytes = 2048

// Count implements leat.Tokenizer.
func (t *Tokenizer) Count(text string) int {
	w := scratches.Get().(*scratch)
	defer w.release()
	w.ids = t.encode(w.ids[:0], text, w)
	return len(w.ids)
}

// Encode appends the ids of text's tokens to dst, without the special tokens
// that begin and end an input. Empty text has one token, a word's beginning.
// Safe for concurrent use.
func (t *Tokenizer) Encode(dst []int32, text string) []int32 {
	w := scratches.Get().(*scratch)
	defer w.release()
	return t.encode(dst, text, w)
}

// scratch is what one encoding needs; pooled.
type scratch struct {
	text []byte    // normalised, not yet segmented
	best []float32 // by byte of text: score of the best segmentation that ends there
	from []int32   // where its last piece begins
	last []int32   // that piece
	ids  []int32
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

func (w *scratch) release() {
	if cap(w.best) <= 64*flushBytes && cap(w.ids) <= 64*flushBytes { // do not keep what one endless word took
		scratches.Put(w)
	}
}

func (t *Tokenizer) encode(dst []int32, text string, w *scratch) []int32 {
	w.text = append(w.text[:0], wordStart...)
	afterSpace := true // runs of spaces are one, and the first word has its mark
	var score float32
	emit := func(r rune) {
		switch {
		case r != ' ':
			w.text = utf8.AppendRune(w.text, r)
			afterSpace = false
		case !afterSpace:
			afterSpace = true
			if len(w.text) >= flushBytes {
				dst, score = t.segment(dst, score, w)
				w.text = w.text[:0]
			}
			w.text = append(w.text, wordStart...)
		}
	}
	for _, r := range text { // invalid UTF-8 gives utf8.RuneError
		if int(r) < len(t.norm) {
			if k := t.norm[r]; k != 0 {
				for _, r := range t.replacements[k-1] {
					emit(r)
				}
				continue
			}
		}
		emit(r)
	}
	dst, _ = t.segment(dst, score, w)
	return dst
}

// segment appends the pieces of the likeliest segmentation of w.text (Viterbi).
// Scores go on from those of the text before, so that rounding is the same as
// if all of the text had been segmented at once.
func (t *Tokenizer) segment(dst []int32, score float32, w *scratch) ([]int32, float32) {
	const none = -1e30
	text, trie, n := w.text, t.trie, len(w.text)
	if cap(w.best) <= n {
		size := max(n+1, 2*flushBytes)
		w.best, w.from, w.last = make([]float32, size), make([]int32, size), make([]int32, size)
	}
	best, from, last := w.best[:n+1], w.from[:n+1], w.last[:n+1]
	for i := range best {
		best[i] = none
	}
	best[0] = score
	for i := 0; i < n; {
		size := runeLen(text[i])
		if here := best[i]; here > none {
			base := trie[0].base
			for e := i; e < n; {
				c := text[e]
				u := trie[base+uint32(c)]
				if u.label() != c {
					break
				}
				base = u.base
				e++
				if id := u.piece(); id >= 0 {
					if s := here + t.scores[id]; s > best[e] {
						best[e], from[e], last[e] = s, int32(i), id
					}
				}
			}
			if s := here + t.unknown; s > best[i+size] {
				best[i+size], from[i+size], last[i+size] = s, int32(i), t.unk
			}
		}
		i += size
	}
	start := len(dst)
	for i := int32(n); i > 0; i = from[i] {
		dst = append(dst, last[i])
	}
	for a, z := start, len(dst)-1; a < z; a, z = a+1, z-1 {
		dst[a], dst[z] = dst[z], dst[a]
	}
	return dst, best[n]
}

// runeLen is the length of the character that begins with b in valid UTF-8.
func runeLen(b byte) int {
	switch {
	case b < 0xC0:
		return 1
	case b < 0xE0:
		return 2
	case b < 0xF0:
		return 3
	}
	return 4
}
