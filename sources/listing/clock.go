package listing

import "time"

// Versions of events are an epoch in 20 bits above milliseconds in 42, above a
// bit that is set in those of a session, so that none is of an answer as well
// (I2).
const (
	epochBits = 20
	milliBits = 42
)

// at is the version of an answer at a moment in an epoch. Past a million
// sessions the milliseconds alone tell sessions apart.
func at(epoch uint64, t time.Time) uint64 {
	return (min(epoch, 1<<epochBits-1)<<milliBits | uint64(t.UnixMilli())) << 1
}

// above is the first version of an answer past one that the index holds.
func above(version uint64) uint64 { return version&^1 + 2 }

// clock gives the versions of a session, strictly rising (I2).
type clock struct{ epoch, last uint64 }

// room is left between the versions of a document, for 16 that [Looker.Answer]
// puts above the last one.
const room = 32

// next is past what a look that began by now is given elsewhere.
func (c *clock) next() uint64 {
	c.last = (max(c.last, at(c.epoch, time.Now())) + 1) | 1
	return c.last
}

// above makes the versions to come higher than one that the index holds, which
// the clock alone does not where the count of epochs was lost.
func (c *clock) above(version uint64) { c.last = max(c.last, version) }
