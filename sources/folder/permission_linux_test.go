package folder

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"leat"
)

// asNobody runs with in a thread that reads files as a user without
// privileges, as the tests may run as root, from whom nothing is hidden.
func asNobody(t *testing.T, with func()) {
	t.Helper()
	if os.Getuid() != 0 {
		with()
		return
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const nobody = 65534
	setfsuid := func(uid uintptr) {
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETFSUID, uid, 0, 0); errno != 0 {
			t.Fatal(errno)
		}
	}
	setfsuid(nobody)
	defer setfsuid(0)
	with()
}

// A file that may not be read goes to deadletters with a hint; a folder that
// may not be listed keeps its documents.
func TestPermission(t *testing.T) {
	f := newFixture(t)
	for dir := f.dir; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if os.Getuid() == 0 && strings.HasPrefix(dir, os.TempDir()+"/") {
			f.must(os.Chmod(dir, 0o755))
		}
	}
	f.write("a.md", "a")
	f.write("closed/b.md", "b")
	f.write("denied.md", "denied")
	f.must(os.Chmod(f.path("denied.md"), 0))
	var log strings.Builder
	var err error
	if f.src, err = New("notes", f.cfg, slog.New(slog.NewTextHandler(&log, nil))); err != nil {
		t.Fatal(err)
	}
	asNobody(t, func() {
		f.must(f.runErr())
		e := f.rec.Index()["folder:notes/denied.md"]
		if e.Document == nil {
			t.Fatal("no event for a file that may not be read")
		}
		_, err := f.src.Open(context.Background(), *e.Document.Ref)
		if !leat.IsPermanent(err) || !errors.Is(err, fs.ErrPermission) || leat.HintOf(err) == "" {
			t.Errorf("Open: %v, hint %q", err, leat.HintOf(err))
		}
	})
	if !strings.Contains(log.String(), "denied.md") {
		t.Errorf("the log says nothing of it: %s", log.String())
	}

	// Neither a folder that cannot be listed nor one that cannot be entered
	// says anything about its files.
	for _, mode := range []os.FileMode{0, 0o311, 0o644} {
		f.must(os.Chmod(f.path("closed"), mode))
		events := len(f.rec.Events())
		asNobody(t, func() { f.must(f.runErr()) })
		for _, e := range f.rec.Events()[events:] {
			if e.ID != "folder:notes/denied.md" {
				t.Errorf("mode %o: event for %s, document %v", mode, e.ID, e.Document)
			}
		}
	}
	f.must(os.Chmod(f.path("closed"), 0o311)) // can be entered, not listed
	asNobody(t, func() {
		listed, err := f.listed()
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(leat.HintOf(err), "closed") {
			t.Errorf("List: %v, hint %q", err, leat.HintOf(err))
		}
		if diff := cmp.Diff(f.rec.Index()["folder:notes/denied.md"].Document, listed["folder:notes/denied.md"]); diff != "" || listed["folder:notes/a.md"] == nil {
			t.Errorf("List (+), event (-) of a file that may not be read:\n%s", diff)
		}
	})
	f.must(os.Chmod(f.path("closed"), 0))
	asNobody(t, func() {
		looked, err := f.looked("folder:notes/a.md", "folder:notes/closed/b.md")
		if !errors.Is(err, fs.ErrPermission) || leat.HintOf(err) == "" {
			t.Errorf("Look into a closed folder: %v, %v, hint %q", looked, err, leat.HintOf(err))
		}
	})
	if !strings.Contains(log.String(), "closed") {
		t.Errorf("the log says nothing of the folder: %s", log.String())
	}
	f.must(os.Chmod(f.path("closed"), 0o755))

	// Once it may be read its document comes, though nothing else changed.
	f.must(os.Chmod(f.path("denied.md"), 0o644))
	asNobody(t, func() {
		f.must(f.runErr())
		f.holds(map[string]string{"a.md": "a", "closed/b.md": "b", "denied.md": "denied"})
	})

	f.must(os.Chmod(f.dir, 0))
	asNobody(t, func() {
		for what, err := range map[string]error{"Run": f.runErr(), "Check": f.src.Check(context.Background())} {
			if err == nil || leat.HintOf(err) == "" {
				t.Errorf("%s: %v, hint %q", what, err, leat.HintOf(err))
			}
		}
	})
	f.must(os.Chmod(f.dir, 0o755))
}
