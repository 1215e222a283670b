// Package listing has what sources share whose origin can be listed and looked
// at item by item, such as the files of a folder or the objects of a bucket.
//
// Whatever hints at an item, an event reports what a look at the item shows,
// under a version that was taken before the look; so of two events the one with
// the higher version never knows less (I2). What no hint told of is found by a
// [Scan], which merges a listing with what the index holds in constant memory.
package listing
