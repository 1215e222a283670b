package builtin

import (
	"encoding/binary"
	"errors"
	"math"
)

// trie finds the pieces that begin at a place of the text. It is a double
// array (Aoe 1989): the child of node n by byte c is node trie[n].base+c, if
// that node's label is c. No two nodes share a base, so the label says enough.
type trie []node

type node struct {
	base int32
	tail uint32 // id+1 of the piece that ends here, 0 none; the low 8 bits are the label
}

// Labels that no byte of UTF-8 matches.
const (
	free = 0xFF // of a slot without a node
	root = 0xFE
)

func (n node) label() byte  { return byte(n.tail) }
func (n node) piece() int32 { return int32(n.tail>>8) - 1 }

// newTrie builds the trie of the pieces, which are distinct, not empty and in
// byte order, with their ids.
func newTrie(pieces [][]byte, ids []int32) trie {
	t := make(trie, 1<<20)
	for i := range t {
		t[i].tail = free
	}
	t[0].tail = root
	used := make([]bool, len(t)) // bases: two nodes with one base would share children
	grow := func(n int) {
		for len(t) <= n {
			used = append(used, make([]bool, len(t))...)
			for range len(t) {
				t = append(t, node{tail: free})
			}
		}
	}
	type work struct{ node, lo, hi, depth int32 } // pieces[lo:hi] begin with the node's depth bytes
	todo := []work{{0, 0, int32(len(pieces)), 0}}
	first := 1 // lowest slot that may be free
	var labels []int
	var starts []int32
	for len(todo) > 0 {
		w := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if int(w.depth) == len(pieces[w.lo]) {
			t[w.node].tail |= uint32(ids[w.lo]+1) << 8
			w.lo++
		}
		labels, starts = labels[:0], starts[:0]
		for i := w.lo; i < w.hi; i++ {
			if c := int(pieces[i][w.depth]); len(labels) == 0 || labels[len(labels)-1] != c {
				labels, starts = append(labels, c), append(starts, i)
			}
		}
		if len(labels) == 0 {
			continue
		}
		starts = append(starts, w.hi)
		for t[first].label() != free {
			first++
			grow(first + 256)
		}
		base := 0
		for slot, tries := first, 0; base == 0; slot++ {
			grow(slot + 256)
			if t[slot].label() != free {
				continue
			}
			if b := slot - labels[0]; b > 0 && !used[b] && t.fits(b, labels[1:]) {
				base = b
			}
			if tries++; tries == 64 && len(labels) > 1 { // a dense region: give up its holes
				first = slot
			}
		}
		used[base] = true
		t[w.node].base = int32(base)
		for k, c := range labels {
			t[base+c].tail = uint32(c)
			todo = append(todo, work{int32(base + c), starts[k], starts[k+1], w.depth + 1})
		}
	}
	n := len(t)
	for n > 1 && t[n-1].label() == free {
		n--
	}
	out := make(trie, n+256) // a child's place is always inside
	for i := copy(out, t[:n]); i < len(out); i++ {
		out[i].tail = free
	}
	return out
}

func (t trie) fits(base int, labels []int) bool {
	for _, c := range labels {
		if t[base+c].label() != free {
			return false
		}
	}
	return true
}

// parseTokenizer reads what scripts/model/convert.py writes.
func parseTokenizer(b []byte) (*Tokenizer, error) {
	r := reader{b: b}
	if string(r.take(4)) != "E5T1" {
		return nil, errors.New("not a tokenizer file")
	}
	n, bos, eos, pad, unk, size := r.int(), r.int(), r.int(), r.int(), r.int(), r.int()
	offsets := r.take(4 * (n + 1))
	scores := r.take(4 * n)
	text := r.take(size)
	order := r.take(4 * n)
	if r.bad {
		return nil, errShort
	}
	le := binary.LittleEndian
	t := &Tokenizer{bos: int32(bos), eos: int32(eos), unk: int32(unk), scores: make([]float32, n)}
	lowest := float32(math.MaxFloat32)
	for i := range t.scores {
		t.scores[i] = math.Float32frombits(le.Uint32(scores[4*i:]))
		lowest = min(lowest, t.scores[i])
	}
	t.unknown = lowest - 10 // SentencePiece's penalty
	pieces, ids := make([][]byte, 0, n), make([]int32, 0, n)
	for i := range n {
		id := int(le.Uint32(order[4*i:]))
		if id >= n {
			return nil, errShort
		}
		lo, hi := le.Uint32(offsets[4*id:]), le.Uint32(offsets[4*id+4:])
		if lo > hi || int(hi) > size {
			return nil, errShort
		}
		piece := text[lo:hi]
		// Special tokens are no text: who writes "</s>" in a document shall
		// not end the model's input.
		if special := id == bos || id == eos || id == pad || id == unk || string(piece) == "<mask>"; !special && lo < hi {
			pieces, ids = append(pieces, piece), append(ids, int32(id))
		}
	}
	if len(pieces) == 0 {
		return nil, errShort
	}
	t.trie = newTrie(pieces, ids)
	t.norm = make([]uint16, 0x30000)
	for range r.int() {
		from, k := r.int(), r.take(1)
		if r.bad || from >= len(t.norm) || len(t.replacements) == math.MaxUint16 {
			return nil, errShort
		}
		to := make([]rune, k[0])
		for j := range to {
			to[j] = rune(r.int())
		}
		t.replacements = append(t.replacements, to)
		t.norm[from] = uint16(len(t.replacements))
	}
	if r.bad || len(r.b) > 0 {
		return nil, errShort
	}
	return t, nil
}

var errShort = errors.New("damaged tokenizer file")

// reader takes little-endian numbers off the front of b until one is not there.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.bad, r.b = true, nil
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) int() int {
	b := r.take(4)
	if b == nil {
		return 0
	}
	return int(binary.LittleEndian.Uint32(b))
}
