package bus

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
	"golang.org/x/sys/unix"

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
	case leat.HintOf(err) != "":
		return wrapped
	case errors.Is(err, kafka.TopicAuthorizationFailed):
		return leat.Hint(wrapped, "grant the user Read, Write, Create, Describe and DescribeConfigs on the topic, or let an administrator create it")
	case errors.Is(err, kafka.GroupAuthorizationFailed):
		return leat.Hint(wrapped, "grant the user Read on the consumer group")
	case errors.Is(err, kafka.ClusterAuthorizationFailed):
		return leat.Hint(wrapped, "grant the user IdempotentWrite, and Create, on the cluster")
	case errors.Is(err, kafka.UnknownTopicOrPartition):
		return leat.Hint(fmt.Errorf("%w: %w", leat.ErrNotFound, wrapped), "leat run creates its topics; or create it by hand")
	case refusesClient(err):
		return leat.Hint(wrapped, certificateHint)
	case closedByPeer(err):
		return leat.Hint(wrapped, "%s", c.closedHint())
	case isNetwork(err):
		return leat.Hint(wrapped, "check that the brokers at %s run and can be reached from here", strings.Join(c.brokers, ","))
	}
	return wrapped
}

func isNetwork(err error) bool {
	var k kafka.Error
	return !errors.As(err, &k) && !errors.Is(err, context.Canceled)
}

const certificateHint = "the brokers ask for a certificate that they trust: set cert_file and key_file of kafka.tls to one that is valid"

// closedHint is what to do where brokers end connections without a word, as
// they do with those who speak another protocol than the port does.
func (c *Client) closedHint() string {
	switch {
	case c.tls != nil && c.sasl != nil:
		return "if the broker runs, its port may not be one for TLS with SASL: name another port, or change kafka.tls or kafka.sasl"
	case c.tls != nil:
		return "if the broker runs, its port may not be one for TLS, or one that asks for a password: name another port, or change kafka.tls, or set kafka.sasl"
	case c.sasl != nil:
		return "if the broker runs, its port may be one for TLS: set kafka.tls ({} trusts what this machine trusts), or name another port"
	}
	return "if the broker runs, its port may be one for TLS or one that asks for a password: set kafka.tls ({} trusts what this machine trusts) or kafka.sasl, or name another port"
}

// handshakeError is a connection that did not come to be used, since broker
// and client do not agree on TLS or SASL.
type handshakeError struct {
	layer, address string
	err            error
	final          bool // it will be the same the next time
}

func (e *handshakeError) Error() string {
	return fmt.Sprintf("%s handshake with %s: %v", e.layer, e.address, e.err)
}

func (e *handshakeError) Unwrap() error { return e.err }

// mechanismError is a SASL mechanism that a broker does not take.
type mechanismError struct {
	err   kafka.Error
	takes []string
}

func (e *mechanismError) Error() string { return e.err.Title() }
func (e *mechanismError) Unwrap() error { return e.err }

// handshakeError gives an error of a handshake its hint. Once a broker has let
// this client in, a refusal is not final: passwords and certificates are
// changed on one side first.
func (c *Client) handshakeError(layer, address string, err error) error {
	e := &handshakeError{layer: layer, address: address, err: err, final: !c.proven.Load()}
	var (
		mechanism *mechanismError
		authority x509.UnknownAuthorityError
		invalid   x509.CertificateInvalidError
		host      x509.HostnameError
		record    tls.RecordHeaderError
	)
	switch {
	case errors.Is(err, kafka.IllegalSASLState):
		return leat.Hint(e, "the port takes no SASL: remove kafka.sasl, or name a port that does")
	case errors.As(err, &mechanism):
		return leat.Hint(e, "set mechanism of kafka.sasl to one that the brokers take: %s", strings.Join(mechanism.takes, ", "))
	case errors.Is(err, kafka.SASLAuthenticationFailed):
		return leat.Hint(e, "check user and password of kafka.sasl, and that the brokers know the user for the mechanism %s", c.sasl.Name())
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return leat.Hint(e, "renew the broker's certificate (and check this machine's clock: %s)", time.Now().UTC().Format(time.RFC3339))
	case errors.As(err, &authority):
		return leat.Hint(e, "set ca_file of kafka.tls to the certificate of the authority that issued the brokers' certificates")
	case errors.As(err, &host):
		return leat.Hint(e, "name the brokers (kafka.brokers, and advertised.listeners of the brokers) as their certificates do")
	case errors.As(err, &record):
		return leat.Hint(e, "the port speaks no TLS: remove kafka.tls, or name a port that does")
	}
	e.final = false
	switch {
	case refusesClient(err):
		return leat.Hint(e, certificateHint)
	case closedByPeer(err):
		return leat.Hint(e, "%s", c.closedHint())
	}
	return e
}

// refusesClient reports whether the broker ended the TLS connection with an
// alert: it does so where it does not accept this client's certificate.
func refusesClient(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

func isTimeout(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)
}

// closedByPeer reports whether the broker ended the connection.
func closedByPeer(err error) bool {
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, unix.ECONNRESET, unix.EPIPE} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}

// refused reports whether a broker will answer a request the same way however
// often it is sent.
func refused(err error) bool {
	var h *handshakeError
	if errors.As(err, &h) {
		return h.final
	}
	for _, k := range []kafka.Error{
		kafka.TopicAuthorizationFailed, kafka.GroupAuthorizationFailed, kafka.ClusterAuthorizationFailed,
		kafka.UnsupportedVersion,
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
	maxPause = time.Second
)

// pause waits before retry number attempt, counted from 0, half of the time at
// random, and reports whether ctx still lives.
func pause(ctx context.Context, attempt int) bool {
	d := min(minPause<<min(attempt, 10), maxPause)
	return sleep(ctx, d/2+rand.N(d/2))
}

// sleep reports false where ctx ended before.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
