package builtin

import (
	"encoding/binary"
	"errors"
	"math"
)

// trie finds the pieces that begin at a place of the text. It is a double
// array (Aoe 1989): the child of node n by byte c is node trie[n].base+c, if
// that node's label is c. No two nodes share a base, so the label says enough.
// scripts/model/convert.py makes it.
type trie []node

type node struct {
	base uint32
	tail uint32 // id+1 of the piece that ends here, 0 none; the low 8 bits are the label
}

func (n node) label() byte  { return byte(n.tail) }
func (n node) piece() int32 { return int32(n.tail>>8) - 1 }

// parseTokenizer reads what scripts/model/convert.py writes.
func parseTokenizer(b []byte) (*Tokenizer, error) {
	r := reader{b: b}
	if string(r.take(4)) != "E5T2" {
		return nil, errors.New("not a tokenizer file of this version")
	}
	t := &Tokenizer{bos: int32(r.int()), eos: int32(r.int()), unk: int32(r.int())}
	le := binary.LittleEndian
	n := r.int()
	scores := r.take(4 * n)
	t.scores = make([]float32, len(scores)/4)
	lowest := float32(math.MaxFloat32)
	for i := range t.scores {
		t.scores[i] = math.Float32frombits(le.Uint32(scores[4*i:]))
		lowest = min(lowest, t.scores[i])
	}
	t.unknown = lowest - 10 // SentencePiece's penalty
	m := r.int()
	nodes := r.take(8 * m)
	t.trie = make(trie, len(nodes)/8)
	for i := range t.trie {
		u := node{le.Uint32(nodes[8*i:]), le.Uint32(nodes[8*i+4:])}
		if int(u.base)+256 > m || int(u.piece()) >= n {
			return nil, errDamaged
		}
		t.trie[i] = u
	}
	if len(t.trie) == 0 {
		return nil, errDamaged
	}
	t.norm = make([]uint16, 0x30000)
	for range r.int() {
		from, k := r.int(), r.take(1)
		if r.bad || from >= len(t.norm) || len(t.replacements) == math.MaxUint16 {
			return nil, errDamaged
		}
		to := make([]rune, k[0])
		for j := range to {
			to[j] = rune(r.int())
		}
		t.replacements = append(t.replacements, to)
		t.norm[from] = uint16(len(t.replacements))
	}
	if r.bad || len(r.b) > 0 {
		return nil, errDamaged
	}
	return t, nil
}

var errDamaged = errors.New("damaged tokenizer file")

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
