package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"
)

// span is the first offset that a partition holds and the one after the last.
type span struct{ first, end int64 }

// resume is where a consumer goes on that has committed an offset: from the
// start where the partition does not reach that far, or no longer.
func (s span) resume(committed int64) int64 {
	if committed < s.first || committed > s.end {
		return s.first
	}
	return committed
}

// spans asks for the bounds of every partition.
func (c *Client) spans(ctx context.Context, topic string) ([]span, error) {
	n, err := c.waitPartitions(ctx, topic)
	if err != nil {
		return nil, err
	}
	var asked []kafka.OffsetRequest
	for p := range n {
		asked = append(asked, kafka.FirstOffsetOf(p), kafka.LastOffsetOf(p))
	}
	var out []span
	err = c.retry(ctx, func() error {
		res, err := c.kafka.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{topic: asked}})
		if err != nil {
			return err
		}
		out = make([]span, n)
		for _, p := range res.Topics[topic] {
			if p.Error != nil {
				return p.Error
			}
			if p.Partition < n {
				out[p.Partition] = span{p.FirstOffset, p.LastOffset}
			}
		}
		return nil
	})
	return out, c.wrap(err, "asking for the offsets of %s", topic)
}

func (c *Client) bounds(ctx context.Context, topic string, partition int) (first, end int64, err error) {
	s, err := c.spans(ctx, topic)
	if err != nil {
		return 0, 0, err
	}
	if partition >= len(s) {
		return 0, 0, fmt.Errorf("bus: %s has no partition %d", topic, partition)
	}
	return s[partition].first, s[partition].end, nil
}

// retry tries ask until it works, is refused, or ctx ends.
func (c *Client) retry(ctx context.Context, ask func() error) error {
	for attempt := 0; ; attempt++ {
		err := ask()
		if err == nil || refused(err) || errors.Is(err, kafka.OffsetOutOfRange) {
			return err
		}
		if attempt == 5 {
			c.log.Warn("the brokers do not answer, trying on", "error", err)
		}
		if ctx.Err() != nil || !pause(ctx, attempt) {
			return errors.Join(ctx.Err(), err)
		}
	}
}

// EndOffsets are the offsets after the last record, by partition.
func (c *Client) EndOffsets(ctx context.Context, topic string) ([]int64, error) {
	s, err := c.spans(ctx, topic)
	if err != nil {
		return nil, err
	}
	ends := make([]int64, len(s))
	for p := range s {
		ends[p] = s[p].end
	}
	return ends, nil
}

// committed are the offsets that group has committed, by partition; -1 for none.
func (c *Client) committed(ctx context.Context, group, topic string, partitions int) ([]int64, error) {
	out := make([]int64, partitions)
	err := c.retry(ctx, func() error {
		for p := range out {
			out[p] = -1
		}
		res, err := c.kafka.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: group, Topics: map[string][]int{topic: allPartitions(partitions)}})
		if err != nil {
			return err
		}
		if res.Error != nil && !errors.Is(res.Error, kafka.GroupIdNotFound) {
			return res.Error
		}
		for _, p := range res.Topics[topic] {
			if p.Error != nil {
				return p.Error
			}
			if p.Partition < partitions {
				out[p.Partition] = p.CommittedOffset
			}
		}
		return nil
	})
	return out, c.wrap(err, "asking for the offsets of group %s", group)
}

// PartitionLag is how far a group is behind in one partition.
type PartitionLag struct {
	Partition int
	First     int64 // the offset of the first record that is there
	Committed int64 // the next offset to consume; the log's start where nothing is committed
	End       int64 // the offset after the last record
}

// Records not consumed yet; on a compacted topic an upper bound.
func (l PartitionLag) Records() int64 { return l.End - l.Committed }

// Lag tells how far group is behind in topic, by partition.
func (c *Client) Lag(ctx context.Context, group, topic string) ([]PartitionLag, error) {
	spans, err := c.spans(ctx, topic)
	if err != nil {
		return nil, err
	}
	offsets, err := c.committed(ctx, group, topic, len(spans))
	if err != nil {
		return nil, err
	}
	lags := make([]PartitionLag, len(spans))
	for p, s := range spans {
		lags[p] = PartitionLag{Partition: p, First: s.first, Committed: s.resume(offsets[p]), End: s.end}
	}
	return lags, nil
}

// Oldest is the time of the oldest record that is behind lags, which Lag gave;
// zero where there is none. It reads a batch of each partition.
func (c *Client) Oldest(ctx context.Context, topic string, lags []PartitionLag) (oldest time.Time, err error) {
	for _, l := range lags {
		if l.Records() == 0 {
			continue
		}
		f := fetcher{client: c, topic: topic, partition: l.Partition, offset: l.Committed}
		var got fetched
		err := c.retry(ctx, func() (err error) {
			got, err = f.fetch(ctx, fetchOneBatch, minPause)
			return err
		})
		if err != nil && !errors.Is(err, kafka.OffsetOutOfRange) { // retention was faster
			return oldest, c.wrap(err, "reading %s", topic)
		}
		if len(got.records) > 0 && (oldest.IsZero() || got.records[0].Time.Before(oldest)) {
			oldest = got.records[0].Time
		}
	}
	return oldest, nil
}

// WaitConsumed waits until group has committed everything that topic held at
// the call.
func (c *Client) WaitConsumed(ctx context.Context, group, topic string) error {
	ends, err := c.EndOffsets(ctx, topic)
	if err != nil {
		return err
	}
	return c.WaitCommitted(ctx, group, topic, ends)
}

// WaitCommitted waits until group has committed ends, which EndOffsets gave.
func (c *Client) WaitCommitted(ctx context.Context, group, topic string, ends []int64) error {
	const (
		soon = 10 * time.Millisecond
		late = 250 * time.Millisecond
	)
	for wait := soon; ; wait = min(2*wait, late) {
		offsets, err := c.committed(ctx, group, topic, len(ends))
		if err != nil {
			return err
		}
		spans, err := c.spans(ctx, topic)
		if err != nil {
			return err
		}
		behind := 0
		for p, end := range ends {
			if p < len(spans) && spans[p].resume(offsets[p]) < min(end, spans[p].end) {
				behind++
			}
		}
		if behind == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("bus: group %s is behind in %d partitions of %s: %w", group, behind, topic, ctx.Err())
		case <-time.After(wait):
		}
	}
}
