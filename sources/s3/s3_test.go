package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/minio/minio-go/v7"

	"leat"
	"leat/internal/testenv"
	"leat/sources/sourcetest"
)

// fixture is a bucket, a source over it and what the source has said.
type fixture struct {
	*testing.T
	server *testenv.ObjectStore
	bucket string
	cfg    Config
	src    *Source
	rec    *sourcetest.Recorder
}

func newFixture(t *testing.T, server *testenv.ObjectStore, versioned bool) *fixture {
	f := &fixture{T: t, server: server, bucket: server.Bucket(t, versioned), rec: sourcetest.NewRecorder("s3:docs")}
	f.cfg = config(server, f.bucket)
	f.open()
	return f
}

func (f *fixture) open() {
	f.Helper()
	var err error
	if f.src, err = New("docs", f.cfg, slog.New(slog.DiscardHandler)); err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { f.src.Close() })
}

func (f *fixture) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) put(key, body string) minio.UploadInfo {
	f.Helper()
	return f.putAs(key, body, minio.PutObjectOptions{})
}

func (f *fixture) putAs(key, body string, opts minio.PutObjectOptions) minio.UploadInfo {
	f.Helper()
	info, err := f.server.Client().PutObject(context.WithoutCancel(f.Context()), f.bucket, key, strings.NewReader(body), int64(len(body)), opts)
	if err != nil {
		f.Fatalf("put %q: %v", key, err)
	}
	return info
}

func (f *fixture) remove(key string) { f.Helper(); f.removeVersion(key, "") }

func (f *fixture) removeVersion(key, version string) {
	f.Helper()
	f.must(f.server.Client().RemoveObject(f.Context(), f.bucket, key, minio.RemoveObjectOptions{VersionID: version}))
}

func (f *fixture) once() {
	f.Helper()
	f.rec.Once(f.T, f.src)
}

// runErr runs a session that catches up, to its error.
func (f *fixture) runErr() error {
	f.Helper()
	s, end := f.rec.Session(true, slog.New(slog.DiscardHandler))
	defer end()
	return f.src.Run(f.Context(), s)
}

// stage runs sessions one after another, as a pipeline does, until the function
// that it returns is called.
func (f *fixture) stage() (stop func()) {
	ctx, cancel := context.WithCancel(f.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			s, end := f.rec.Session(false, slog.New(slog.DiscardHandler))
			err := f.src.Run(ctx, s)
			end()
			if ctx.Err() == nil {
				f.Logf("a session ended: %v (hint: %s)", err, leat.HintOf(err))
				if err == nil || leat.HintOf(err) == "" || leat.IsPermanent(err) {
					f.Errorf("which is no error that heals, with a hint")
				}
				_ = sleep(ctx, 100*time.Millisecond)
			}
		}
	}()
	stop = func() { cancel(); <-done }
	f.Cleanup(stop)
	return stop
}

// live is what the indexed documents contain, by key.
func (f *fixture) live() map[string]string {
	live := map[string]string{}
	for _, e := range f.rec.Index() {
		if e.Document != nil {
			live[e.Document.Ref.Name] = f.read(*e.Document.Ref)
		}
	}
	return live
}

func (f *fixture) read(ref leat.Ref) string {
	r, err := f.src.Open(f.Context(), ref)
	if err != nil {
		return "error: " + err.Error()
	}
	defer r.Close()
	body, err := io.ReadAll(r)
	if err != nil {
		return "error: " + err.Error()
	}
	return string(body)
}

func (f *fixture) holds(want map[string]string) {
	f.Helper()
	if diff := cmp.Diff(want, f.live()); diff != "" {
		f.Fatalf("-want +got:\n%s", diff)
	}
}

func (f *fixture) waitFor(want map[string]string) {
	f.Helper()
	f.rec.Wait(f.T, fmt.Sprint(slices.Sorted(maps.Keys(want))), func() bool { return cmp.Equal(want, f.live()) })
}

func TestEvents(t *testing.T) {
	f := newFixture(t, testenv.MinIO(t), false)
	run := f.rec.Start(t, f.src)
	began := time.Now()
	put := f.putAs("guides/安装 手册.md", "# Hello", minio.PutObjectOptions{ContentType: "text/markdown; charset=utf-8"})
	f.waitFor(map[string]string{"guides/安装 手册.md": "# Hello"})
	e := f.rec.Events()[0]
	want := leat.Event{
		ID: "s3:docs/guides/%E5%AE%89%E8%A3%85%20%E6%89%8B%E5%86%8C.md", Version: e.Version, Source: "s3:docs", Time: e.Time,
		Document: &leat.Document{
			MediaType: "text/markdown; charset=utf-8",
			Ref:       &leat.Ref{Name: "guides/安装 手册.md", Tag: put.ETag, Size: 7},
			Metadata:  map[string]any{"bucket": f.bucket, "key": "guides/安装 手册.md", "modified": e.Document.Metadata["modified"]},
		},
	}
	if diff := cmp.Diff(want, e); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for name, at := range map[string]time.Time{"event": e.Time, "version": time.UnixMilli(int64(e.Version & (1<<43 - 1) >> 1))} {
		if at.Before(began.Add(-2*time.Second)) || at.After(time.Now().Add(time.Second)) {
			t.Errorf("the %s's time is %s", name, at)
		}
	}
	if epoch := e.Version >> 43; epoch != 1 {
		t.Errorf("epoch %d in the version", epoch)
	}
	f.putAs("guides/安装 手册.md", "# Hello", minio.PutObjectOptions{ContentType: "text/markdown; charset=utf-8"})
	f.put("b.md", "b")
	f.waitFor(map[string]string{"guides/安装 手册.md": "# Hello", "b.md": "b"})
	f.remove("guides/安装 手册.md")
	f.waitFor(map[string]string{"b.md": "b"})
	run.Stop()
	if n := len(f.rec.Events()); n != 3 { // the second put had the same content
		t.Errorf("%d events for three changes", n)
	}
}

var oddKeys = []string{
	"a b", "a+b", "a%b", "a%20b", "a%2Fb", "a%2fb/c", "%41", "+", "a&b=c?d#e", `quote"s and 'more'`, "<xml>&amp;", "a/b/c", "a.b", "a-b", "ab", "a!b", "a$b", "A", "_", "~tilde", "é", "e\u0301",
	"文件/第一章.md", "😀", "tab\tnew\nline\rbell\x07", "[brackets]{braces}(parens)", "back`tick^caret|pipe", "semi;colon,comma:at@", "*star*", "x/$/y", "trailing ", " leading",
	strings.Repeat("long/", 40) + strings.Repeat("é", 100), // 400 bytes
	strings.Repeat(strings.Repeat("k", 204)+"/", 4) + strings.Repeat("k", 204),
}

// TestOddKeys: whatever a key is, its object is found, read and followed; a
// second look at all finds nothing to do, so both lists were in one order.
func TestOddKeys(t *testing.T) {
	f := newFixture(t, testenv.MinIO(t), false)
	want := map[string]string{}
	for i, key := range oddKeys {
		if id := f.src.id(key); !strings.HasPrefix(id, "s3:docs/") {
			t.Errorf("id %q", id)
		} else if back, ok := f.src.key(id); !ok || back != key {
			t.Errorf("%q became %q, %v", key, back, ok)
		}
		want[key] = fmt.Sprintf("text of %d", i)
		f.put(key, want[key])
	}
	f.once()
	f.holds(want)
	events := len(f.rec.Events())
	run := f.rec.Start(t, f.src)
	f.rec.Wait(t, "the list", func() bool { return f.rec.Progress().Phase == "watching" })
	if n := len(f.rec.Events()); n != events {
		t.Errorf("%d events although nothing had changed", n-events)
	}
	for i, key := range oddKeys {
		if i%2 == 0 {
			f.remove(key)
			delete(want, key)
			continue
		}
		want[key] = fmt.Sprintf("new text of %d", i)
		f.put(key, want[key])
	}
	f.waitFor(want)
	run.Stop()
}

// Objects that stand for folders are no documents, empty ones are.
func TestFoldersAndEmpty(t *testing.T) {
	f := newFixture(t, testenv.MinIO(t), false)
	run := f.rec.Start(t, f.src)
	f.put("folder/", "")
	f.put("folder/empty.md", "")
	f.put(".hidden/a.md", "a")
	f.put("draft.md~", "a")
	f.put("other.md", "o")
	f.waitFor(map[string]string{"folder/empty.md": "", "other.md": "o"})
	run.Stop()
	f.once()
	f.holds(map[string]string{"folder/empty.md": "", "other.md": "o"})
	if n := len(f.rec.Events()); n != 2 {
		t.Errorf("%d events for two documents", n)
	}
}

func TestMultipart(t *testing.T) {
	f := newFixture(t, testenv.MinIO(t), false)
	run := f.rec.Start(t, f.src)
	body := strings.Repeat("0123456789abcdef", 6<<20/16)
	for range 2 {
		put := f.putAs("large.txt", body, minio.PutObjectOptions{PartSize: 5 << 20})
		if !strings.HasSuffix(put.ETag, "-2") {
			t.Fatalf("ETag %s", put.ETag)
		}
		f.waitFor(map[string]string{"large.txt": body})
		body = strings.ToUpper(body)
	}
	run.Stop()
	f.once()
	if n := len(f.rec.Events()); n != 2 {
		t.Errorf("%d events for two changes", n)
	}
}

func TestVersioned(t *testing.T) {
	f := newFixture(t, testenv.MinIO(t), true)
	run := f.rec.Start(t, f.src)
	f.put("a.md", "one")
	f.waitFor(map[string]string{"a.md": "one"})
	two := f.put("a.md", "two")
	f.waitFor(map[string]string{"a.md": "two"})
	f.removeVersion("a.md", two.VersionID) // what was before is there again
	f.waitFor(map[string]string{"a.md": "one"})
	f.remove("a.md") // a delete marker
	f.waitFor(map[string]string{})
	marker := ""
	for o := range f.server.Client().ListObjectsIter(t.Context(), f.bucket, minio.ListObjectsOptions{WithVersions: true}) {
		f.must(o.Err)
		if o.IsDeleteMarker {
			marker = o.VersionID
		}
	}
	f.removeVersion("a.md", marker)
	f.waitFor(map[string]string{"a.md": "one"})
	f.put("b.md", "b")
	f.waitFor(map[string]string{"a.md": "one", "b.md": "b"})
	run.Stop()
	f.remove("b.md")
	f.once()
	f.holds(map[string]string{"a.md": "one"})

	// The version that the event spoke of goes, its content does not: the
	// document, read again, is there.
	ref := *f.rec.Index()["s3:docs/a.md"].Document.Ref
	first := f.put("a.md", "one")
	for o := range f.server.Client().ListObjectsIter(t.Context(), f.bucket, minio.ListObjectsOptions{WithVersions: true, Prefix: "a.md"}) {
		f.must(o.Err)
		if o.VersionID != first.VersionID {
			f.removeVersion("a.md", o.VersionID)
		}
	}
	before := len(f.rec.Events())
	f.once()
	if n := len(f.rec.Events()); n != before || f.read(ref) != "one" {
		t.Errorf("%d events, %q", n-before, f.read(ref))
	}
}

// TestOpenWhileItChanges: what was read is of what the reference speaks of, and
// an error says that it changed. A reader that takes its time keeps no one from
// changing it.
func TestOpenWhileItChanges(t *testing.T) {
	server := testenv.MinIO(t)
	old := strings.Repeat("0123456789abcdef", 12<<20/16)
	for name, versioned := range map[string]bool{"Plain": false, "Versioned": true} {
		for want, change := range map[error]func(*fixture){
			leat.ErrChanged:  func(f *fixture) { f.put("a.txt", strings.Repeat("x", len(old))) },
			leat.ErrNotFound: func(f *fixture) { f.remove("a.txt") },
		} {
			t.Run(name+" "+want.Error(), func(t *testing.T) {
				f := newFixture(t, server, versioned)
				f.put("a.txt", old)
				f.once()
				ref := *f.rec.Events()[0].Document.Ref
				r, err := f.src.Open(t.Context(), ref)
				f.must(err)
				defer r.Close()
				begin := make([]byte, 1000)
				_, err = io.ReadFull(r, begin)
				f.must(err)
				change(f)
				rest, err := io.ReadAll(r)
				if !errors.Is(err, want) || !strings.HasPrefix(old, string(begin)+string(rest)) {
					t.Errorf("%d bytes, then %v", len(begin)+len(rest), err)
				}
				if _, err := f.src.Open(t.Context(), ref); !errors.Is(err, want) {
					t.Errorf("Open afterwards: %v", err)
				}
			})
		}
	}
}

func TestPrefixAndPatterns(t *testing.T) {
	f := newFixture(t, testenv.MinIO(t), false)
	for _, key := range []string{"kb/a.md", "kb/a.txt", "kb/deep/b.md", "kb/drafts/c.md", "kb2/d.md", "e.md", "kb.md"} {
		f.put(key, key)
	}
	f.once()
	if n := len(f.live()); n != 7 {
		t.Errorf("%d documents", n)
	}
	f.cfg.Prefix, f.cfg.Include, f.cfg.Exclude = "kb/", []string{"*.md"}, []string{"drafts"}
	f.open()
	run := f.rec.Start(t, f.src) // the others are deleted
	f.waitFor(map[string]string{"kb/a.md": "kb/a.md", "kb/deep/b.md": "kb/deep/b.md"})
	f.put("x.md", "x")
	f.put("kb/x.txt", "x")
	f.put("kb/drafts/x.md", "x")
	f.put("kb/x.md", "x")
	f.waitFor(map[string]string{"kb/a.md": "kb/a.md", "kb/deep/b.md": "kb/deep/b.md", "kb/x.md": "x"})
	run.Stop()
}

// TestMany lists some pages of keys whose order is another than that of their
// ids, and finds among them what changed while nobody looked.
func TestMany(t *testing.T) {
	f := newFixture(t, testenv.MinIO(t), false)
	letters := []string{"a", "B", "é", "文", " ", "$", "-", "0"}
	want := map[string]string{}
	for i := range 1500 {
		key := fmt.Sprintf("%s%s/%s%d", letters[i%8], letters[i/8%8], letters[i/64%8], i)
		want[key] = fmt.Sprint(i)
		f.put(key, want[key])
	}
	f.once()
	if n := len(f.rec.Events()); n != len(want) {
		t.Fatalf("%d events for %d objects", n, len(want))
	}
	for _, key := range slices.Sorted(maps.Keys(want)) {
		switch rand.IntN(50) {
		case 0:
			f.remove(key)
			delete(want, key)
		case 1:
			want[key] += " changed"
			f.put(key, want[key])
		}
	}
	before := len(f.rec.Events())
	f.once()
	f.holds(want)
	t.Logf("%d changes", len(f.rec.Events())-before)
	before = len(f.rec.Events())
	f.once()
	if n := len(f.rec.Events()) - before; n != 0 {
		t.Errorf("%d events although nothing had changed", n)
	}
}

// TestBurst: many changes of one object in a moment are looked at together.
func TestBurst(t *testing.T) {
	f := newFixture(t, testenv.MinIO(t), false)
	release := make(chan struct{})
	f.rec.Hook = func(ctx context.Context, b leat.Batch) error {
		select {
		case <-release:
		case <-ctx.Done():
		}
		return ctx.Err()
	}
	run := f.rec.Start(t, f.src)
	last := ""
	f.put("other.md", "o")
	for i := range 50 {
		last = fmt.Sprint(i)
		f.put("a.md", last)
	}
	close(release)
	f.waitFor(map[string]string{"other.md": "o", "a.md": last})
	f.put("end.md", "e")
	f.waitFor(map[string]string{"other.md": "o", "a.md": last, "end.md": "e"})
	run.Stop()
	// What the source saw before Emit blocked, and what it was in the end.
	if n := len(f.rec.Events()); n > 4 {
		t.Errorf("%d events for 52 puts of three objects", n)
	}
}

// TestOutages changes objects while the server is stopped, killed and frozen.
func TestOutages(t *testing.T) {
	server := testenv.MinIO(t, testenv.Own())
	f := newFixture(t, server, false)
	f.src.silence = 5 * time.Second
	stop := f.stage()
	want := map[string]string{}
	change := func(round string) {
		t.Helper()
		for i := range 8 {
			key := fmt.Sprintf("%d.md", i)
			if _, there := want[key]; there && i%3 == 0 {
				f.remove(key)
				delete(want, key)
				continue
			}
			want[key] = fmt.Sprintf("%d %s", i, round)
			f.put(key, want[key])
		}
	}
	change("first")
	f.waitFor(want)
	for name, outage := range map[string]func(){
		"restart": func() { server.Restart(t) },
		"kill":    func() { server.Kill(t); time.Sleep(500 * time.Millisecond); server.Start(t) },
		"pause":   func() { server.Pause(t); time.Sleep(2 * time.Second); server.Resume(t) },
	} {
		change("before " + name)
		outage()
		change("after " + name)
		f.waitFor(want)
		change("long after " + name)
		f.waitFor(want)
	}
	stop()
	f.once()
	f.holds(want)
}

// TestBucketGone: a bucket that is gone is no bucket whose objects were deleted.
func TestBucketGone(t *testing.T) {
	f := newFixture(t, testenv.MinIO(t), false)
	f.cfg.Reconcile = time.Second
	f.open()
	f.put("a.md", "a")
	run := f.rec.Start(t, f.src)
	f.waitFor(map[string]string{"a.md": "a"})
	f.must(f.server.Client().RemoveBucketWithOptions(t.Context(), f.bucket, minio.RemoveBucketOptions{ForceDelete: true}))
	for name, err := range map[string]error{"while it ran": run.Wait(), "at the start": f.runErr(), "before deletes": f.src.exists(t.Context())} {
		if !strings.Contains(leat.HintOf(err), "make the bucket "+f.bucket) {
			t.Errorf("%s: %v (hint: %s)", name, err, leat.HintOf(err))
		}
	}
	_, listed := f.listed()
	_, looked := f.looked("s3:docs/a.md")
	for name, err := range map[string]error{"List": listed, "Look": looked} {
		if !strings.Contains(leat.HintOf(err), "make the bucket "+f.bucket) {
			t.Errorf("%s: %v (hint: %s)", name, err, leat.HintOf(err))
		}
	}
	if n := len(f.rec.Events()); n != 1 {
		t.Errorf("%d events", n)
	}
}
