package bus

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"golang.org/x/sync/semaphore"

	"leat"
	"leat/internal/guard"
)

// ProducerConfig of a Producer.
type ProducerConfig struct {
	MaxMessageBytes int // largest record; the topics' MaxMessageBytes; default DefaultMaxMessageBytes
	MaxBufferBytes  int // accepted and not yet acknowledged; default 32 MiB (I8)
	// Every is the least time between two requests: what comes in a stream goes
	// together, what comes after a while of silence at once.
	Every time.Duration
}

const (
	defaultBufferBytes = 32 << 20
	// batchBytes is what a request holds at most, unless one record is larger.
	batchBytes = 1 << 20
	// maxCalls are the most Enqueues whose dones are to be called.
	maxCalls = 4096
	// countsTTL is how long a topic's number of partitions is believed.
	countsTTL = 10 * time.Second
)

// errClosed is what records fail with that were not durable when their
// Producer was closed.
var errClosed = errors.New("bus: the producer was closed")

// Producer appends records to topics. Safe for concurrent use.
type Producer struct {
	client *Client
	cfg    ProducerConfig
	room   *semaphore.Weighted // of MaxBufferBytes
	ctx    context.Context     // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	sender sender

	slots   chan struct{} // as many Enqueues as calls holds
	mu      sync.Mutex    // held while the records of one call join their queues, so that calls do not mix; never for long
	writers map[topicPartition]*writer
	calls   chan *call // Enqueues in order of acceptance
	closed  bool

	countsMu sync.Mutex
	counts   map[string]count // by topic
}

// count is a topic's partitions as of a time.
type count struct {
	all []int
	at  time.Time
}

type topicPartition struct {
	topic     string
	partition int
}

// call is one Enqueue or Produce.
type call struct {
	producer *Producer
	done     func(error) // nil: a Produce
	weight   int64
	finished chan struct{} // closed when pending is 0

	mu      sync.Mutex
	pending int
	err     error // the first
}

// settle counts n records as durable or failed.
func (c *call) settle(n int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
	if c.pending -= n; c.pending == 0 {
		close(c.finished)
		if c.done == nil {
			c.producer.release(c)
		}
	}
}

// item is a record on its way to its partition.
type item struct {
	Record
	call *call
	size int
}

// NewProducer makes a Producer. Close it.
func (c *Client) NewProducer(cfg ProducerConfig) *Producer {
	if cfg.MaxMessageBytes <= 0 {
		cfg.MaxMessageBytes = DefaultMaxMessageBytes
	}
	if cfg.MaxBufferBytes <= 0 {
		cfg.MaxBufferBytes = defaultBufferBytes
	}
	p := &Producer{
		client:  c,
		cfg:     cfg,
		room:    semaphore.NewWeighted(int64(cfg.MaxBufferBytes)),
		writers: make(map[topicPartition]*writer),
		counts:  make(map[string]count),
		slots:   make(chan struct{}, maxCalls),
		calls:   make(chan *call, maxCalls),
		sender:  sender{client: c, every: cfg.Every, in: make(chan appending)},
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.wg.Go(p.deliver)
	p.wg.Go(func() { p.sender.run(p.ctx) })
	return p
}

// Produce appends records, any topics mixed, and returns once all of them are
// durable. Records of one key keep the order of the calls that gave them. A
// broker that is away is waited for; an error is final: a record too large
// (leat.ErrTooLarge, nothing of the call was sent), no permission, the end of
// ctx (records may still be appended then) or a closed Producer. It waits for
// its own records alone, not for what was enqueued before.
func (p *Producer) Produce(ctx context.Context, recs ...Record) error {
	if len(recs) == 0 {
		return nil
	}
	cl, err := p.accept(ctx, recs, nil)
	if err != nil {
		return err
	}
	select {
	case <-cl.finished:
		return cl.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Enqueue is Produce without the wait: it returns once the records are
// accepted, blocking only while too many bytes are in flight, and calls done
// once all of them are durable or one has failed. The dones of one Producer
// are called in the order of their Enqueues, one at a time; they must not
// block. An error of Enqueue itself means that nothing was accepted and done
// will not be called. The records' bytes must not change before done.
func (p *Producer) Enqueue(ctx context.Context, recs []Record, done func(error)) error {
	_, err := p.accept(ctx, recs, done)
	return err
}

// accept hands records to their partitions' writers. Without a done the call
// need not wait for those before it.
func (p *Producer) accept(ctx context.Context, recs []Record, done func(error)) (*call, error) {
	weight := 0
	items := make([]item, len(recs))
	partitions := make([]int, len(recs))
	var topic string // whose partitions all are
	var all []int
	cl := &call{producer: p, done: done, pending: len(recs), finished: make(chan struct{})}
	for i, r := range recs {
		size := r.size()
		if size+batchHeader > p.cfg.MaxMessageBytes {
			return nil, tooLarge(&r, p.cfg.MaxMessageBytes)
		}
		if r.Topic != topic {
			var err error
			if all, err = p.partitions(ctx, r.Topic); err != nil {
				return nil, err
			}
			topic = r.Topic
		}
		partitions[i] = partitionOf(r.Key, all) // I3
		if done != nil && guard.Removed("I3") {
			partitions[i] = all[rand.IntN(len(all))]
		}
		items[i] = item{Record: r, call: cl, size: size}
		weight += size
	}
	if len(recs) == 0 {
		close(cl.finished)
	}
	// A call larger than the whole buffer waits for an empty one.
	cl.weight = int64(min(weight, p.cfg.MaxBufferBytes))
	if err := p.room.Acquire(ctx, cl.weight); err != nil {
		return nil, err
	}
	if done != nil {
		select {
		case p.slots <- struct{}{}:
		case <-ctx.Done():
			p.room.Release(cl.weight)
			return nil, ctx.Err()
		}
	}

	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		p.release(cl)
		return nil, errClosed
	}
	if done != nil {
		p.calls <- cl // there is room: it has a slot
	}
	for i := range items {
		key := topicPartition{items[i].Topic, partitions[i]}
		w := p.writers[key]
		if w == nil {
			w = newWriter(p, key)
			p.writers[key] = w
			p.wg.Go(w.run)
		}
		w.add(items[i])
	}
	return cl, nil
}

// partitions are the numbers of all partitions of topic.
func (p *Producer) partitions(ctx context.Context, topic string) ([]int, error) {
	p.countsMu.Lock()
	c := p.counts[topic]
	p.countsMu.Unlock()
	if time.Since(c.at) < countsTTL {
		return c.all, nil
	}
	n, err := p.client.waitPartitions(ctx, topic)
	if err != nil {
		return nil, err
	}
	p.countsMu.Lock()
	defer p.countsMu.Unlock()
	c = count{all: allPartitions(n), at: time.Now()}
	p.counts[topic] = c
	return c.all, nil
}

// partitionOf gives a key the partition that the Java client does:
// murmur2(key) & 0x7fffffff % partitions.
func partitionOf(key []byte, partitions []int) int {
	return kafka.Murmur2Balancer{Consistent: true}.Balance(kafka.Message{Key: key}, partitions...)
}

func allPartitions(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

// deliver calls the dones in order.
func (p *Producer) deliver() {
	for cl := range p.calls {
		<-cl.finished
		cl.done(cl.err)
		p.release(cl)
	}
}

// release lets others take what a call had of the buffer.
func (p *Producer) release(cl *call) {
	p.room.Release(cl.weight)
	if cl.done != nil {
		<-p.slots
	}
}

// Close fails what is not yet durable and ends the Producer. Wait for your
// dones before where that matters.
func (p *Producer) Close() error {
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		p.cancel()
		close(p.calls)
	}
	p.mu.Unlock()
	p.wg.Wait()
	return nil
}

func tooLarge(r *Record, limit int) error {
	return leat.Hint(fmt.Errorf("bus: record %q of %d bytes for %s: %w of %d bytes or the topic's own", r.Key, r.size(), r.Topic, leat.ErrTooLarge, limit),
		"raise the limit of a message here and max.message.bytes of the topic, or make the document smaller")
}

// writer sends the records of one partition, one request at a time (I3).
type writer struct {
	topicPartition
	p        *Producer
	maxBytes int // of a batch of several records; halved where the broker takes less
	session  session

	mu    sync.Mutex
	queue []item
	wake  chan struct{} // capacity 1
}

func newWriter(p *Producer, key topicPartition) *writer {
	return &writer{
		topicPartition: key, p: p, maxBytes: min(batchBytes, p.cfg.MaxMessageBytes),
		session: session{producer: -1}, wake: make(chan struct{}, 1),
	}
}

func (w *writer) add(it item) {
	w.mu.Lock()
	w.queue = append(w.queue, it)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// run sends until the Producer is closed, then fails what is left. What piles
// up while a request is under way makes the next batch: no timer waits for
// more, so a lone record leaves at once.
func (w *writer) run() {
	var buf []byte
	for {
		select {
		case <-w.wake:
		case <-w.p.ctx.Done():
			w.mu.Lock()
			settle(w.queue, errClosed)
			w.queue = nil
			w.mu.Unlock()
			return
		}
		w.mu.Lock()
		taken := w.queue
		w.queue = nil
		w.mu.Unlock()
		for len(taken) > 0 {
			n, err := w.send(taken, &buf)
			settle(taken[:n], err)
			taken = taken[n:]
		}
	}
}

// settle tells the calls of items what became of them.
func settle(items []item, err error) {
	for start := 0; start < len(items); {
		end := start + 1
		for end < len(items) && items[end].call == items[start].call {
			end++
		}
		items[start].call.settle(end-start, err)
		start = end
	}
}

// send appends the first records of items that fit one batch and returns how
// many, once the broker has answered for them.
func (w *writer) send(items []item, buf *[]byte) (int, error) {
	log := w.p.client.log.With("topic", w.topic, "partition", w.partition)
	now := time.Now()
	for attempt := 0; ; attempt++ {
		if w.p.ctx.Err() != nil {
			return len(items), errClosed
		}
		n := fitting(items, w.maxBytes)
		err := w.request(items[:n], now, buf)
		switch {
		case err == nil, errors.Is(err, kafka.DuplicateSequenceNumber): // an earlier attempt was stored
			w.session.advance(n)
			return n, nil
		case w.p.ctx.Err() != nil:
			return len(items), errClosed
		case errors.Is(err, kafka.MessageSizeTooLarge), errors.Is(err, kafka.RecordListTooLarge):
			if n == 1 {
				return 1, fmt.Errorf("%w: %w", tooLarge(&items[0].Record, w.p.cfg.MaxMessageBytes), err)
			}
			w.maxBytes = w.maxBytes / 2
			continue
		case errors.Is(err, kafka.OutOfOrderSequenceNumber), errors.Is(err, kafka.UnknownProducerId),
			errors.Is(err, kafka.InvalidProducerEpoch), errors.Is(err, kafka.InvalidProducerIDMapping):
			// The broker no longer knows this session: begin another. What an
			// unanswered attempt may have stored comes again, in the same order.
			w.session = session{producer: -1}
		case refused(err):
			return n, w.p.client.wrap(err, "appending to %s", w.topic)
		}
		if attempt == 3 { // a restart of a broker is over sooner
			log.Warn("cannot append, trying on", "error", err)
		}
		pause(w.p.ctx, attempt)
	}
}

// fitting counts the items, at least one, that fit limit bytes.
func fitting(items []item, limit int) int {
	total := batchHeader
	for i := range items {
		if total += items[i].size; total > limit && i > 0 {
			return i
		}
	}
	return len(items)
}

func (w *writer) request(items []item, now time.Time, buf *[]byte) error {
	if w.session.producer < 0 {
		ctx, cancel := context.WithTimeout(w.p.ctx, requestTimeout)
		defer cancel()
		var err error
		if w.session, err = w.p.client.newSession(ctx); err != nil {
			return err
		}
	}
	*buf = appendBatch((*buf)[:0], items, w.session, now)
	return w.p.sender.append(w.p.ctx, w.topicPartition, *buf)
}
