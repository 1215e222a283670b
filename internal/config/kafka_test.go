package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"leat"
	"leat/internal/testenv"
)

func TestKafkaTLS(t *testing.T) {
	ca := testenv.Authority(t)
	cert, key, err := ca.Issue("leat", time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	text := filepath.Join(t.TempDir(), "text.pem")
	if err := os.WriteFile(text, []byte("not a certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		tls *TLS
		bad string // in the error; "": none
	}{
		"none":             {nil, ""},
		"of the machine":   {&TLS{}, ""},
		"own authority":    {&TLS{CAFile: ca.CertFile}, ""},
		"own certificate":  {&TLS{CertFile: cert, KeyFile: key}, ""},
		"no such file":     {&TLS{CAFile: text + ".absent"}, "ca_file"},
		"no certificate":   {&TLS{CAFile: text}, "ca_file"},
		"another's key":    {&TLS{CertFile: ca.CertFile, KeyFile: key}, "cert_file"},
		"no such key":      {&TLS{CertFile: cert, KeyFile: key + ".absent"}, "cert_file"},
		"files the others": {&TLS{CertFile: key, KeyFile: cert}, "cert_file"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, err := c.tls.Load()
			if c.bad != "" {
				if err == nil || !strings.Contains(err.Error(), c.bad) || leat.HintOf(err) == "" {
					t.Errorf("got %v (%s)", err, leat.HintOf(err))
				}
				return
			}
			if err != nil || (cfg == nil) != (c.tls == nil) {
				t.Fatalf("got %v, %v", cfg, err)
			}
			if c.tls != nil && ((cfg.RootCAs != nil) != (c.tls.CAFile != "") || (len(cfg.Certificates) == 1) != (c.tls.CertFile != "")) {
				t.Errorf("got %+v", cfg)
			}
		})
	}
}

func TestKafkaKeysWithoutValues(t *testing.T) {
	file := filepath.Join(t.TempDir(), DefaultFile)
	for text, want := range map[string]bool{"{brokers: [b:1]}": false, "{brokers: [b:1], tls: {}}": true} {
		if err := os.WriteFile(file, []byte("sources: [{name: a, folder: {path: .}}]\nkafka: "+text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := Load(file)
		if err != nil || (p.Kafka.TLS != nil) != want || p.Kafka.SASL != nil {
			t.Errorf("%s: %+v, %v", text, p.Kafka, err)
		}
	}
}
