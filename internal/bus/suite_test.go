package bus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"leat"
	"leat/internal/testenv"
)

// broker is what a test of the suite runs against.
type broker struct {
	addr   string
	client func(t *testing.T) *Client
}

func at(addr string) *broker {
	return &broker{addr, func(t *testing.T) *Client { return newClient(t, addr) }}
}

// bus makes a topic of the test's own and a client.
func (b *broker) bus(t *testing.T, topic Topic) (*Client, string) {
	t.Helper()
	c := b.client(t)
	topic.Name = topicOf(t)
	if err := c.EnsureTopics(t.Context(), topic); err != nil {
		t.Fatal(err)
	}
	return c, topic.Name
}

// topicOf names a topic after the test and this run of it: the broker may be
// one that stays.
func topicOf(t *testing.T) string {
	return strings.NewReplacer("/", ".", ",", "", " ", "-").Replace(t.Name()) + "." + thisRun
}

var thisRun = strconv.FormatInt(time.Now().UnixNano(), 36)

func group(topic string) string { return topic + ".group" }

// suite is what holds on the embedded broker and on Kafka alike.
var suite = map[string]func(*testing.T, *broker){
	"ProduceConsume":           testProduceConsume,
	"RecordsKeepWhatTheyCarry": testRecordsKeepWhatTheyCarry,
	"SmallMessages":            testSmallMessages,
	"Rebalance":                testRebalance,
	"SlowHandler":              testSlowHandler,
	"Mixed":                    testMixed,
	"HandlerError":             testHandlerError,
	"Lead":                     testLead,
	"Takeover":                 testTakeover,
	"ReadersWithoutGroup":      testReadersWithoutGroup,
	"EnsureTopics":             testEnsureTopics,
	"Members":                  testMembers,
}

func TestEmbedded(t *testing.T) {
	for name, test := range suite {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, at(startBroker(t, t.TempDir()).Addr()))
		})
	}
}

func TestKafka(t *testing.T) {
	t.Parallel()
	k := testenv.Kafka(t)
	for name, test := range suite {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, at(k.Addr()))
		})
	}
	for name, disturb := range badNetworks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testBadNetwork(t, k.Addr(), disturb)
		})
	}
}

// testMixed has batches of all partitions together, at a pace, and records that
// are larger than what is fetched ahead.
func testMixed(t *testing.T, b *broker) {
	const partitions, n = 6, 300
	c, topic := b.bus(t, Topic{Partitions: partitions})
	p := newProducer(t, c, ProducerConfig{Every: 5 * time.Millisecond})
	recs := numbered(topic, 0, n, 50)
	for i := range recs {
		if i%10 == 0 {
			recs[i].Headers = []Header{{"filler", bytes.Repeat([]byte("x"), 200<<10)}}
		}
	}
	if err := p.Produce(t.Context(), recs...); err != nil {
		t.Fatal(err)
	}
	l := newLedger(50)
	mixed := false
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	cfg := ConsumeConfig{Group: group(topic), Topic: topic, MaxRecords: 20, MaxBytes: 64 << 10, Mixed: true, Every: 20 * time.Millisecond}
	go func() {
		done <- c.Consume(ctx, cfg, func(_ context.Context, batch []Record) error {
			if size := batch[0].size(); len(batch) > 20 || len(batch) > 1 && size > 64<<10 {
				l.errs = append(l.errs, fmt.Errorf("a batch of %d records, the first of %d bytes", len(batch), size))
			}
			of := map[int][]Record{}
			for _, r := range batch {
				of[r.Partition] = append(of[r.Partition], r)
			}
			mixed = mixed || len(of) > 1
			for _, records := range of {
				l.add(records)
			}
			return nil
		})
	}()
	if err := c.WaitConsumed(t.Context(), group(topic), topic); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	l.check(t, n)
	if !mixed {
		t.Error("no batch held records of several partitions")
	}
}

func testProduceConsume(t *testing.T, b *broker) {
	c, topic := b.bus(t, Topic{Partitions: 4})
	p := newProducer(t, c, ProducerConfig{})
	const n, keys = 10000, 97
	if err := p.Produce(t.Context(), numbered(topic, 0, n, keys)...); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	l := newLedger(keys)
	largest := 0
	done := make(chan error, 1)
	go func() {
		done <- c.Consume(ctx, ConsumeConfig{Group: group(topic), Topic: topic, MaxRecords: 300}, func(_ context.Context, batch []Record) error {
			l.add(batch)
			l.mu.Lock()
			largest = max(largest, len(batch))
			l.mu.Unlock()
			return nil
		})
	}()
	if err := c.WaitConsumed(ctx, group(topic), topic); err != nil {
		t.Fatal(err)
	}
	lags, err := c.Lag(ctx, group(topic), topic)
	if err != nil {
		t.Fatal(err)
	}
	for _, lag := range lags {
		if lag.Records() != 0 {
			t.Errorf("lag %+v after everything was consumed", lag)
		}
	}
	if oldest, err := c.Oldest(ctx, topic, lags); err != nil || !oldest.IsZero() {
		t.Errorf("the oldest record not consumed is of %v (%v) after everything was", oldest, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	l.check(t, n)
	for i, times := range l.seen {
		if times != 1 {
			t.Errorf("%d was handled %d times without any disturbance", i, times)
		}
	}
	if largest > 300 {
		t.Errorf("a batch of %d, the limit is 300", largest)
	}
}

func testRecordsKeepWhatTheyCarry(t *testing.T, b *broker) {
	c, topic := b.bus(t, Topic{Partitions: 1, MaxMessageBytes: DefaultMaxMessageBytes})
	p := newProducer(t, c, ProducerConfig{})
	when := time.UnixMilli(1700000000123)
	want := []Record{
		{Topic: topic, Key: []byte("k"), Value: []byte("v"), Time: when, Headers: []Header{{"a", []byte("1")}, {"a", []byte{}}, {"b", nil}}},
		{Topic: topic, Key: []byte("k"), Value: nil, Time: when.Add(-time.Hour)},
		{Topic: topic, Key: []byte("k"), Value: []byte{}, Time: when.Add(time.Hour)},
		{Topic: topic, Key: []byte("l"), Value: bytes.Repeat([]byte("x"), 3<<20), Time: when}, // larger than a batch
	}
	if err := p.Produce(t.Context(), want...); err != nil {
		t.Fatal(err)
	}
	var got []Record
	if err := c.ReadFrom(t.Context(), topic, 0, 0, func(r Record) error { got = append(got, r); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("got %d records, want %d", len(got), len(want))
	}
	for i, w := range want {
		g := got[i]
		if g.Offset != int64(i) || !bytes.Equal(g.Key, w.Key) || !bytes.Equal(g.Value, w.Value) || (g.Value == nil) != (w.Value == nil) || !g.Time.Equal(w.Time) {
			t.Errorf("record %d: got %d %q %d bytes (null %v) at %v", i, g.Offset, g.Key, len(g.Value), g.Value == nil, g.Time)
		}
		if len(g.Headers) != len(w.Headers) {
			t.Fatalf("record %d: %d headers, want %d", i, len(g.Headers), len(w.Headers))
		}
		for j := range w.Headers {
			if g.Headers[j].Key != w.Headers[j].Key || !bytes.Equal(g.Headers[j].Value, w.Headers[j].Value) {
				t.Errorf("record %d: header %d is %q, want %q", i, j, g.Headers[j], w.Headers[j])
			}
		}
	}
	tooBig := Record{Topic: topic, Key: []byte("k"), Value: make([]byte, DefaultMaxMessageBytes)}
	if err := p.Produce(t.Context(), tooBig); !errors.Is(err, leat.ErrTooLarge) || leat.HintOf(err) == "" {
		t.Errorf("a record past the limit: got %v", err)
	}
	if err := p.Produce(t.Context(), Record{Topic: topic + ".absent"}); !errors.Is(err, leat.ErrNotFound) || leat.HintOf(err) == "" {
		t.Errorf("a topic that does not exist: got %v", err)
	}
}

// testSmallMessages: a topic that takes less than the Producer was told gets
// smaller batches, and one clear error for a record that does not fit at all.
func testSmallMessages(t *testing.T, b *broker) {
	c, topic := b.bus(t, Topic{Partitions: 1, MaxMessageBytes: 10_000})
	p := newProducer(t, c, ProducerConfig{})
	var recs []Record
	for range 200 {
		recs = append(recs, Record{Topic: topic, Key: []byte("k"), Value: make([]byte, 1000)})
	}
	if err := p.Produce(t.Context(), recs...); err != nil {
		t.Fatal(err)
	}
	large := Record{Topic: topic, Key: []byte("k"), Value: make([]byte, 20_000)}
	err := p.Produce(t.Context(), large)
	if !errors.Is(err, leat.ErrTooLarge) || !strings.Contains(leat.HintOf(err), "max.message.bytes") {
		t.Errorf("got %v\nhint: %s", err, leat.HintOf(err))
	}
	if err := p.Produce(t.Context(), recs[0]); err != nil {
		t.Errorf("after it: %v", err)
	}
	if ends, err := c.EndOffsets(t.Context(), topic); err != nil || ends[0] != 201 {
		t.Errorf("%d records are stored, %v", ends, err)
	}
}
