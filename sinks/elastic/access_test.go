package elastic

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"leat"
	"leat/internal/testenv"
)

// TestAccess is about a cluster with passwords and certificates: what is wrong
// with them is told, each with what to do.
func TestAccess(t *testing.T) {
	es := testenv.Elasticsearch(t, testenv.Flags("xpack.security.enabled=true"))
	root, err := newClient(of(es))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(root.close)
	admin := func(method, path string, in, out any) {
		t.Helper()
		if err := root.call(t.Context(), method, path, in, out); err != nil {
			t.Fatal(err)
		}
	}
	type m = map[string]any
	user := func(name string, cluster []string, index ...string) Config {
		t.Helper()
		role := m{"cluster": cluster}
		if index != nil {
			role["indices"] = []any{m{"names": []string{"kb", "kb-g*"}, "privileges": index}}
		}
		admin(http.MethodPut, "/_security/role/"+name, role, nil)
		admin(http.MethodPut, "/_security/user/"+name, m{"password": "password of " + name, "roles": []string{name}}, nil)
		return Config{URLs: []string{es.URL()}, User: name, Password: leat.Secret("password of " + name), Replicas: new(int)}
	}
	writer := user("writer", []string{"monitor", "manage_index_templates"}, "read", "write", "manage")
	reader := user("reader", []string{}, "read", "view_index_metadata", "maintenance")

	// What the hints say that accounts need is enough.
	if err := Check(t.Context(), writer, "kb", 1); err != nil {
		t.Fatal(err)
	}
	w := open(t, writer, "kb")
	mustApply(t, w, textRevision("d", 1, "text"), leat.Revision{Document: "e", Version: 1, Deleted: true, Last: true})
	if got := search(t, w, "text"); len(got) > 1 {
		t.Errorf("the writer finds %v", got)
	}
	if g := openGenerations(t, writer, "kb"); g.Switch(t.Context(), 1) != nil {
		t.Error(g.Switch(t.Context(), 1))
	} else if n, err := openGenerations(t, reader, "kb").Live(t.Context()); n != 1 || err != nil {
		t.Errorf("for a reader generation %d is live: %v", n, err)
	}
	r, err := OpenReader(t.Context(), reader, "kb", 1, discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	if st, err := r.Stats(t.Context()); err != nil || st.Documents != 1 {
		t.Errorf("the reader counts %+v, %v", st, err)
	}
	matches, err := r.SearchText(t.Context(), "text", 5)
	if err != nil || len(matches) != 1 {
		t.Errorf("the reader finds %+v, %v", matches, err)
	}
	if hits, err := r.Hits(t.Context(), matches); err != nil || len(hits) != 1 {
		t.Errorf("the reader reads %+v, %v", hits, err)
	}
	for h, err := range r.Inventory(t.Context(), "") {
		if err != nil || h.ID != "d" || h.Damage != "" {
			t.Errorf("the reader's inventory has %+v, %v", h, err)
		}
	}
	if err := r.Check(t.Context()); err != nil {
		t.Error(err)
	}
	var key struct{ Encoded string }
	admin(http.MethodPost, "/_security/api_key", m{"name": "leat"}, &key)
	if err := Check(t.Context(), Config{URLs: writer.URLs, APIKey: leat.Secret(key.Encoded)}, "kb", 1); err != nil {
		t.Errorf("with an API key: %v", err)
	}

	// Without the template all works, for as long as no one removes the index.
	open(t, user("plain", []string{"monitor"}, "read", "write", "manage"), "kb")

	// A proxy in front of the cluster, with certificates.
	dir := t.TempDir()
	ca, caKey := certificate(t, nil, nil, "authority", time.Hour)
	caFile := writePEM(t, dir, "ca.pem", ca)
	serve := func(name string, life time.Duration) string {
		target, err := url.Parse(es.URL())
		if err != nil {
			t.Fatal(err)
		}
		cert, key := certificate(t, ca, caKey, name, life)
		s := httptest.NewUnstartedServer(httputil.NewSingleHostReverseProxy(target))
		s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}}}
		s.Config.ErrorLog = log.New(io.Discard, "", 0) // what these tests are about
		s.StartTLS()
		t.Cleanup(s.Close)
		return s.URL
	}
	good := serve("127.0.0.1", time.Hour)
	with := func(c Config, f func(*Config)) Config {
		f(&c)
		return c
	}
	if err := Check(t.Context(), with(writer, func(c *Config) { c.URLs, c.CAFile = []string{good}, caFile }), "kb", 1); err != nil {
		t.Errorf("with TLS: %v", err)
	}
	for what, tt := range map[string]struct {
		cfg         Config
		error, hint string
	}{
		"wrong password":    {with(writer, func(c *Config) { c.Password = "wrong" }), "401", "check user and password"},
		"no password":       {with(writer, func(c *Config) { c.User, c.Password = "", "" }), "401", "check user and password"},
		"wrong API key":     {Config{URLs: writer.URLs, APIKey: "bm90OmtleQ=="}, "401", "api_key"},
		"privileges":        {user("poor", []string{"monitor"}, "read", "write"), "lacks manage", "read, write and manage of kb"},
		"none at all":       {user("none", []string{}), "lacks", "read, write and manage of kb"},
		"nothing there":     {with(writer, func(c *Config) { c.URLs = []string{"http://127.0.0.1:1"} }), "at http://127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused", "can be reached"},
		"unknown authority": {with(writer, func(c *Config) { c.URLs = []string{good} }), "unknown authority", "set ca_file"},
		"expired":           {with(writer, func(c *Config) { c.URLs, c.CAFile = []string{serve("127.0.0.1", -time.Minute)}, caFile }), "expired", "renew"},
		"other host":        {with(writer, func(c *Config) { c.URLs, c.CAFile = []string{serve("127.0.0.2", time.Hour)}, caFile }), "127.0.0.2", "as the certificate names it"},
		"no TLS there":      {with(writer, func(c *Config) { c.URLs = []string{strings.Replace(es.URL(), "http:", "https:", 1)} }), "tls", "write http://"},
		"no ca_file":        {with(writer, func(c *Config) { c.CAFile = filepath.Join(dir, "none.pem") }), "none.pem", "PEM"},
		"not Elasticsearch": {with(writer, func(c *Config) { c.URLs = []string{other(t)} }), "not Elasticsearch", "Elasticsearch 8"},
		"no certificate":    {with(writer, func(c *Config) { c.CAFile = writePEM(t, dir, "empty.pem", nil) }), "no certificate", "PEM"},
	} {
		t.Run(what, func(t *testing.T) {
			check := func(how string, err error) {
				if err == nil || !strings.Contains(err.Error(), tt.error) || !strings.Contains(leat.HintOf(err), tt.hint) || leat.IsPermanent(err) {
					t.Errorf("%s: %v (%s)", how, err, leat.HintOf(err))
				}
				if err != nil && strings.Contains(err.Error()+leat.HintOf(err), "password of") {
					t.Errorf("%s shows the password: %v", how, err)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			check("check", Check(ctx, tt.cfg, "kb", 1))
			if what == "privileges" || what == "none at all" {
				_, err := Open(ctx, tt.cfg, "kb-other", 1, discard)
				if err == nil || !strings.Contains(err.Error(), "403") || !strings.Contains(leat.HintOf(err), "manage of") {
					t.Errorf("open: %v (%s)", err, leat.HintOf(err))
				}
				return
			}
			_, err := Open(ctx, tt.cfg, "kb", 1, discard)
			check("open", err)
		})
	}
}

// other is a server of something else.
func other(t *testing.T) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) }))
	t.Cleanup(s.Close)
	return s.URL
}

// certificate makes one for a host, signed by ca, or an authority's own.
func certificate(t *testing.T, ca *x509.Certificate, caKey *ecdsa.PrivateKey, host string, life time.Duration) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(life), BasicConstraintsValid: true}
	if ca == nil {
		template.IsCA, template.KeyUsage = true, x509.KeyUsageCertSign
		ca, caKey = template, key
	} else {
		template.IPAddresses = []net.IP{net.ParseIP(host)}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, &key.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func writePEM(t *testing.T, dir, name string, cert *x509.Certificate) string {
	t.Helper()
	path := filepath.Join(dir, name)
	var data []byte
	if cert != nil {
		data = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
