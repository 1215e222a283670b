package bus

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// rewrite changes the batches of a partition's only segment while no broker runs.
func rewrite(t *testing.T, dir string, change func(i int, b batchView) []byte) {
	t.Helper()
	path := filepath.Join(dir, dataDir, "partitions", "t-0", "0.dat")
	var out []byte
	i := 0
	if _, _, err := readBatches(path, func(raw []byte) error {
		b := change(i, append(batchView(nil), raw...))
		binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], castagnoli))
		out = append(out, b...)
		i++
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, out, 0o600); err != nil {
		t.Fatal(err)
	}
}

// oneBatch appends records to partition 0 of "t" as one batch, which a Producer
// does not promise.
func oneBatch(t *testing.T, c *Client, recs []Record) {
	t.Helper()
	session, err := c.newSession(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	items := make([]item, len(recs))
	for i := range recs {
		items[i].Record = recs[i]
	}
	a := appending{topicPartition{"t", 0}, appendBatch(nil, items, session, time.Now()), make(chan error, 1)}
	(&sender{client: c}).request(t.Context(), []appending{a})
	if err := <-a.done; err != nil {
		t.Fatal(err)
	}
}

// TestWhatOtherBrokersStore: Kafka keeps where a batch ended when its last
// records are compacted away, keeps empty batches, and ends transactions with
// control batches. Consumers get past each, wherever it stands.
func TestWhatOtherBrokersStore(t *testing.T) {
	// Kafka keeps the last offset of a batch; only the first records stay.
	keep := func(n int) func(batchView) []byte {
		return func(b batchView) []byte {
			last := binary.BigEndian.Uint32(b[23:])
			var out []byte
			if n == 0 {
				out = append(out, b[:batchHeader]...)
				binary.BigEndian.PutUint32(out[8:], batchHeader-12)
				binary.BigEndian.PutUint32(out[57:], 0)
			} else {
				var err error
				if out, err = b.filter(func(r recordView) bool { return r.offset < b.base()+int64(n) }); err != nil {
					t.Fatal(err)
				}
			}
			binary.BigEndian.PutUint32(out[23:], last)
			return out
		}
	}
	control := func(b batchView) []byte {
		b[22] |= 0x30 // of a transaction, control
		return b
	}
	for name, c := range map[string]struct {
		batch  int // of three
		change func(batchView) []byte
		lost   []int
	}{
		"tail compacted, in the middle": {1, keep(2), []int{12, 13, 14, 15, 16, 17, 18, 19}},
		"tail compacted, at the end":    {2, keep(1), []int{21, 22, 23, 24, 25, 26, 27, 28, 29}},
		"empty, in the middle":          {1, keep(0), []int{10, 11, 12, 13, 14, 15, 16, 17, 18, 19}},
		"empty, at the end":             {2, keep(0), []int{20, 21, 22, 23, 24, 25, 26, 27, 28, 29}},
		"control":                       {1, control, []int{10, 11, 12, 13, 14, 15, 16, 17, 18, 19}},
		"control, at the end":           {2, control, []int{20, 21, 22, 23, 24, 25, 26, 27, 28, 29}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			e := startBroker(t, dir)
			client := newClient(t, e.Addr())
			if err := client.EnsureTopics(t.Context(), Topic{Name: "t", Partitions: 1}); err != nil {
				t.Fatal(err)
			}
			for i := range 3 {
				oneBatch(t, client, numbered("t", i*10, i*10+10, 3))
			}
			e.Close()
			rewrite(t, dir, func(i int, b batchView) []byte {
				if i == c.batch {
					return c.change(b)
				}
				return b
			})
			client = newClient(t, startBroker(t, dir).Addr())
			var want, got []string
			for i := range 30 {
				lost := false
				for _, l := range c.lost {
					lost = lost || l == i
				}
				if !lost {
					want = append(want, fmt.Sprint(i))
				}
			}
			// One batch a fetch, so that each stands alone in its answer.
			f := fetcher{client: client, topic: "t"}
			for f.offset < 30 {
				before := f.offset
				r, err := f.fetch(t.Context(), fetchOneBatch, minPause)
				if err != nil {
					t.Fatal(err)
				}
				if f.offset == before {
					t.Fatalf("stuck at offset %d", before)
				}
				for _, r := range r.records {
					got = append(got, string(r.Value))
				}
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
			l := newLedger(3)
			stop := startConsumer(t, client, "t", l, 0)
			if err := client.WaitConsumed(t.Context(), "t.group", "t"); err != nil {
				t.Fatal(err)
			}
			stop()
			if l.count() != len(want) {
				t.Errorf("the group saw %d of %d records", l.count(), len(want))
			}
		})
	}
}
