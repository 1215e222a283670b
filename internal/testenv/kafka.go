package testenv

import (
	"context"
	"net"
	"os"
	"testing"

	"leat/internal/testenv/local"
)

// KafkaBroker is a Kafka cluster of one broker for a test. Addr is its listener
// without TLS and passwords.
type KafkaBroker struct {
	Server
	own *local.Kafka // nil where it was running already
}

// Kafka starts a broker that ends with the test. Topics are not created by use,
// groups begin at once. Flags are lines of server.properties, such as
// "message.max.bytes=1000". Where LEAT_TEST_KAFKA=host:port is set and no
// option asks otherwise, the test gets that broker.
func Kafka(t testing.TB, opts ...Option) *KafkaBroker {
	t.Helper()
	needs(t, "Kafka")
	o := chosen(opts)
	if at := os.Getenv("LEAT_TEST_KAFKA"); at != "" && !o.own {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", at)
		if err != nil {
			t.Fatalf("LEAT_TEST_KAFKA: %v", err)
		}
		conn.Close()
		return &KafkaBroker{Server: Server{addr: at}}
	}
	k := &KafkaBroker{}
	k.process = launch(t, "kafka", func(ctx context.Context, dir string) (*local.Process, error) {
		in, err := local.FindKafka()
		if err != nil {
			return nil, err
		}
		cfg := local.KafkaConfig{Listeners: o.listeners, Properties: o.flags}
		if k.own, err = local.StartKafka(ctx, in, dir, cfg); err != nil {
			return nil, err
		}
		return k.own.Process, nil
	})
	k.addr = k.own.Addr()
	return k
}

// KafkaListener gives a broker one more listener; its name is of lower-case
// letters. It implies Own.
func KafkaListener(name string, l local.KafkaListener) Option {
	return func(o *options) {
		o.own = true
		if o.listeners == nil {
			o.listeners = map[string]local.KafkaListener{}
		}
		o.listeners[name] = l
	}
}

// Listener is host:port of a listener that [KafkaListener] asked for.
func (k *KafkaBroker) Listener(name string) string { return k.own.Listener(name) }

// Authority is a certificate authority whose files end with the test.
func Authority(t testing.TB) *local.Authority {
	t.Helper()
	a, err := local.NewAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return a
}
