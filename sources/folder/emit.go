package folder

import (
	"context"
	"encoding/json"
	"errors"
	"hash/maphash"
	"io/fs"
	"path"
	"strings"
	"sync"
	"time"

	"leat"
)

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

// beginScan returns the number of a scan.
func (e *emitter) beginScan() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.scan++
	return e.scan
}

// raise is above under the lock.
func (e *emitter) raise(version uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.clock.above(version)
}

// hint is a file that may have changed.
type hint struct {
	id   string
	rel  string
	bad  bool      // no file can have this id: rel is not a path
	time time.Time // when it was noticed by the watch; zero in a scan
	scan uint64    // the number of the scan that found it, or 0
}

// emitter turns looks at files into events, one batch after another.
type emitter struct {
	mu     sync.Mutex
	clock  clock
	scan   uint64 // the number of the newest scan
	recent memory // of what this session has said of an id: its tag, or ""
	warned memory
	mounts []string // folders below the root where file systems are mounted
}

// look emits an event for each of the files whose state is not the one that
// the session emitted last. The lock makes version, look and event one step, so
// that the events of a document are in the order of what they report (I3).
//
// A scan that finds in the index something else than the session has said, and
// said before the scan began, gets it said once more: the file may have been
// away for the moment in which it was to be opened. What is still not in the
// index then is in deadletters.
func (s *session) look(ctx context.Context, files []hint) error {
	s.emitter.mu.Lock()
	defer s.emitter.mu.Unlock()
	var batch leat.Batch
	said := make(map[string]saying, len(files))
	deletes := false
	for _, f := range files {
		version := s.emitter.clock.next() // before the look
		doc, modified, err := s.document(ctx, f)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			s.warn(f.rel, err)
			continue
		}
		state := ""
		if doc != nil {
			state = doc.Ref.Tag
		} else if at := s.unmounted(f.rel); at != "" {
			s.warn(at, errUnmounted)
			continue
		}
		now := saying{state: s.emitter.recent.hash(state), scan: s.emitter.scan}
		before, ok := said[f.id]
		if !ok {
			before, ok = s.emitter.recent.get(f.id)
		}
		if ok && before.state == now.state {
			if now.again = f.scan > before.scan && !before.again; !now.again {
				continue
			}
		}
		said[f.id] = now
		e := leat.Event{ID: f.id, Version: version, Source: kind + ":" + s.name, Time: f.time, Document: doc}
		if e.Time.IsZero() {
			e.Time = modified
		}
		if e.Time.IsZero() {
			e.Time = time.Now()
		}
		deletes = deletes || doc == nil
		batch.Events = append(batch.Events, e)
	}
	if len(batch.Events) == 0 {
		return nil
	}
	if deletes {
		if err := s.sameRoot(); err != nil {
			return err
		}
	}
	var err error
	if batch.Position, err = s.position(); err != nil {
		return err
	}
	if err := s.Emit(ctx, batch); err != nil {
		return err
	}
	for id, now := range said {
		s.emitter.recent.put(id, now)
	}
	return nil
}

// position is everywhere a place to resume at: the next session's merge starts
// from what the index holds.
func (s *session) position() (json.RawMessage, error) {
	return json.Marshal(position{Root: rootID(s.identity), Mounts: s.emitter.mounts, Epoch: s.Epoch, Time: time.Now().UTC()})
}

// document is what a file is now and when it was modified; nil if it is no
// document, an error if that cannot be told.
func (s *session) document(ctx context.Context, f hint) (*leat.Document, time.Time, error) {
	if f.bad || !s.cfg.selects(f.rel) {
		return nil, time.Time{}, nil
	}
	fi, err := locate(s.root, f.rel)
	if err == nil && isYoung(fi) {
		select {
		case <-time.After(settle):
		case <-ctx.Done():
			return nil, time.Time{}, ctx.Err()
		}
		fi, err = locate(s.root, f.rel)
	}
	mark := ""
	if err == nil {
		// The file is opened to learn whether it may be: where not, the event
		// goes on to Open's permanent error and so to deadletters (I5).
		file, opened, oerr := openFile(s.root, f.rel)
		switch {
		case oerr == nil:
			fi = opened
			file.Close()
		case errors.Is(oerr, fs.ErrPermission):
			mark = denied
			s.warn(f.rel, oerr)
		default:
			err = oerr
		}
	}
	if errors.Is(err, errNotDocument) {
		s.log.Debug("not a document", "path", f.rel, "err", err)
		return nil, time.Time{}, nil
	}
	if gone(err) {
		return nil, time.Time{}, nil
	}
	if err != nil {
		return nil, time.Time{}, err
	}
	t := mark + tag(fi)
	if isYoung(fi) {
		t += young
		s.hints.add(f.rel)
	}
	return &leat.Document{
		Ref: &leat.Ref{Name: refName(f.rel), Tag: t, Size: fi.Size()},
		Metadata: map[string]any{
			"path":     strings.TrimPrefix(refName(f.rel), "/"),
			"modified": fi.ModTime().UTC().Format(time.RFC3339Nano),
		},
	}, fi.ModTime(), nil
}

// warn tells once of a file or folder that could not be looked at.
func (s *session) warn(rel string, err error) {
	now := saying{state: s.emitter.warned.hash(err.Error())}
	if before, ok := s.emitter.warned.get(rel); ok && before == now {
		return
	}
	s.emitter.warned.put(rel, now)
	hint := "see whether it can be read; what the index holds of it is left alone"
	switch {
	case errors.Is(err, errUnmounted):
		hint = "mount it; if it is meant to be empty, make any file in " + path.Join(s.cfg.Path, rel) + ", such as .keep, and its documents will be deleted"
	case errors.Is(err, fs.ErrPermission):
		hint = "let the user that runs leat read " + path.Join(s.cfg.Path, rel) + ", or exclude it"
	}
	s.log.Warn("cannot look at a file or folder", "path", rel, "err", err, "hint", hint)
}

var errUnmounted = errors.New("the file system that was here is not mounted: its documents stay in the index")

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
