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
	fetchapi "github.com/segmentio/kafka-go/protocol/fetch"
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
	got, err := f.client.fetch(ctx, f.topic, []place{{f.partition, f.offset}}, maxBytes, maxBytes, wait)
	if err != nil {
		return fetched{}, err
	}
	if got[0].err != nil {
		return fetched{}, got[0].err
	}
	f.offset = got[0].next
	return got[0].fetched, nil
}

// place is where to read on in a partition.
type place struct {
	partition int
	offset    int64
}

// answer is what a fetch brought of one partition.
type answer struct {
	place
	fetched
	err error // of this partition alone
}

// fetch asks the leader of all these partitions for records, in one request,
// and waits up to wait for the first; the answers come in the order of the
// places. The first partition that has some brings at least one batch.
func (c *Client) fetch(ctx context.Context, topic string, places []place, maxBytes, partitionBytes int, wait time.Duration) ([]answer, error) {
	read, err := c.fetchOnce(ctx, topic, places, maxBytes, partitionBytes, wait)
	if err != nil {
		return nil, err
	}
	answers := make([]answer, len(read))
	for i, r := range read {
		answers[i] = r.answer
		if r.err == nil && r.next == r.offset && r.base >= 0 { // a batch, yet no record at or after the offset
			answers[i].next, answers[i].err = c.skip(ctx, topic, r)
		}
	}
	return answers, nil
}

// batchAt is an answer and where its first batch began; -1 where there was none.
type batchAt struct {
	answer
	base int64
}

func (c *Client) fetchOnce(ctx context.Context, topic string, places []place, maxBytes, partitionBytes int, wait time.Duration) ([]batchAt, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	ask := fetchapi.RequestTopic{Topic: topic}
	for _, p := range places {
		ask.Partitions = append(ask.Partitions, fetchapi.RequestPartition{
			Partition: int32(p.partition), CurrentLeaderEpoch: -1, FetchOffset: p.offset, LogStartOffset: -1, PartitionMaxBytes: int32(partitionBytes),
		})
	}
	m, err := c.tr.RoundTrip(ctx, c.addr, &fetchapi.Request{
		ReplicaID: -1, MaxWaitTime: int32(wait.Milliseconds()), MinBytes: 1, MaxBytes: int32(maxBytes),
		SessionID: -1, SessionEpoch: -1, Topics: []fetchapi.RequestTopic{ask},
	})
	if err != nil {
		return nil, err
	}
	res := m.(*fetchapi.Response)
	if res.ErrorCode != 0 {
		return nil, kafka.Error(res.ErrorCode)
	}
	answers := make([]batchAt, len(places))
	at := make(map[int]*batchAt, len(places))
	for i, p := range places {
		// A broker may leave out what no room is left for in its response.
		answers[i] = batchAt{answer{place: p, fetched: fetched{next: p.offset, end: p.offset + 1}}, -1}
		at[p.partition] = &answers[i]
	}
	for _, t := range res.Topics {
		for i := range t.Partitions {
			if a := at[int(t.Partitions[i].Partition)]; a != nil {
				a.err = a.read(topic, &t.Partitions[i])
			}
		}
	}
	return answers, nil
}

func (a *batchAt) read(topic string, res *fetchapi.ResponsePartition) error {
	if res.ErrorCode != 0 {
		return kafka.Error(res.ErrorCode)
	}
	a.fetched = fetched{next: a.offset, end: res.HighWatermark}
	for _, batch := range batches(res.RecordSet.Records) {
		if a.base < 0 {
			a.base = batchBase(batch)
		}
		if control, ok := batch.(*protocol.ControlBatch); ok {
			// The marker that ends a transaction: one record, nobody's but the broker's.
			a.next = max(a.next, control.BaseOffset+1)
			continue
		}
		if err := a.readBatch(topic, batch); err != nil {
			return err
		}
	}
	return nil
}

// readBatch appends the records of a batch at or after the offset asked for.
func (a *batchAt) readBatch(topic string, batch protocol.RecordReader) error {
	for {
		rec, err := batch.ReadRecord()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading a batch of %s/%d at offset %d: %w", topic, a.partition, a.next, err)
		}
		r := Record{Topic: topic, Partition: a.partition, Offset: rec.Offset, Time: rec.Time}
		if r.Key, err = readAll(rec.Key); err == nil {
			r.Value, err = readAll(rec.Value)
		}
		if err != nil {
			return fmt.Errorf("reading record %d of %s/%d: %w", rec.Offset, topic, a.partition, err)
		}
		if rec.Offset < a.offset { // a batch may begin before the offset asked for
			continue
		}
		if len(rec.Headers) > 0 {
			r.Headers = make([]Header, len(rec.Headers))
			for i, h := range rec.Headers {
				r.Headers[i] = Header(h)
			}
		}
		a.records = append(a.records, r)
		a.bytes += r.size()
		a.next = rec.Offset + 1
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
func (c *Client) skip(ctx context.Context, topic string, stuck batchAt) (int64, error) {
	var failed error
	n := sort.Search(int(stuck.end-stuck.offset), func(i int) bool {
		if failed != nil {
			return true
		}
		got, err := c.fetchOnce(ctx, topic, []place{{stuck.partition, stuck.offset + int64(i)}}, fetchOneBatch, fetchOneBatch, minPause)
		if err == nil {
			err = got[0].err
		}
		failed = err
		return err != nil || got[0].base != stuck.base
	})
	return stuck.offset + int64(n), failed
}

// batches takes a response apart.
func batches(r protocol.RecordReader) []protocol.RecordReader {
	if r == nil {
		return nil
	}
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
