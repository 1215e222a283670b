package listing

import "time"

// clock gives versions: the session's epoch in 20 bits above milliseconds in
// 43, strictly rising (I2).
type clock struct{ epoch, last uint64 }

const (
	epochBits = 20
	milliBits = 43
)

func newClock(epoch uint64) clock {
	// Past a million sessions the milliseconds alone tell sessions apart.
	return clock{epoch: min(epoch, 1<<epochBits-1)}
}

func (c *clock) next() uint64 {
	c.last = max(c.last+1, c.epoch<<milliBits|uint64(time.Now().UnixMilli()))
	return c.last
}

// above makes the versions to come higher than one that the index holds, which
// the clock alone does not where the count of epochs was lost.
func (c *clock) above(version uint64) { c.last = max(c.last, version) }
