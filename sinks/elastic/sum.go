package elastic

import (
	"encoding/binary"
	"hash/fnv"
	"unicode/utf8"
)

// sum is a checksum (FNV-1a, 64 bits) over all that is kept of a chunk, and its
// id. It tells whether something else than leat has changed it since.
func (s *chunkSource) sum(id string) int64 {
	var b summed
	b.texts(id, s.Of, s.Chunk)
	b.numbers(int64(s.Version), s.Start, int64(s.Place.Ordinal), s.Place.End, int64(s.Place.Tokens), int64(s.Place.Page))
	b.words(&s.chunkWords)
	if s.Han != nil {
		b.words(s.Han)
	}
	return b.sum()
}

// sum is the same of a state.
func (s *stateSource) sum() int64 {
	var b summed
	deleted := int64(0)
	if s.Deleted {
		deleted = 1
	}
	b.numbers(int64(s.Version), deleted, int64(s.Chunks), s.State.Applied)
	b.texts(s.Document, s.State.Source, s.State.Tag, s.State.Title, s.State.Metadata)
	return b.sum()
}

// summed collects what a checksum is over.
type summed []byte

func (b summed) sum() int64 {
	h := fnv.New64a()
	h.Write(b)
	return int64(h.Sum64())
}

func (b *summed) numbers(all ...int64) {
	for _, n := range all {
		*b = binary.LittleEndian.AppendUint64(*b, uint64(n))
	}
}

// texts adds texts as JSON keeps them: each byte that is not UTF-8 becomes U+FFFD.
func (b *summed) texts(all ...string) {
	for _, s := range all {
		if !utf8.ValidString(s) {
			s = string([]rune(s))
		}
		b.numbers(int64(len(s)))
		*b = append(*b, s...)
	}
}

func (b *summed) words(w *chunkWords) {
	b.texts(w.Title, w.Text)
	b.numbers(int64(len(w.Heading)))
	b.texts(w.Heading...)
}
