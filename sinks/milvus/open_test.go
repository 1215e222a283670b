package milvus

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/milvus-io/milvus/client/v2/entity"
	"github.com/milvus-io/milvus/client/v2/milvusclient"
	"pgregory.net/rapid"

	"leat"
	"leat/internal/testenv"
	"leat/sinks/sinktest"
)

func TestOpen(t *testing.T) {
	cfg := Config{Address: testenv.Milvus(t).Addr()}
	name := fmt.Sprintf("0open-%d", os.Getpid()) // Milvus takes neither a digit first nor a hyphen
	if _, err := OpenReader(t.Context(), cfg, name, 1, discard); !errors.Is(err, fs.ErrNotExist) || leat.HintOf(err) == "" {
		t.Fatalf("a reader where nothing is: %v", err)
	}
	if _, err := Open(t.Context(), cfg, name, 1, leat.Model{Name: "none"}, discard); err == nil {
		t.Error("a model without a dimension is taken")
	}
	// Two processes may come at once.
	opened := make(chan error, 2)
	var both [2]*Index
	for i := range both {
		go func() {
			var err error
			both[i], err = Open(t.Context(), cfg, name, 1, testModel, discard)
			opened <- err
		}()
	}
	for range both {
		if err := <-opened; err != nil {
			t.Fatal(err)
		}
	}
	x := both[0]
	defer both[1].Close()
	one := revision("d", 1, 2)
	if _, err := both[1].Apply(t.Context(), []leat.Revision{one}); err != nil {
		t.Fatal(err)
	}

	r, err := OpenReader(t.Context(), cfg, name, 1, discard)
	if err != nil {
		t.Fatal(err)
	}
	if r.Model() != testModel {
		t.Errorf("the reader's model is %+v", r.Model())
	}
	if diff := cmp.Diff(map[string]uint64{"d": 1}, versions(t, r, "")); diff != "" {
		t.Error(diff)
	}
	if m, err := r.SearchVector(t.Context(), one.Chunks[0].Vector, 1); err != nil || len(m) != 1 || m[0].Chunk != one.Chunks[0].ID || m[0].Score < 0.999 {
		t.Errorf("the reader finds %+v, %v", m, err)
	}
	if _, err := r.Apply(t.Context(), nil); err == nil {
		t.Error("a reader writes")
	}
	if err := r.Discard(t.Context(), nil); err == nil {
		t.Error("a reader discards")
	}
	for what, i := range map[string]*Index{"the writer": x, "the reader": r} {
		if err := i.Check(t.Context()); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}

	// Another model or dimension is refused before anything is changed.
	for _, m := range []leat.Model{{Name: "test", Dimension: sinktest.Dimension + 1}, {Name: "other", Dimension: sinktest.Dimension}} {
		_, err := Open(t.Context(), cfg, name, 1, m, discard)
		if !errors.Is(err, leat.ErrMismatch) || !strings.Contains(leat.HintOf(err), "leat reindex") {
			t.Errorf("%+v: %v", m, err)
		}
	}
	// Another generation stands beside it.
	next, err := Open(t.Context(), cfg, name, 2, leat.Model{Name: "other", Dimension: 3}, discard)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	// A collection that leat did not make, or one that is not loaded.
	client := x.db.client
	foreign := collectionNames("foreign", 1)
	schema := entity.NewSchema().WithField(number("k").WithIsPrimaryKey(true)).WithField(vectors(3))
	if err := client.CreateCollection(t.Context(), milvusclient.NewCreateCollectionOption(foreign.chunks, schema)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), cfg, "foreign", 1, testModel, discard); !errors.Is(err, leat.ErrMismatch) || leat.HintOf(err) == "" {
		t.Errorf("a collection of someone else's: %v", err)
	}
	if there, err := client.HasCollection(t.Context(), milvusclient.NewHasCollectionOption(foreign.documents)); err != nil || there {
		t.Error("something was made beside a collection that was refused", err)
	}
	if err := client.ReleaseCollection(t.Context(), milvusclient.NewReleaseCollectionOption(next.names.documents)); err != nil {
		t.Fatal(err)
	}
	if err := next.Check(t.Context()); leat.HintOf(err) == "" {
		t.Errorf("a collection that is not loaded: %v", err)
	}
	for _, c := range []string{foreign.chunks, next.names.chunks, next.names.documents, x.names.chunks, x.names.documents} {
		if err := client.DropCollection(t.Context(), milvusclient.NewDropCollectionOption(c)); err != nil {
			t.Error(err)
		}
	}
	if err := errors.Join(r.Close(), x.Close()); err != nil {
		t.Error(err)
	}
}

// TestSegments lists, searches and changes an index of several segments, some
// of them sealed and indexed.
func TestSegments(t *testing.T) {
	p := newPool(t, testenv.Milvus(t).Addr(), 1)
	x, err := Open(t.Context(), p.cfg, p.take(t), 1, testModel, discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close() })
	const each, rounds = 900, 4
	want := map[string]leat.Revision{}
	for round := range rounds {
		var batch []leat.Revision
		for i := range each {
			r := revision(fmt.Sprintf("d%04d", (i*rounds+round)*7919%10000), 1, 1+i%2) // spread over all segments
			want[r.Document] = r
			batch = append(batch, r)
		}
		if _, err := x.Apply(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		if round == rounds-1 {
			break
		}
		for _, c := range []string{x.names.chunks, x.names.documents} {
			flush, err := x.db.client.Flush(t.Context(), milvusclient.NewFlushOption(c))
			if err == nil {
				err = flush.Await(t.Context())
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	check := func() (ids []string) {
		t.Helper()
		stats := leat.Stats{Documents: int64(len(want))}
		for d, err := range x.Documents(t.Context(), "") {
			if err != nil {
				t.Fatal(err)
			}
			if r := want[d.ID]; d.Version != r.Version || d.Chunks != len(r.Chunks) {
				t.Fatalf("%+v, not version %d of %d chunks", d, r.Version, len(r.Chunks))
			}
			ids = append(ids, d.ID)
			stats.Chunks += int64(d.Chunks)
		}
		if !slices.IsSorted(ids) || len(ids) != len(want) {
			t.Fatalf("%d documents of %d, sorted: %v", len(ids), len(want), slices.IsSorted(ids))
		}
		if st, err := x.Stats(t.Context()); err != nil || st != stats {
			t.Fatalf("%+v, not %+v (%v)", st, stats, err)
		}
		q := make([]float32, sinktest.Dimension)
		q[2] = 1
		refresh(t, x)
		matches, err := x.SearchVector(t.Context(), q, 1000)
		if err != nil || len(matches) != 1000 {
			t.Fatalf("%d matches, %v", len(matches), err)
		}
		for _, m := range matches {
			if m.Version != want[m.Document].Version {
				t.Fatalf("%+v is found, the version is %d", m, want[m.Document].Version)
			}
		}
		listed := 0 // with vectors as they were written, wherever the server keeps them
		for h, err := range x.Inventory(t.Context(), "") {
			var digest leat.ChunkDigest
			for i := range want[h.ID].Chunks {
				digest = digest.Add(&want[h.ID].Chunks[i])
			}
			if listed++; err != nil || h.Damage != "" || h.Stray != "" || h.Digest != digest || h.Version != want[h.ID].Version {
				t.Fatalf("%+v, %v", h, err)
			}
		}
		if listed != len(want) {
			t.Fatalf("%d documents of %d in the inventory", listed, len(want))
		}
		return ids
	}
	var batch []leat.Revision
	for i, id := range check() {
		switch i % 9 {
		case 0:
			batch = append(batch, deletion(id, 2))
			delete(want, id)
		case 3, 6:
			want[id] = revision(id, 2, 3)
			batch = append(batch, want[id])
		}
	}
	if _, err := x.Apply(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	check()
}

// TestLargeDocument replaces a document of more chunks than the server gives
// in one answer, in parts, and leaves nothing of the former version.
func TestLargeDocument(t *testing.T) {
	p := newPool(t, testenv.Milvus(t).Addr(), 1)
	name := p.take(t)
	x, err := Open(t.Context(), p.cfg, name, 1, testModel, discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close() })
	const chunks = maxTopK + 616
	for version := range uint64(2) {
		for _, part := range inParts(revision("large", version, chunks), 1000) {
			if _, err := x.Apply(t.Context(), []leat.Revision{part}); err != nil {
				t.Fatal(err)
			}
			if !part.Last && part.Part%5 == 0 {
				if st, err := x.Stats(t.Context()); err != nil || st.Chunks != int64(version)*chunks {
					t.Fatalf("with part %d of version %d: %+v, %v", part.Part, version, st, err)
				}
			}
		}
		if diff := cmp.Diff(map[string]uint64{"large": version}, versions(t, x, "")); diff != "" {
			t.Fatal(diff)
		}
		if c, s := rowCount(t, x, "large"); c != chunks || s != 1 {
			t.Fatalf("%d rows of chunks and %d of states are there, not %d and 1", c, s, chunks)
		}
	}
	// Damage is found in it and mended.
	sound := func() {
		t.Helper()
		if damage, strays := inventory(t, x, ""); len(damage)+len(strays) > 0 {
			t.Fatal(damage, strays)
		}
	}
	sound()
	v := newVandal(t, p, name)
	v.remove(t, where("large", 9000))
	v.alter(t, "large", chunks-1)
	v.add(t, "large", chunks+7)
	const wrong = "chunk 9000 is missing; chunk 16999 is altered; chunk 17007 is past the last"
	if damage, _ := inventory(t, x, ""); damage["large"] != wrong {
		t.Fatal(damage)
	}
	for _, part := range inParts(revision("large", 1, chunks), 3000) {
		part.Again = true
		if _, err := x.Apply(t.Context(), []leat.Revision{part}); err != nil {
			t.Fatal(err)
		}
	}
	sound()
	if c, s := rowCount(t, x, "large"); c != chunks || s != 1 {
		t.Fatalf("%d rows of chunks and %d of states are there, not %d and 1", c, s, chunks)
	}
	// One that is cut short leaves chunks with no state; the next removes them.
	rows := revision("large", 2, chunks)
	if err := x.write(t.Context(), planned(t, x, rows), nil); err != nil {
		t.Fatal(err)
	}
	x.doubtful.Store(true)
	if _, err := x.Apply(t.Context(), []leat.Revision{revision("large", 3, 1)}); err != nil {
		t.Fatal(err)
	}
	if c, s := rowCount(t, x, "large"); c != 1 || s != 1 {
		t.Fatalf("%d rows of chunks and %d of states are left, not 1 and 1", c, s)
	}
}

// planned returns the rows of chunks that an Apply of the revision writes.
func planned(t *testing.T, x *Index, r leat.Revision) []chunkRow {
	t.Helper()
	revisions := []leat.Revision{r}
	b := x.newBatch(revisions)
	if err := b.plan(revisions); err != nil {
		t.Fatal(err)
	}
	rows, _ := b.toWrite()
	return rows
}

// TestAccess goes by way of TLS and a password.
func TestAccess(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	issue := authority(t, file("ca.pem"))
	issue(file("server.pem"), file("server.key"), time.Now().Add(time.Hour))
	srv := testenv.Milvus(t, testenv.Flags("common.security.authorizationEnabled=true", "common.security.tlsMode=1",
		"tls.serverPemPath="+file("server.pem"), "tls.serverKeyPath="+file("server.key")))
	good := Config{Address: "https://" + srv.Addr(), CAFile: file("ca.pem"), User: "root", Password: "Milvus"}
	x, err := Open(t.Context(), good, "access", 1, testModel, discard)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x.Apply(t.Context(), []leat.Revision{revision("d", 1, 1)}); err != nil {
		t.Fatal(err)
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	refused := func(what, hint string, cfg Config) {
		t.Helper()
		began := time.Now()
		_, err := OpenReader(t.Context(), cfg, "access", 1, discard)
		if err == nil || !strings.Contains(leat.HintOf(err), hint) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v (%s)", what, err, leat.HintOf(err))
		}
		t.Logf("%s, after %v: %v (%s)", what, time.Since(began).Round(time.Millisecond), err, leat.HintOf(err))
	}
	with := func(change func(*Config)) Config {
		c := good
		change(&c)
		return c
	}
	refused("a wrong password", "milvus.password", with(func(c *Config) { c.Password = "secret" }))
	refused("no user", "milvus.user", with(func(c *Config) { c.User, c.Password = "", "" }))
	refused("a wrong token", "milvus.token", with(func(c *Config) { c.User, c.Password, c.Token = "", "", "secret" }))
	refused("no database", "milvus.database", with(func(c *Config) { c.Database = "none" }))
	refused("another authority", "milvus.ca_file", with(func(c *Config) { c.CAFile = "" }))
	refused("no TLS", "https://", with(func(c *Config) { c.Address, c.CAFile = srv.Addr(), "" }))
	refused("another name", "name that the server's certificate has", with(func(c *Config) { c.Address = fmt.Sprintf("https://localhost:%d", srv.Port()) }))
	issue(file("server.pem"), file("server.key"), time.Now().Add(-time.Hour))
	srv.Restart(t)
	refused("an expired certificate", "renew the server's certificate", good)

	plain := testenv.Milvus(t)
	refused("TLS where there is none", "without https://", with(func(c *Config) { c.Address = "https://" + plain.Addr() }))
}

// authority makes a certificate authority, and returns what makes a server's
// certificate for 127.0.0.1.
func authority(t *testing.T, file string) func(cert, key string, until time.Time) {
	t.Helper()
	write := func(name, kind string, der []byte) {
		t.Helper()
		if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	newKey := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	caKey := newKey()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-2 * time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	write(file, "CERTIFICATE", der)
	return func(cert, key string, until time.Time) {
		t.Helper()
		k := newKey()
		c := &x509.Certificate{
			SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "server"}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until,
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}
		der, err := x509.CreateCertificate(rand.Reader, c, ca, &k.PublicKey, caKey)
		if err != nil {
			t.Fatal(err)
		}
		write(cert, "CERTIFICATE", der)
		private, err := x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			t.Fatal(err)
		}
		write(key, "PRIVATE KEY", private)
	}
}

// TestQuiet: nothing but data goes to standard output, though the client's
// library logs there what the server refuses.
func TestQuiet(t *testing.T) {
	const again = "LEAT_TEST_MILVUS_QUIET"
	if addr := os.Getenv(again); addr != "" {
		c, err := dial(t.Context(), Config{Address: addr})
		if err != nil {
			t.Fatal(err)
		}
		defer c.close()
		if err := c.upsert(t.Context(), "none", stateColumns([]state{{key: "k"}})); err == nil {
			t.Fatal("a collection that is not there was written")
		}
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestQuiet$")
	cmd.Env = append(os.Environ(), again+"="+testenv.Milvus(t).Addr())
	out, err := cmd.CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "PASS" {
		t.Errorf("%v: it says %s", err, out)
	}
}

func TestConfig(t *testing.T) {
	for address, want := range map[string]string{
		"localhost": "localhost:19530", "milvus:1234": "milvus:1234", "10.0.0.1": "10.0.0.1:19530", "[::1]": "[::1]:19530",
		"[::1]:80": "[::1]:80", "http://m:1": "m:1", "https://m": "m:19530 TLS", "https://[::1]:5/": "[::1]:5 TLS",
		"": "error", "://": "error", "ftp://m": "error", "https://": "error", "m:1:2": "error", ":19530": "error",
		"https://u:p@m": "error", "https://m/db": "error", "m:x y": "error",
	} {
		cfg := Config{Address: address}
		hostport, secure, err := cfg.endpoint()
		got := hostport
		if secure {
			got += " TLS"
		}
		if err != nil {
			got = "error"
		}
		if got != want || (cfg.Validate() == nil) != (want != "error") {
			t.Errorf("%q: %s (%v, %v), not %s", address, got, err, cfg.Validate(), want)
		}
	}
	for field, cfg := range map[string]Config{
		"token":   {Address: "m", User: "u", Password: "p", Token: "t"},
		"user":    {Address: "m", Password: "p"},
		"ca_file": {Address: "http://m", CAFile: "f"},
	} {
		var f *leat.FieldError
		if err := cfg.Validate(); !errors.As(err, &f) || f.Field != field || f.Hint == "" {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}

func TestKeys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }),
			rapid.StringMatching(`[\x00-\x24Z-_|-\x7f]*`))
		a, b := id.Draw(t, "a"), id.Draw(t, "b")
		va, vb := rapid.Uint64().Draw(t, "version of a"), rapid.Uint64().Draw(t, "version of b")
		ka, kb := stateKey(escape(a), va), stateKey(escape(b), vb)
		if got, want := strings.Compare(ka, kb), strings.Compare(a, b); want != 0 && got != want {
			t.Fatalf("%q and %q do not sort as %q and %q", ka, kb, a, b)
		}
		if strings.ContainsAny(ka, "\"\\\n") || strings.Count(ka, " ") != 1 || slices.ContainsFunc([]byte(ka), func(c byte) bool { return c < ' ' || c > '~' }) {
			t.Fatalf("%q needs care in an expression", ka)
		}
		part := rapid.IntRange(0, 1<<30).Draw(t, "part")
		for key, want := range map[string]state{
			ka:                                  {part: -1},
			partKey(escape(a), va, part, false): {part: part},
			partKey(escape(a), va, part, true):  {part: part, again: true},
		} {
			want.key, want.ID, want.Version = key, a, va
			if got, err := parseStateKey(key); err != nil || got != want {
				t.Fatalf("%q is read as %+v (%v)", key, got, err)
			}
		}
		// Ids with a prefix lie between it and what is above all escapes.
		if strings.HasPrefix(b, a) != (escape(a) <= kb && kb < escape(a)+"~~") {
			t.Fatalf("%q as a prefix of %q", a, b)
		}
		name, _ := digest(a)
		got, version, ordinal, err := parseChunkKey(chunkKey(name, va, part))
		if err != nil || got != name || version != va || ordinal != part {
			t.Fatal(got, version, ordinal, err)
		}
	})
}
