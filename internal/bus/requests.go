package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/initproducerid"

	"leat"
)

// newSession asks the cluster for a producer id (KIP-98).
func (c *Client) newSession(ctx context.Context) (session, error) {
	m, err := c.tr.RoundTrip(ctx, c.addr, &initProducerID{TransactionTimeoutMs: 60_000, ProducerID: -1, ProducerEpoch: -1})
	if err != nil {
		return session{producer: -1}, fmt.Errorf("asking for a producer id: %w", err)
	}
	res := m.(*initproducerid.Response)
	if res.ErrorCode != 0 {
		return session{producer: -1}, fmt.Errorf("asking for a producer id: %w", kafka.Error(res.ErrorCode))
	}
	return session{producer: res.ProducerID, epoch: res.ProducerEpoch}, nil
}

// initProducerID is kafka-go's initproducerid.Request without its
// Transaction method, which makes the transport look for the coordinator of a
// transaction that does not exist: without transactions any broker answers.
type initProducerID struct {
	_ struct{} `kafka:"min=v2,max=v4,tag"`

	TransactionalID      string `kafka:"min=v0,max=v4,nullable"`
	TransactionTimeoutMs int32  `kafka:"min=v0,max=v4"`
	ProducerID           int64  `kafka:"min=v3,max=v4"`
	ProducerEpoch        int16  `kafka:"min=v3,max=v4"`
}

func (*initProducerID) ApiKey() protocol.ApiKey           { return protocol.InitProducerId } //nolint:staticcheck // kafka-go's interface names it so
func (*initProducerID) TypeKey() protocol.OverrideTypeKey { return 0 }

func init() {
	r := &initProducerID{}
	protocol.RegisterOverride(r, &initproducerid.Response{}, r.TypeKey())
}

// Partitions is the number of partitions of a topic; leat.ErrNotFound where it
// does not exist.
func (c *Client) Partitions(ctx context.Context, topic string) (int, error) {
	t, err := c.topic(ctx, topic)
	return len(t.Partitions), err
}

// topic is what the brokers say of a topic.
func (c *Client) topic(ctx context.Context, name string) (kafka.Topic, error) {
	res, err := c.kafka.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{name}})
	if err != nil {
		return kafka.Topic{}, c.wrap(err, "looking for topic %s", name)
	}
	for _, t := range res.Topics {
		if t.Name == name {
			return t, c.wrap(t.Error, "looking for topic %s", name)
		}
	}
	return kafka.Topic{}, c.wrap(kafka.UnknownTopicOrPartition, "looking for topic %s", name)
}

// leaders are the ids of the brokers that lead a topic, by partition.
func (c *Client) leaders(ctx context.Context, topic string) (map[int]int, error) {
	t, err := c.topic(ctx, topic)
	if err != nil {
		return nil, err
	}
	leaders := make(map[int]int, len(t.Partitions))
	for _, p := range t.Partitions {
		leaders[p.ID] = p.Leader.ID
	}
	return leaders, nil
}

// waitPartitions is Partitions with patience for brokers that are away and for
// a topic that another process has just created.
func (c *Client) waitPartitions(ctx context.Context, topic string) (int, error) {
	n, _, err := c.layout(ctx, topic)
	return n, err
}

// layout is the number of partitions of a topic and of the brokers that keep
// each, the smallest where they differ.
func (c *Client) layout(ctx context.Context, topic string) (partitions, replicas int, err error) {
	begun := time.Now()
	for attempt := 0; ; attempt++ {
		t, err := c.topic(ctx, topic)
		if err == nil {
			for i, p := range t.Partitions {
				if i == 0 || len(p.Replicas) < replicas {
					replicas = len(p.Replicas)
				}
			}
			return len(t.Partitions), replicas, nil
		}
		if refused(err) || ctx.Err() != nil || errors.Is(err, leat.ErrNotFound) && time.Since(begun) > 3*metadataTTL {
			return 0, 0, err
		}
		if !pause(ctx, attempt) {
			return 0, 0, err
		}
	}
}
