package bus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"sync"

	"github.com/segmentio/kafka-go"
	"golang.org/x/sync/errgroup"

	"leat"
)

// scan gives fn the records of one partition between two offsets, in order.
func (c *Client) scan(ctx context.Context, topic string, partition int, s span, fn func(Record) error) error {
	f := fetcher{client: c, topic: topic, partition: partition, offset: s.first}
	for f.offset < s.end {
		var got fetched
		err := c.retry(ctx, func() (err error) {
			got, err = f.fetch(ctx, defaultFetchBytes, fetchWait)
			return err
		})
		if errors.Is(err, kafka.OffsetOutOfRange) { // compaction or retention took the start away meanwhile
			if f.offset, _, err = c.bounds(ctx, topic, partition); err == nil {
				continue
			}
		}
		if err != nil {
			return c.wrap(err, "reading %s", topic)
		}
		for _, r := range got.records {
			if r.Offset >= s.end {
				return nil
			}
			if err := fn(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// ReadFrom gives fn the records of one partition from an offset to the end as
// of now, in order.
func (c *Client) ReadFrom(ctx context.Context, topic string, partition int, offset int64, fn func(Record) error) error {
	return c.ReadRange(ctx, topic, partition, offset, math.MaxInt64, fn)
}

// ReadRange gives fn the records of one partition between two offsets, until
// left out, as far as they are there now, in order.
func (c *Client) ReadRange(ctx context.Context, topic string, partition int, from, until int64, fn func(Record) error) error {
	first, end, err := c.bounds(ctx, topic, partition)
	if err != nil {
		return err
	}
	return c.scan(ctx, topic, partition, span{max(first, from), min(end, until)}, fn)
}

// Latest reads topic from its start to its end as of now and gives fn the
// latest record of every key, tombstones too, in no particular order. It holds
// the latest records of one partition in memory.
func (c *Client) Latest(ctx context.Context, topic string, fn func(Record) error) error {
	spans, err := c.spans(ctx, topic)
	if err != nil {
		return err
	}
	for p, s := range spans {
		latest := map[string]Record{}
		err := c.scan(ctx, topic, p, s, func(r Record) error {
			latest[string(r.Key)] = r
			return nil
		})
		if err != nil {
			return err
		}
		for _, r := range latest {
			if err := fn(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// Lookup finds the latest record of key, a tombstone too, by reading the one
// partition that can hold it; leat.ErrNotFound where there is none.
func (c *Client) Lookup(ctx context.Context, topic string, key []byte) (Record, error) {
	spans, err := c.spans(ctx, topic)
	if err != nil {
		return Record{}, err
	}
	var found *Record
	p := partitionOf(key, allPartitions(len(spans)))
	err = c.scan(ctx, topic, p, spans[p], func(r Record) error {
		if bytes.Equal(r.Key, key) {
			found = &r
		}
		return nil
	})
	if err != nil {
		return Record{}, err
	}
	if found == nil {
		return Record{}, fmt.Errorf("bus: %q in %s: %w", key, topic, leat.ErrNotFound)
	}
	return *found, nil
}

// Tail gives fn the records of all partitions, from now on or from the start,
// one at a time, in order per partition, until ctx ends (nil) or fn fails.
func (c *Client) Tail(ctx context.Context, topic string, fromEnd bool, fn func(Record) error) error {
	spans, err := c.spans(ctx, topic)
	if err != nil {
		return err
	}
	var mu sync.Mutex // one record at a time
	g, inner := errgroup.WithContext(ctx)
	for p, s := range spans {
		from := s.first
		if fromEnd {
			from = s.end
		}
		g.Go(func() error {
			return c.follow(inner, topic, p, from, func(r Record) error {
				mu.Lock()
				defer mu.Unlock()
				return fn(r)
			})
		})
	}
	err = g.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// follow is scan without an end.
func (c *Client) follow(ctx context.Context, topic string, partition int, from int64, fn func(Record) error) error {
	f := fetcher{client: c, topic: topic, partition: partition, offset: from}
	for {
		var got fetched
		err := c.retry(ctx, func() (err error) {
			got, err = f.fetch(ctx, defaultFetchBytes, fetchWait)
			return err
		})
		if errors.Is(err, kafka.OffsetOutOfRange) {
			if f.offset, _, err = c.bounds(ctx, topic, partition); err == nil {
				continue
			}
		}
		if err != nil {
			return c.wrap(err, "reading %s", topic)
		}
		for _, r := range got.records {
			if err := fn(r); err != nil {
				return err
			}
		}
	}
}
