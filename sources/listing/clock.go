package listing

import "time"

// Versions of events are an epoch in 20 bits above milliseconds in 43.
const (
	epochBits = 20
	milliBits = 43
)

// at is the version of a moment in an epoch. Past a million sessions the
// milliseconds alone tell sessions apart.
func at(epoch uint64, t time.Time) uint64 {
	return min(epoch, 1<<epochBits-1)<<milliBits | uint64(t.UnixMilli())
}

// clock gives the versions of a session, strictly rising (I2).
type clock struct{ epoch, last uint64 }

// room is left between the versions of a document, for those that
// [Looker.Answer] puts above the last one.
const room = 16

// next is past what a look that began by now is given elsewhere.
func (c *clock) next() uint64 {
	c.last = max(c.last, at(c.epoch, time.Now())) + 1
	return c.last
}

// above makes the versions to come higher than one that the index holds, which
// the clock alone does not where the count of epochs was lost.
func (c *clock) above(version uint64) { c.last = max(c.last, version) }
