package bus

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/produce"
	"github.com/segmentio/kafka-go/protocol/rawproduce"
)

// requestBytes is what a request of several batches holds at most, unless one
// batch is larger.
const requestBytes = 8 << 20

// appending is an encoded batch on its way to its partition.
type appending struct {
	topicPartition
	batch []byte
	done  chan error // capacity 1
}

// sender sends the batches of several partitions: to each broker in one request
// what has come since the last.
type sender struct {
	client *Client
	every  time.Duration // the least time between two requests
	in     chan appending
}

// append returns once all replicas in sync hold the batch.
func (s *sender) append(ctx context.Context, to topicPartition, batch []byte) error {
	a := appending{to, batch, make(chan error, 1)}
	select {
	case s.in <- a:
	case <-ctx.Done():
		return ctx.Err()
	}
	return <-a.done // a request ends when its context does
}

// run sends until ctx ends, and returns once no request is under way.
func (s *sender) run(ctx context.Context) {
	var requests sync.WaitGroup
	defer requests.Wait()
	for {
		var due []appending
		select {
		case a := <-s.in:
			due = append(due, a)
		case <-ctx.Done():
			return
		}
		for size, more := len(due[0].batch), true; more && size < requestBytes; {
			select {
			case a := <-s.in: // every writer that waits
				due, size = append(due, a), size+len(a.batch)
			default:
				more = false
			}
		}
		for _, batches := range s.byLeader(ctx, due) {
			requests.Go(func() { s.request(ctx, batches) })
		}
		sleep(ctx, s.every)
	}
}

// byLeader groups batches by the broker that leads their partitions.
func (s *sender) byLeader(ctx context.Context, due []appending) map[int][]appending {
	led := map[int][]appending{}
	leaders := map[string]map[int]int{} // by topic and partition
	for _, a := range due {
		of, known := leaders[a.topic]
		if !known {
			var err error
			if of, err = s.client.leaders(ctx, a.topic); err != nil {
				a.done <- err
				continue
			}
			leaders[a.topic] = of
		}
		leader, ok := of[a.partition]
		if !ok {
			a.done <- kafka.UnknownTopicOrPartition
			continue
		}
		led[leader] = append(led[leader], a)
	}
	return led
}

// ackTimeout is how long a broker waits for the other replicas of a partition
// before it says that they are late.
const ackTimeout = quietTimeout / 2

var errNoWord = errors.New("the broker did not say what became of the records")

// request sends batches to the broker that leads all of their partitions.
func (s *sender) request(ctx context.Context, batches []appending) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	req := &rawproduce.Request{Acks: int16(kafka.RequireAll), Timeout: int32(ackTimeout.Milliseconds())}
	topics := map[string]int{}
	for _, a := range batches {
		i, ok := topics[a.topic]
		if !ok {
			i, req.Topics = len(req.Topics), append(req.Topics, rawproduce.RequestTopic{Topic: a.topic})
			topics[a.topic] = i
		}
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, rawproduce.RequestPartition{Partition: int32(a.partition), RecordSet: framed(a.batch)})
	}
	m, err := s.client.tr.RoundTrip(ctx, s.client.addr, req)
	answers := map[topicPartition]error{}
	if err == nil {
		err = errNoWord // of those without an answer
		for _, t := range m.(*produce.Response).Topics {
			for _, p := range t.Partitions {
				var of error
				if p.ErrorCode != 0 {
					of = kafka.Error(p.ErrorCode)
				}
				answers[topicPartition{t.Topic, int(p.Partition)}] = of
			}
		}
	}
	for _, a := range batches {
		if of, answered := answers[a.topicPartition]; answered {
			a.done <- of
		} else {
			a.done <- err
		}
	}
}

// framed is a batch as kafka-go takes it: behind its length.
func framed(batch []byte) protocol.RawRecordSet {
	var size [4]byte
	binary.BigEndian.PutUint32(size[:], uint32(len(batch)))
	return protocol.RawRecordSet{Reader: io.MultiReader(bytes.NewReader(size[:]), bytes.NewReader(batch))}
}
