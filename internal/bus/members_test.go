package bus

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// testMembers: who is in a group is seen from outside, as they come and go.
func testMembers(t *testing.T, b *broker) {
	c, topic := b.bus(t, Topic{Partitions: 4})
	member := func(id string) (leave func()) {
		m, err := New(Config{Brokers: []string{b.addr}, ClientID: id}, testLog(t))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Close() })
		return startConsumer(t, m, topic, newLedger(1), time.Millisecond)
	}
	are := func(want ...string) {
		t.Helper()
		eventually(t, "the members are as expected", func() bool {
			got, err := c.Members(t.Context(), group(topic), topic+".nobody")
			if err != nil {
				t.Fatal(err)
			}
			members := got[group(topic)]
			slices.Sort(members)
			return len(got) == 2 && len(got[topic+".nobody"]) == 0 && cmp.Equal(want, members)
		})
	}
	one := member("leat@one/1")
	are("leat@one/1")
	member("leat@two/2")
	are("leat@one/1", "leat@two/2")
	one()
	are("leat@two/2")
}
