package bus

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
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
	Brokers  []string // host:port each; at least one
	ClientID string   // shown in broker logs; default "leat"
}

// Client talks to one Kafka cluster. Safe for concurrent use.
type Client struct {
	brokers []string
	addr    net.Addr
	kafka   *kafka.Client
	tr      *kafka.Transport
	dialer  *kafka.Dialer
	log     *slog.Logger

	mu    sync.Mutex
	conns map[net.Conn]struct{} // open connections of tr, closed by Close
}

const (
	requestTimeout = 30 * time.Second
	dialTimeout    = 5 * time.Second
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
	c := &Client{
		brokers: cfg.Brokers,
		addr:    kafka.TCP(cfg.Brokers...),
		log:     log,
		conns:   make(map[net.Conn]struct{}),
	}
	c.tr = &kafka.Transport{
		Dial:        c.dial,
		DialTimeout: dialTimeout,
		MetadataTTL: metadataTTL,
		ClientID:    cfg.ClientID,
	}
	c.kafka = &kafka.Client{Addr: c.addr, Timeout: requestTimeout, Transport: c.tr}
	c.dialer = &kafka.Dialer{ClientID: cfg.ClientID, Timeout: dialTimeout}
	return c, nil
}

// Ping tells whether a broker answers.
func (c *Client) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	_, err := c.kafka.ApiVersions(ctx, &kafka.ApiVersionsRequest{})
	return c.wrap(err, "asking the brokers at %s for their versions", strings.Join(c.brokers, ","))
}

// Close ends every connection. Producers and consumers of the client must
// have ended before.
func (c *Client) Close() error {
	c.tr.CloseIdleConnections()
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.conns {
		conn.Close()
	}
	return nil
}

// dial keeps track of connections: a fetch that was given up leaves its
// connection waiting for the broker, and Close has to end that too.
func (c *Client) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	t := &trackedConn{Conn: conn, client: c}
	c.mu.Lock()
	c.conns[t] = struct{}{}
	c.mu.Unlock()
	return t, nil
}

type trackedConn struct {
	net.Conn
	client *Client
	once   sync.Once
}

func (t *trackedConn) Close() error {
	t.once.Do(func() {
		go func() { // Close of the client holds mu while it closes connections
			t.client.mu.Lock()
			delete(t.client.conns, t)
			t.client.mu.Unlock()
		}()
	})
	return t.Conn.Close()
}
