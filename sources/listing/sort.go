package listing

import (
	"bufio"
	"cmp"
	"container/heap"
	"encoding/binary"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
)

// Item is one of a listing.
type Item struct {
	ID  string // of its document
	Tag string
}

// sortMemory is how many bytes of items are sorted in memory.
const sortMemory = 16 << 20

// Sorter brings items into the order of their ids, in constant memory: what is
// more than fits is written, sorted, to a temporary file and merged from there.
// An origin that lists in another order than that of ids needs it, as ids are
// percent-encoded and so ordered otherwise than the names in them.
type Sorter struct {
	memory int
	items  []Item
	size   int
	file   *os.File // without a name: it goes with the process
	end    int64
	runs   []run
}

// run is a part of the file that is in order.
type run struct {
	from, to int64
	last     string // id
}

// NewSorter makes an empty one. Close it.
func NewSorter() *Sorter { return &Sorter{memory: sortMemory} }

// Close ends the sorter and frees what it takes on disk.
func (s *Sorter) Close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}

// Add takes an item, in any order.
func (s *Sorter) Add(i Item) error {
	s.items = append(s.items, i)
	if s.size += len(i.ID) + len(i.Tag) + 64; s.size < s.memory {
		return nil
	}
	return s.spill()
}

func (s *Sorter) sort() {
	slices.SortStableFunc(s.items, func(a, b Item) int { return cmp.Compare(a.ID, b.ID) })
}

// spill writes what is in memory as a run, or to the end of the last one where
// it follows that: a listing that is in order already is one run.
func (s *Sorter) spill() error {
	if s.file == nil {
		f, err := os.CreateTemp("", "leat-listing-*")
		if err != nil {
			return err
		}
		s.file = f
		if err := os.Remove(f.Name()); err != nil {
			return err
		}
	}
	s.sort()
	w := bufio.NewWriter(io.NewOffsetWriter(s.file, s.end))
	from, buf := s.end, []byte(nil)
	for _, i := range s.items {
		buf = appendItem(buf[:0], i)
		if _, err := w.Write(buf); err != nil {
			return err
		}
		s.end += int64(len(buf))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	last := s.items[len(s.items)-1].ID
	if n := len(s.runs) - 1; n >= 0 && s.runs[n].last <= s.items[0].ID {
		s.runs[n].to, s.runs[n].last = s.end, last
	} else {
		s.runs = append(s.runs, run{from, s.end, last})
	}
	clear(s.items)
	s.items, s.size = s.items[:0], 0
	return nil
}

func appendItem(b []byte, i Item) []byte {
	for _, text := range []string{i.ID, i.Tag} {
		b = append(binary.AppendUvarint(b, uint64(len(text))), text...)
	}
	return b
}

func readItem(r *bufio.Reader) (Item, error) {
	var texts [2]string
	for n := range texts {
		size, err := binary.ReadUvarint(r)
		if err == io.EOF && n == 0 {
			return Item{}, io.EOF
		}
		text := make([]byte, size)
		if err == nil {
			_, err = io.ReadFull(r, text)
		}
		if err != nil {
			return Item{}, fmt.Errorf("read a sorted listing: %w", err)
		}
		texts[n] = string(text)
	}
	return Item{texts[0], texts[1]}, nil
}

// Sorted gives all items in ascending byte order of their ids, each id once.
func (s *Sorter) Sorted() iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		last, first := "", true
		once := func(i Item) bool {
			if !first && i.ID == last {
				return true
			}
			last, first = i.ID, false
			return yield(i, nil)
		}
		if s.file == nil {
			s.sort()
			for _, i := range s.items {
				if !once(i) {
					return
				}
			}
			return
		}
		if len(s.items) > 0 {
			if err := s.spill(); err != nil {
				yield(Item{}, err)
				return
			}
		}
		var h heads
		for _, r := range s.runs {
			head := &head{r: bufio.NewReaderSize(io.NewSectionReader(s.file, r.from, r.to-r.from), 32<<10)}
			if err := head.next(); err != nil {
				yield(Item{}, err)
				return
			}
			h = append(h, head)
		}
		heap.Init(&h)
		for len(h) > 0 {
			if !once(h[0].item) {
				return
			}
			switch err := h[0].next(); err {
			case nil:
				heap.Fix(&h, 0)
			case io.EOF:
				heap.Pop(&h)
			default:
				yield(Item{}, err)
				return
			}
		}
	}
}

// head is the smallest item of a run that was not yet given.
type head struct {
	r    *bufio.Reader
	item Item
}

func (h *head) next() (err error) {
	h.item, err = readItem(h.r)
	return err
}

// heads is a heap.
type heads []*head

func (h heads) Len() int           { return len(h) }
func (h heads) Less(i, j int) bool { return h[i].item.ID < h[j].item.ID }
func (h heads) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *heads) Push(x any)        { *h = append(*h, x.(*head)) }
func (h *heads) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}
