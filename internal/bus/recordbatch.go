package bus

import (
	"encoding/binary"
	"hash/crc32"
	"time"
)

// Record batches, format 2, as the Kafka protocol guide lays them out
// (https://kafka.apache.org/documentation/#recordbatch). kafka-go encodes them
// too, one interface call and one page copy a field; encoding them here is
// several times as fast and carries the producer id and sequence that keep a
// retry from being stored twice, which kafka-go's own encoder cannot.

const (
	batchHeader  = 61 // bytes before the first record
	recordHeader = 21 // most that a record takes beside key, value and headers: length, attributes, two deltas, three lengths
)

// session is what lets a broker recognise a retried batch.
type session struct {
	producer int64
	epoch    int16
	sequence int32 // of the first record of the next batch
}

// advance moves the sequence past n records; it wraps to 0.
func (s *session) advance(n int) { s.sequence = int32((int64(s.sequence) + int64(n)) & 0x7fffffff) }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendBatch appends one record batch. Records without a time get now.
func appendBatch(b []byte, recs []item, s session, now time.Time) []byte {
	start := len(b)
	stamp := func(r *Record) int64 {
		if r.Time.IsZero() {
			return now.UnixMilli()
		}
		return r.Time.UnixMilli()
	}
	first := stamp(&recs[0].Record)
	last := first

	b = binary.BigEndian.AppendUint64(b, 0)          // base offset: the broker's to set
	b = binary.BigEndian.AppendUint32(b, 0)          // length, below
	b = binary.BigEndian.AppendUint32(b, ^uint32(0)) // partition leader epoch: the broker's to set
	b = append(b, 2)                                 // magic
	b = binary.BigEndian.AppendUint32(b, 0)          // checksum, below
	b = binary.BigEndian.AppendUint16(b, 0)          // attributes: no compression, create time
	b = binary.BigEndian.AppendUint32(b, uint32(len(recs)-1))
	b = binary.BigEndian.AppendUint64(b, uint64(first))
	b = binary.BigEndian.AppendUint64(b, 0) // largest time, below
	b = binary.BigEndian.AppendUint64(b, uint64(s.producer))
	b = binary.BigEndian.AppendUint16(b, uint16(s.epoch))
	b = binary.BigEndian.AppendUint32(b, uint32(s.sequence))
	b = binary.BigEndian.AppendUint32(b, uint32(len(recs)))

	for i := range recs {
		r := &recs[i].Record
		t := stamp(r)
		last = max(last, t)
		delta := t - first

		n := 1 + varintLen(delta) + varintLen(int64(i)) +
			bytesLen(r.Key) + bytesLen(r.Value) + varintLen(int64(len(r.Headers)))
		for j := range r.Headers {
			h := &r.Headers[j]
			n += varintLen(int64(len(h.Key))) + len(h.Key) + bytesLen(h.Value)
		}
		b = binary.AppendVarint(b, int64(n))
		b = append(b, 0) // attributes: none are defined
		b = binary.AppendVarint(b, delta)
		b = binary.AppendVarint(b, int64(i))
		b = appendBytes(b, r.Key)
		b = appendBytes(b, r.Value)
		b = binary.AppendVarint(b, int64(len(r.Headers)))
		for j := range r.Headers {
			h := &r.Headers[j]
			b = binary.AppendVarint(b, int64(len(h.Key)))
			b = append(b, h.Key...)
			b = appendBytes(b, h.Value)
		}
	}

	batch := b[start:]
	binary.BigEndian.PutUint32(batch[8:], uint32(len(batch)-12))
	binary.BigEndian.PutUint64(batch[35:], uint64(last))
	binary.BigEndian.PutUint32(batch[17:], crc32.Checksum(batch[21:], castagnoli))
	return b
}

// appendBytes appends a length and v; nil is length -1.
func appendBytes(b, v []byte) []byte {
	if v == nil {
		return append(b, 1) // -1 in zigzag
	}
	b = binary.AppendVarint(b, int64(len(v)))
	return append(b, v...)
}

func bytesLen(v []byte) int {
	if v == nil {
		return 1
	}
	return varintLen(int64(len(v))) + len(v)
}

func varintLen(v int64) int {
	u := uint64(v)<<1 ^ uint64(v>>63)
	n := 1
	for u >= 0x80 {
		u >>= 7
		n++
	}
	return n
}
