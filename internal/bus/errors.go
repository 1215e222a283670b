package bus

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"

	"leat"
)

// wrap says what was tried and gives the errors that an operator can do
// something about their hint.
func (c *Client) wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	wrapped := fmt.Errorf("bus: "+format+": %w", append(args, err)...)
	switch {
	case errors.Is(err, kafka.TopicAuthorizationFailed):
		return leat.Hint(wrapped, "grant the user Read, Write, Create and Describe on the topic, or let an administrator create it")
	case errors.Is(err, kafka.GroupAuthorizationFailed):
		return leat.Hint(wrapped, "grant the user Read on the consumer group")
	case errors.Is(err, kafka.UnknownTopicOrPartition):
		return leat.Hint(fmt.Errorf("%w: %w", leat.ErrNotFound, wrapped), "leat run creates its topics; or create it by hand")
	case isNetwork(err):
		return leat.Hint(wrapped, "check that the brokers at %s run and can be reached from here", strings.Join(c.brokers, ","))
	}
	return wrapped
}

func isNetwork(err error) bool {
	var k kafka.Error
	return !errors.As(err, &k) && !errors.Is(err, context.Canceled)
}

// refused reports whether a broker will answer a request the same way however
// often it is sent.
func refused(err error) bool {
	for _, k := range []kafka.Error{
		kafka.TopicAuthorizationFailed, kafka.GroupAuthorizationFailed, kafka.ClusterAuthorizationFailed,
		kafka.SASLAuthenticationFailed, kafka.UnsupportedSASLMechanism, kafka.UnsupportedVersion,
		kafka.InvalidTopic, kafka.InvalidGroupId, kafka.InvalidSessionTimeout, kafka.InconsistentGroupProtocol,
		kafka.InvalidRequiredAcks, kafka.InvalidTimestamp, kafka.InvalidRecord, kafka.PolicyViolation,
		kafka.UnsupportedForMessageFormat,
	} {
		if errors.Is(err, k) {
			return true
		}
	}
	return false
}

const (
	minPause = 50 * time.Millisecond
	maxPause = 2 * time.Second
)

// pause waits before retry number attempt, counted from 0, half of the time at
// random, and reports whether ctx still lives.
func pause(ctx context.Context, attempt int) bool {
	d := min(minPause<<min(attempt, 10), maxPause)
	d = d/2 + rand.N(d/2)
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
