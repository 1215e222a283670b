package config

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"leat"
)

// Kafka is a cluster that takes the place of the embedded broker.
type Kafka struct {
	Brokers []string `yaml:"brokers"` // host:port each; at least one
	// Replication is the number of brokers that keep each record of the topics
	// that leat creates. 0 (the default): what the brokers do by default.
	Replication int   `yaml:"replication"`
	TLS         *TLS  `yaml:"tls"`  // nil: connections are not encrypted
	SASL        *SASL `yaml:"sasl"` // nil: the brokers ask for no password
}

// TLS says whom to trust and who leat is.
type TLS struct {
	CAFile   string `yaml:"ca_file" config:"path"`   // PEM; "": the authorities that this machine trusts
	CertFile string `yaml:"cert_file" config:"path"` // PEM, with KeyFile: for brokers that ask clients for a certificate
	KeyFile  string `yaml:"key_file" config:"path"`  // PEM
}

// SASL is how leat proves to the brokers who it is.
type SASL struct {
	Mechanism string      `yaml:"mechanism"` // one of mechanisms
	User      string      `yaml:"user"`
	Password  leat.Secret `yaml:"password"`
}

var mechanisms = []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"}

// Validate returns every mistake as a joined *leat.FieldError.
func (k *Kafka) Validate() error {
	var errs []error
	bad := func(field, hint, format string, args ...any) {
		errs = append(errs, &leat.FieldError{Field: field, Msg: fmt.Sprintf(format, args...), Hint: hint})
	}
	if len(k.Brokers) == 0 {
		bad("brokers", "give the host:port of one broker or more, or leave kafka out", "is required")
	}
	for i, b := range k.Brokers {
		if host, port, err := net.SplitHostPort(b); err != nil || host == "" || port == "" {
			bad(index("brokers", i), "", "%q is not host:port", b)
		}
	}
	if k.Replication < 0 || k.Replication > 1<<15-1 {
		bad("replication", "3 is usual; 0 leaves it to the brokers", "%d is no number of brokers", k.Replication)
	}
	if k.TLS != nil && k.TLS.CertFile != "" && k.TLS.KeyFile == "" {
		bad("tls.key_file", "give the key of the certificate", "is required with cert_file")
	}
	if k.TLS != nil && k.TLS.KeyFile != "" && k.TLS.CertFile == "" {
		bad("tls.cert_file", "give the certificate of the key", "is required with key_file")
	}
	if k.SASL != nil {
		if !slices.Contains(mechanisms, k.SASL.Mechanism) {
			bad("sasl.mechanism", "use one of "+strings.Join(mechanisms, ", "), "%q is not known", k.SASL.Mechanism)
		}
		if k.SASL.User == "" {
			bad("sasl.user", "name the user that the brokers know", "is required")
		}
		if k.SASL.Password == "" {
			bad("sasl.password", "give it here as ${NAME}, or as password_file", "is required")
		}
	}
	return errors.Join(errs...)
}

// Load reads the files. A nil TLS gives nil.
func (t *TLS) Load() (*tls.Config, error) {
	if t == nil {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, leat.Hint(fmt.Errorf("kafka.tls.ca_file: %w", err), "make it readable for the user that runs leat")
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, leat.Hint(fmt.Errorf("kafka.tls.ca_file: %s holds no certificate", t.CAFile), "it has to be in PEM form: -----BEGIN CERTIFICATE-----")
		}
	}
	if t.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, leat.Hint(fmt.Errorf("kafka.tls.cert_file: %w", err), "it has to be a certificate and key_file its key, both in PEM form and readable for the user that runs leat")
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
