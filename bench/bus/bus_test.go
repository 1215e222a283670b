// Package bus_test measures the bus against what kafka-go does by itself, in
// the same run and against the same broker: the embedded one and Apache Kafka.
//
//	go test ./bench/bus -bench . -benchtime 3s
package bus_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"leat/internal/bus"
	"leat/internal/testenv"
)

const (
	topic      = "bench"
	partitions = 4
	batch      = 1000 // records a call
)

var quiet = slog.New(slog.DiscardHandler)

// broker starts an embedded broker, as leat run does, with one empty topic.
func broker(b *testing.B) (*bus.Client, string) {
	b.Helper()
	e, err := bus.StartEmbedded(b.Context(), b.TempDir(), quiet)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { e.Close() })
	c, err := bus.New(bus.Config{Brokers: []string{e.Addr()}}, quiet)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	t := bus.Topic{Name: topic, Partitions: partitions, MaxMessageBytes: bus.DefaultMaxMessageBytes}
	if err := c.EnsureTopics(b.Context(), t); err != nil {
		b.Fatal(err)
	}
	return c, e.Addr()
}

// value is 600 bytes: what a row of 500 bytes takes as JSON, about.
var value = slices.Repeat([]byte("quick brown foxes; "), 32)[:600]

func headers() []bus.Header {
	return []bus.Header{
		{Key: "ce_specversion", Value: []byte("1.0")}, {Key: "ce_id", Value: []byte("mysql:shop/store.products/123456@76543210")},
		{Key: "ce_source", Value: []byte("/leat/mysql:shop")}, {Key: "ce_type", Value: []byte("leat.document.upserted")},
		{Key: "ce_time", Value: []byte("2026-01-02T03:04:05.678901Z")}, {Key: "ce_leatversion", Value: []byte("76543210")},
		{Key: "content-type", Value: []byte("application/json")},
	}
}

func records(from, n int) []bus.Record {
	h := headers()
	recs := make([]bus.Record, n)
	for i := range recs {
		recs[i] = bus.Record{Topic: topic, Key: fmt.Appendf(nil, "mysql:shop/store.products/%d", from+i), Value: value, Headers: h}
	}
	return recs
}

// flush enqueues a last record and waits until it and all before it are durable.
func flush(ctx context.Context, p *bus.Producer, n int) error {
	done := make(chan error, 1)
	if err := p.Enqueue(ctx, records(n, 1), func(err error) { done <- err }); err != nil {
		return err
	}
	return <-done
}

// perSecond reports records/s.
func perSecond(b *testing.B, n int) {
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "records/s")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkProduce appends records of 600 bytes to the embedded broker until
// all are acknowledged.
func BenchmarkProduce(b *testing.B) {
	b.Run("leat", func(b *testing.B) {
		c, _ := broker(b)
		p := c.NewProducer(bus.ProducerConfig{})
		defer p.Close()
		n := 0
		for b.Loop() {
			produce(b, p, n, 1)
			n += batch
		}
		if err := flush(b.Context(), p, n); err != nil {
			b.Fatal(err)
		}
		perSecond(b, n)
	})
	for _, codec := range []kafka.Compression{0, kafka.Lz4, kafka.Snappy, kafka.Zstd} {
		name := "kafka.Writer"
		if codec != 0 {
			name += "+" + codec.String()
		}
		b.Run(name, func(b *testing.B) {
			_, addr := broker(b)
			w := newWriter(addr, topic)
			w.Compression = codec
			defer w.Close()
			n := 0
			wait := make(chan struct{}, inFlight)
			for b.Loop() {
				write(b, w, n, wait)
				n += batch
			}
			drain(wait)
			perSecond(b, n)
		})
	}
}

// BenchmarkProduceOnKafka appends the same records to Apache Kafka, by turns
// with leat's Producer and with kafka-go's Writer, uncompressed both, each to a
// topic of its own until all are acknowledged.
func BenchmarkProduceOnKafka(b *testing.B) {
	addr := testenv.Kafka(b).Addr()
	c, err := bus.New(bus.Config{Brokers: []string{addr}}, quiet)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	const bare = topic + ".bare"
	for _, name := range []string{topic, bare} {
		t := bus.Topic{Name: name, Partitions: partitions, MaxMessageBytes: bus.DefaultMaxMessageBytes}
		if err := c.EnsureTopics(b.Context(), t); err != nil {
			b.Fatal(err)
		}
	}
	p := c.NewProducer(bus.ProducerConfig{})
	defer p.Close()
	w := newWriter(addr, bare)
	defer w.Close()
	const calls = 100 // a turn
	wait := make(chan struct{}, inFlight)
	var ours, theirs time.Duration
	n := 0
	turn := func() (ours, theirs time.Duration) {
		begun := time.Now()
		produce(b, p, n, calls)
		if err := flush(b.Context(), p, n); err != nil {
			b.Fatal(err)
		}
		ours = time.Since(begun)
		begun = time.Now()
		for i := range calls {
			write(b, w, n+i*batch, wait)
		}
		drain(wait)
		n += calls * batch
		return ours, time.Since(begun)
	}
	turn() // the broker's code is compiled as it runs
	n = 0
	for b.Loop() {
		o, t := turn()
		ours, theirs = ours+o, theirs+t
	}
	b.ReportMetric(float64(n)/ours.Seconds(), "leat-records/s")
	b.ReportMetric(float64(n)/theirs.Seconds(), "kafka.Writer-records/s")
	b.ReportMetric(theirs.Seconds()/ours.Seconds(), "leat/kafka.Writer")
	b.ReportMetric(0, "ns/op")
}

// produce enqueues calls of a batch each.
func produce(b *testing.B, p *bus.Producer, from, calls int) {
	b.Helper()
	for i := range calls {
		err := p.Enqueue(b.Context(), records(from+i*batch, batch), func(err error) {
			if err != nil {
				b.Error(err)
			}
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

const inFlight = 16 // calls of a Writer, as the Producer's buffer holds about

func newWriter(addr, topic string) *kafka.Writer {
	return &kafka.Writer{
		Addr: kafka.TCP(addr), Topic: topic, Balancer: &kafka.Murmur2Balancer{}, RequiredAcks: kafka.RequireAll,
		BatchSize: 4000, BatchBytes: 1 << 20, BatchTimeout: time.Millisecond, Transport: &kafka.Transport{},
	}
}

// write appends a batch in the background, once there is room in slots.
func write(b *testing.B, w *kafka.Writer, from int, slots chan struct{}) {
	msgs := make([]kafka.Message, batch)
	for i, r := range records(from, batch) {
		h := make([]kafka.Header, len(r.Headers))
		for j := range h {
			h[j] = kafka.Header(r.Headers[j])
		}
		msgs[i] = kafka.Message{Key: r.Key, Value: r.Value, Headers: h}
	}
	slots <- struct{}{}
	go func() {
		defer func() { <-slots }()
		if err := w.WriteMessages(context.Background(), msgs...); err != nil {
			b.Error(err)
		}
	}()
}

// drain waits until nothing is in the background.
func drain(slots chan struct{}) {
	for range cap(slots) {
		slots <- struct{}{}
	}
	for range cap(slots) {
		<-slots
	}
}

// BenchmarkConsume reads what was appended before.
func BenchmarkConsume(b *testing.B) {
	const total = 200_000
	c, addr := broker(b)
	p := c.NewProducer(bus.ProducerConfig{})
	for n := 0; n < total; n += batch {
		if err := p.Enqueue(b.Context(), records(n, batch), func(error) {}); err != nil {
			b.Fatal(err)
		}
	}
	if err := flush(b.Context(), p, total); err != nil {
		b.Fatal(err)
	}
	p.Close()
	ends, err := c.EndOffsets(b.Context(), topic)
	if err != nil {
		b.Fatal(err)
	}
	run := 0
	// Joining the group and leaving it are measured apart from reading.
	report := func(b *testing.B, n int, joining, reading time.Duration) {
		b.ReportMetric(float64(n)/reading.Seconds(), "records/s")
		b.ReportMetric(float64(joining.Milliseconds())/float64(b.N), "first-ms")
		b.ReportMetric(0, "ns/op")
	}
	b.Run("leat", func(b *testing.B) {
		n := 0
		var joining, reading time.Duration
		for b.Loop() {
			run++
			k, j, r := consume(b, c, fmt.Sprint("leat", run), ends)
			n, joining, reading = n+k, joining+j, reading+r
		}
		report(b, n, joining, reading)
	})
	b.Run("kafka.Reader", func(b *testing.B) {
		n := 0
		var joining, reading time.Duration
		for b.Loop() {
			run++
			begun := time.Now()
			r := kafka.NewReader(kafka.ReaderConfig{
				Brokers: []string{addr}, GroupID: fmt.Sprint("reader", run), Topic: topic,
				MinBytes: 1, MaxBytes: 4 << 20, CommitInterval: 500 * time.Millisecond, QueueCapacity: 4000,
			})
			var first time.Time
			for i := range total {
				if _, err := r.FetchMessage(b.Context()); err != nil {
					b.Fatal(err)
				}
				if i == 0 {
					first = time.Now()
				}
				n++
			}
			joining += first.Sub(begun)
			reading += time.Since(first)
			if err := r.Close(); err != nil {
				b.Fatal(err)
			}
		}
		report(b, n, joining, reading)
	})
}

// consume reads topic from its start to ends as a new group: how many records,
// how long until the first and from then to the last.
func consume(b *testing.B, c *bus.Client, group string, ends []int64) (n int, joining, reading time.Duration) {
	begun := time.Now()
	var first time.Time
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	counts := make(chan int, 64)
	done := make(chan error, 1)
	go func() {
		done <- c.Consume(ctx, bus.ConsumeConfig{Group: group, Topic: topic}, func(_ context.Context, batch []bus.Record) error {
			counts <- len(batch)
			return nil
		})
	}()
	want := 0
	for _, end := range ends {
		want += int(end)
	}
	for n < want {
		select {
		case k := <-counts:
			if n == 0 {
				first = time.Now()
			}
			n += k
		case err := <-done:
			b.Fatal(errors.Join(err, io.ErrUnexpectedEOF))
		}
	}
	reading = time.Since(first)
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	return n, first.Sub(begun), reading
}
