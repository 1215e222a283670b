package bus

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"leat"
	"leat/internal/testenv"
	"leat/internal/testenv/local"
)

// closedPort is an address where nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// silentPort is an address where connections are accepted and nothing more.
func silentPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// TestAccess: every connection uses TLS and SASL where configured, and where
// broker and client do not agree one error says so soon, with what to do.
func TestAccess(t *testing.T) {
	t.Parallel()
	ca, other := testenv.Authority(t), testenv.Authority(t)
	issue := func(name string, until time.Time) (string, string) {
		cert, key, err := ca.Issue(name, until)
		if err != nil {
			t.Fatal(err)
		}
		return cert, key
	}
	good := local.KafkaListener{}
	good.Cert, good.Key = issue("good", time.Now().AddDate(0, 1, 0))
	expired := local.KafkaListener{}
	expired.Cert, expired.Key = issue("expired", time.Now().Add(-time.Hour))
	mutual, sasl, both := good, local.KafkaListener{}, good
	mutual.ClientCA = ca.CertFile
	sasl.Users = map[string]string{"leat": "secret"}
	both.Users = sasl.Users
	k := testenv.Kafka(t, testenv.KafkaListener("tls", good), testenv.KafkaListener("expired", expired),
		testenv.KafkaListener("mutual", mutual), testenv.KafkaListener("sasl", sasl), testenv.KafkaListener("both", both))

	trust := func(file string) *tls.Config {
		pem, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		c := &tls.Config{RootCAs: x509.NewCertPool()}
		c.RootCAs.AppendCertsFromPEM(pem)
		return c
	}
	trusted := trust(ca.CertFile)
	identified := func(cert, key string) *tls.Config {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		c := trusted.Clone()
		c.Certificates = []tls.Certificate{pair}
		return c
	}
	password := func(mechanism, password string) *SASL {
		return &SASL{Mechanism: mechanism, User: "leat", Password: leat.Secret(password)}
	}
	client := func(t *testing.T, addr string, tls *tls.Config, sasl *SASL) *Client {
		c, err := New(Config{Brokers: []string{addr}, TLS: tls, SASL: sasl}, testLog(t))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}

	for name, c := range map[string]struct {
		listener string
		tls      *tls.Config
		sasl     *SASL
	}{
		"TLS":                       {"tls", trusted, nil},
		"TLS with own certificate":  {"mutual", identified(good.Cert, good.Key), nil},
		"PLAIN":                     {"sasl", nil, password("PLAIN", "secret")},
		"SCRAM-SHA-256":             {"sasl", nil, password("SCRAM-SHA-256", "secret")},
		"SCRAM-SHA-512 through TLS": {"both", trusted, password("SCRAM-SHA-512", "secret")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := &broker{client: func(t *testing.T) *Client { return client(t, k.Listener(c.listener), c.tls, c.sasl) }}
			testProduceConsume(t, b)
		})
	}

	for name, c := range map[string]struct {
		addr        string
		tls         *tls.Config
		sasl        *SASL
		error, hint string // parts of them
	}{
		"no TLS to a TLS port":            {k.Listener("tls"), nil, nil, "EOF", "kafka.tls"},
		"no TLS, password to a TLS port":  {k.Listener("both"), nil, password("PLAIN", "secret"), "SASL", "kafka.tls"},
		"TLS to a plaintext port":         {k.Addr(), trusted, nil, "TLS", "kafka.tls"},
		"unknown authority":               {k.Listener("tls"), trust(other.CertFile), nil, "unknown authority", "ca_file"},
		"expired certificate":             {k.Listener("expired"), trusted, nil, "expired", "renew"},
		"no certificate of its own":       {k.Listener("mutual"), trusted, nil, "certificate", "cert_file"},
		"expired certificate of its own":  {k.Listener("mutual"), identified(expired.Cert, expired.Key), nil, "certificate", "cert_file"},
		"wrong password":                  {k.Listener("sasl"), nil, password("PLAIN", "guess"), "SASL", "kafka.sasl"},
		"wrong password, SCRAM":           {k.Listener("sasl"), nil, password("SCRAM-SHA-256", "guess"), "SASL", "kafka.sasl"},
		"wrong password through TLS":      {k.Listener("both"), trusted, password("SCRAM-SHA-512", "guess"), "SASL", "kafka.sasl"},
		"unknown user":                    {k.Listener("sasl"), nil, &SASL{"SCRAM-SHA-512", "nobody", "secret"}, "SASL", "kafka.sasl"},
		"no password":                     {k.Listener("sasl"), nil, nil, "EOF", "kafka.sasl"},
		"no password through TLS":         {k.Listener("both"), trusted, nil, "EOF", "kafka.sasl"},
		"password to a port without":      {k.Addr(), nil, password("PLAIN", "secret"), "SASL", "kafka.sasl"},
		"nobody there":                    {closedPort(t), nil, nil, "refused", "run"},
		"a server that never says a word": {silentPort(t), nil, nil, "", "run"},
		"the same, through TLS":           {silentPort(t), trusted, nil, "", "run"},
		"the same, with a password":       {silentPort(t), nil, password("PLAIN", "secret"), "", "run"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bus := client(t, c.addr, c.tls, c.sasl)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			begun := time.Now()
			err := bus.Ping(ctx)
			took := time.Since(begun)
			if err == nil || ctx.Err() != nil || !strings.Contains(err.Error(), c.error) || !strings.Contains(leat.HintOf(err), c.hint) {
				t.Fatalf("after %v: %v\nhint: %s", took, err, leat.HintOf(err))
			}
			t.Logf("after %v: %v\nhint: %s", took.Round(time.Millisecond), err, leat.HintOf(err))
		})
	}
}
