package bus

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"leat/internal/guard"
)

// ConsumeConfig says what to consume.
type ConsumeConfig struct {
	Group, Topic string
	MaxRecords   int // of one batch; default 1000
	MaxBytes     int // of one batch; as much again is fetched ahead, twice; default 4 MiB (I8)

	// Mixed has batches hold records of all partitions, one batch at a time, for
	// a handler that gains by large ones. Otherwise each partition has its own,
	// and a slow document holds up its own partition alone.
	Mixed bool
	// Every is the least time between two fetches of which the first found all
	// there is: what comes in a stream is handled together. What comes after
	// a while of silence is handled at once.
	Every time.Duration
}

const (
	defaultBatchRecords = 1000
	defaultFetchBytes   = 4 << 20

	// commitEvery bounds how often a group's offsets are committed: each commit
	// is an fsync of the embedded broker per partition. What is handled twice
	// after a kill is at most what was handled within it.
	commitEvery = 500 * time.Millisecond
)

// Consume joins the group and hands batches to handle until ctx ends (it then
// returns nil) or handle fails (it returns that error). A batch is never empty
// and holds, of each partition, records in offset order, whatever is at hand up
// to the limits. handle returns nil when all effects are durable; then the
// offsets are committed (I1). Its context ends when the partitions are lost to
// another member: whatever it returns then is ignored and the records come
// again, here or there. Broker restarts, rebalances and lost sessions are healed
// inside.
func (c *Client) Consume(ctx context.Context, cfg ConsumeConfig, handle func(ctx context.Context, batch []Record) error) error {
	if cfg.MaxRecords <= 0 {
		cfg.MaxRecords = defaultBatchRecords
	}
	if cfg.MaxBytes <= 0 {
		cfg.MaxBytes = defaultFetchBytes
	}
	return c.member(ctx, cfg.Group, cfg.Topic, func(ctx context.Context, gen *generation) error {
		if len(gen.offsets) == 0 { // more members than partitions
			<-ctx.Done()
			return nil
		}
		m := &marks{offsets: map[int]int64{}, wake: make(chan struct{}, 1)}
		r := &reader{client: c, cfg: cfg, room: make(chan struct{}, 1)}
		var workers []*worker
		for partition, offset := range gen.offsets {
			m.offsets[partition] = max(offset, 0)
			if len(workers) == 0 || !cfg.Mixed {
				workers = append(workers, &worker{cfg: cfg, handle: handle, marks: m, wake: make(chan struct{}, 1), room: r.room})
			}
			w := workers[len(workers)-1]
			box := &inbox{partition: partition, ask: offset, next: offset, owner: w.wake}
			r.boxes, w.boxes = append(r.boxes, box), append(w.boxes, box)
		}
		g, work := errgroup.WithContext(ctx)
		g.Go(func() error { return r.run(work) })
		for _, w := range workers {
			g.Go(func() error { return w.run(work) })
		}
		committed := make(chan struct{})
		done := make(chan struct{})
		go func() {
			defer close(committed)
			m.commit(gen, done)
		}()
		err := g.Wait()
		close(done)
		<-committed
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			return nil
		}
		return err
	})
}

// worker hands what was fetched of its partitions to the handler.
type worker struct {
	cfg    ConsumeConfig
	handle func(ctx context.Context, batch []Record) error
	marks  *marks
	boxes  []*inbox
	first  int           // of the boxes, which the next batch begins with: they take turns
	wake   chan struct{} // capacity 1: something came
	room   chan<- struct{}
}

func (w *worker) run(ctx context.Context) error {
	for {
		batch, reached := w.take()
		if len(reached) == 0 {
			select {
			case <-w.wake:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		notify(w.room)
		if len(batch) > 0 {
			if guard.Removed("I1") { // committed, and nothing is done yet
				w.done(reached)
				sleep(ctx, 2*commitEvery)
			}
			if err := w.handle(ctx, batch); err != nil {
				return err
			}
			if ctx.Err() != nil { // what it returned is ignored
				return ctx.Err()
			}
		}
		w.done(reached) // I1
	}
}

// done has offsets committed.
func (w *worker) done(reached map[int]int64) {
	for partition, next := range reached {
		w.marks.done(partition, next)
	}
}

// take makes a batch of what is at hand, of each partition its share first, so
// that a backlog of one does not keep the others waiting. It says how far that
// reaches in each. Progress without records is progress too: the end of a
// partition may hold what is nobody's to handle.
func (w *worker) take() (batch []Record, reached map[int]int64) {
	reached = map[int]int64{}
	records, bytes := w.cfg.MaxRecords, w.cfg.MaxBytes
	for _, share := range []int{max(1, w.cfg.MaxRecords/len(w.boxes)), w.cfg.MaxRecords} {
		for i := range w.boxes {
			box := w.boxes[(w.first+i)%len(w.boxes)]
			taken, next := box.take(min(share, records), bytes, len(batch) == 0)
			for j := range taken {
				bytes -= taken[j].size()
			}
			records -= len(taken)
			batch = append(batch, taken...)
			if len(taken) > 0 || w.marks.behind(box.partition, next) {
				reached[box.partition] = next
			}
		}
	}
	w.first++
	return batch, reached
}

// marks are the offsets that may be committed, by partition.
type marks struct {
	mu      sync.Mutex
	offsets map[int]int64 // next to consume
	dirty   bool
	wake    chan struct{} // capacity 1
}

func (m *marks) done(partition int, next int64) {
	m.mu.Lock()
	m.offsets[partition] = next
	m.dirty = true
	m.mu.Unlock()
	notify(m.wake)
}

// notify wakes whoever waits for c, which has room for one.
func notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// behind reports whether next is past what the partition's mark says.
func (m *marks) behind(partition int, next int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.offsets[partition] < next
}

// commit commits the marks as they move, the first at once and then no more
// often than commitEvery, and a last time when done closes.
func (m *marks) commit(gen *generation, done <-chan struct{}) {
	for {
		last := false
		select {
		case <-m.wake:
		case <-done:
			last = true
		}
		if err := m.flush(gen); err != nil {
			// The coordinator is away, or the generation is over and what was not
			// committed comes again.
			gen.log.Debug("offsets not committed", "error", err)
			notify(m.wake)
		}
		if last {
			return
		}
		select {
		case <-time.After(commitEvery):
		case <-done:
		}
	}
}

// commitTimeout is short, since the end of a generation waits for the last commit.
const commitTimeout = 3 * time.Second

func (m *marks) flush(gen *generation) error {
	m.mu.Lock()
	if !m.dirty {
		m.mu.Unlock()
		return nil
	}
	offsets := maps.Clone(m.offsets)
	m.dirty = false
	m.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), commitTimeout)
	defer cancel()
	err := gen.commit(ctx, offsets)
	if err != nil {
		m.mu.Lock()
		m.dirty = true
		m.mu.Unlock()
	}
	return err
}
