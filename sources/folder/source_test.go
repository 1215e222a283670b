package folder

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"leat"
	"leat/sources/sourcetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// origin is a folder whose documents have names of all kinds, in subfolders
// and as atomic replacements too.
type origin struct{ dir string }

func (o origin) rel(key int) string {
	switch key % 6 {
	case 0:
		return fmt.Sprintf("deep/er/%d.md", key)
	case 1:
		return fmt.Sprintf("%d.md", key)
	case 2:
		return fmt.Sprintf("文件夹/第 %d 份.txt", key)
	case 3:
		return fmt.Sprintf("deep-%d/file #%d%%.txt", key, key)
	case 4:
		return fmt.Sprintf("deep/%d+&=.html", key)
	}
	return fmt.Sprintf("line\nbreak %d.md", key)
}

func (o origin) Open(t *testing.T) leat.Source {
	s, err := New("notes", Config{Path: o.dir}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (o origin) Put(t *testing.T, key int, body string) {
	t.Helper()
	path := filepath.Join(o.dir, o.rel(key))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if key%2 == 0 { // in place
		if err := os.WriteFile(path, []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if err := os.WriteFile(path+".tmp", []byte(body), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		t.Fatal(err)
	}
}

func (o origin) Delete(t *testing.T, key int) {
	t.Helper()
	path := filepath.Join(o.dir, o.rel(key))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if filepath.Dir(path) != o.dir {
		_ = os.Remove(filepath.Dir(path)) // unless others are in it
	}
}

func (o origin) Rename(t *testing.T, from, to int) {
	t.Helper()
	path := filepath.Join(o.dir, o.rel(to))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(o.dir, o.rel(from)), path); err != nil {
		t.Fatal(err)
	}
}

func (o origin) ID(key int) string {
	return (&Source{name: "notes"}).id(o.rel(key))
}

func TestConformance(t *testing.T) {
	sourcetest.Run(t, sourcetest.Harness{
		Source: "folder:notes",
		New:    func(t *testing.T) sourcetest.Origin { return origin{t.TempDir()} },
	})
}

func write(t *testing.T, path, body string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(body), 0o644); err != nil {
		t.Fatal(err)
	}
	// Old enough to have a tag that tells it from what is written next.
	old := time.Now().Add(-time.Minute)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
}
