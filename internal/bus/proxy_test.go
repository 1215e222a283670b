package bus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"leat/internal/testenv"
)

func init() { zerolog.SetGlobalLevel(zerolog.Disabled) } // toxics do not ask for a logger

// network is what lies between clients and a broker.
type network struct {
	*toxiproxy.Proxy
	t *testing.T
}

func newNetwork(t *testing.T, broker string) *network {
	t.Helper()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	n := &network{toxiproxy.NewProxy(server, "kafka", "127.0.0.1:0", broker), t}
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Stop)
	return n
}

// broker is the broker as seen through the network, whatever address it names.
func (n *network) broker() *broker {
	return &broker{n.Listen, func(t *testing.T) *Client {
		c := newClient(t, n.Listen)
		direct := c.tr.Dial
		c.tr.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) { return direct(ctx, network, n.Listen) }
		return c
	}}
}

// toxic makes the network worse, in both directions, until the returned
// function is called.
func (n *network) toxic(kind, attributes string) (remove func()) {
	n.t.Helper()
	var names []string
	for _, stream := range []string{"upstream", "downstream"} {
		name := kind + " " + stream
		spec := fmt.Sprintf(`{"name": %q, "type": %q, "stream": %q, "attributes": {%s}}`, name, kind, stream, attributes)
		if _, err := n.Toxics.AddToxicJson(bytes.NewBufferString(spec)); err != nil {
			n.t.Fatal(err)
		}
		names = append(names, name)
	}
	return func() {
		for _, name := range names {
			if err := n.Toxics.RemoveToxic(context.Background(), name); err != nil {
				n.t.Error(err)
			}
		}
	}
}

// badNetworks are what may lie between for a while.
var badNetworks = map[string]func(n *network){
	"slow": func(n *network) {
		defer n.toxic("bandwidth", `"rate": 100`)() // KB/s
		time.Sleep(5 * time.Second)
	},
	"far": func(n *network) {
		defer n.toxic("latency", `"latency": 200, "jitter": 100`)() // ms
		time.Sleep(5 * time.Second)
	},
	"cut": func(n *network) {
		for range 3 {
			remove := n.toxic("reset_peer", `"timeout": 0`)
			time.Sleep(time.Second)
			remove()
			time.Sleep(time.Second)
		}
	},
	"in pieces": func(n *network) {
		defer n.toxic("slicer", `"average_size": 50, "size_variation": 30, "delay": 100`)() // bytes, µs
		time.Sleep(5 * time.Second)
	},
	"dead, not closed": func(n *network) {
		defer n.toxic("timeout", `"timeout": 0`)()
		time.Sleep(sessionTimeout + time.Second)
	},
}

// testBadNetwork: nothing is lost, doubled or out of order behind a slow or
// broken network, and the flow goes on soon after it is well.
func testBadNetwork(t *testing.T, addr string, disturb func(n *network)) {
	n := newNetwork(t, addr)
	stream(t, n.broker(), func() { disturb(n) })
}

// TestKafkaTakesLittle (I8): where a broker takes less than is produced,
// Enqueue waits and memory stays within the buffer. Nothing runs beside it.
func TestKafkaTakesLittle(t *testing.T) {
	n := newNetwork(t, testenv.Kafka(t).Addr())
	c, topic := n.broker().bus(t, Topic{Partitions: 2})
	const buffer, size = 4 << 20, 1000
	p := newProducer(t, c, ProducerConfig{MaxBufferBytes: buffer})
	remove := n.toxic("bandwidth", `"rate": 500`) // KB/s: the buffer is full after a moment and stays full
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	var accepted, acked, largest int64
	var failed atomic.Value
	var done atomic.Int64
	for begun := time.Now(); time.Since(begun) < 5*time.Second; {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		err := p.Enqueue(ctx, []Record{{Topic: topic, Key: fmt.Append(nil, accepted), Value: make([]byte, size)}}, func(err error) {
			if err != nil {
				failed.Store(err)
			}
			done.Add(1)
		})
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		accepted++
		acked = done.Load()
		largest = max(largest, accepted-acked)
	}
	grown := int64(heap()) - int64(before)
	t.Logf("%d accepted, %d acknowledged, at most %d KB between, the heap grew by %d KB", accepted, acked, largest*size>>10, grown>>10)
	if largest*size > buffer {
		t.Errorf("%d bytes were on their way, the buffer is of %d", largest*size, buffer)
	}
	if largest*size < buffer/2 {
		t.Errorf("at most %d bytes were on their way: this tests nothing", largest*size)
	}
	if grown > 8*buffer {
		t.Errorf("the heap grew by %d bytes with a buffer of %d", grown, buffer)
	}
	remove()
	eventually(t, "all is acknowledged", func() bool { return done.Load() == accepted })
	if err := failed.Load(); err != nil {
		t.Error(err)
	}
}

// TestConn: a connection fails where the peer is silent, not where it is slow.
func TestConn(t *testing.T) {
	t.Parallel()
	const quiet = 3 * time.Second
	pair := func() (*conn, net.Conn) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		a, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		b, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { a.Close(); b.Close() })
		c := &conn{Conn: a, set: &conns{}, quiet: quiet}
		return c, b
	}
	far := func() time.Time { return time.Now().Add(time.Hour) }

	c, peer := pair()
	if err := c.SetDeadline(far()); err != nil {
		t.Fatal(err)
	}
	go func() {
		for range 8 {
			time.Sleep(quiet / 5)
			_, _ = peer.Write([]byte("x"))
		}
	}()
	if _, err := io.ReadFull(c, make([]byte, 8)); err != nil {
		t.Errorf("reading from a slow peer: %v", err)
	}
	if _, err := c.Read(make([]byte, 1)); !isTimeout(err) {
		t.Errorf("reading from a silent peer: %v", err)
	}

	c, peer = pair()
	if err := c.SetDeadline(far()); err != nil {
		t.Fatal(err)
	}
	go func() {
		buf := make([]byte, writeChunk)
		for range 8 {
			time.Sleep(quiet / 5)
			_, _ = peer.Read(buf)
		}
	}()
	if n, err := c.Write(make([]byte, 64<<20)); !isTimeout(err) || n < 2*writeChunk {
		t.Errorf("writing to a peer that is slow and then silent: %d bytes, %v", n, err)
	}

	c, _ = pair()
	if err := c.SetDeadline(time.Now().Add(quiet / 10)); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	if _, err := c.Read(make([]byte, 1)); !isTimeout(err) || time.Since(begun) > quiet {
		t.Errorf("a short deadline: %v after %v", err, time.Since(begun))
	}
}
