package listing

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestSorter: whatever the order and however little fits in memory, each id
// comes once, in order, with its tag.
func TestSorter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := NewSorter()
		s.memory = rapid.SampledFrom([]int{1, 200, 1000, sortMemory}).Draw(t, "memory")
		want := map[string]string{}
		for _, id := range rapid.SliceOf(rapid.String()).Draw(t, "ids") {
			want[id] = "tag of " + id
			if err := s.Add(Item{id, want[id]}); err != nil {
				t.Fatal(err)
			}
		}
		got, ids := map[string]string{}, []string(nil)
		for i, err := range s.Sorted() {
			if err != nil {
				t.Fatal(err)
			}
			got[i.ID], ids = i.Tag, append(ids, i.ID)
		}
		if diff := cmp.Diff(want, got); diff != "" || !slices.IsSorted(ids) || len(ids) != len(got) {
			t.Fatalf("%q\n-want +got:\n%s", ids, diff)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// A listing that is in order already is one run, whatever its size.
func TestSorterInOrder(t *testing.T) {
	s := NewSorter()
	s.memory = 1000
	defer s.Close()
	for i := range 10_000 {
		if err := s.Add(Item{ID: fmt.Sprintf("%06d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	for _, err := range s.Sorted() {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 10_000 || len(s.runs) != 1 {
		t.Errorf("%d items in %d runs", n, len(s.runs))
	}
}
