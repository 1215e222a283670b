package folder

import (
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"leat"
)

// listed is the list, by id, and the error that ends it.
func (f *fixture) listed() (map[string]*leat.Document, error) {
	f.Helper()
	documents := map[string]*leat.Document{}
	for e, err := range f.src.List(f.Context()) {
		if err != nil {
			return documents, err
		}
		documents[e.ID] = e.Document
	}
	return documents, nil
}

// looked are the answers of Look, by id, which are taken into the index.
func (f *fixture) looked(ids ...string) (map[string]*leat.Document, error) {
	f.Helper()
	asked := f.rec.Asks(ids...)
	events, err := f.src.Look(f.Context(), asked)
	if err != nil {
		return nil, err
	}
	f.rec.Answer(asked, events)
	f.must(f.rec.Err())
	documents := map[string]*leat.Document{}
	for _, e := range events {
		documents[e.ID] = e.Document
	}
	return documents, nil
}

// sameDocuments: List and Look say word for word what the events say.
func (f *fixture) sameDocuments() {
	f.Helper()
	want := map[string]*leat.Document{}
	for id, e := range f.rec.Index() {
		if e.Document != nil {
			want[id] = e.Document
		}
	}
	listed, err := f.listed()
	f.must(err)
	if diff := cmp.Diff(want, listed); diff != "" {
		f.Errorf("List (+), events (-):\n%s", diff)
	}
	looked, err := f.looked(slices.Sorted(maps.Keys(want))...)
	f.must(err)
	if diff := cmp.Diff(want, looked); diff != "" {
		f.Errorf("Look (+), events (-):\n%s", diff)
	}
}

// refuses holds List and Look at a document to an error each, with a hint.
func (f *fixture) refuses(when, id string) {
	f.Helper()
	_, listed := f.listed()
	_, looked := f.looked(id)
	for what, err := range map[string]error{"List": listed, "Look": looked} {
		if err == nil || leat.HintOf(err) == "" {
			f.Errorf("%s: %s: %v, hint %q", when, what, err, leat.HintOf(err))
		}
	}
}

// What can be no document is a delete, whatever its id.
func TestLookAtNothing(t *testing.T) {
	f := newFixture(t)
	f.cfg.Exclude = []string{"drafts"}
	f.open()
	for _, rel := range []string{"a.md", "drafts/b.md", ".hidden/c.md", "d.md~"} {
		f.write(rel, rel)
	}
	f.once()
	f.must(os.Mkdir(f.path("folder"), 0o755))
	f.must(os.Symlink("nowhere", f.path("dangling.md")))
	var ids []string
	for _, rel := range []string{"missing.md", "drafts/b.md", ".hidden/c.md", "d.md~", "folder", "dangling.md", "a.md/b", "%zz", "..", "%2e%2e/x", "a%2fb", "", "%00", strings.Repeat("n", 300)} {
		ids = append(ids, "folder:notes/"+rel)
	}
	looked, err := f.looked(ids...)
	f.must(err)
	for id, d := range looked {
		if d != nil {
			t.Errorf("%s is %+v", id, d)
		}
	}
	f.holds(map[string]string{"a.md": "a.md"})
}

// A folder that is missing or was exchanged is an error here too, and nothing
// that was in it counts as deleted.
func TestLookFolderMissing(t *testing.T) {
	f := newFixture(t)
	f.write("a.md", "a")
	f.once()
	const id = "folder:notes/a.md"
	aside := f.dir + "-aside"
	f.must(os.Rename(f.dir, aside))
	f.refuses("missing", id)
	f.must(os.WriteFile(f.dir, nil, 0o600))
	f.refuses("a file", id)
	f.must(os.Remove(f.dir))
	f.must(os.Mkdir(f.dir, 0o755)) // the place where it was mounted
	if looked, err := f.looked(id); err == nil || !strings.Contains(leat.HintOf(err), "mount it") {
		t.Errorf("where nothing is mounted: %v, %v, hint %q", looked, err, leat.HintOf(err))
	}
	f.write("b.md", "b") // it is the folder now
	looked, err := f.looked(id, "folder:notes/b.md")
	f.must(err)
	if looked[id] != nil || looked["folder:notes/b.md"] == nil {
		t.Errorf("%+v", looked)
	}
}

// A folder that takes the root's place while it is listed is no list.
func TestListFolderExchanged(t *testing.T) {
	f := newFixture(t)
	f.write("a.md", "a")
	f.write("b.md", "b")
	var last error
	for _, err := range f.src.List(t.Context()) {
		if last = err; err == nil {
			f.must(errors.Join(os.RemoveAll(f.dir+"-aside"), os.Rename(f.dir, f.dir+"-aside"), os.Mkdir(f.dir, 0o755)))
		}
	}
	if leat.HintOf(last) == "" {
		t.Errorf("%v, hint %q", last, leat.HintOf(last))
	}
}
