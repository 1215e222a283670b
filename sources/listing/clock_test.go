package listing

import (
	"math"
	"testing"
)

func TestVersions(t *testing.T) {
	c := clock{epoch: 3}
	last := uint64(0)
	for range 1000 {
		v := c.next()
		if v <= last || v>>(milliBits+1) != 3 || v&1 != 1 {
			t.Fatalf("%d after %d", v, last)
		}
		last = v
	}
	c.above(last + 5)
	if v := c.next(); v <= last+5 {
		t.Errorf("%d is not above %d", v, last+5)
	}
	next, most := clock{epoch: 4}, clock{epoch: math.MaxUint64}
	if v := next.next(); v <= last+6 {
		t.Errorf("%d of the next epoch is not above %d", v, last)
	}
	if v := most.next(); v > math.MaxInt64 {
		t.Errorf("%d does not fit 63 bits", v)
	}
}
