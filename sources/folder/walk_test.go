package folder

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func walkIDs(t testing.TB, dir string, page int) []string {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	s := &Source{name: "n"}
	var ids []string
	w := walker{root: root, page: page, device: device,
		found:    func(f found) error { ids = append(ids, s.id(f.rel)); return nil },
		unlisted: func(rel string, err error) { t.Errorf("%s: %v", rel, err) },
	}
	if err := w.walk(context.Background(), ""); err != nil {
		t.Fatal(err)
	}
	return ids
}

// TestWalkOrder: ids come in strictly ascending byte order and none is left
// out, whatever the names and however few of a folder are held at once.
func TestWalkOrder(t *testing.T) {
	name := rapid.StringMatching(`[a-c%!+ .~_0é文\n-]{1,3}|a|b|x\xff?`)
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		s := &Source{name: "n"}
		var want []string
		for range rapid.IntRange(0, 25).Draw(rt, "files") {
			rel := strings.Join(rapid.SliceOfN(name, 1, 4).Draw(rt, "path"), "/")
			if !s.cfg.selection().Selects(rel) || strings.HasSuffix(rel, ".") || strings.Contains(rel, "./") {
				continue
			}
			path := filepath.Join(dir, rel)
			if os.MkdirAll(filepath.Dir(path), 0o755) != nil {
				continue // a file stands where a folder would
			}
			if fi, err := os.Stat(path); err == nil && fi.IsDir() {
				continue
			}
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				rt.Fatal(err)
			}
			if id := s.id(rel); !slices.Contains(want, id) {
				want = append(want, id)
			}
		}
		slices.Sort(want)
		got := walkIDs(t, dir, rapid.IntRange(1, 4).Draw(rt, "page"))
		if diff := cmp.Diff(want, got); diff != "" {
			rt.Fatalf("-want +got:\n%s", diff)
		}
	})
}

// TestWalkOrderByHand has the names in which a walk by name and the order of
// ids differ.
func TestWalkOrderByHand(t *testing.T) {
	dir := t.TempDir()
	for _, rel := range []string{"a/b", "a.b", "a b", "a-b", "a", "a0", "ab", "a%b", "é", "文/件", "文", "Z"} {
		path := filepath.Join(dir, rel)
		if rel == "a" || rel == "文" { // both a folder and a file cannot be
			path += "x"
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		"folder:n/%C3%A9", "folder:n/%E6%96%87/%E4%BB%B6", "folder:n/%E6%96%87x", "folder:n/Z",
		"folder:n/a%20b", "folder:n/a%25b", "folder:n/a-b", "folder:n/a.b", "folder:n/a/b",
		"folder:n/a0", "folder:n/ab", "folder:n/ax",
	}
	if diff := cmp.Diff(want, walkIDs(t, dir, walkPage)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestPaths: an id, and the name in a reference, lead back to the path.
func TestPaths(t *testing.T) {
	s := &Source{name: "my notes"}
	rapid.Check(t, func(t *rapid.T) {
		part := rapid.Custom(func(t *rapid.T) string {
			return string(rapid.SliceOfN(rapid.ByteRange(1, 255).Filter(func(b byte) bool { return b != '/' }), 1, 8).Draw(t, "bytes"))
		}).Filter(func(s string) bool { return s != "." && s != ".." })
		rel := strings.Join(rapid.SliceOfN(part, 1, 4).Draw(t, "parts"), "/")
		if got, ok := s.rel(s.id(rel)); !ok || got != rel {
			t.Errorf("%q became %q, %v", rel, got, ok)
		}
		if got, ok := refRel(refName(rel)); !ok || got != rel {
			t.Errorf("%q became %q, %v", rel, got, ok)
		}
	})
	for _, id := range []string{"folder:my%20notes/", "folder:my%20notes/..", "folder:my%20notes/a/../b", "folder:my%20notes/a%2Fb",
		"folder:my%20notes/a//b", "folder:my%20notes/%zz", "folder:other/a", "folder:my%20notes/%00", "folder:my%20notes/a b"} {
		if rel, ok := s.rel(id); ok {
			t.Errorf("%s is %q", id, rel)
		}
	}
}
