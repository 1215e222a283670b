package bus

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/segmentio/kafka-go"
)

// contents are the latest records by key and the bounds of topic "t".
func contents(t *testing.T, c *Client) (map[string]string, []span) {
	t.Helper()
	latest := map[string]string{}
	if err := c.Latest(t.Context(), "t", func(r Record) error {
		latest[string(r.Key)] = fmt.Sprintf("%d@%d %s %s", len(r.Value), r.Offset, r.Headers, r.Time)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	s, err := c.spans(t.Context(), "t")
	if err != nil {
		t.Fatal(err)
	}
	return latest, s
}

// fill writes enough versions of few keys for a compaction to be due, some of
// them by another client, compressed.
func fill(t *testing.T, c *Client, addr string) {
	t.Helper()
	p := newProducer(t, c, ProducerConfig{})
	w := &kafka.Writer{Addr: kafka.TCP(addr), Topic: "t", Balancer: &kafka.Murmur2Balancer{}, Compression: kafka.Snappy, BatchTimeout: time.Millisecond, RequiredAcks: kafka.RequireAll, Transport: c.tr}
	defer w.Close()
	value := make([]byte, 50_000)
	for i := range 60 {
		var recs []Record
		for range 30 {
			for j := range value[:1000] {
				value[j] = byte(rand.Uint32())
			}
			recs = append(recs, Record{Topic: "t", Key: fmt.Appendf(nil, "k%d", rand.IntN(100)), Value: bytes.Clone(value), Headers: []Header{{"i", fmt.Append(nil, i)}}})
		}
		recs = append(recs, Record{Topic: "t", Key: fmt.Appendf(nil, "k%d", i)}) // a delete
		if err := p.Produce(t.Context(), recs...); err != nil {
			t.Fatal(err)
		}
		var msgs []kafka.Message
		for range 5 {
			msgs = append(msgs, kafka.Message{Key: fmt.Appendf(nil, "k%d", rand.IntN(100)), Value: bytes.Repeat([]byte{byte(i)}, 30_000+i)})
		}
		if err := w.WriteMessages(t.Context(), msgs...); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCompact: a start compacts what has grown; every key's latest record and
// the offsets stay, and consumers that were in the middle go on.
func TestCompact(t *testing.T) {
	dir := t.TempDir()
	e := startBroker(t, dir)
	c := newClient(t, e.Addr())
	if err := c.EnsureTopics(t.Context(), Topic{Name: "t", Partitions: 1, Compact: true, MaxMessageBytes: DefaultMaxMessageBytes}); err != nil {
		t.Fatal(err)
	}
	fill(t, c, e.Addr())
	want, bounds := contents(t, c)
	part := filepath.Join(dir, dataDir, "partitions", "t-0")
	before := size(t, part)
	e.Close()

	e = startBroker(t, dir)
	after := size(t, part)
	if after > before/4 {
		t.Errorf("%d bytes before, %d after a compaction", before, after)
	}
	got, gotBounds := contents(t, c)
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(bounds, gotBounds, cmp.AllowUnexported(span{})); d != "" {
		t.Error(d)
	}
	// Any offset can be read from, those that are gone too.
	for from := int64(0); from < bounds[0].end; from += 50 {
		last := int64(-1)
		if err := c.ReadFrom(t.Context(), "t", 0, from, func(r Record) error { last = r.Offset; return nil }); err != nil || last != bounds[0].end-1 {
			t.Fatalf("from %d: last offset %d, %v", from, last, err)
		}
	}
	// It takes more, and loads again after a kill as after a Close.
	p := newProducer(t, c, ProducerConfig{})
	if err := p.Produce(t.Context(), Record{Topic: "t", Key: []byte("new"), Value: []byte("v")}); err != nil {
		t.Fatal(err)
	}
	want, bounds = contents(t, c)
	p.Close()
	e.Close()
	if err := os.Remove(filepath.Join(part, "snapshot.json")); err != nil {
		t.Fatal(err)
	}
	startBroker(t, dir)
	got, gotBounds = contents(t, c)
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(bounds, gotBounds, cmp.AllowUnexported(span{})); d != "" {
		t.Error(d)
	}
	if again := size(t, part); again < after {
		t.Errorf("compacted again: %d bytes, then %d", after, again)
	}
}

// TestCompactWhileRunning: clients see a broker that restarts.
func TestCompactWhileRunning(t *testing.T) {
	e := startBroker(t, t.TempDir())
	c := newClient(t, e.Addr())
	if err := c.EnsureTopics(t.Context(), Topic{Name: "t", Partitions: 1, Compact: true, MaxMessageBytes: DefaultMaxMessageBytes}); err != nil {
		t.Fatal(err)
	}
	fill(t, c, e.Addr())
	want, bounds := contents(t, c)
	part := filepath.Join(e.data(), "partitions", "t-0")
	before := size(t, part)
	if err := e.tidy(testLog(t)); err != nil {
		t.Fatal(err)
	}
	if after := size(t, part); after > before/4 {
		t.Errorf("%d bytes before, %d after a compaction", before, after)
	}
	got, gotBounds := contents(t, c)
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(bounds, gotBounds, cmp.AllowUnexported(span{})); d != "" {
		t.Error(d)
	}
}

// TestRetention: what is past its topic's retention goes, but never all of it.
func TestRetention(t *testing.T) {
	e := startBroker(t, t.TempDir())
	c := newClient(t, e.Addr())
	if err := c.EnsureTopics(t.Context(), Topic{Name: "t", Partitions: 1, Retention: time.Hour}); err != nil {
		t.Fatal(err)
	}
	p := newProducer(t, c, ProducerConfig{})
	old := numbered("t", 0, 10, 3)
	for i := range old {
		old[i].Time = time.Now().Add(-2 * time.Hour)
	}
	if err := p.Produce(t.Context(), old...); err != nil {
		t.Fatal(err)
	}
	if err := p.Produce(t.Context(), numbered("t", 10, 20, 3)...); err != nil {
		t.Fatal(err)
	}
	if err := e.tidy(testLog(t)); err != nil {
		t.Fatal(err)
	}
	spans, err := c.spans(t.Context(), "t")
	if err != nil || spans[0] != (span{10, 20}) {
		t.Errorf("after retention: %v, %v", spans, err)
	}
	part := filepath.Join(e.data(), "partitions", "t-0")
	bases, err := segments(part)
	if err != nil {
		t.Fatal(err)
	}
	past := time.Now().Add(-2 * time.Hour)
	for _, base := range bases {
		if err := os.Chtimes(segmentPath(part, base, ".dat"), past, past); err != nil {
			t.Fatal(err)
		}
	}
	if empty, err := wouldEmpty(part, map[string]string{"retention.ms": "3600000"}); !empty || err != nil {
		t.Errorf("all is past retention: %v, %v", empty, err)
	}
}

func size(t *testing.T, dir string) (n int64) {
	t.Helper()
	bases, err := segments(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, base := range bases {
		info, err := os.Stat(segmentPath(dir, base, ".dat"))
		if err != nil {
			t.Fatal(err)
		}
		n += info.Size()
	}
	return n
}

// TestInterruptedCompaction (I7): a kill at any step leaves the old partition
// or the new one.
func TestInterruptedCompaction(t *testing.T) {
	write := func(dir, content string) {
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "0.dat"), []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		dirs map[string]string
		want string
	}{
		"while the new one is written": {map[string]string{"": "old", swapNew: "half"}, "old"},
		"between the renames":          {map[string]string{swapOld: "old", swapNew: "new"}, "new"},
		"before the old one is gone":   {map[string]string{"": "new", swapOld: "old"}, "new"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for suffix, content := range c.dirs {
				write(filepath.Join(root, "t-0"+suffix), content)
			}
			if err := finishSwaps(root); err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(filepath.Join(root, "t-0", "0.dat"))
			if err != nil || string(b) != c.want {
				t.Errorf("got %q, %v", b, err)
			}
			if all, err := os.ReadDir(root); err != nil || len(all) != 1 {
				t.Errorf("left: %v, %v", all, err)
			}
		})
	}
}

// TestTornEnd (I7): a batch that was being written at a kill is cut off and
// what follows is stored and read as if it had never been.
func TestTornEnd(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"half a header": func(b []byte) []byte { return append(b, 0, 0, 0) },
		"half a batch":  func(b []byte) []byte { return append(b, b[:len(b)/3]...) },
		"bits":          func(b []byte) []byte { c := bytes.Clone(b); c[len(c)-1] ^= 1; return append(b, c...) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			e := startBroker(t, dir)
			c := newClient(t, e.Addr())
			if err := c.EnsureTopics(t.Context(), Topic{Name: "t", Partitions: 1}); err != nil {
				t.Fatal(err)
			}
			oneBatch(t, c, numbered("t", 0, 10, 3))
			e.Close()
			path := filepath.Join(dir, dataDir, "partitions", "t-0", "0.dat")
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, damage(b), 0o600); err != nil {
				t.Fatal(err)
			}
			startBroker(t, dir)
			p := newProducer(t, c, ProducerConfig{})
			if err := p.Produce(t.Context(), numbered("t", 10, 20, 3)...); err != nil {
				t.Fatal(err)
			}
			var got []string
			if err := c.ReadFrom(t.Context(), "t", 0, 0, func(r Record) error { got = append(got, string(r.Value)); return nil }); err != nil {
				t.Fatal(err)
			}
			var want []string
			for i := range 20 {
				want = append(want, fmt.Sprint(i))
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
		})
	}
}
