package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		child(dir)
	}
	if addr := os.Getenv(leaderEnv); addr != "" {
		leader(addr)
	}
	// A link of toxiproxy that was reset may be left behind.
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2/toxics.(*NoopToxic).Pipe"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).read"))
}

// patience is how long a test waits for what has to happen.
const patience = time.Minute

func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
}

func startBroker(t testing.TB, dir string) *Embedded {
	t.Helper()
	e, err := StartEmbedded(t.Context(), dir, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

func newClient(t testing.TB, addr string) *Client {
	t.Helper()
	c, err := New(Config{Brokers: []string{addr}}, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// newBus starts a broker with topics and a client of it.
func newBus(t testing.TB, topics ...Topic) (*Embedded, *Client) {
	t.Helper()
	e := startBroker(t, t.TempDir())
	c := newClient(t, e.Addr())
	if err := c.EnsureTopics(t.Context(), topics...); err != nil {
		t.Fatal(err)
	}
	return e, c
}

func newProducer(t testing.TB, c *Client, cfg ProducerConfig) *Producer {
	p := c.NewProducer(cfg)
	t.Cleanup(func() { p.Close() })
	return p
}

// numbered makes records from..to-1 of topic, spread over keys.
func numbered(topic string, from, to, keys int) []Record {
	var recs []Record
	for i := from; i < to; i++ {
		recs = append(recs, Record{Topic: topic, Key: fmt.Appendf(nil, "k%d", i%keys), Value: fmt.Append(nil, i)})
	}
	return recs
}

// ledger checks what consumers of numbered records see.
type ledger struct {
	mu   sync.Mutex
	keys int
	next map[string]int // the smallest number of a key not seen yet
	seen map[int]int    // how often a number was seen
	errs []error
}

func newLedger(keys int) *ledger {
	return &ledger{keys: keys, next: map[string]int{}, seen: map[int]int{}}
}

func (l *ledger) add(batch []Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, r := range batch {
		var n int
		if _, err := fmt.Sscan(string(r.Value), &n); err != nil {
			l.errs = append(l.errs, err)
			continue
		}
		if i > 0 && (batch[i-1].Offset >= r.Offset || batch[i-1].Partition != r.Partition) {
			l.errs = append(l.errs, fmt.Errorf("offset %d/%d after %d/%d", r.Partition, r.Offset, batch[i-1].Partition, batch[i-1].Offset))
		}
		l.seen[n]++
		key := string(r.Key)
		if _, ok := l.next[key]; !ok {
			l.next[key] = n % l.keys
		}
		switch { // what was handled may come again, but nothing may be left out
		case n == l.next[key]:
			l.next[key] += l.keys
		case n > l.next[key]:
			l.errs = append(l.errs, fmt.Errorf("%s: %d came before %d", key, n, l.next[key]))
			l.next[key] = n + l.keys
		}
	}
}

func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.seen)
}

func (l *ledger) check(t *testing.T, total int) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := errors.Join(l.errs...); err != nil {
		t.Error(err)
	}
	if len(l.seen) != total {
		t.Errorf("saw %d of %d records", len(l.seen), total)
	}
}

// eventually waits for what has to become true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for begun := time.Now(); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Since(begun) > patience {
			t.Fatalf("still not: %s", what)
		}
	}
}

// flaky is a connection that loses answers: the request was carried out.
type flaky struct {
	net.Conn
	lose *atomic.Int64 // one in so many reads; 0: none
	lost *atomic.Int64
}

func (f flaky) Read(b []byte) (int, error) {
	n, err := f.Conn.Read(b)
	if one := f.lose.Load(); err == nil && one > 0 && rand.Int64N(one) == 0 {
		f.lost.Add(1)
		f.Conn.Close()
		return 0, errors.New("connection lost by the test")
	}
	return n, err
}

// TestOrderUnderRetries (I3): answers get lost and the broker refuses requests
// at random; still each record is stored once and each key's in order.
func TestOrderUnderRetries(t *testing.T) {
	e, _ := newBus(t)
	c, err := New(Config{Brokers: []string{e.Addr()}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var lose, lost, refusals atomic.Int64
	c.tr.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := c.dialer(&c.conns)(ctx, network, addr)
		return flaky{conn, &lose, &lost}, err
	}
	if err := c.EnsureTopics(t.Context(), Topic{Name: "t", Partitions: 2}); err != nil {
		t.Fatal(err)
	}
	lose.Store(8)
	e.cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		e.cluster.KeepControl()
		if rand.IntN(20) != 0 {
			return nil, nil, false
		}
		refusals.Add(1)
		res := req.ResponseKind().(*kmsg.ProduceResponse)
		for _, rt := range req.(*kmsg.ProduceRequest).Topics {
			st := kmsg.NewProduceResponseTopic()
			st.Topic = rt.Topic
			for _, rp := range rt.Partitions {
				sp := kmsg.NewProduceResponseTopicPartition()
				sp.Partition, sp.ErrorCode = rp.Partition, 19 // not enough replicas
				st.Partitions = append(st.Partitions, sp)
			}
			res.Topics = append(res.Topics, st)
		}
		return res, nil, true
	})
	p := newProducer(t, c, ProducerConfig{})
	const n, keys, call = 5000, 23, 10
	var order []int
	for i := 0; i < n; i += call {
		if err := p.Enqueue(t.Context(), numbered("t", i, i+call, keys), func(err error) {
			if err != nil {
				t.Error(err)
			}
			order = append(order, i) // one at a time: no lock
		}); err != nil {
			t.Fatal(err)
		}
		if i%50 == 0 { // small batches: many requests
			time.Sleep(3 * time.Millisecond)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	last := make(chan error, 1)
	if err := p.Enqueue(ctx, numbered("t", n, n+1, keys), func(err error) { last <- err }); err != nil {
		t.Fatal(err)
	}
	if err := <-last; err != nil {
		t.Fatal(err)
	}
	lose.Store(0)
	if lost.Load() == 0 || refusals.Load() == 0 {
		t.Errorf("%d answers were lost and %d requests refused: this tests nothing", lost.Load(), refusals.Load())
	}
	for i, at := range order {
		if at != i*call {
			t.Fatalf("done %d was called for %d", i, at)
		}
	}
	l := newLedger(keys)
	for part := range 2 {
		var all []Record
		if err := c.ReadFrom(t.Context(), "t", part, 0, func(r Record) error { all = append(all, r); return nil }); err != nil {
			t.Fatal(err)
		}
		l.add(all)
	}
	l.check(t, n+1)
	for i, times := range l.seen {
		if times != 1 {
			t.Errorf("%d is stored %d times", i, times)
		}
	}
}

// TestBackPressure (I8): a broker that does not answer stops Enqueue once the
// buffer is full.
func TestBackPressure(t *testing.T) {
	e, c := newBus(t, Topic{Name: "t", Partitions: 1})
	release := make(chan struct{})
	var once sync.Once
	let := func() { once.Do(func() { close(release) }) }
	t.Cleanup(let)
	e.cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		<-release
		return nil, nil, false
	})
	const buffer = 100_000
	p := newProducer(t, c, ProducerConfig{MaxBufferBytes: buffer})
	accepted, done := 0, make(chan error, 1000)
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		r := Record{Topic: "t", Key: []byte("k"), Value: make([]byte, 1000)}
		err := p.Enqueue(ctx, []Record{r}, func(err error) { done <- err })
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if accepted++; accepted*1000 > buffer {
			t.Fatalf("%d bytes are accepted, the buffer is of %d", accepted*1000, buffer)
		}
	}
	if accepted == 0 {
		t.Fatal("nothing was accepted")
	}
	let()
	for range accepted {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	// A call larger than the buffer goes through by itself.
	if err := p.Produce(t.Context(), numbered("t", 0, 10000, 7)...); err != nil {
		t.Fatal(err)
	}
}

// TestManyCalls: Enqueues beyond what a Producer holds wait, and neither a
// Produce nor a Close waits for them.
func TestManyCalls(t *testing.T) {
	e, c := newBus(t, Topic{Name: "t", Partitions: 1})
	p := newProducer(t, c, ProducerConfig{})
	if err := p.Produce(t.Context(), numbered("t", 0, 1, 1)...); err != nil {
		t.Fatal(err)
	}
	e.Close()
	var accepted, done atomic.Int64
	ended := make(chan error)
	go func() {
		for {
			if err := p.Enqueue(t.Context(), numbered("t", 0, 1, 1), func(error) { done.Add(1) }); err != nil {
				ended <- err
				return
			}
			accepted.Add(1)
		}
	}()
	eventually(t, "as many as it holds", func() bool { return accepted.Load() == maxCalls })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := p.Produce(ctx, numbered("t", 0, 1, 1)...); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Produce: %v", err)
	}
	p.Close()
	if err := <-ended; !errors.Is(err, errClosed) {
		t.Errorf("Enqueue: %v", err)
	}
	if accepted.Load() != done.Load() {
		t.Errorf("%d accepted, %d done", accepted.Load(), done.Load())
	}
}

// TestClosedProducer: what is not durable when the Producer closes fails, and
// every done is called.
func TestClosedProducer(t *testing.T) {
	e, c := newBus(t, Topic{Name: "t", Partitions: 1})
	p := newProducer(t, c, ProducerConfig{})
	if err := p.Produce(t.Context(), numbered("t", 0, 10, 3)...); err != nil {
		t.Fatal(err)
	}
	e.Close()
	var failed atomic.Int64
	for i := range 20 {
		if err := p.Enqueue(t.Context(), numbered("t", i, i+1, 3), func(err error) {
			if err != nil {
				failed.Add(1)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	p.Close()
	if failed.Load() != 20 {
		t.Errorf("%d of 20 failed", failed.Load())
	}
	if err := p.Produce(t.Context(), numbered("t", 0, 1, 1)...); err == nil {
		t.Error("a closed producer takes records")
	}
}
