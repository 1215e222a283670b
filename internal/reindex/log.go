package reindex

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"

	"leat/internal/bus"
)

// Topic is what a Log reads and writes with: *bus.Client and *bus.Producer.
type Topic interface {
	ReadFrom(ctx context.Context, topic string, partition int, offset int64, fn func(bus.Record) error) error
	Tail(ctx context.Context, topic string, fromEnd bool, fn func(bus.Record) error) error
}

// Producer makes records durable.
type Producer interface {
	Produce(ctx context.Context, records ...bus.Record) error
}

// Log keeps the states of the generations on a topic of one partition: each
// record is a whole state, and counts only if its revision follows the one
// before it. So of two processes that change the same state the one whose
// record comes first has changed it, and the other learns of it. Records have
// keys of their own: compaction removes none.
type Log struct {
	Topic string
	In    Topic
}

// apply takes a record into the state that those before it have made.
func apply(s State, r bus.Record) (State, error) {
	var next State
	if err := json.Unmarshal(r.Value, &next); err != nil {
		return s, fmt.Errorf("generations: record %q of %s at offset %d: %w", r.Key, r.Topic, r.Offset, err)
	}
	if next.Revision != s.Revision+1 {
		return s, nil
	}
	return next, nil
}

// Load reads the state; revision 0 means that there is none yet.
func (l *Log) Load(ctx context.Context) (s State, err error) {
	err = l.In.ReadFrom(ctx, l.Topic, 0, 0, func(r bus.Record) (err error) {
		s, err = apply(s, r)
		return err
	})
	return s, err
}

// ErrUnchanged tells Change that there is nothing to change.
var ErrUnchanged = errors.New("generations: nothing to change")

// Change makes a change of the state durable and returns what it is then. It
// may call change again, where another process was faster. An error of change
// is returned; ErrUnchanged leaves the state as it is.
func (l *Log) Change(ctx context.Context, out Producer, change func(*State) error) (State, error) {
	for {
		s, err := l.Load(ctx)
		if err != nil {
			return s, err
		}
		next := s.clone()
		if err := change(&next); err != nil {
			if errors.Is(err, ErrUnchanged) {
				err = nil
			}
			return s, err
		}
		next.Revision++
		value, err := json.Marshal(next)
		if err != nil {
			return s, fmt.Errorf("generations: encode the state: %w", err)
		}
		key := fmt.Sprintf("%d.%s", next.Revision, rand.Text())
		if err := out.Produce(ctx, bus.Record{Topic: l.Topic, Key: []byte(key), Value: value}); err != nil {
			return s, fmt.Errorf("generations: save the state: %w", err)
		}
		won := false
		s = State{}
		err = l.In.ReadFrom(ctx, l.Topic, 0, 0, func(r bus.Record) (err error) {
			before := s.Revision
			if s, err = apply(s, r); string(r.Key) == key {
				won = s.Revision > before
			}
			return err
		})
		if err != nil || won {
			return s, err
		}
	}
}

// Watch calls fn with each state as it comes whose revision is above one, until
// ctx ends or fn fails.
func (l *Log) Watch(ctx context.Context, revision int64, fn func(State) error) error {
	var s State
	return l.In.Tail(ctx, l.Topic, false, func(r bus.Record) error {
		next, err := apply(s, r)
		if err != nil || next.Revision == s.Revision {
			return err
		}
		if s = next; s.Revision <= revision {
			return nil
		}
		return fn(s)
	})
}
