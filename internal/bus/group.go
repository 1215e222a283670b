package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/segmentio/kafka-go"
)

// What kafka-go takes otherwise stalls a group for 30 s after a broker or a
// member was killed, and a restarted one for 5 s before it joins.
const (
	sessionTimeout   = 6 * time.Second // the least that brokers accept by default
	heartbeatEvery   = time.Second     // also how soon a member hears of a rebalance
	rebalanceTimeout = 15 * time.Second
	joinPause        = 200 * time.Millisecond
	watchPartitions  = 30 * time.Second
)

// member is one process's membership in a group for one topic: it runs run in
// every generation with a context that ends with it, and goes on until ctx
// ends (nil) or run fails before its context ended.
func (c *Client) member(ctx context.Context, group, topic string, run func(context.Context, *kafka.Generation) error) error {
	cg, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: group, Brokers: c.brokers, Dialer: c.dialer, Topics: []string{topic},
		GroupBalancers:    []kafka.GroupBalancer{kafka.RoundRobinGroupBalancer{}},
		HeartbeatInterval: heartbeatEvery, SessionTimeout: sessionTimeout, RebalanceTimeout: rebalanceTimeout,
		JoinGroupBackoff: joinPause, WatchPartitionChanges: true, PartitionWatchInterval: watchPartitions,
		StartOffset: kafka.FirstOffset,
	})
	if err != nil {
		return fmt.Errorf("bus: group %s: %w", group, err)
	}
	defer cg.Close() // leaves the group, so that others need not wait for the session to time out

	log := c.log.With("group", group, "topic", topic)
	failures := 0
	for {
		gen, err := cg.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, kafka.RebalanceInProgress), errors.Is(err, kafka.ErrGenerationEnded):
			continue
		case refused(err):
			return c.wrap(err, "joining group %s", group)
		case err != nil:
			if failures++; failures == 10 {
				log.Warn("cannot join the group, trying on", "error", err)
			}
			continue
		}
		failures = 0
		if err := c.generation(ctx, gen, log, topic, run); err != nil {
			return err
		}
	}
}

// generation runs run within one generation and waits for it.
func (c *Client) generation(ctx context.Context, gen *kafka.Generation, log *slog.Logger, topic string, run func(context.Context, *kafka.Generation) error) error {
	var partitions []int
	for _, a := range gen.Assignments[topic] {
		partitions = append(partitions, a.ID)
	}
	log.Debug("partitions assigned", "partitions", partitions, "generation", gen.ID)
	result := make(chan error, 1)
	gen.Start(func(ended context.Context) {
		work, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(ended, cancel)()
		err := run(work, gen)
		if work.Err() != nil {
			err = nil // cut short: the records come again
		} else if err == nil {
			<-work.Done() // nothing assigned: keep the membership
		}
		result <- err
	})
	return <-result
}
