// Package embeddertest stands in for an embedding model in tests and
// benchmarks: an OpenAI-compatible server with faults on demand, the same
// vectors without a server, and the built-in model's reference engine.
package embeddertest

import (
	"context"
	"hash/fnv"
	"math"
	"strings"
	"sync/atomic"
	"unicode"

	"leat"
)

// Vector is the unit vector of a text: a hashed bag of its words, Chinese and
// Japanese characters counting as words. Texts that share words are near.
func Vector(text string, dimension int) []float32 {
	v := make([]float32, dimension)
	add := func(word string) {
		if word == "" {
			return
		}
		h := fnv.New64a()
		h.Write([]byte(word))
		sum := h.Sum64()
		sign := float32(1)
		if sum>>63 == 1 {
			sign = -1
		}
		v[sum%uint64(dimension)] += sign
	}
	start := 0
	text = strings.ToLower(text)
	for i, r := range text {
		ideograph := unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana)
		if ideograph || !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			add(text[start:i])
			start = i + len(string(r))
		}
		if ideograph {
			add(string(r))
		}
	}
	add(text[min(start, len(text)):])
	var sum float64
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	if sum == 0 { // no words, or words that cancel out
		v[0] = 1
		return v
	}
	for i := range v {
		v[i] /= float32(math.Sqrt(sum))
	}
	return v
}

// Embedder gives [Vector] of each text, without a server: a model that costs
// nothing. It counts what it was asked for.
type Embedder struct {
	Dimension int
	calls     atomic.Int64
	texts     atomic.Int64
}

// Embed implements leat.Embedder.
func (e *Embedder) Embed(ctx context.Context, _ leat.Kind, texts []string) ([][]float32, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	e.calls.Add(1)
	e.texts.Add(int64(len(texts)))
	out := make([][]float32, len(texts))
	for i, t := range texts {
		out[i] = Vector(t, e.Dimension)
	}
	return out, nil
}

// Model implements leat.Embedder.
func (e *Embedder) Model() leat.Model {
	return leat.Model{Name: "hashed-words", Dimension: e.Dimension, MaxTokens: 512}
}

// Prefix is what stands before each text of a kind: nothing.
func (e *Embedder) Prefix(leat.Kind) string { return "" }

// Close implements leat.Embedder.
func (e *Embedder) Close() error { return nil }

// Calls is the number of calls of Embed, Texts that of their texts.
func (e *Embedder) Calls() int { return int(e.calls.Load()) }

// Texts is the number of texts embedded.
func (e *Embedder) Texts() int { return int(e.texts.Load()) }
