package bus

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
}

// newBus starts an embedded broker with one topic and a client of it.
func newBus(t testing.TB, topics ...Topic) *Client {
	t.Helper()
	e, err := StartEmbedded(t.Context(), t.TempDir(), testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	c, err := New(Config{Brokers: []string{e.Addr()}}, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.EnsureTopics(t.Context(), topics...); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestProduceConsume(t *testing.T) {
	c := newBus(t, Topic{Name: "t", Partitions: 4})
	p := c.NewProducer(ProducerConfig{})
	defer p.Close()
	const n = 10000
	var recs []Record
	for i := range n {
		recs = append(recs, Record{Topic: "t", Key: fmt.Appendf(nil, "k%d", i%97), Value: fmt.Appendf(nil, "v%d", i), Headers: []Header{{"h", []byte("x")}}})
	}
	if err := p.Produce(t.Context(), recs...); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	got := 0
	last := map[string]int{}
	var mu sync.Mutex
	begun := time.Now()
	go func() {
		if err := c.WaitConsumed(t.Context(), "g", "t"); err != nil {
			t.Error(err)
		}
		cancel()
	}()
	err := c.Consume(ctx, ConsumeConfig{Group: "g", Topic: "t"}, func(ctx context.Context, batch []Record) error {
		mu.Lock()
		defer mu.Unlock()
		if got == 0 {
			t.Log("first batch after", time.Since(begun))
		}
		got += len(batch)
		for _, r := range batch {
			var v int
			fmt.Sscanf(string(r.Value), "v%d", &v)
			if prev, ok := last[string(r.Key)]; ok && prev >= v {
				t.Errorf("key %s: %d after %d", r.Key, v, prev)
			}
			last[string(r.Key)] = v
		}
		return nil
	})
	if err != nil || got != n {
		t.Fatal(got, err)
	}
	t.Log("all after", time.Since(begun))
}
