package bus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sort"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
)

const (
	fetchWait = 5 * time.Second // how long a broker holds a fetch that finds nothing
	// A broker sends at least one whole batch, however small the limit.
	fetchOneBatch = 1
)

// fetched is what one fetch brought.
type fetched struct {
	records []Record // at or after the offset asked for
	bytes   int
	next    int64 // the offset to ask for next
	end     int64 // of the partition
}

// fetcher reads one partition from an offset on.
type fetcher struct {
	client    *Client
	topic     string
	partition int
	offset    int64
}

// fetch waits up to wait for records and moves on past what it returns.
func (f *fetcher) fetch(ctx context.Context, maxBytes int, wait time.Duration) (fetched, error) {
	got, err := f.fetchAt(ctx, f.offset, maxBytes, wait)
	if err != nil {
		return fetched{}, err
	}
	if got.next == f.offset && got.stuck {
		if got.next, err = f.skip(ctx, got.base, got.end); err != nil {
			return fetched{}, err
		}
	}
	f.offset = got.next
	return got.fetched, nil
}

type fetchedAt struct {
	fetched
	base  int64 // offset of the first batch; -1 where there is none
	stuck bool  // there was a batch, yet no record at or after the offset
}

func (f *fetcher) fetchAt(ctx context.Context, offset int64, maxBytes int, wait time.Duration) (fetchedAt, error) {
	res, err := f.client.kafka.Fetch(ctx, &kafka.FetchRequest{
		Topic: f.topic, Partition: f.partition, Offset: offset,
		MinBytes: 1, MaxBytes: int64(maxBytes), MaxWait: wait,
	})
	if err != nil {
		return fetchedAt{}, err
	}
	if res.Error != nil {
		return fetchedAt{}, res.Error
	}
	got := fetchedAt{fetched: fetched{next: offset, end: res.HighWatermark}, base: -1}
	for _, batch := range batches(res.Records) {
		if got.base < 0 {
			got.base = batchBase(batch)
		}
		if control, ok := batch.(*protocol.ControlBatch); ok {
			// The marker that ends a transaction: one record, nobody's but the broker's.
			got.next = max(got.next, control.BaseOffset+1)
			continue
		}
		if err := f.read(batch, offset, &got.fetched); err != nil {
			return fetchedAt{}, err
		}
	}
	got.stuck = got.base >= 0 && got.next == offset
	return got, nil
}

// read appends the records of a batch at or after offset.
func (f *fetcher) read(batch protocol.RecordReader, offset int64, got *fetched) error {
	for {
		rec, err := batch.ReadRecord()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading a batch of %s/%d at offset %d: %w", f.topic, f.partition, got.next, err)
		}
		r := Record{Topic: f.topic, Partition: f.partition, Offset: rec.Offset, Time: rec.Time}
		if r.Key, err = readAll(rec.Key); err == nil {
			r.Value, err = readAll(rec.Value)
		}
		if err != nil {
			return fmt.Errorf("reading record %d of %s/%d: %w", rec.Offset, f.topic, f.partition, err)
		}
		if rec.Offset < offset { // a batch may begin before the offset asked for
			continue
		}
		if len(rec.Headers) > 0 {
			r.Headers = make([]Header, len(rec.Headers))
			for i, h := range rec.Headers {
				r.Headers[i] = Header(h)
			}
		}
		got.records = append(got.records, r)
		got.bytes += r.size()
		got.next = rec.Offset + 1
	}
}

// readAll copies b out of the response's pages and lets go of them.
func readAll(b protocol.Bytes) ([]byte, error) {
	if b == nil {
		return nil, nil
	}
	defer b.Close()
	v := make([]byte, b.Len())
	_, err := io.ReadFull(b, v)
	return v, err
}

// skip finds the offset after a batch whose last records were compacted away:
// a fetch there answers with the same batch again and again, and kafka-go does
// not tell where it ends. It is the smallest offset at which another batch, or
// the end of the partition, is found.
func (f *fetcher) skip(ctx context.Context, base, end int64) (int64, error) {
	var failed error
	n := sort.Search(int(end-f.offset), func(i int) bool {
		if failed != nil {
			return true
		}
		got, err := f.fetchAt(ctx, f.offset+int64(i), fetchOneBatch, minPause)
		failed = err
		return err != nil || got.base != base
	})
	return f.offset + int64(n), failed
}

// batches takes a response apart.
func batches(r kafka.RecordReader) []protocol.RecordReader {
	if s, ok := r.(*protocol.RecordStream); ok {
		return s.Records
	}
	return []protocol.RecordReader{r}
}

// batchBase is the first offset of a batch; -1 for what is none.
func batchBase(b protocol.RecordReader) int64 {
	if o, ok := b.(interface{ Offset() int64 }); ok {
		return o.Offset()
	}
	return -1
}
