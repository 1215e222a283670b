package listing

import (
	"hash/maphash"
	"sync"
)

// saying is what was said of something.
type saying struct {
	state uint64 // its hash
	scan  uint64 // the number of the newest scan then
	again bool   // it was said twice
}

// memory holds the last thing said of each of the latest ids, some 65,000 of
// them, as hashes: a few megabytes (I8). Safe for concurrent use.
type memory struct {
	mu       sync.Mutex
	seed     maphash.Seed
	now, old map[uint64]saying
}

const memorySize = 1 << 15 // of one generation

func newMemory() memory { return memory{seed: maphash.MakeSeed(), now: map[uint64]saying{}} }

func (m *memory) hash(s string) uint64 { return maphash.String(m.seed, s) }

func (m *memory) get(id string) (saying, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := m.hash(id)
	v, ok := m.now[k]
	if !ok {
		v, ok = m.old[k]
	}
	return v, ok
}

func (m *memory) put(id string, v saying) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.now) >= memorySize {
		m.now, m.old = map[uint64]saying{}, m.now
	}
	m.now[m.hash(id)] = v
}

// Warned remembers what was last told of each item, so that it is told once.
// Safe for concurrent use.
type Warned struct{ memory memory }

// NewWarned remembers nothing yet.
func NewWarned() *Warned { return &Warned{newMemory()} }

// Say reports whether text is other than what was last told of name.
func (w *Warned) Say(name, text string) bool {
	now := saying{state: w.memory.hash(text)}
	if before, ok := w.memory.get(name); ok && before == now {
		return false
	}
	w.memory.put(name, now)
	return true
}
