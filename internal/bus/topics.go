package bus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"

	"leat"
)

// DefaultMaxMessageBytes is the largest record batch that leat's topics take
// unless configured otherwise.
const DefaultMaxMessageBytes = 8 << 20

// settings are the topic's configuration as Kafka names it. Everything that
// would lose data by a broker's default is explicit: a compacted topic keeps
// every key for ever, whatever the brokers' retention is.
func (t Topic) settings() map[string]string {
	s := map[string]string{}
	if t.Compact {
		s["cleanup.policy"] = "compact"
		s["retention.ms"] = "-1"
		s["retention.bytes"] = "-1"
		s["delete.retention.ms"] = strconv.FormatInt(tombstoneLife.Milliseconds(), 10)
	} else {
		s["cleanup.policy"] = "delete"
		s["retention.ms"] = "-1"
		if t.Retention > 0 {
			s["retention.ms"] = strconv.FormatInt(t.Retention.Milliseconds(), 10)
		}
		s["retention.bytes"] = "-1"
	}
	if t.MaxMessageBytes > 0 {
		s["max.message.bytes"] = strconv.Itoa(t.MaxMessageBytes)
	}
	if t.Replicas >= 3 { // what is acknowledged outlives a broker, and one broker's absence stops nothing
		s["min.insync.replicas"] = "2"
	}
	return s
}

const heardWithin = 10 * time.Second

// EnsureTopics creates what is missing and reports, joined, every topic that
// exists with settings that would lose data or refuse records: each is an
// ErrMismatch with a hint that says what to change.
func (c *Client) EnsureTopics(ctx context.Context, topics ...Topic) error {
	req := &kafka.CreateTopicsRequest{}
	for _, t := range topics {
		tc := kafka.TopicConfig{Topic: t.Name, NumPartitions: max(t.Partitions, 1), ReplicationFactor: t.Replicas}
		if t.Replicas <= 0 {
			tc.ReplicationFactor = -1
		}
		for k, v := range t.settings() {
			tc.ConfigEntries = append(tc.ConfigEntries, kafka.ConfigEntry{ConfigName: k, ConfigValue: v})
		}
		req.Topics = append(req.Topics, tc)
	}
	res, err := c.kafka.CreateTopics(ctx, req)
	if err != nil {
		return c.wrap(err, "creating topics")
	}
	var errs []error
	for _, t := range topics {
		switch err := res.Errors[t.Name]; {
		case err == nil:
			c.log.Info("topic created", "topic", t.Name, "partitions", max(t.Partitions, 1))
		case errors.Is(err, kafka.TopicAlreadyExists):
			errs = append(errs, c.checkMade(ctx, t))
		case errors.Is(err, kafka.InvalidReplicationFactor):
			err = c.wrap(err, "creating topic %s", t.Name)
			errs = append(errs, leat.Hint(err, "the cluster has fewer than %d brokers: set kafka.replication to what it has, or start more", t.Replicas))
		default:
			errs = append(errs, c.wrap(err, "creating topic %s", t.Name))
		}
	}
	return errors.Join(errs...)
}

// checkMade is checkTopic of a topic that another process may just have made: a
// broker hears of it a little later than the controller.
func (c *Client) checkMade(ctx context.Context, t Topic) error {
	for deadline := time.Now().Add(heardWithin); ; {
		err := c.checkTopic(ctx, t)
		if !errors.Is(err, leat.ErrNotFound) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// checkTopic compares an existing topic with what leat needs. More is fine:
// more partitions, longer retention, larger messages.
func (c *Client) checkTopic(ctx context.Context, t Topic) error {
	res, err := c.kafka.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{
		Resources: []kafka.DescribeConfigRequestResource{{ResourceType: kafka.ResourceTypeTopic, ResourceName: t.Name}},
	})
	if err != nil {
		return c.wrap(err, "reading the settings of topic %s", t.Name)
	}
	have := map[string]string{}
	for _, r := range res.Resources {
		if r.Error != nil {
			return c.wrap(r.Error, "reading the settings of topic %s", t.Name)
		}
		for _, e := range r.ConfigEntries {
			have[e.ConfigName] = e.ConfigValue
		}
	}
	var errs []error
	mismatch := func(key, want string) {
		err := fmt.Errorf("bus: topic %s: %s is %q: %w: it has to be %q", t.Name, key, have[key], leat.ErrMismatch, want)
		errs = append(errs, leat.Hint(err, "kafka-configs.sh --alter --entity-type topics --entity-name %s --add-config '%s=%s'", t.Name, key, want))
	}
	want := t.settings()
	if t.Compact != (have["cleanup.policy"] == "compact") {
		mismatch("cleanup.policy", want["cleanup.policy"])
	}
	if have["unclean.leader.election.enable"] == "true" { // a replica that lacks records may lead
		mismatch("unclean.leader.election.enable", "false")
	}
	keys := []string{"retention.ms", "retention.bytes"}
	if t.Compact { // retention does not act on a compacted topic
		keys = []string{"delete.retention.ms"}
	}
	for _, key := range append(keys, "max.message.bytes", "min.insync.replicas") {
		h, err := strconv.ParseInt(have[key], 10, 64)
		w, werr := strconv.ParseInt(want[key], 10, 64)
		if err != nil || werr != nil || h == w {
			continue
		}
		if unlimited := strings.Contains(key, "retention"); unlimited && h == -1 || (!unlimited || w != -1) && h >= w {
			continue
		}
		mismatch(key, want[key])
	}
	n, replicas, err := c.layout(ctx, t.Name)
	switch {
	case err != nil:
		errs = append(errs, err)
	case n < t.Partitions:
		err := fmt.Errorf("bus: topic %s has %d partitions: %w: %d are configured", t.Name, n, leat.ErrMismatch, t.Partitions)
		errs = append(errs, leat.Hint(err, "configure %d partitions: adding some to a topic in use moves keys to other partitions and breaks the order of their changes", n))
	case replicas < t.Replicas:
		err := fmt.Errorf("bus: topic %s is kept by %d brokers: %w: kafka.replication is %d", t.Name, replicas, leat.ErrMismatch, t.Replicas)
		errs = append(errs, leat.Hint(err, "have more brokers keep it (kafka-reassign-partitions.sh), or set kafka.replication to %d", replicas))
	}
	return errors.Join(errs...)
}

// DeleteTopics deletes topics; those that do not exist are fine.
func (c *Client) DeleteTopics(ctx context.Context, names ...string) error {
	res, err := c.kafka.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: names})
	if err != nil {
		return c.wrap(err, "deleting topics %s", strings.Join(names, ", "))
	}
	var errs []error
	for _, name := range names {
		if err := res.Errors[name]; err != nil && !errors.Is(err, kafka.UnknownTopicOrPartition) {
			errs = append(errs, c.wrap(err, "deleting topic %s", name))
		}
	}
	// Until the cached metadata forgets them they would seem to exist.
	for ctx.Err() == nil && len(errs) == 0 {
		gone := true
		for _, name := range names {
			if _, err := c.Partitions(ctx, name); err == nil {
				gone = false
			}
		}
		if gone {
			return nil
		}
		time.Sleep(minPause)
	}
	return errors.Join(append(errs, ctx.Err())...)
}
