package bus

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"golang.org/x/sync/errgroup"
)

// ConsumeConfig says what to consume.
type ConsumeConfig struct {
	Group, Topic string
	MaxRecords   int // of one batch; default 1000
	MaxBytes     int // of one batch; as much again is fetched ahead, twice, per partition; default 4 MiB (I8)
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
// returns nil) or handle fails (it returns that error). A batch is never empty,
// holds records of one partition in offset order, whatever is at hand up to the
// limits. handle returns nil when all effects are durable; then the offsets are
// committed (I1). Its context ends when the partition is lost to another
// member: whatever it returns then is ignored and the records come again, here
// or there. Partitions are handled in parallel. Broker restarts, rebalances and
// lost sessions are healed inside.
func (c *Client) Consume(ctx context.Context, cfg ConsumeConfig, handle func(ctx context.Context, batch []Record) error) error {
	if cfg.MaxRecords <= 0 {
		cfg.MaxRecords = defaultBatchRecords
	}
	if cfg.MaxBytes <= 0 {
		cfg.MaxBytes = defaultFetchBytes
	}
	return c.member(ctx, cfg.Group, cfg.Topic, func(ctx context.Context, gen *generation) error {
		m := &marks{offsets: map[int]int64{}, wake: make(chan struct{}, 1)}
		for partition, offset := range gen.offsets {
			m.offsets[partition] = max(offset, 0)
		}
		g, work := errgroup.WithContext(ctx)
		for partition, offset := range gen.offsets {
			p := &partitionConsumer{
				client: c, cfg: cfg, handle: handle, marks: m,
				fetcher: fetcher{client: c, topic: cfg.Topic, partition: partition, offset: offset},
			}
			g.Go(func() error { return p.run(work) })
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
		return err
	})
}

// partitionConsumer handles one assigned partition of one generation.
type partitionConsumer struct {
	client  *Client
	cfg     ConsumeConfig
	handle  func(ctx context.Context, batch []Record) error
	marks   *marks
	fetcher fetcher
}

// run fetches ahead of the handler until ctx ends (nil) or the handler fails.
func (p *partitionConsumer) run(ctx context.Context) error {
	ahead := make(chan fetched, 1)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.fetch(ctx, ahead) })
	g.Go(func() error { return p.work(ctx, ahead) })
	err := g.Wait()
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

func (p *partitionConsumer) fetch(ctx context.Context, ahead chan<- fetched) error {
	log := p.client.log.With("group", p.cfg.Group, "topic", p.cfg.Topic, "partition", p.fetcher.partition)
	attempt := 0
	if p.fetcher.offset < 0 { // nothing committed yet
		first, _, err := p.client.bounds(ctx, p.cfg.Topic, p.fetcher.partition)
		if err != nil {
			return err
		}
		p.fetcher.offset = first
	}
	for {
		got, err := p.fetcher.fetch(ctx, p.cfg.MaxBytes, fetchWait)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, kafka.OffsetOutOfRange):
			if err = p.reset(ctx); err != nil && !pause(ctx, attempt) {
				return nil
			}
			continue
		case refused(err):
			return p.client.wrap(err, "reading %s", p.cfg.Topic)
		case err != nil:
			if attempt++; attempt == 4 {
				log.Warn("cannot read, trying on", "error", err)
			}
			if !pause(ctx, attempt) {
				return nil
			}
			continue
		}
		attempt = 0
		// Progress without records is progress too: the end of a partition may
		// hold what is nobody's to handle.
		if len(got.records) == 0 && !p.marks.behind(p.fetcher.partition, got.next) {
			continue
		}
		select {
		case ahead <- got:
		case <-ctx.Done():
			return nil
		}
	}
}

// reset moves to the start of a partition whose log no longer holds the
// committed offset: of a compacted topic that is no loss, otherwise retention
// was shorter than the group was away, which nobody should have to find out.
func (p *partitionConsumer) reset(ctx context.Context) error {
	first, end, err := p.client.bounds(ctx, p.cfg.Topic, p.fetcher.partition)
	if err != nil {
		return err
	}
	lost := p.fetcher.offset
	p.fetcher.offset = first
	p.client.log.Error("the topic no longer holds the records after the committed offset; going on with the oldest it has",
		"group", p.cfg.Group, "topic", p.cfg.Topic, "partition", p.fetcher.partition, "committed", lost, "oldest", first, "end", end,
		"hint", "unless the topic is compacted, changes may be missing: run leat verify --repair, and give the topic a longer retention")
	return nil
}

func (p *partitionConsumer) work(ctx context.Context, ahead <-chan fetched) error {
	var pending fetched
	for {
		if len(pending.records) == 0 {
			select {
			case pending = <-ahead:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		select { // a slow handler finds more at hand: larger batches catch up faster
		case more := <-ahead:
			pending.records = append(pending.records, more.records...)
			pending.next = more.next
		default:
		}
		batch := pending.records[:p.fits(pending.records)]
		next := pending.next
		if len(batch) < len(pending.records) {
			next = pending.records[len(batch)].Offset
		}
		if len(batch) > 0 {
			if err := p.handle(ctx, batch); err != nil {
				return err
			}
			if ctx.Err() != nil { // what it returned is ignored
				return ctx.Err()
			}
		}
		pending.records = pending.records[len(batch):]
		p.marks.done(p.fetcher.partition, next) // I1
	}
}

// fits counts the records, at least one if there is one, within the limits of a batch.
func (p *partitionConsumer) fits(recs []Record) int {
	bytes := 0
	for i := range recs {
		if bytes += recs[i].size(); i == p.cfg.MaxRecords || i > 0 && bytes > p.cfg.MaxBytes {
			return i
		}
	}
	return len(recs)
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
	m.notify()
}

func (m *marks) notify() {
	select {
	case m.wake <- struct{}{}:
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
			m.notify()
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
