package bus

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"golang.org/x/sync/errgroup"

	"leat/internal/guard"
)

// fullWait is how long a reader whose boxes are full waits for room at most:
// that of another broker's partitions may have heard of it.
const fullWait = 20 * time.Millisecond

// inbox is what was fetched of one partition and not yet handled.
type inbox struct {
	partition int
	ask       int64           // the offset to fetch next, negative: the first there is; the reader's own
	owner     chan<- struct{} // wakes its worker

	mu      sync.Mutex
	records []Record
	bytes   int
	next    int64 // after the records
}

func (b *inbox) put(f fetched) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.records = append(b.records, f.records...)
	b.bytes += f.bytes
	b.next = f.next
}

func (b *inbox) size() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.bytes
}

// take removes records within limits, one larger than that where it must, and
// says from where on the partition has yet to be handled.
func (b *inbox) take(records, bytes int, must bool) ([]Record, int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for n < len(b.records) && n < records {
		size := b.records[n].size()
		if size > bytes && (n > 0 || !must) {
			break
		}
		bytes -= size
		b.bytes -= size
		n++
	}
	taken := b.records[:n:n]
	if b.records = b.records[n:]; len(b.records) > 0 {
		return taken, b.records[0].Offset
	}
	b.records = nil
	return taken, b.next
}

// reader fetches the partitions of one generation into their boxes: of all that
// one broker leads in one request.
type reader struct {
	client *Client
	cfg    ConsumeConfig
	boxes  []*inbox
	room   chan struct{} // capacity 1: a box has been taken from
}

// run fetches until ctx ends (nil) or a broker refuses.
func (r *reader) run(ctx context.Context) error {
	log := r.client.log.With("group", r.cfg.Group, "topic", r.cfg.Topic)
	for attempt := 0; ; attempt++ {
		begun := time.Now()
		err := r.fromLeaders(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case refused(err):
			return r.client.wrap(err, "reading %s", r.cfg.Topic)
		}
		if time.Since(begun) > fetchWait { // it went well in between
			attempt = 0
		}
		if attempt == 4 {
			log.Warn("cannot read, trying on", "error", err)
		}
		if !pause(ctx, attempt) {
			return nil
		}
	}
}

// fromLeaders fetches from each broker that leads some of the partitions until
// one of them fails.
func (r *reader) fromLeaders(ctx context.Context) error {
	leaders, err := r.client.leaders(ctx, r.cfg.Topic)
	if err != nil {
		return err
	}
	led := map[int][]*inbox{}
	for _, b := range r.boxes {
		leader, ok := leaders[b.partition]
		if !ok {
			return kafka.UnknownTopicOrPartition
		}
		led[leader] = append(led[leader], b)
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, boxes := range led {
		g.Go(func() error { return r.from(ctx, boxes) })
	}
	return g.Wait()
}

// from fetches the partitions of one broker.
func (r *reader) from(ctx context.Context, boxes []*inbox) error {
	share := max(r.cfg.MaxBytes/len(r.boxes), fetchOneBatch)
	var fetchedAll time.Time // when a fetch began that found all there was
	idle := false            // the last fetch brought nothing
	for turn := 0; ; turn++ {
		if !sleep(ctx, time.Until(fetchedAll.Add(r.cfg.Every))) {
			return ctx.Err()
		}
		var places []place
		asked := map[int]*inbox{}
		for i := range boxes {
			b := boxes[(turn+i)%len(boxes)]                // each is the first once
			if b.size() >= share && !guard.Removed("I8") { // I8
				continue
			}
			if b.ask < 0 { // nothing was committed yet
				first, _, err := r.client.bounds(ctx, r.cfg.Topic, b.partition)
				if err != nil {
					return err
				}
				b.ask = first
			}
			places, asked[b.partition] = append(places, place{b.partition, b.ask}), b
		}
		wait := fetchWait
		if len(places) < len(boxes) { // the broker must not hold it until the others have room
			wait = 0
		}
		if len(places) == 0 || idle && wait == 0 {
			select {
			case <-r.room:
			case <-time.After(fullWait):
			case <-ctx.Done():
				return ctx.Err()
			}
			idle = false
			continue
		}
		begun := time.Now()
		answers, err := r.client.fetch(ctx, r.cfg.Topic, places, share*len(boxes), share, wait)
		if err != nil {
			return err
		}
		all := len(places) == len(boxes)
		idle = true
		for _, a := range answers {
			b := asked[a.partition]
			switch {
			case errors.Is(a.err, kafka.OffsetOutOfRange):
				if err := r.reset(ctx, b); err != nil {
					return err
				}
				continue
			case a.err != nil:
				return a.err
			}
			all = all && a.next >= a.end
			if a.next > b.ask {
				b.ask = a.next
				b.put(a.fetched)
				idle = false
				notify(b.owner)
			}
		}
		if all {
			fetchedAll = begun
		}
	}
}

// reset moves to the start of a partition whose log no longer holds the
// offset to read on from: of a compacted topic that is no loss, otherwise
// retention was shorter than the group was away, which nobody should have to
// find out.
func (r *reader) reset(ctx context.Context, b *inbox) error {
	first, end, err := r.client.bounds(ctx, r.cfg.Topic, b.partition)
	if err != nil {
		return err
	}
	r.client.log.Error("the topic no longer holds the records after the committed offset; going on with the oldest it has",
		"group", r.cfg.Group, "topic", r.cfg.Topic, "partition", b.partition, "committed", b.ask, "oldest", first, "end", end,
		"hint", "unless the topic is compacted, changes may be missing: run leat verify --repair, and give the topic a longer retention")
	b.ask = first
	return nil
}
