package bus

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/saslauthenticate"
	"github.com/segmentio/kafka-go/protocol/saslhandshake"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"

	"leat"
)

// SASL is how a client proves to the brokers who it is.
type SASL struct {
	Mechanism string // PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512
	User      string
	Password  leat.Secret
}

func (s SASL) mechanism() (sasl.Mechanism, error) {
	switch s.Mechanism {
	case "PLAIN":
		return plain.Mechanism{Username: s.User, Password: s.Password.Reveal()}, nil
	case "SCRAM-SHA-256":
		return scram.Mechanism(scram.SHA256, s.User, s.Password.Reveal())
	case "SCRAM-SHA-512":
		return scram.Mechanism(scram.SHA512, s.User, s.Password.Reveal())
	}
	return nil, fmt.Errorf("%q is no SASL mechanism that leat knows", s.Mechanism)
}

const (
	// reachTimeout is for a TCP connection alone, dialTimeout for all until it
	// can be used, several addresses tried one after another.
	reachTimeout = 3 * time.Second
	dialTimeout  = 10 * time.Second

	// quietTimeout is how long a broker may be silent that owes an answer. A
	// slow one, or a slow network, may take as long as it needs.
	quietTimeout = 30 * time.Second
	// writeChunk is what has to pass in quietTimeout.
	writeChunk = 256 << 10
)

// Where a peer is gone that never said so, a connection is given up after 11 s.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3}

// conns are open connections that can be closed together.
type conns struct {
	mu     sync.Mutex
	open   map[*conn]struct{}
	closed bool
}

func (s *conns) add(c *conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	if s.open == nil {
		s.open = map[*conn]struct{}{}
	}
	s.open[c] = struct{}{}
	return nil
}

func (s *conns) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
}

// close closes the connections and lets no more be made.
func (s *conns) close() {
	s.mu.Lock()
	s.closed = true
	open := s.open
	s.open = nil
	s.mu.Unlock()
	for c := range open {
		c.Close()
	}
}

// dialer makes connections that belong to a set: requests that were given up
// leave theirs waiting for the broker, and whoever closes the set ends that.
func (c *Client) dialer(set *conns) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		d := net.Dialer{Timeout: reachTimeout, KeepAliveConfig: keepAlive}
		tcp, err := d.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		own := &conn{Conn: tcp, set: set, quiet: quietTimeout}
		if err := set.add(own); err != nil {
			tcp.Close()
			return nil, err
		}
		secured, err := c.secure(ctx, own, address)
		if err != nil {
			own.Close()
			return nil, err
		}
		return secured, nil
	}
}

// secure does what TLS and SASL ask before a connection can be used. kafka-go
// could, with no deadline and no word on what the broker would take.
func (c *Client) secure(ctx context.Context, conn net.Conn, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if c.tls != nil {
		cfg := c.tls
		if cfg.ServerName == "" {
			cfg = cfg.Clone()
			cfg.ServerName, _, _ = net.SplitHostPort(address)
		}
		t := tls.Client(conn, cfg)
		if err := t.HandshakeContext(ctx); err != nil {
			return nil, c.handshakeError("TLS", address, err)
		}
		conn = t
	}
	if c.sasl != nil {
		deadline, _ := ctx.Deadline()
		if err := conn.SetDeadline(deadline); err != nil {
			return nil, err
		}
		if err := c.authenticate(ctx, conn, address); err != nil {
			return nil, c.handshakeError("SASL", address, err)
		}
		if err := conn.SetDeadline(time.Time{}); err != nil {
			return nil, err
		}
	}
	c.proven.Store(true)
	return conn, nil
}

// authenticate is KIP-43 with the framing of KIP-152.
func (c *Client) authenticate(ctx context.Context, conn net.Conn, address string) error {
	pc := protocol.NewConn(conn, c.id)
	pc.SetVersions(map[protocol.ApiKey]int16{protocol.SaslHandshake: 1, protocol.SaslAuthenticate: 0})
	m, err := pc.RoundTrip(&saslhandshake.Request{Mechanism: c.sasl.Name()})
	if err != nil {
		return err
	}
	if res := m.(*saslhandshake.Response); res.ErrorCode != 0 {
		return &mechanismError{kafka.Error(res.ErrorCode), res.Mechanisms}
	}
	host, _, _ := net.SplitHostPort(address)
	exchange, message, err := c.sasl.Start(sasl.WithMetadata(ctx, &sasl.Metadata{Host: host}))
	for done := false; err == nil && !done; {
		if m, err = pc.RoundTrip(&saslauthenticate.Request{AuthBytes: message}); err != nil {
			return err
		}
		res := m.(*saslauthenticate.Response)
		if res.ErrorCode != 0 {
			return fmt.Errorf("%w: %s", kafka.Error(res.ErrorCode), res.ErrorMessage)
		}
		done, message, err = exchange.Next(ctx, res.AuthBytes)
	}
	return err
}

// conn is a TCP connection to a broker. Whatever deadline is set, it fails once
// the broker has been silent for quiet; as long as bytes pass, it does
// not: a deadline for a whole request would have one that is too slow for it
// sent again and again.
type conn struct {
	net.Conn
	set   *conns
	quiet time.Duration
	once  sync.Once

	mu          sync.Mutex
	read, write limit
}

// limit is a deadline and when it was last put off.
type limit struct{ deadline, armed time.Time }

// next is the deadline to set now, if another than the last.
func (l *limit) next(now time.Time, quiet time.Duration) (time.Time, bool) {
	if l.deadline.IsZero() || now.Sub(l.armed) < quiet/30 {
		return time.Time{}, false
	}
	l.armed = now
	at := now.Add(quiet)
	if l.deadline.Before(at) {
		at = l.deadline
	}
	return at, true
}

func (c *conn) Close() error {
	c.once.Do(func() { c.set.remove(c) })
	return c.Conn.Close()
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.progress()
	}
	return n, err
}

func (c *conn) Write(b []byte) (int, error) {
	written := 0
	for {
		n, err := c.Conn.Write(b[:min(len(b), writeChunk)])
		written += n
		if b = b[n:]; err != nil || len(b) == 0 {
			return written, err
		}
		c.progress()
	}
}

// progress puts off both deadlines: a broker that takes or gives bytes lives.
func (c *conn) progress() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if at, ok := c.read.next(now, c.quiet); ok {
		_ = c.Conn.SetReadDeadline(at) // of a closed connection: Read says so
	}
	if at, ok := c.write.next(now, c.quiet); ok {
		_ = c.Conn.SetWriteDeadline(at)
	}
}

func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *conn) SetReadDeadline(t time.Time) error {
	return c.limit(&c.read, t, c.Conn.SetReadDeadline)
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	return c.limit(&c.write, t, c.Conn.SetWriteDeadline)
}

func (c *conn) limit(l *limit, t time.Time, set func(time.Time) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	*l = limit{deadline: t}
	if at, ok := l.next(time.Now(), c.quiet); ok {
		return set(at)
	}
	return set(t)
}
