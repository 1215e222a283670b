package listing

import (
	"sync"
	"time"
)

// Hints are items that may have changed, waiting to rest: many hints at one
// item in a short time lead to one look. Safe for concurrent use.
type Hints struct {
	Quiet   time.Duration // how long an item must rest before it is looked at
	Longest time.Duration // after how long one that never rests is looked at all the same

	mu    sync.Mutex
	items map[string]*pending
}

type pending struct {
	first, last time.Time
	time        time.Time // of the change that was hinted at first
}

const maxHints = 10_000 // items waiting to rest

// Add notes a hint at a change made at a time; false if too many wait already:
// the hint is lost and everything must be scanned.
func (h *Hints) Add(name string, at time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if p, ok := h.items[name]; ok {
		p.last = now
		return true
	}
	if len(h.items) >= maxHints {
		return false
	}
	if h.items == nil {
		h.items = map[string]*pending{}
	}
	h.items[name] = &pending{first: now, last: now, time: at}
	return true
}

// Rested takes the items that have rested, with the time of their first change.
func (h *Hints) Rested() map[string]time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	var due map[string]time.Time
	now := time.Now()
	for name, p := range h.items {
		if now.Sub(p.last) < h.Quiet && now.Sub(p.first) < h.Longest {
			continue
		}
		if due == nil {
			due = map[string]time.Time{}
		}
		due[name] = p.time
		delete(h.items, name)
	}
	return due
}
