package testenv

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"os"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"

	"leat/internal/testenv/local"
)

// settingOf is a broker's setting as it is in force.
func settingOf(t *testing.T, addr, key string) string {
	t.Helper()
	tr := &kafka.Transport{}
	defer tr.CloseIdleConnections()
	c := kafka.Client{Addr: kafka.TCP(addr), Transport: tr}
	res, err := c.DescribeConfigs(t.Context(), &kafka.DescribeConfigsRequest{Resources: []kafka.DescribeConfigRequestResource{
		{ResourceType: kafka.ResourceTypeBroker, ResourceName: "1", ConfigNames: []string{key}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range res.Resources[0].ConfigEntries {
		return e.ConfigValue
	}
	return ""
}

func TestKafka(t *testing.T) {
	began := time.Now()
	k := Kafka(t, Own())
	t.Logf("kafka up in %v", time.Since(began))
	began = time.Now()
	other := Kafka(t, Flags("message.max.bytes=12345"))
	t.Logf("a second one up in %v", time.Since(began))
	if got := settingOf(t, other.Addr(), "message.max.bytes"); got != "12345" {
		t.Errorf("flag not heeded: message.max.bytes = %s", got)
	}
	if k.Addr() == other.Addr() {
		t.Error("two brokers on one port")
	}
	dial := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		conn, err := kafka.DefaultDialer.DialContext(ctx, "tcp", k.Addr())
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.Brokers()
		return err
	}
	addr := k.Addr()
	for how, stop := range map[string]func(testing.TB){"stop": k.Stop, "kill": k.Kill} {
		stop(t)
		if dial() == nil {
			t.Errorf("it answers after %s", how)
		}
		began := time.Now()
		k.Start(t)
		t.Logf("up again in %v after %s", time.Since(began), how)
		if err := dial(); err != nil {
			t.Errorf("after %s and start: %v", how, err)
		}
	}
	if k.Addr() != addr {
		t.Errorf("it moved from %s to %s", addr, k.Addr())
	}
	t.Setenv("LEAT_TEST_KAFKA", k.Addr())
	if same := Kafka(t); same.Addr() != k.Addr() {
		t.Error("LEAT_TEST_KAFKA is not heeded")
	}
}

func TestKafkaListeners(t *testing.T) {
	ca := Authority(t)
	cert, key, err := ca.Issue("broker", time.Now().AddDate(0, 1, 0))
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(ca.CertFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	users := map[string]string{"leat": `se"cret`}
	k := Kafka(t, KafkaListener("tls", local.KafkaListener{Cert: cert, Key: key}),
		KafkaListener("sasl", local.KafkaListener{Users: users}),
		KafkaListener("both", local.KafkaListener{Cert: cert, Key: key, Users: users}))
	mechanisms := map[string]func(password string) (sasl.Mechanism, error){
		"PLAIN": func(p string) (sasl.Mechanism, error) {
			return plain.Mechanism{Username: "leat", Password: p}, nil
		},
		"SCRAM-SHA-256": func(p string) (sasl.Mechanism, error) { return scram.Mechanism(scram.SHA256, "leat", p) },
		"SCRAM-SHA-512": func(p string) (sasl.Mechanism, error) { return scram.Mechanism(scram.SHA512, "leat", p) },
	}
	dial := func(listener string, m sasl.Mechanism) error {
		d := kafka.Dialer{SASLMechanism: m, Timeout: time.Minute}
		if listener != "sasl" {
			d.TLS = &tls.Config{RootCAs: roots}
		}
		conn, err := d.DialContext(t.Context(), "tcp", k.Listener(listener))
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.Brokers()
		return err
	}
	if err := dial("tls", nil); err != nil {
		t.Errorf("tls: %v", err)
	}
	for _, listener := range []string{"sasl", "both"} {
		for name, mechanism := range mechanisms {
			good, err := mechanism(users["leat"])
			if err != nil {
				t.Fatal(err)
			}
			bad, err := mechanism("guess")
			if err != nil {
				t.Fatal(err)
			}
			if err := dial(listener, good); err != nil {
				t.Errorf("%s, %s: %v", listener, name, err)
			}
			if err := dial(listener, bad); err == nil {
				t.Errorf("%s, %s: a wrong password is accepted", listener, name)
			}
		}
	}
}
