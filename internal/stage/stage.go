// Package stage holds what the boxes of the flow do with their records: the
// chunker, embedder and indexers as handlers of batches, and the runner of
// sources. What they read from and write to is the bus; what they do it with is
// given by internal/app.
package stage

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"leat/internal/bus"
	"leat/internal/retry"
)

// Names of the stages, in the order of the flow, as in `leat run --stages`.
const (
	Sources       = "sources"
	Chunker       = "chunker"
	Embedder      = "embedder"
	TextIndexer   = "text-indexer"
	VectorIndexer = "vector-indexer"
)

// Names lists every stage in the order of the flow.
var Names = []string{Sources, Chunker, Embedder, TextIndexer, VectorIndexer}

// Producer is what stages write with: *bus.Producer.
type Producer interface {
	Produce(ctx context.Context, records ...bus.Record) error
	Enqueue(ctx context.Context, records []bus.Record, done func(error)) error
}

// Component names a stage of a generation, as `leat status` shows it.
func Component(generation int, name string) string { return fmt.Sprintf("g%d.%s", generation, name) }

// Common is what every handler needs.
type Common struct {
	Name   string // see Component
	Out    Producer
	Dead   *DeadLetters
	Health *Health
	Log    *slog.Logger
}

// untilHealed runs f until it succeeds, fails for good (leat.IsPermanent) or
// ctx ends, and tells status what it is waiting for.
func (c *Common) untilHealed(ctx context.Context, f func() error) error {
	err := retry.Do(ctx, f, func(err error) { c.Health.Retrying(c.Name, err) })
	if err == nil {
		c.Health.Running(c.Name)
	}
	return err
}

// acks collects the acknowledgements of records that were enqueued, so that a
// handler returns only when all are durable (I1).
type acks struct {
	wg    sync.WaitGroup
	mu    sync.Mutex
	first error
}

func (a *acks) enqueue(ctx context.Context, p Producer, records ...bus.Record) error {
	a.wg.Add(1)
	err := p.Enqueue(ctx, records, func(err error) {
		a.fail(err)
		a.wg.Done()
	})
	if err != nil {
		a.wg.Done()
	}
	return err
}

func (a *acks) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.first == nil && err != nil {
		a.first = err
	}
}

// wait returns once every enqueued record is durable, or the first error.
func (a *acks) wait() error {
	a.wg.Wait()
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.first
}

// newest returns, of each document in a batch, the positions in it that carry
// the highest version; the others are superseded before any work is spent on
// them (I2). A revision in several parts has several positions.
func newest[T any](batch []T, id func(T) string, version func(T) uint64) []T {
	top := make(map[string]uint64, len(batch))
	for _, x := range batch {
		if v, ok := top[id(x)]; !ok || version(x) > v {
			top[id(x)] = version(x)
		}
	}
	kept := batch[:0:0]
	for _, x := range batch {
		if version(x) == top[id(x)] {
			kept = append(kept, x)
		}
	}
	return kept
}
