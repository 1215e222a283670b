package bus

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"pgregory.net/rapid"
)

// TestBatchRoundTrip: what appendBatch writes is what the compaction reads, and
// filtering keeps offsets and times.
func TestBatchRoundTrip(t *testing.T) {
	some := rapid.Custom(func(t *rapid.T) []byte {
		if rapid.Bool().Draw(t, "null") {
			return nil
		}
		return rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")
	})
	rapid.Check(t, func(t *rapid.T) {
		items := make([]item, rapid.IntRange(1, 20).Draw(t, "records"))
		size := batchHeader
		for i := range items {
			r := Record{Key: some.Draw(t, "key"), Value: some.Draw(t, "value"), Time: time.UnixMilli(rapid.Int64Range(0, 1<<42).Draw(t, "time"))}
			for range rapid.IntRange(0, 3).Draw(t, "headers") {
				r.Headers = append(r.Headers, Header{rapid.String().Draw(t, "name"), some.Draw(t, "content")})
			}
			items[i] = item{Record: r, size: r.size()}
			size += items[i].size
		}
		b := batchView(appendBatch(nil, items, session{producer: 7, sequence: 3}, time.Now()))
		if len(b) > size {
			t.Fatalf("%d bytes, the estimate was %d", len(b), size)
		}
		binary.BigEndian.PutUint64(b, 1000)
		check := func(b batchView, want []int) {
			i := 0
			if err := b.records(func(r recordView) error {
				w := items[want[i]]
				if !bytes.Equal(r.key, w.Key) || (r.key == nil) != (w.Key == nil) || r.tombstone != (w.Value == nil) ||
					r.offset != 1000+int64(want[i]) || r.time != w.Time.UnixMilli() {
					t.Fatalf("record %d is %+v, want %+v", i, r, w.Record)
				}
				i++
				return nil
			}); err != nil || i != len(want) {
				t.Fatalf("%d records of %d, %v", i, len(want), err)
			}
		}
		all := make([]int, len(items))
		var kept []int
		for i := range items {
			all[i] = i
			if rapid.Bool().Draw(t, "keep") {
				kept = append(kept, i)
			}
		}
		check(b, all)
		next := 0
		out, err := b.filter(func(r recordView) bool {
			keep := next < len(kept) && r.offset == 1000+int64(kept[next])
			if keep {
				next++
			}
			return keep
		})
		if err != nil || (out == nil) != (len(kept) == 0) {
			t.Fatalf("filtered to %d bytes, %v", len(out), err)
		}
		if out != nil {
			check(out, kept)
		}
	})
}

// FuzzBatch: no bytes make the reader of stored batches panic.
func FuzzBatch(f *testing.F) {
	records := []item{{Record: Record{Key: []byte("k"), Value: []byte("v"), Headers: []Header{{"h", nil}}}}, {Record: Record{Key: []byte("k")}}}
	whole := appendBatch(nil, records, session{}, time.UnixMilli(5))
	f.Add(whole)
	compressed := bytes.Clone(whole)
	compressed[22] |= byte(kafka.Snappy)
	f.Add(compressed)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < batchHeader { // readBatches gives none
			return
		}
		n := 0
		err := batchView(b).records(func(recordView) error { n++; return nil })
		out, ferr := batchView(b).filter(func(r recordView) bool { return r.tombstone })
		if (err == nil) != (ferr == nil) || err == nil && n != batchView(b).count() {
			t.Fatalf("%d records, %v; filtered to %d bytes, %v", n, err, len(out), ferr)
		}
	})
}

// TestPartitionOf: the values of the Java client's own test
// (org.apache.kafka.common.utils.UtilsTest), so that other publishers agree.
func TestPartitionOf(t *testing.T) {
	for key, hash := range map[string]int32{
		"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536,
		"a-little-bit-longer-string": -1486304829, "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107,
	} {
		for _, partitions := range []int{1, 2, 7, 64} {
			if got, want := partitionOf([]byte(key), allPartitions(partitions)), int(hash&0x7fffffff)%partitions; got != want {
				t.Errorf("%s of %d: partition %d, the Java client takes %d", key, partitions, got, want)
			}
		}
	}
}
