package bus

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestMembers: who is in a group is seen from outside, as they come and go.
func TestMembers(t *testing.T) {
	t.Parallel()
	e, c := newBus(t, Topic{Name: "t", Partitions: 4})
	member := func(id string) (leave func()) {
		m, err := New(Config{Brokers: []string{e.Addr()}, ClientID: id}, testLog(t))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Close() })
		return consumer(t, m, newLedger(1), time.Millisecond)
	}
	are := func(want ...string) {
		t.Helper()
		eventually(t, "the members are as expected", func() bool {
			got, err := c.Members(t.Context(), "g", "nobody")
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(got["g"])
			return len(got) == 2 && len(got["nobody"]) == 0 && cmp.Equal(want, got["g"])
		})
	}
	a := member("leat@one/1")
	are("leat@one/1")
	member("leat@two/2")
	are("leat@one/1", "leat@two/2")
	a()
	are("leat@two/2")
}
