// Package listing has what sources share whose origin can be listed and looked
// at item by item, such as the files of a folder or the objects of a bucket.
//
// Whatever hints at an item, an event reports what a look at the item shows. The
// looks of a session at one item follow one another, each with the next version
// of the session's clock, so of two events the one with the higher version never
// knows less (I2). What no hint told of is found by [Teller.Scan], which merges a
// listing with what the index holds in constant memory.
//
// [Looker.Answer] looks beside a session, under versions of the same clock and
// epoch. It takes them before it looks, a session after it has looked: what the
// session saw later is higher, by its place on the clock, or by the room that
// the clock leaves where the answer had to be put above a version that is ahead
// of the time. No version is of both. What an answer tells too late is superseded
// by what the session says. Clocks of two machines can differ: then the session's
// next scan, which starts from what the index holds, sets it right.
package listing
