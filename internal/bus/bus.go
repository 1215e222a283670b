package bus

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"
	"golang.org/x/sys/unix"
)

// Header of a record.
type Header struct {
	Key   string
	Value []byte
}

// Record is a Kafka record.
type Record struct {
	Topic     string
	Partition int   // set on what was read; chosen by key when produced
	Offset    int64 // set on what was read
	Key       []byte
	Value     []byte // nil: a tombstone, which removes the key from a compacted topic
	Headers   []Header
	Time      time.Time // millisecond precision; zero when produced: now
}

// Header returns the value of the first header with that key, and whether there is one.
func (r *Record) Header(key string) ([]byte, bool) {
	for _, h := range r.Headers {
		if h.Key == key {
			return h.Value, true
		}
	}
	return nil, false
}

// size estimates what the record takes in a batch and in memory, in bytes.
func (r *Record) size() int {
	n := len(r.Key) + len(r.Value) + 24
	for _, h := range r.Headers {
		n += len(h.Key) + len(h.Value) + 4
	}
	return n
}

// Config of a Client.
type Config struct {
	Brokers  []string    // host:port each; at least one
	ClientID string      // shown in broker logs; default "leat"
	TLS      *tls.Config // nil: connections are not encrypted
	SASL     *SASL       // nil: the brokers ask for no password
}

// Client talks to one Kafka cluster. Safe for concurrent use.
type Client struct {
	brokers []string
	id      string
	addr    net.Addr
	tls     *tls.Config
	sasl    sasl.Mechanism
	proven  atomic.Bool // a broker has let this client in
	kafka   *kafka.Client
	tr      *kafka.Transport
	log     *slog.Logger
	conns   conns // of tr
}

const (
	// requestTimeout is the most a request may take while bytes pass.
	requestTimeout = 10 * time.Minute
	metadataTTL    = 2 * time.Second // upper bound of how long a moved partition leader goes unnoticed
)

// New makes a Client. It does not connect; [Client.Ping] does.
func New(cfg Config, log *slog.Logger) (*Client, error) {
	if len(cfg.Brokers) == 0 {
		return nil, errors.New("bus: no brokers configured")
	}
	if cfg.ClientID == "" {
		cfg.ClientID = "leat"
	}
	c := &Client{brokers: cfg.Brokers, id: cfg.ClientID, addr: kafka.TCP(cfg.Brokers...), tls: cfg.TLS, log: log}
	if cfg.SASL != nil {
		var err error
		if c.sasl, err = cfg.SASL.mechanism(); err != nil {
			return nil, fmt.Errorf("bus: %w", err)
		}
	}
	c.tr = &kafka.Transport{
		Dial:        c.dialer(&c.conns),
		DialTimeout: dialTimeout,
		MetadataTTL: metadataTTL,
		ClientID:    cfg.ClientID,
	}
	c.kafka = &kafka.Client{Addr: c.addr, Timeout: requestTimeout, Transport: c.tr}
	return c, nil
}

// awayError is of brokers that do not answer, which they may do later.
type awayError struct{ error }

func (e awayError) Unwrap() error { return e.error }

// IsAway reports whether err says that no broker answers, or that one has ended
// a connection, rather than that it refuses.
func IsAway(err error) bool {
	return errors.As(err, new(awayError)) || (closedByPeer(err) || errors.Is(err, unix.ECONNREFUSED)) && !refused(err)
}

// Ping tells whether a broker answers and lets this client in.
func (c *Client) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	for attempt := 0; ; attempt++ {
		_, err := c.kafka.Metadata(ctx, &kafka.MetadataRequest{})
		// A broker that has just started may take longer for its first answer
		// than kafka-go waits.
		if isTimeout(err) && ctx.Err() == nil && pause(ctx, attempt) {
			continue
		}
		if err = c.wrap(err, "asking the brokers at %s who they are", strings.Join(c.brokers, ",")); err != nil && !refused(err) {
			return awayError{err}
		}
		return err
	}
}

// Close ends every connection. Producers and consumers of the client must
// have ended before.
func (c *Client) Close() error {
	c.tr.CloseIdleConnections()
	c.conns.close()
	return nil
}
