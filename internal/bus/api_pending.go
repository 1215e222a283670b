package bus

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

var errPending = errors.New("bus: being written")

// DefaultMaxMessageBytes is the largest record batch that leat's topics take
// unless configured otherwise.
const DefaultMaxMessageBytes = 8 << 20

func (c *Client) wrap(err error, format string, args ...any) error { return err }

// EnsureTopics creates what is missing and reports, joined, every topic that
// exists with settings that would lose data or refuse records: each is an
// ErrMismatch with a hint that says what to change.
func (c *Client) EnsureTopics(ctx context.Context, topics ...Topic) error { return errPending }

// DeleteTopics deletes topics; those that do not exist are fine.
func (c *Client) DeleteTopics(ctx context.Context, names ...string) error { return errPending }

// Partitions is the number of partitions of a topic; leat.ErrNotFound where it does not exist.
func (c *Client) Partitions(ctx context.Context, topic string) (int, error) { return 0, errPending }

// ProducerConfig of a Producer.
type ProducerConfig struct {
	MaxBatchBytes  int // of one request; default 1 MiB; at most the topics' MaxMessageBytes
	MaxBufferBytes int // accepted and not yet acknowledged; default 32 MiB (I8)
}

// Producer appends records to topics. Safe for concurrent use.
type Producer struct{}

// NewProducer makes a Producer. Close it.
func (c *Client) NewProducer(cfg ProducerConfig) *Producer { return &Producer{} }

// Produce appends records, any topics mixed, and returns once all of them are
// durable. Records of one key keep the order of the calls that gave them. A
// broker that is away is waited for; an error is final: a record too large
// (leat.ErrTooLarge, nothing of the call was sent), no permission, the end of
// ctx (records may still be appended then) or a closed Producer.
func (p *Producer) Produce(ctx context.Context, recs ...Record) error { return errPending }

// Enqueue is Produce without the wait: it returns once the records are
// accepted, blocking only while too many bytes are in flight, and calls done
// once all of them are durable or one has failed. The dones of one Producer
// are called in the order of their Enqueues, one at a time; they must not
// block. An error of Enqueue itself means that nothing was accepted and done
// will not be called.
func (p *Producer) Enqueue(ctx context.Context, recs []Record, done func(error)) error {
	return errPending
}

// Close fails what is not yet durable and ends the Producer. Wait for your
// dones before where that matters.
func (p *Producer) Close() error { return nil }

// ConsumeConfig says what to consume.
type ConsumeConfig struct {
	Group, Topic string
	MaxRecords   int // of one batch; default 1000
	MaxBytes     int // of one batch, and fetched ahead per partition; default 4 MiB (I8)
}

// Consume joins the group and hands batches to handle until ctx ends (it then
// returns nil) or handle fails (it returns that error). A batch is never empty,
// holds records of one partition in offset order, whatever is at hand up to the
// limits, and is not used after handle returned. handle returns nil when all
// effects are durable; then the offsets are committed (I1). Its context ends
// when the partition is lost to another member: whatever it returns then is
// ignored and the records come again, here or there. Partitions are handled in
// parallel. Broker restarts, rebalances and lost sessions are healed inside.
func (c *Client) Consume(ctx context.Context, cfg ConsumeConfig, handle func(ctx context.Context, batch []Record) error) error {
	return errPending
}

// Lead divides names among the processes that call it with the same group: for
// each name, the owner of its partition of topic runs run, with a context that
// ends when the ownership does. Where run returns an error before that, Lead
// returns it; where it returns nil, it is not run again by this call. Lead
// returns nil when ctx ends, once every run has returned.
func (c *Client) Lead(ctx context.Context, group, topic string, names []string, run func(ctx context.Context, name string) error) error {
	return errPending
}

// Latest reads topic from its start to its end as of now and gives fn the
// latest record of every key, tombstones too, in no particular order. It holds
// the latest records of one partition in memory.
func (c *Client) Latest(ctx context.Context, topic string, fn func(Record) error) error {
	return errPending
}

// Lookup finds the latest record of key, a tombstone too, by reading the one
// partition that can hold it; leat.ErrNotFound where there is none.
func (c *Client) Lookup(ctx context.Context, topic string, key []byte) (Record, error) {
	return Record{}, errPending
}

// Tail gives fn the records of all partitions, from now on or from the start,
// one at a time, in order per partition, until ctx ends (nil) or fn fails.
func (c *Client) Tail(ctx context.Context, topic string, fromEnd bool, fn func(Record) error) error {
	return errPending
}

// EndOffsets are the offsets after the last record, by partition.
func (c *Client) EndOffsets(ctx context.Context, topic string) ([]int64, error) {
	return nil, errPending
}

// PartitionLag is how far a group is behind in one partition.
type PartitionLag struct {
	Partition int
	Committed int64     // the next offset to consume; the log's start where nothing is committed
	End       int64     // the offset after the last record
	Oldest    time.Time // of the oldest record not consumed; zero where there is none
}

// Records not consumed yet; on a compacted topic an upper bound.
func (l PartitionLag) Records() int64 { return l.End - l.Committed }

// Lag tells how far group is behind in topic, by partition.
func (c *Client) Lag(ctx context.Context, group, topic string) ([]PartitionLag, error) {
	return nil, errPending
}

// WaitConsumed waits until group has committed everything that topic held at
// the call.
func (c *Client) WaitConsumed(ctx context.Context, group, topic string) error { return errPending }

// WaitCommitted waits until group has committed ends, which EndOffsets gave.
func (c *Client) WaitCommitted(ctx context.Context, group, topic string, ends []int64) error {
	return errPending
}

// Embedded is a Kafka broker inside this process.
type Embedded struct{}

// StartEmbedded starts a broker that keeps its data in dir, or fails with
// leat.ErrInUse and a hint that names the process which holds dir. It listens
// on loopback only, on the port it had before where that is free. Everything
// acknowledged is on disk and survives SIGKILL (I7).
func StartEmbedded(ctx context.Context, dir string, log *slog.Logger) (*Embedded, error) {
	return nil, errPending
}

// Addr is host:port of the broker.
func (e *Embedded) Addr() string { return "" }

// Close stops the broker. Close its clients first.
func (e *Embedded) Close() error { return nil }

// EmbeddedAddr finds the broker that another process runs on dir.
func EmbeddedAddr(dir string) (addr string, running bool, err error) { return "", false, errPending }
