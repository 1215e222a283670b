package bus_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"leat/internal/bus"
)

// BenchmarkHops measures how long a record takes, at 200 records/s, through
// hops of produce, consume and produce again: what the bus adds to freshness.
// Three hops are documents, chunks, vectors.
func BenchmarkHops(b *testing.B) {
	for _, hops := range []int{1, 3} {
		b.Run(fmt.Sprint(hops), func(b *testing.B) {
			const rate, total = 200, 1000
			for b.Loop() {
				took := hopTimes(b, hops, rate, total)
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
				b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

func hopTimes(b *testing.B, hops, rate, total int) []time.Duration {
	c, _ := broker(b)
	name := func(i int) string { return fmt.Sprint("hop", i) }
	var topics []bus.Topic
	for i := range hops {
		topics = append(topics, bus.Topic{Name: name(i), Partitions: 2})
	}
	if err := c.EnsureTopics(b.Context(), topics...); err != nil {
		b.Fatal(err)
	}
	p := c.NewProducer(bus.ProducerConfig{})
	defer p.Close()
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, hops)
	arrived := make(chan time.Duration, total)
	for i := range hops {
		go func() {
			ended <- c.Consume(ctx, bus.ConsumeConfig{Group: name(i), Topic: name(i)}, func(ctx context.Context, batch []bus.Record) error {
				if i == hops-1 {
					for _, r := range batch {
						sent, err := time.Parse(time.RFC3339Nano, string(r.Value))
						if err != nil {
							return err
						}
						arrived <- time.Since(sent)
					}
					return nil
				}
				next := slices.Clone(batch)
				for j := range next {
					next[j].Topic = name(i + 1)
				}
				return p.Produce(ctx, next...)
			})
		}()
	}
	go func() {
		tick := time.NewTicker(time.Second / time.Duration(rate))
		defer tick.Stop()
		for i := range total {
			<-tick.C
			r := bus.Record{Topic: name(0), Key: fmt.Append(nil, i), Value: []byte(time.Now().Format(time.RFC3339Nano))}
			if err := p.Enqueue(ctx, []bus.Record{r}, func(error) {}); err != nil {
				return
			}
		}
	}()
	took := make([]time.Duration, 0, total)
	for len(took) < total {
		select {
		case d := <-arrived:
			took = append(took, d)
		case err := <-ended:
			b.Fatal(err)
		}
	}
	cancel()
	for range hops {
		if err := <-ended; err != nil {
			b.Fatal(err)
		}
	}
	return took[total/10:] // joining the groups is not measured here
}
