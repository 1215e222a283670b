package folder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/google/go-cmp/cmp"

	"leat"
	"leat/sources/sourcetest"
)

// fixture is a folder, a source over it and what the source has said.
type fixture struct {
	*testing.T
	dir string
	cfg Config
	src *Source
	rec *sourcetest.Recorder
}

func newFixture(t *testing.T) *fixture {
	f := &fixture{T: t, dir: t.TempDir(), rec: sourcetest.NewRecorder("folder:notes")}
	f.cfg.Path = f.dir
	f.open()
	return f
}

func (f *fixture) open() {
	f.Helper()
	var err error
	if f.src, err = New("notes", f.cfg, slog.New(slog.DiscardHandler)); err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) path(rel string) string { return filepath.Join(f.dir, rel) }

func (f *fixture) write(rel, body string) {
	f.Helper()
	write(f.T, f.path(rel), body)
}

func (f *fixture) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) once() {
	f.Helper()
	f.rec.Once(f.T, f.src)
}

// run runs a session to its error.
func (f *fixture) runErr() error {
	f.Helper()
	s, end := f.rec.Session(true, slog.New(slog.DiscardHandler))
	defer end()
	return f.src.Run(f.Context(), s)
}

// live is the paths of the documents that are indexed.
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
	f.rec.Wait(f.T, fmt.Sprint(want), func() bool { return cmp.Equal(want, f.live()) })
}

func TestDocument(t *testing.T) {
	f := newFixture(t)
	f.write("guides/安装 手册.v2.md", "# 安装\n")
	f.once()
	e := f.rec.Events()[0]
	fi, err := os.Stat(f.path("guides/安装 手册.v2.md"))
	f.must(err)
	want := leat.Event{
		ID:      "folder:notes/guides/%E5%AE%89%E8%A3%85%20%E6%89%8B%E5%86%8C.v2.md",
		Version: e.Version,
		Source:  "folder:notes",
		Time:    fi.ModTime(),
		Document: &leat.Document{
			Ref: &leat.Ref{Name: "guides/安装 手册.v2.md", Tag: tag(fi), Size: 9},
			Metadata: map[string]any{
				"path":     "guides/安装 手册.v2.md",
				"modified": fi.ModTime().UTC().Format(time.RFC3339Nano),
			},
		},
	}
	if diff := cmp.Diff(want, e); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if epoch := e.Version >> 43; epoch != 1 {
		t.Errorf("epoch %d in the version", epoch)
	}
	at := time.UnixMilli(int64(e.Version & (1<<43 - 1) >> 1))
	time.Sleep(50 * time.Millisecond) // the clock leaves room below a version, see listing.Looker
	if age := time.Since(at); age < 0 || age > time.Hour {
		t.Errorf("the version's time is %s", at)
	}
}

// Any name that a file system allows is a document that can be opened.
func TestNames(t *testing.T) {
	f := newFixture(t)
	want := map[string]string{}
	for i, name := range []string{
		"plain.md", "with space.md", "new\nline.md", "100%.md", "%41.md", "a+b&c=d;e,f.md", "quote\"'`.md", `back\slash.md`,
		"文档.md", "e\u0301.md", "é.md", "😀.md", "no extension", strings.Repeat("n", 255),
		strings.Repeat("文", 85), "deep/" + strings.Repeat(strings.Repeat("d", 200)+"/", 10) + "file.md",
	} {
		f.write(name, fmt.Sprint(i))
		want[name] = fmt.Sprint(i)
	}
	f.write("gbk/\xb2\xe2\xca\xd4.md", "GBK") // 测试 in GBK
	want["/gbk/%B2%E2%CA%D4.md"] = "GBK"
	f.once()
	f.holds(want)
	n := len(f.rec.Events())
	f.once()
	if more := f.rec.Events()[n:]; len(more) > 0 {
		t.Errorf("events although nothing changed: %+v", more)
	}
	f.sameDocuments()
	for name := range want {
		if rel, ok := refRel(name); ok {
			f.must(os.Remove(f.path(rel)))
		}
	}
	f.once()
	f.holds(map[string]string{})
}

// A folder that is missing or was exchanged is an error with a hint, never a
// folder from which everything was deleted.
func TestFolderMissing(t *testing.T) {
	f := newFixture(t)
	f.write("a.md", "a")
	f.once()
	aside := f.dir + "-aside"
	f.must(os.Rename(f.dir, aside))
	check := func(when string, err error) {
		t.Helper()
		if err == nil || leat.HintOf(err) == "" {
			t.Errorf("%s: %v, hint %q", when, err, leat.HintOf(err))
		}
	}
	check("Check", f.src.Check(t.Context()))
	check("Run", f.runErr())
	_, err := f.src.Open(t.Context(), *f.rec.Index()["folder:notes/a.md"].Document.Ref)
	check("Open", err)
	if errors.Is(err, leat.ErrNotFound) || leat.IsPermanent(err) {
		t.Errorf("Open: %v would drop the document", err)
	}
	f.must(os.WriteFile(f.dir, nil, 0o600))
	check("Run over a file", f.runErr())
	f.must(os.Remove(f.dir))
	f.must(os.Mkdir(f.dir, 0o755)) // the place where it was mounted
	check("Run where nothing is mounted", f.runErr())
	f.must(os.Remove(f.dir))
	f.must(os.Rename(aside, f.dir))
	f.holds(map[string]string{"a.md": "a"})
	f.once()
	f.must(os.Remove(f.path("a.md"))) // while it was down, from the same folder
	f.once()
	f.holds(map[string]string{})
}

// With a file in it, another folder is one that was restored or exchanged.
func TestFolderExchanged(t *testing.T) {
	f := newFixture(t)
	f.write("a.md", "a")
	f.once()
	f.must(os.RemoveAll(f.dir))
	f.write(".keep", "")
	f.once()
	f.holds(map[string]string{})
}

func TestFolderGoneWhileWatched(t *testing.T) {
	for name, remove := range map[string]func(dir string) error{
		"Renamed": func(dir string) error { return os.Rename(dir, dir+"-aside") },
		"Replaced": func(dir string) error {
			return errors.Join(os.Rename(dir, dir+"-aside"), os.Mkdir(dir, 0o755))
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.write("a.md", "a")
			f.write("deep/b.md", "b")
			run := f.rec.Start(t, f.src)
			f.waitFor(map[string]string{"a.md": "a", "deep/b.md": "b"})
			f.must(remove(f.dir))
			if err := run.Wait(); err == nil || leat.HintOf(err) == "" {
				t.Errorf("Run: %v, hint %q", err, leat.HintOf(err))
			}
			for _, e := range f.rec.Events() {
				if e.Document == nil {
					t.Errorf("%s was deleted", e.ID)
				}
			}
		})
	}
}

func TestWatchFolders(t *testing.T) {
	f := newFixture(t)
	outside := t.TempDir()
	write(t, filepath.Join(outside, "in/deep/c.md"), "c")
	f.write("a/x/1.md", "1")
	f.write("a/x/2.md", "2")
	f.write("a x/3.md", "3")
	run := f.rec.Start(t, f.src)
	f.waitFor(map[string]string{"a/x/1.md": "1", "a/x/2.md": "2", "a x/3.md": "3"})

	f.must(os.Rename(f.path("a"), f.path("b")))
	f.waitFor(map[string]string{"b/x/1.md": "1", "b/x/2.md": "2", "a x/3.md": "3"})
	f.write("b/x/1.md", "1 changed") // under its new name
	f.waitFor(map[string]string{"b/x/1.md": "1 changed", "b/x/2.md": "2", "a x/3.md": "3"})

	f.must(os.Rename(f.path("b/x"), filepath.Join(outside, "x"))) // out
	f.waitFor(map[string]string{"a x/3.md": "3"})
	write(t, filepath.Join(outside, "x/1.md"), "no longer watched")

	f.must(os.Rename(filepath.Join(outside, "in"), f.path("in"))) // in
	f.waitFor(map[string]string{"a x/3.md": "3", "in/deep/c.md": "c"})
	f.write("in/deep/d.md", "d")
	f.waitFor(map[string]string{"a x/3.md": "3", "in/deep/c.md": "c", "in/deep/d.md": "d"})

	f.write("new/and/deep/e.md", "e")
	f.write(".hidden/f.md", "f")
	f.must(os.RemoveAll(f.path("in")))
	f.waitFor(map[string]string{"a x/3.md": "3", "new/and/deep/e.md": "e"})

	// A file takes a folder's place, and a folder a file's.
	f.must(os.RemoveAll(f.path("new")))
	f.write("new", "a file")
	f.must(os.Rename(f.path("a x"), f.path("ax")))
	f.waitFor(map[string]string{"ax/3.md": "3", "new": "a file"})
	f.must(os.Remove(f.path("new")))
	f.write("new/g.md", "g")
	f.waitFor(map[string]string{"ax/3.md": "3", "new/g.md": "g"})
	run.Stop()
	for _, e := range f.rec.Events() {
		if strings.Contains(e.ID, "hidden") {
			t.Errorf("event for %s", e.ID)
		}
	}
}

// A file that is being written is looked at when it rests.
func TestDebounce(t *testing.T) {
	f := newFixture(t)
	f.write("other.md", "")
	run := f.rec.Start(t, f.src)
	f.waitFor(map[string]string{"other.md": ""})
	before := len(f.rec.Events())
	file, err := os.Create(f.path("a.md"))
	f.must(err)
	body := ""
	for i := range 40 {
		line := fmt.Sprintf("line %d\n", i)
		body += line
		_, err := file.WriteString(line)
		f.must(err)
		time.Sleep(5 * time.Millisecond)
	}
	f.must(file.Close())
	f.waitFor(map[string]string{"a.md": body, "other.md": ""})
	run.Stop()
	// One event where nothing delayed this test between two lines.
	if n := len(f.rec.Events()) - before; n > 10 {
		t.Errorf("%d events for a file written in 40 steps", n)
	}
}

// A file that never rests is looked at all the same.
func TestNeverRests(t *testing.T) {
	f := newFixture(t)
	run := f.rec.Start(t, f.src)
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
				file, err := os.OpenFile(f.path("log.md"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
				if err == nil {
					_, err = file.WriteString("line\n")
					err = errors.Join(err, file.Close())
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	defer func() { close(stop); writer.Wait() }()
	f.rec.Wait(t, "two events", func() bool { return len(f.rec.Events()) >= 2 })
	run.Stop()
}

func TestOpenWhileItChanges(t *testing.T) {
	body := strings.Repeat("0123456789", 10_000)
	for _, test := range []struct {
		name   string
		change func(path string) error
		want   error
	}{
		{"Unchanged", func(string) error { return nil }, nil},
		{"Removed", os.Remove, nil}, // what was opened can be read to its end
		{"Replaced", func(p string) error {
			return errors.Join(os.WriteFile(p+".new", []byte(body), 0o600), os.Rename(p+".new", p))
		}, nil},
		{"Overwritten", func(p string) error { return os.WriteFile(p, []byte(strings.ToUpper(body)), 0o600) }, leat.ErrChanged},
		{"Truncated", func(p string) error { return os.Truncate(p, 10) }, leat.ErrChanged},
		{"Appended", func(p string) error {
			file, err := os.OpenFile(p, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = file.WriteString("more")
			return errors.Join(err, file.Close())
		}, leat.ErrChanged},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t)
			f.write("a.md", body)
			f.once()
			r, err := f.src.Open(t.Context(), *f.rec.Events()[0].Document.Ref)
			f.must(err)
			defer r.Close()
			begin := make([]byte, 5000)
			_, err = io.ReadFull(r, begin)
			f.must(err)
			f.must(test.change(f.path("a.md")))
			rest, err := io.ReadAll(r)
			if !errors.Is(err, test.want) {
				t.Fatalf("%v, not %v", err, test.want)
			}
			if test.want == nil && string(begin)+string(rest) != body {
				t.Error("the content is another")
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	f := newFixture(t)
	f.write("deep/a.md", "a")
	write(t, f.dir+"-outside/secret", "secret")
	f.must(os.Symlink(f.dir+"-outside", f.path("out")))
	f.must(os.Symlink("../"+filepath.Base(f.dir)+"-outside/secret", f.path("link.md")))
	f.must(syscall.Mkfifo(f.path("pipe"), 0o600))
	for name, permanent := range map[string]bool{
		"": true, ".": true, "..": true, "../x": true, "/..": true, "/%2e%2e/x": true, "a/../../x": true, "deep//a.md": true,
		"/etc/passwd": false, "out/secret": false, "link.md": false, "pipe": false, "deep": false, "deep/a.md/b": false,
		"missing": false, strings.Repeat("x", 300): false,
	} {
		r, err := f.src.Open(t.Context(), leat.Ref{Name: name})
		if err == nil {
			r.Close()
			t.Errorf("%q was opened", name)
			continue
		}
		if permanent != leat.IsPermanent(err) || permanent == errors.Is(err, leat.ErrNotFound) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestNotDocuments(t *testing.T) {
	f := newFixture(t)
	f.write("a.md", "a")
	f.write("deep/b.md", "b")
	write(t, f.dir+"-outside/secret.md", "secret")
	f.must(os.Symlink("a.md", f.path("inside.md")))
	f.must(os.Symlink("../a.md", f.path("deep/up.md")))
	f.must(os.Symlink(f.dir+"-outside/secret.md", f.path("outside.md")))
	f.must(os.Symlink("nowhere", f.path("dangling.md")))
	f.must(os.Symlink("loop.md", f.path("loop.md")))
	f.must(os.Symlink("deep", f.path("folder")))
	f.must(syscall.Mkfifo(f.path("pipe.md"), 0o600))
	want := map[string]string{"a.md": "a", "deep/b.md": "b", "inside.md": "a", "deep/up.md": "a"}
	f.once()
	f.holds(want)

	// What takes a document's place and is none deletes it.
	f.must(os.Remove(f.path("a.md")))
	f.must(syscall.Mkfifo(f.path("a.md"), 0o600))
	f.must(os.Rename(f.path("deep"), f.path("moved")))
	f.must(os.Symlink("moved", f.path("deep")))
	f.once()
	f.holds(map[string]string{"moved/b.md": "b"})
}

// Files that the patterns no longer select are deleted.
func TestPatternsChange(t *testing.T) {
	f := newFixture(t)
	f.write("a.md", "a")
	f.write("drafts/b.md", "b")
	f.once()
	f.cfg.Exclude = []string{"drafts"}
	f.open()
	f.once()
	f.holds(map[string]string{"a.md": "a"})
}

// A file whose event goes to deadletters never reaches the index. Its event
// comes once more, as the file may have been away when it was to be opened; not
// with every scan; and when it changes.
func TestNotIndexed(t *testing.T) {
	f := newFixture(t)
	f.cfg.Rescan = time.Second
	f.open()
	f.write("a.bin", "a")
	f.write("b.md", "b")
	var scans atomic.Int64
	var keepOut atomic.Bool
	ctx, cancel := context.WithCancel(t.Context())
	s, end := f.rec.Session(false, slog.New(slog.DiscardHandler))
	known := s.Known
	s.Known = func(ctx context.Context, prefix string) iter.Seq2[leat.DocumentState, error] {
		scans.Add(1)
		return func(yield func(leat.DocumentState, error) bool) {
			for d, err := range known(ctx, prefix) {
				if d.ID == "folder:notes/a.bin" && keepOut.Load() {
					continue
				}
				if !yield(d, err) {
					return
				}
			}
		}
	}
	var run sync.WaitGroup
	run.Go(func() {
		defer end()
		if err := f.src.Run(ctx, s); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	defer run.Wait()
	defer cancel()
	f.waitFor(map[string]string{"a.bin": "a", "b.md": "b"})
	keepOut.Store(true)
	events := len(f.rec.Events())
	before := scans.Load()
	f.rec.Wait(t, "four scans", func() bool { return scans.Load() >= before+4 })
	keepOut.Store(false)
	if more := f.rec.Events()[events:]; len(more) != 1 || more[0].ID != "folder:notes/a.bin" {
		t.Errorf("%+v", more)
	}
	f.write("a.bin", "a changed")
	f.waitFor(map[string]string{"a.bin": "a changed", "b.md": "b"})
}

// The scan finds what the watch has missed.
func TestRescan(t *testing.T) {
	f := newFixture(t)
	f.cfg.Rescan = time.Second
	f.open()
	var w *fsnotify.Watcher
	f.src.newWatcher = func() (*fsnotify.Watcher, error) {
		var err error
		w, err = fsnotify.NewWatcher()
		return w, err
	}
	f.write("a.md", "a")
	f.write("b.md", "b")
	run := f.rec.Start(t, f.src)
	f.waitFor(map[string]string{"a.md": "a", "b.md": "b"})
	f.must(w.Remove(f.dir)) // the watch is blind from here on
	f.write("a.md", "a changed")
	f.must(os.Remove(f.path("b.md")))
	f.write("c.md", "c")
	f.waitFor(map[string]string{"a.md": "a changed", "c.md": "c"})
	run.Stop()
}

// Where the system's queue of hints overflows, the watch begins anew.
func TestOverflow(t *testing.T) {
	f := newFixture(t)
	watchers := make(chan *fsnotify.Watcher, 2)
	f.src.newWatcher = func() (*fsnotify.Watcher, error) {
		w, err := fsnotify.NewWatcher()
		watchers <- w
		return w, err
	}
	f.write("a.md", "a")
	run := f.rec.Start(t, f.src)
	f.waitFor(map[string]string{"a.md": "a"})
	w := <-watchers
	f.must(w.Remove(f.dir))
	f.write("a.md", "missed")
	w.Errors <- fsnotify.ErrEventOverflow
	f.waitFor(map[string]string{"a.md": "missed"})
	<-watchers
	f.write("deep/b.md", "b")
	f.waitFor(map[string]string{"a.md": "missed", "deep/b.md": "b"})
	run.Stop()
}

// Where nothing can be watched the folder is polled.
func TestPolling(t *testing.T) {
	f := newFixture(t)
	f.cfg.Rescan = time.Hour
	f.open()
	f.src.newWatcher = func() (*fsnotify.Watcher, error) { return nil, syscall.EMFILE }
	f.write("a.md", "a")
	run := f.rec.Start(t, f.src)
	f.waitFor(map[string]string{"a.md": "a"})
	f.write("a.md", "a changed")
	f.write("b.md", "b")
	f.waitFor(map[string]string{"a.md": "a changed", "b.md": "b"})
	run.Stop()
}

// Where the index holds higher versions than the clock gives (the count of
// epochs was lost), events are above them all the same.
func TestVersionsAboveIndex(t *testing.T) {
	f := newFixture(t)
	f.write("a.md", "a")
	f.once()
	f.once()
	high := f.rec.Index()["folder:notes/a.md"].Version
	rec := sourcetest.NewRecorder("folder:notes") // epochs from 1 again
	s, end := rec.Session(true, slog.New(slog.DiscardHandler))
	defer end()
	s.Known = f.rec.Known
	f.write("a.md", "a changed")
	f.must(f.src.Run(context.Background(), s))
	if v := rec.Index()["folder:notes/a.md"].Version; v <= high {
		t.Errorf("version %d is not above %d", v, high)
	}
}

// A change within one tick of the file system's clock is not missed: the tag
// of a file that young is no tag to rely on.
func TestYoung(t *testing.T) {
	f := newFixture(t)
	run := f.rec.Start(t, f.src)
	for i := range 20 {
		body := fmt.Sprintf("%02d", i)
		f.must(os.WriteFile(f.path("a.md"), []byte(body), 0o600))
		f.waitFor(map[string]string{"a.md": body})
	}
	run.Stop()
}

// A file system below the root that is not mounted deletes nothing, until the
// folder is not empty or is no longer there for other reasons.
func TestMountBelow(t *testing.T) {
	f := newFixture(t)
	f.write("a.md", "a")
	f.write("disks/one/b.md", "b")
	f.write("disks/one/deep/c.md", "c")
	mounted := true
	open := func() {
		f.open()
		place, err := os.Stat(f.path("disks/one"))
		f.must(err)
		f.src.device = func(fi os.FileInfo) uint64 {
			if mounted && os.SameFile(fi, place) {
				return 2
			}
			return 1
		}
		below := f.src.device
		if deep, err := os.Stat(f.path("disks/one/deep")); err == nil {
			f.src.device = func(fi os.FileInfo) uint64 {
				if mounted && os.SameFile(fi, deep) {
					return 2
				}
				return below(fi)
			}
		}
	}
	all := map[string]string{"a.md": "a", "disks/one/b.md": "b", "disks/one/deep/c.md": "c"}
	open()
	f.once()
	f.holds(all)

	mounted = false // and what stands there is the empty place for it
	f.must(os.Rename(f.path("disks/one"), f.path(".aside")))
	f.must(os.Mkdir(f.path("disks/one"), 0o755))
	open()
	f.write("a.md", "a changed")
	f.once()
	f.once()
	live := map[string]string{"a.md": "a changed", "disks/one/b.md": "", "disks/one/deep/c.md": ""}
	for name := range f.live() {
		if _, ok := live[name]; !ok {
			t.Errorf("%s is there", name)
		}
		delete(live, name)
	}
	if len(live) > 0 {
		t.Errorf("%v were deleted", live)
	}
	if looked, err := f.looked("folder:notes/a.md", "folder:notes/disks/one/b.md"); !errors.Is(err, errUnmounted) || leat.HintOf(err) == "" {
		t.Errorf("Look where nothing is mounted: %v, %v, hint %q", looked, err, leat.HintOf(err))
	}

	mounted = true
	f.must(os.Remove(f.path("disks/one")))
	f.must(os.Rename(f.path(".aside"), f.path("disks/one")))
	f.must(os.Remove(f.path("disks/one/b.md"))) // deleted while it was mounted elsewhere
	open()
	f.once()
	f.holds(map[string]string{"a.md": "a changed", "disks/one/deep/c.md": "c"})

	mounted = false
	f.must(os.RemoveAll(f.path("disks/one")))
	f.write("disks/one/.keep", "")
	open()
	f.once()
	f.holds(map[string]string{"a.md": "a changed"})
}
