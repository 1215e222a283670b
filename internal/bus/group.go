package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/consumer"
	"github.com/segmentio/kafka-go/protocol/syncgroup"

	"leat"
)

// Times of a group's members. One that was killed is replaced within
// sessionTimeout, heartbeatEvery and the time it takes to join.
const (
	sessionTimeout   = 6 * time.Second // the least that brokers accept by default
	heartbeatEvery   = time.Second     // also how soon a member hears of a rebalance
	rebalanceTimeout = 15 * time.Second
	leaveTimeout     = 3 * time.Second
)

// member is one process's membership in a group for one topic. It is
// kafka-go's requests and not its ConsumerGroup, which forgets who it is with
// every lost connection: the broker then waits until the session of the
// forgotten one is over before anyone gets records again, 6 s after every
// restart of a broker. This one goes on where it was.
type member struct {
	client       *Client
	group, topic string
	log          *slog.Logger
	id           string // given by the coordinator; "" before
}

// generation is an assignment of partitions to members.
type generation struct {
	*member
	number     int
	memberID   string
	leads      bool          // this member assigns the partitions
	partitions int           // of the topic, where it leads
	offsets    map[int]int64 // committed, by assigned partition; -1 for none
}

// member runs run in every generation of the group with a context that ends
// with it, and goes on until ctx ends (nil) or run fails before its context
// ended.
func (c *Client) member(ctx context.Context, group, topic string, run func(context.Context, *generation) error) error {
	m := &member{client: c, group: group, topic: topic, log: c.log.With("group", group, "topic", topic)}
	defer m.leave()
	for attempt := 0; ; {
		gen, err := m.join(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			attempt = 0
			if err := gen.run(ctx, run); err != nil {
				return err
			}
			continue
		case refused(err):
			return c.wrap(err, "joining group %s", group)
		case errors.Is(err, kafka.RebalanceInProgress): // others came or left meanwhile
			continue
		case errors.Is(err, kafka.UnknownMemberId):
			m.id = ""
		}
		if attempt++; attempt == 10 {
			err = c.wrap(err, "joining group %s", group)
			m.log.Warn("cannot join the group, trying on", "error", err, "hint", leat.HintOf(err))
		}
		if !pause(ctx, attempt) {
			return nil
		}
	}
}

const groupProtocol = "roundrobin"

// join waits until all members have joined and returns what this one is to do.
func (m *member) join(ctx context.Context) (*generation, error) {
	req := &kafka.JoinGroupRequest{
		GroupID: m.group, MemberID: m.id, SessionTimeout: sessionTimeout, RebalanceTimeout: rebalanceTimeout, ProtocolType: "consumer",
		Protocols: []kafka.GroupProtocol{{Name: groupProtocol, Metadata: kafka.GroupProtocolSubscription{Topics: []string{m.topic}}}},
	}
	res, err := m.client.kafka.JoinGroup(ctx, req)
	if err == nil && errors.Is(res.Error, kafka.MemberIDRequired) { // KIP-394: it is to say again that it is the same one
		m.id, req.MemberID = res.MemberID, res.MemberID
		res, err = m.client.kafka.JoinGroup(ctx, req)
	}
	if err == nil {
		err = res.Error
	}
	if err != nil {
		return nil, err
	}
	m.id = res.MemberID
	gen := &generation{member: m, number: res.GenerationID, memberID: res.MemberID, leads: res.LeaderID == res.MemberID, offsets: map[int]int64{}}
	var assignments []syncgroup.RequestAssignment
	if gen.leads {
		if gen.partitions, err = m.client.waitPartitions(ctx, m.topic); err != nil {
			return nil, err
		}
		if assignments, err = m.assign(res.Members, gen.partitions); err != nil {
			return nil, err
		}
	}
	return gen, gen.sync(ctx, assignments)
}

// assign divides the partitions among the members.
func (m *member) assign(members []kafka.JoinGroupResponseMember, partitions int) ([]syncgroup.RequestAssignment, error) {
	group := make([]kafka.GroupMember, len(members))
	for i, member := range members {
		group[i] = kafka.GroupMember{ID: member.ID, Topics: member.Metadata.Topics}
	}
	all := make([]kafka.Partition, partitions)
	for p := range all {
		all[p] = kafka.Partition{Topic: m.topic, ID: p}
	}
	var out []syncgroup.RequestAssignment
	for id, topics := range (kafka.RoundRobinGroupBalancer{}).AssignGroups(group, all) {
		owned := consumer.TopicPartition{Topic: m.topic}
		for _, p := range topics[m.topic] {
			owned.Partitions = append(owned.Partitions, int32(p))
		}
		b, err := protocol.Marshal(consumer.MaxVersionSupported, consumer.Assignment{
			Version: consumer.MaxVersionSupported, AssignedPartitions: []consumer.TopicPartition{owned},
		})
		if err != nil {
			return nil, fmt.Errorf("bus: group %s: %w", m.group, err)
		}
		out = append(out, syncgroup.RequestAssignment{MemberID: id, Assignment: b})
	}
	return out, nil
}

// sync hands the leader's assignments to the coordinator and gets this
// member's own, with the offsets to begin at.
func (g *generation) sync(ctx context.Context, assignments []syncgroup.RequestAssignment) error {
	m, err := g.client.tr.RoundTrip(ctx, g.client.addr, &syncgroup.Request{
		GroupID: g.group, GenerationID: int32(g.number), MemberID: g.memberID,
		ProtocolType: "consumer", ProtocolName: groupProtocol, Assignments: assignments,
	})
	if err != nil {
		return err
	}
	res := m.(*syncgroup.Response)
	if res.ErrorCode != 0 {
		return kafka.Error(res.ErrorCode)
	}
	if len(res.Assignments) == 0 { // more members than partitions
		return nil
	}
	var own consumer.Assignment
	if err := protocol.Unmarshal(res.Assignments, consumer.MaxVersionSupported, &own); err != nil {
		return fmt.Errorf("bus: group %s: %w", g.group, err)
	}
	last := -1
	for _, t := range own.AssignedPartitions {
		for _, p := range t.Partitions {
			if t.Topic == g.topic {
				g.offsets[int(p)] = -1
				last = max(last, int(p))
			}
		}
	}
	committed, err := g.client.committed(ctx, g.group, g.topic, last+1)
	for p := range g.offsets {
		if err == nil {
			g.offsets[p] = committed[p]
		}
	}
	return err
}

// run runs run within the generation, keeps the membership alive until it has
// returned, and returns its error unless the generation had ended before.
func (g *generation) run(ctx context.Context, run func(context.Context, *generation) error) error {
	g.log.Debug("partitions assigned", "offsets", g.offsets, "generation", g.number)
	work, end := context.WithCancel(ctx)
	defer end()
	done, lost := make(chan struct{}), make(chan bool)
	go func() { lost <- g.beat(ctx, end, done) }()
	err := run(work, g)
	if work.Err() != nil {
		err = nil // cut short: the records come again
	} else if err == nil {
		<-work.Done() // nothing to do: keep the membership
	}
	close(done)
	if <-lost {
		g.id = ""
	}
	return err
}

// beat tells the coordinator that this member lives until done closes, and
// ends the generation when it hears that others came or left, or when it may
// have been taken for dead: from then on another member may do the same work.
// It reports whether the coordinator no longer knows the member.
func (g *generation) beat(ctx context.Context, end func(), done <-chan struct{}) (lost bool) {
	defer end()
	tick := time.NewTicker(heartbeatEvery)
	defer tick.Stop()
	alive := time.Now()
	for {
		select {
		case <-done:
			return false
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
		sent := time.Now()
		within, cancel := context.WithDeadline(ctx, alive.Add(sessionTimeout))
		err := g.heartbeat(within)
		cancel()
		switch {
		case err == nil:
			alive = sent
			if n, err := g.client.Partitions(ctx, g.topic); g.leads && err == nil && n > g.partitions {
				return false
			}
		case errors.Is(err, kafka.RebalanceInProgress):
			alive = sent // it waits until this member's work has ended
			end()
		case errors.Is(err, kafka.UnknownMemberId):
			return true
		case errors.Is(err, kafka.IllegalGeneration):
			return false
		case time.Since(alive) >= sessionTimeout:
			return false
		}
	}
}

func (g *generation) heartbeat(ctx context.Context) error {
	m, err := g.client.tr.RoundTrip(ctx, g.client.addr, &heartbeatRequest{GroupID: g.group, GenerationID: int32(g.number), MemberID: g.memberID})
	if err != nil {
		return err
	}
	if res := m.(*heartbeatResponse); res.ErrorCode != 0 {
		return kafka.Error(res.ErrorCode)
	}
	return nil
}

// heartbeatRequest is kafka-go's heartbeat.Request with the Group method that
// it lacks, by which the transport finds the coordinator.
type heartbeatRequest struct {
	_ struct{} `kafka:"min=v4,max=v4,tag"`

	GroupID         string `kafka:"min=v0,max=v4"`
	GenerationID    int32  `kafka:"min=v0,max=v4"`
	MemberID        string `kafka:"min=v0,max=v4"`
	GroupInstanceID string `kafka:"min=v3,max=v4,nullable"`
}

func (*heartbeatRequest) ApiKey() protocol.ApiKey { return protocol.Heartbeat } //nolint:staticcheck // kafka-go's interface names it so
func (r *heartbeatRequest) Group() string         { return r.GroupID }

// heartbeatResponse has its fields in the order in which they are sent. In
// kafka-go's heartbeat.Response they are not, and it never tells of an error.
type heartbeatResponse struct {
	_ struct{} `kafka:"min=v4,max=v4,tag"`

	ThrottleTimeMs int32 `kafka:"min=v1,max=v4"`
	ErrorCode      int16 `kafka:"min=v0,max=v4"`
}

func (*heartbeatResponse) ApiKey() protocol.ApiKey { return protocol.Heartbeat } //nolint:staticcheck // kafka-go's interface names it so

// In place of kafka-go's own, which nothing else uses.
func init() { protocol.Register(&heartbeatRequest{}, &heartbeatResponse{}) }

// commit makes the offsets to go on at durable. It fails where the member is
// no longer the one to say so.
func (g *generation) commit(ctx context.Context, offsets map[int]int64) error {
	var all []kafka.OffsetCommit
	for p, o := range offsets {
		all = append(all, kafka.OffsetCommit{Partition: p, Offset: o})
	}
	res, err := g.client.kafka.OffsetCommit(ctx, &kafka.OffsetCommitRequest{
		GroupID: g.group, GenerationID: g.number, MemberID: g.memberID, Topics: map[string][]kafka.OffsetCommit{g.topic: all},
	})
	if err != nil {
		return err
	}
	for _, p := range res.Topics[g.topic] {
		if p.Error != nil {
			return p.Error
		}
	}
	return nil
}

// leave tells the coordinator not to wait for this member.
func (m *member) leave() {
	if m.id == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	_, err := m.client.kafka.LeaveGroup(ctx, &kafka.LeaveGroupRequest{GroupID: m.group, Members: []kafka.LeaveGroupRequestMember{{ID: m.id}}})
	if err != nil {
		m.log.Debug("the group was left without a word", "error", err)
	}
}
