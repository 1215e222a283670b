package s3

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
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
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"leat"
	"leat/internal/testenv"
	"leat/sources/sourcetest"
)

// certificate writes a self-signed one for 127.0.0.1 and its key for a server
// and returns the folder.
func certificate(t *testing.T, ends time.Time, names ...string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "leat test"},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: ends,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		DNSNames: names,
	}
	if len(names) == 0 {
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, block := range map[string]*pem.Block{"public.crt": {Type: "CERTIFICATE", Bytes: cert}, "private.key": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// fails holds Check and Run to one error each, which retries may heal, with
// this in its hint.
func (f *fixture) fails(name, hint string) {
	f.Helper()
	f.open()
	for doing, err := range map[string]error{"Check": f.src.Check(f.Context()), "Run": f.runErr()} {
		if err == nil || leat.IsPermanent(err) || !strings.Contains(leat.HintOf(err), hint) {
			f.Errorf("%s: %s: %v (hint: %s)", name, doing, err, leat.HintOf(err))
			continue
		}
		if strings.Contains(err.Error()+leat.HintOf(err), f.server.SecretKey) || strings.Contains(err.Error(), "X-Amz-") || strings.Count(err.Error(), "\n") > 0 {
			f.Errorf("%s: %s: the error tells too much: %v", name, doing, err)
		}
	}
}

func TestErrors(t *testing.T) {
	f := newFixture(t, testenv.MinIO(t, testenv.Env("MINIO_SITE_REGION=eu-test-1")), false)
	right := f.cfg
	for name, test := range map[string]struct {
		change func(*Config)
		hint   string
	}{
		"bucket":     {func(c *Config) { c.Bucket = "leat-no-such-bucket" }, "make the bucket"},
		"access key": {func(c *Config) { c.AccessKey = "nobody" }, "correct access_key"},
		"secret":     {func(c *Config) { c.SecretKey = "wrong" }, "correct secret_key"},
		"down":       {func(c *Config) { c.Endpoint = "http://127.0.0.1:1" }, "whether the server runs"},
		"no TLS":     {func(c *Config) { c.Endpoint = strings.TrimPrefix(c.Endpoint, "http://") }, "http:// before"},
		"region":     {func(c *Config) { c.Region = "moon-1" }, "region"},
	} {
		f.cfg = right
		test.change(&f.cfg)
		f.fails(name, test.hint)
	}
	f.cfg = right
	f.open()
	f.must(f.src.Check(t.Context()))
}

func TestCertificates(t *testing.T) {
	good, expired := certificate(t, time.Now().Add(time.Hour)), certificate(t, time.Now().Add(-time.Hour))
	named := certificate(t, time.Now().Add(time.Hour), "store.example")
	ca := func(dir string) string { return filepath.Join(dir, "public.crt") }

	f := newFixture(t, testenv.MinIO(t, testenv.Flags("--certs-dir="+good)), false)
	f.put("a.md", "a")
	f.fails("unknown", "ca_file")
	f.cfg.Endpoint = "http://" + f.server.Addr()
	f.fails("plain HTTP", "https:// before")
	f.cfg.Endpoint, f.cfg.CAFile = f.server.URL(), ca(good)
	f.open()
	f.must(f.src.Check(t.Context()))
	f.once()
	f.holds(map[string]string{"a.md": "a"})

	f = newFixture(t, testenv.MinIO(t, testenv.Flags("--certs-dir="+expired)), false)
	f.cfg.CAFile = ca(expired)
	f.fails("expired", "renew the server's certificate")
	f = newFixture(t, testenv.MinIO(t, testenv.Flags("--certs-dir="+named)), false)
	f.cfg.CAFile = ca(named)
	f.fails("another name", "a name that the server's certificate holds")

	for file, hint := range map[string]string{ca(good) + ".missing": "make the file readable", filepath.Join(good, "private.key"): "certificates in PEM"} {
		f.cfg.CAFile = file
		if _, err := New("docs", f.cfg, f.src.log); !strings.Contains(leat.HintOf(err), hint) {
			t.Errorf("%s: %v (hint: %s)", file, err, leat.HintOf(err))
		}
	}
}

// guard is what MinIO asks whether something is allowed (its access management
// plugin): it refuses what deny says.
func guard(t *testing.T, deny func(action, key string) bool) testenv.Option {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var asked struct {
			Input struct {
				Action string `json:"action"`
				Object string `json:"object"`
			} `json:"input"`
		}
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]bool{"result": !deny(asked.Input.Action, asked.Input.Object)})
	}))
	t.Cleanup(s.Close)
	return testenv.Env("MINIO_POLICY_PLUGIN_URL=" + s.URL)
}

func TestDenied(t *testing.T) {
	var denied atomic.Value
	denied.Store("")
	var asked atomic.Bool
	f := newFixture(t, testenv.MinIO(t, guard(t, func(action, key string) bool {
		asked.Store(true)
		return action+" "+key == denied.Load() || action == denied.Load()
	})), false)
	// MinIO answers before it has a guard, and allows everything then.
	for deadline := time.Now().Add(sourcetest.Limit); !asked.Load(); time.Sleep(10 * time.Millisecond) {
		if _, err := f.server.Client().BucketExists(t.Context(), f.bucket); err != nil || time.Now().After(deadline) {
			t.Fatalf("MinIO has not asked whether something is allowed: %v", err)
		}
	}
	for _, action := range []string{"s3:ListBucket", "s3:GetObject", "s3:ListenBucketNotification"} {
		denied.Store(action)
		f.open()
		if err := f.src.Check(t.Context()); !strings.Contains(leat.HintOf(err), action) {
			t.Errorf("%s: %v (hint: %s)", action, err, leat.HintOf(err))
		}
	}

	// One object that may not be read is a dead letter; the others are read.
	denied.Store("s3:GetObject b.md")
	f.put("a.md", "a")
	f.put("b.md", "b")
	f.once()
	live := f.live()
	if live["a.md"] != "a" || !strings.Contains(live["b.md"], "error: ") {
		t.Errorf("%q", live)
	}
	looked, err := f.looked("s3:docs/a.md", "s3:docs/b.md")
	f.must(err)
	if a, b := looked["s3:docs/a.md"], looked["s3:docs/b.md"]; a == nil || b == nil || !strings.HasPrefix(b.Ref.Tag, "denied:") {
		t.Errorf("Look: %+v, %+v", a, b)
	}
	_, err = f.src.Open(t.Context(), *f.rec.Index()["s3:docs/b.md"].Document.Ref)
	if !leat.IsPermanent(err) || !strings.Contains(leat.HintOf(err), "b.md") {
		t.Errorf("%v (hint: %s)", err, leat.HintOf(err))
	}
	denied.Store("s3:GetObject") // of all: that is no object's fault
	if _, err := f.src.Open(t.Context(), *f.rec.Index()["s3:docs/a.md"].Document.Ref); err == nil || leat.IsPermanent(err) {
		t.Error(err)
	}
	if looked, err := f.looked("s3:docs/a.md", "s3:docs/missing.md"); err == nil {
		t.Errorf("Look where none may be read: %+v", looked)
	}
	denied.Store("")
	f.once()
	f.holds(map[string]string{"a.md": "a", "b.md": "b"})
}

// front stands before a server and may answer in its place.
func (f *fixture) front(instead func(http.ResponseWriter, *http.Request) bool) {
	f.Helper()
	u, err := url.Parse(f.server.URL())
	f.must(err)
	transport := &http.Transport{}
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(u); r.Out.Host = r.In.Host }, // which is signed
		FlushInterval: -1, Transport: transport, ErrorLog: log.New(io.Discard, "", 0),
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !instead(w, r) {
			proxy.ServeHTTP(w, r)
		}
	}))
	f.Cleanup(func() {
		f.src.Close()
		s.CloseClientConnections()
		s.Close()
		transport.CloseIdleConnections()
	})
	f.cfg.Endpoint = s.URL
}

func listens(r *http.Request) bool { return r.URL.Query().Has("events") }

// TestNoNotifications: of a server that does not tell, the list finds all.
func TestNoNotifications(t *testing.T) {
	server := testenv.MinIO(t)
	for name, answer := range map[string]func(http.ResponseWriter){
		"NotImplemented": func(w http.ResponseWriter) { w.WriteHeader(http.StatusNotImplemented) },
		"List":           func(w http.ResponseWriter) { w.Header().Set("Content-Type", "application/xml") },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, server, false)
			f.cfg.Reconcile = time.Second
			f.front(func(w http.ResponseWriter, r *http.Request) bool {
				if listens(r) {
					answer(w)
				}
				return listens(r)
			})
			f.open()
			f.must(f.src.Check(t.Context()))
			f.put("a.md", "a")
			f.put("b.md", "b")
			run := f.rec.Start(t, f.src)
			f.waitFor(map[string]string{"a.md": "a", "b.md": "b"})
			f.put("a.md", "a changed")
			f.remove("b.md")
			f.put("c.md", "c")
			f.waitFor(map[string]string{"a.md": "a changed", "c.md": "c"})
			run.Stop()
		})
	}
}

// TestMissedNotifications: what a listener is not told of, the list finds; one
// to whom nobody speaks at all has no connection.
func TestMissedNotifications(t *testing.T) {
	server := testenv.MinIO(t)
	deaf := func(pings bool) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if !listens(r) {
				return false
			}
			w.Header().Set("Content-Type", "text/event-stream")
			for {
				_, _ = w.Write([]byte("{\"Records\":[]}\n"))
				w.(http.Flusher).Flush()
				ping := time.After(100 * time.Millisecond)
				if !pings {
					ping = nil
				}
				select {
				case <-r.Context().Done():
					return true
				case <-ping:
				}
			}
		}
	}
	f := newFixture(t, server, false)
	f.cfg.Reconcile = time.Second
	f.front(deaf(true))
	f.open()
	f.put("a.md", "a")
	run := f.rec.Start(t, f.src)
	f.waitFor(map[string]string{"a.md": "a"})
	f.remove("a.md")
	f.put("b.md", "b")
	f.waitFor(map[string]string{"b.md": "b"})
	run.Stop()

	f = newFixture(t, server, false)
	f.front(deaf(false))
	f.open()
	f.src.silence = time.Second
	if err := f.rec.Start(t, f.src).Wait(); !strings.Contains(err.Error(), errSilent.Error()) || leat.HintOf(err) == "" {
		t.Errorf("%v (hint: %s)", err, leat.HintOf(err))
	}
}

// TestBrokenRead: a body whose connection breaks is read on from there.
func TestBrokenRead(t *testing.T) {
	f := newFixture(t, testenv.MinIO(t), false)
	body := strings.Repeat("0123456789abcdef", 1<<20/16)
	f.put("a.txt", body)
	var gets atomic.Int64
	f.front(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || r.URL.Path != "/"+f.bucket+"/a.txt" {
			return false
		}
		at, n := 0, len(body)/4
		gets.Add(1)
		if from, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes="); ok {
			if _, err := fmt.Sscanf(from, "%d-", &at); err != nil || at == 0 {
				t.Errorf("range %q", from)
			}
			if n += at; n > len(body)/2 { // the third gets all that is left
				return false
			}
		}
		w.Header().Set("ETag", r.Header.Get("If-Match"))
		w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
		w.Header().Set("Content-Length", strconv.Itoa(len(body)-at))
		if at > 0 {
			w.WriteHeader(http.StatusPartialContent)
		}
		_, _ = io.WriteString(w, body[at:n])
		panic(http.ErrAbortHandler)
	})
	f.open()
	f.once()
	f.holds(map[string]string{"a.txt": body})
	if n := gets.Load(); n != 3 {
		t.Errorf("%d requests", n)
	}
}
