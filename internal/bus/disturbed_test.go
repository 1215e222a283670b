package bus

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"leat/internal/testenv"
)

// stream produces and consumes a steady stream of records while disturb does
// something to the broker and brings it back, and returns how long after that
// it took until records came through again. Nothing may be lost, no key's
// order broken (I3, I7), nor any record be stored twice.
func stream(t *testing.T, b *broker, disturb func()) (stall time.Duration) {
	t.Helper()
	c := b.client(t)
	topic := topicOf(t)
	if err := c.EnsureTopics(t.Context(), Topic{Name: topic, Partitions: 4}); err != nil {
		t.Fatal(err)
	}
	const keys, call = 31, 10
	l := newLedger(keys)
	startConsumer(t, b.client(t), topic, l, 0)
	startConsumer(t, b.client(t), topic, l, 0)
	p := newProducer(t, c, ProducerConfig{})
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	var produced, acked atomic.Int64
	halt := make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		for {
			select {
			case <-halt:
				ended <- nil
				return
			case <-time.After(5 * time.Millisecond):
			}
			from := int(produced.Load())
			err := p.Enqueue(ctx, numbered(topic, from, from+call, keys), func(err error) {
				if err != nil {
					t.Error(err)
				}
				acked.Add(call)
			})
			if err != nil {
				ended <- err
				return
			}
			produced.Add(call)
		}
	}()
	flows := func() {
		t.Helper()
		from := int(produced.Load())
		eventually(t, "records come through", func() bool { return l.count() > from })
	}
	flows()
	flows()
	disturb()
	back := time.Now()
	flows()
	stall = time.Since(back)
	flows()
	close(halt)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	n := int(produced.Load())
	eventually(t, "all is acknowledged", func() bool { return int(acked.Load()) == n })
	if err := c.WaitConsumed(ctx, group(topic), topic); err != nil {
		t.Fatal(err)
	}
	l.check(t, n)
	stored, err := c.EndOffsets(ctx, topic)
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, end := range stored {
		total += int(end)
	}
	if total != n {
		t.Errorf("%d records are stored, %d were produced", total, n)
	}
	t.Logf("%d records; they came through again after %v", n, stall.Round(time.Millisecond))
	return stall
}

func TestEmbeddedRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := startBroker(t, dir)
	stream(t, at(e.Addr()), func() {
		addr := e.Addr()
		e.Close()
		e = startBroker(t, dir)
		if e.Addr() != addr {
			t.Fatalf("the broker moved from %s to %s", addr, e.Addr())
		}
	})
}

// TestKafkaDisturbed: whatever befalls a broker, what it had acknowledged is
// there, and the flow goes on soon after it is back.
func TestKafkaDisturbed(t *testing.T) {
	t.Parallel()
	k := testenv.Kafka(t, testenv.Flags("log.cleaner.backoff.ms=100"))
	t.Run("compacted", func(t *testing.T) { testCompacted(t, at(k.Addr())) })
	for name, disturb := range map[string]func(){
		"restart": func() { k.Restart(t) },
		"killed":  func() { k.Kill(t); k.Start(t) },
		"paused":  func() { k.Pause(t); time.Sleep(sessionTimeout + 2*time.Second); k.Resume(t) },
	} {
		t.Run(name, func(t *testing.T) { stream(t, at(k.Addr()), disturb) })
	}
}

// testCompacted: what Kafka leaves of a topic that it has compacted, which are
// batches without their last records among others, is read to its end.
func testCompacted(t *testing.T, b *broker) {
	c := b.client(t)
	topic := topicOf(t)
	req := &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{Topic: topic, NumPartitions: 1, ReplicationFactor: 1, ConfigEntries: []kafka.ConfigEntry{
		{ConfigName: "cleanup.policy", ConfigValue: "compact"}, {ConfigName: "min.cleanable.dirty.ratio", ConfigValue: "0.001"},
		{ConfigName: "segment.ms", ConfigValue: "100"}, {ConfigName: "delete.retention.ms", ConfigValue: "100"},
	}}}}
	if res, err := c.kafka.CreateTopics(t.Context(), req); err != nil || res.Errors[topic] != nil {
		t.Fatal(err, res)
	}
	p := newProducer(t, c, ProducerConfig{})
	const keys, rounds = 50, 20
	for i := range rounds {
		recs := numbered(topic, i*keys, i*keys+keys, keys)
		if i%2 == 0 { // the other way round: old records at the end of a batch
			slices.Reverse(recs)
		}
		recs = append(recs, Record{Topic: topic, Key: []byte("gone"), Value: []byte("v")}, Record{Topic: topic, Key: []byte("gone")})
		if err := p.Produce(t.Context(), recs...); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	read := func() (n int, latest map[string]string) {
		latest = map[string]string{}
		if err := c.ReadFrom(t.Context(), topic, 0, 0, func(r Record) error {
			n++
			latest[string(r.Key)] = string(r.Value)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return n, latest
	}
	const total = rounds * (keys + 2)
	eventually(t, "it is compacted", func() bool {
		// A segment is closed by the next record after its time.
		if err := p.Produce(t.Context(), Record{Topic: topic, Key: []byte("last"), Value: []byte("v")}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(200 * time.Millisecond)
		n, _ := read()
		return n < total/5
	})
	n, latest := read()
	t.Logf("%d of %d records are left", n, total)
	for k := range keys {
		if want := fmt.Sprint((rounds-1)*keys + k); latest[fmt.Sprintf("k%d", k)] != want {
			t.Errorf("latest of k%d is %s, want %s", k, latest[fmt.Sprintf("k%d", k)], want)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stop := startConsumer(t, c, topic, newLedger(keys), 0)
	if err := c.WaitConsumed(ctx, group(topic), topic); err != nil {
		t.Fatal(err)
	}
	stop()
}
