package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"leat"
)

// startConsumer runs Consume until stop.
func startConsumer(t *testing.T, c *Client, topic string, l *ledger, pause time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- c.Consume(ctx, ConsumeConfig{Group: group(topic), Topic: topic, MaxRecords: 50}, func(ctx context.Context, batch []Record) error {
			l.add(batch)
			select {
			case <-time.After(pause):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

// testRebalance (I1, I3): members join and leave while records flow; none is
// lost and no key's order broken.
func testRebalance(t *testing.T, b *broker) {
	c, topic := b.bus(t, Topic{Partitions: 4})
	p := newProducer(t, c, ProducerConfig{})
	const n, keys = 20000, 101
	l := newLedger(keys)
	stopped := make(chan error, 1)
	go func() {
		for i := 0; i < n; i += 100 {
			if err := p.Produce(t.Context(), numbered(topic, i, i+100, keys)...); err != nil {
				stopped <- err
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		stopped <- nil
	}()
	at := func(share float64) {
		eventually(t, "records consumed", func() bool { return l.count() > int(share*n) })
	}
	first := startConsumer(t, b.client(t), topic, l, time.Millisecond)
	at(0.1)
	second := startConsumer(t, b.client(t), topic, l, time.Millisecond)
	at(0.4)
	first()
	at(0.6)
	startConsumer(t, b.client(t), topic, l, time.Millisecond)
	at(0.8)
	second()
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := c.WaitConsumed(ctx, group(topic), topic); err != nil {
		t.Fatal(err)
	}
	l.check(t, n)
}

// testSlowHandler: heartbeats go on while a handler takes longer than the
// session may be silent.
func testSlowHandler(t *testing.T, b *broker) {
	c, topic := b.bus(t, Topic{Partitions: 1})
	p := newProducer(t, c, ProducerConfig{})
	if err := p.Produce(t.Context(), numbered(topic, 0, 10, 3)...); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	calls := 0
	err := c.Consume(ctx, ConsumeConfig{Group: group(topic), Topic: topic}, func(work context.Context, batch []Record) error {
		if calls++; calls > 1 {
			t.Error("the batch came again")
		}
		select {
		case <-time.After(sessionTimeout + 2*time.Second):
		case <-work.Done():
			t.Error("the partition was taken away")
		}
		go func() {
			if err := c.WaitConsumed(ctx, group(topic), topic); err != nil {
				t.Error(err)
			}
			cancel()
		}()
		return nil
	})
	if err != nil || calls != 1 {
		t.Fatal(err, calls)
	}
}

// testHandlerError (I1): a failed batch is not committed and comes again.
func testHandlerError(t *testing.T, b *broker) {
	c, topic := b.bus(t, Topic{Partitions: 1})
	p := newProducer(t, c, ProducerConfig{})
	if err := p.Produce(t.Context(), numbered(topic, 0, 100, 7)...); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	l := newLedger(7)
	err := c.Consume(t.Context(), ConsumeConfig{Group: group(topic), Topic: topic, MaxRecords: 10}, func(_ context.Context, batch []Record) error {
		if batch[0].Offset == 50 {
			return broken
		}
		l.add(batch)
		return nil
	})
	if !errors.Is(err, broken) {
		t.Fatalf("got %v", err)
	}
	lags, err := c.Lag(t.Context(), group(topic), topic)
	if err != nil {
		t.Fatal(err)
	}
	if lags[0].Committed > 50 || lags[0].End != 100 {
		t.Errorf("lag %+v, the batch at 50 was never handled", lags[0])
	}
	if oldest, err := c.Oldest(t.Context(), topic, lags); err != nil || oldest.IsZero() {
		t.Errorf("the oldest record not consumed is of %v, %v", oldest, err)
	}
	stop := startConsumer(t, c, topic, l, 0)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := c.WaitConsumed(ctx, group(topic), topic); err != nil {
		t.Fatal(err)
	}
	stop()
	l.check(t, 100)
}

func testLead(t *testing.T, b *broker) {
	c, topic := b.bus(t, Topic{Partitions: 4})
	names := []string{"mysql:shop", "mysql:crm", "s3:docs", "folder:notes", "folder:more"}
	var mu sync.Mutex
	led := map[string]string{} // by whom
	lead := func(who string) (stop func()) {
		ctx, cancel := context.WithCancel(t.Context())
		client := b.client(t)
		done := make(chan error, 1)
		go func() {
			done <- client.Lead(ctx, group(topic), topic, names, func(ctx context.Context, name string) error {
				mu.Lock()
				if other := led[name]; other != "" {
					t.Errorf("%s leads %s, and so does %s", who, name, other)
				}
				led[name] = who
				mu.Unlock()
				<-ctx.Done()
				mu.Lock()
				delete(led, name)
				mu.Unlock()
				return ctx.Err()
			})
		}()
		return sync.OnceFunc(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	leaders := func(who ...string) func() bool {
		return func() bool {
			mu.Lock()
			defer mu.Unlock()
			var have []string
			for _, w := range led {
				have = append(have, w)
			}
			slices.Sort(have)
			return len(led) == len(names) && slices.Equal(slices.Compact(have), who)
		}
	}
	stopA := lead("a")
	t.Cleanup(stopA)
	eventually(t, "a leads all", leaders("a"))
	stopB := lead("b")
	t.Cleanup(stopB)
	eventually(t, "both lead", leaders("a", "b"))
	stopA()
	eventually(t, "b leads all", leaders("b"))
	stopB()

	broken := errors.New("broken")
	runs := 0
	err := c.Lead(t.Context(), group(topic), topic, names[:1], func(context.Context, string) error {
		runs++
		return broken
	})
	if !errors.Is(err, broken) || runs != 1 {
		t.Errorf("got %v after %d runs", err, runs)
	}
}

func testReadersWithoutGroup(t *testing.T, b *broker) {
	c, topic := b.bus(t, Topic{Partitions: 3, Compact: true})
	p := newProducer(t, c, ProducerConfig{})
	const n, keys = 1000, 17
	if err := p.Produce(t.Context(), numbered(topic, 0, n, keys)...); err != nil {
		t.Fatal(err)
	}
	if err := p.Produce(t.Context(), Record{Topic: topic, Key: []byte("k3")}); err != nil {
		t.Fatal(err)
	}
	latest := map[string]string{}
	if err := c.Latest(t.Context(), topic, func(r Record) error {
		if r.Value == nil {
			latest[string(r.Key)] = "gone"
		} else {
			latest[string(r.Key)] = string(r.Value)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for k := range keys {
		want := fmt.Sprint((n-1-k)/keys*keys + k)
		if k == 3 {
			want = "gone"
		}
		if got := latest[fmt.Sprintf("k%d", k)]; got != want {
			t.Errorf("latest of k%d is %s, want %s", k, got, want)
		}
	}
	if len(latest) != keys {
		t.Errorf("%d keys, want %d", len(latest), keys)
	}
	r, err := c.Lookup(t.Context(), topic, []byte("k5"))
	if err != nil || string(r.Value) != latest["k5"] {
		t.Errorf("lookup of k5: %q, %v", r.Value, err)
	}
	if _, err := c.Lookup(t.Context(), topic, []byte("absent")); !errors.Is(err, leat.ErrNotFound) {
		t.Errorf("lookup of nothing: %v", err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	count := 0
	if err := c.Tail(ctx, topic, false, func(Record) error {
		if count++; count == n+1 {
			cancel()
		}
		return nil
	}); err != nil || count != n+1 {
		t.Errorf("tail from the start: %d records, %v", count, err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), patience)
	defer cancel()
	got := make(chan Record, 10)
	done := make(chan error, 1)
	go func() { done <- c.Tail(ctx, topic, true, func(r Record) error { got <- r; return nil }) }()
	for received := false; !received; { // Tail may begin after the first of these
		if err := p.Produce(ctx, Record{Topic: topic, Key: []byte("k1"), Value: []byte("new")}); err != nil {
			t.Fatal(err)
		}
		select {
		case r := <-got:
			if string(r.Value) != "new" {
				t.Errorf("tail from the end gives %q", r.Value)
			}
			received = true
		case <-time.After(100 * time.Millisecond):
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func testEnsureTopics(t *testing.T, b *broker) {
	c := b.client(t)
	ctx := t.Context()
	name := topicOf(t)
	base := Topic{Name: name, Partitions: 2, Retention: time.Hour, MaxMessageBytes: 2 << 20}
	for range 2 { // the second time they are there
		if err := c.EnsureTopics(ctx, base); err != nil {
			t.Fatal(err)
		}
	}
	for what, change := range map[string]func(*Topic){
		"compact":    func(t *Topic) { t.Compact = true },
		"retention":  func(t *Topic) { t.Retention = 2 * time.Hour },
		"no limit":   func(t *Topic) { t.Retention = 0 },
		"message":    func(t *Topic) { t.MaxMessageBytes = 3 << 20 },
		"partitions": func(t *Topic) { t.Partitions = 3 },
		"replicas":   func(t *Topic) { t.Replicas = 3 },
	} {
		topic := base
		change(&topic)
		if err := c.EnsureTopics(ctx, topic); !errors.Is(err, leat.ErrMismatch) {
			t.Errorf("%s: got %v, want a mismatch", what, err)
		}
	}
	wide := base
	wide.Name, wide.Replicas = name+".wide", 3
	if err := c.EnsureTopics(ctx, wide); err == nil || !strings.Contains(leat.HintOf(err), "kafka.replication") {
		t.Errorf("more replicas than brokers: %v\nhint: %s", err, leat.HintOf(err))
	}
	less := base
	less.Partitions, less.Retention, less.MaxMessageBytes = 1, time.Minute, 1<<20
	if err := c.EnsureTopics(ctx, less); err != nil {
		t.Errorf("a topic that has more than is asked: %v", err)
	}
	if err := c.DeleteTopics(ctx, name, "absent"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Partitions(ctx, name); !errors.Is(err, leat.ErrNotFound) {
		t.Errorf("a deleted topic: %v", err)
	}
	names := Topics("shop", 3)
	if err := c.EnsureTopics(ctx, names.Specs(TopicSettings{Partitions: 2, Retention: time.Hour, MaxMessageBytes: DefaultMaxMessageBytes})...); err != nil {
		t.Fatal(err)
	}
	if names.Vectors != "shop.g3.vectors" || Groups("shop", 3).TextIndexer != "shop.g3.text-indexer" {
		t.Errorf("names %+v", names)
	}
}
