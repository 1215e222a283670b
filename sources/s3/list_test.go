package s3

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/minio/minio-go/v7"

	"leat"
	"leat/internal/testenv"
)

// listed are the references of the list, by id, and the error that ends it.
func (f *fixture) listed() (map[string]*leat.Ref, error) {
	f.Helper()
	refs := map[string]*leat.Ref{}
	for e, err := range f.src.List(f.Context()) {
		if err != nil {
			return refs, err
		}
		refs[e.ID] = e.Document.Ref
	}
	return refs, nil
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

// sameDocuments: List has the events' references, Look says word for word what
// they say.
func (f *fixture) sameDocuments() {
	f.Helper()
	want, refs := map[string]*leat.Document{}, map[string]*leat.Ref{}
	for id, e := range f.rec.Index() {
		if e.Document != nil {
			want[id], refs[id] = e.Document, e.Document.Ref
		}
	}
	listed, err := f.listed()
	f.must(err)
	if diff := cmp.Diff(refs, listed); diff != "" {
		f.Errorf("List (+), events (-):\n%s", diff)
	}
	looked, err := f.looked(slices.Sorted(maps.Keys(want))...)
	f.must(err)
	if diff := cmp.Diff(want, looked); diff != "" {
		f.Errorf("Look (+), events (-):\n%s", diff)
	}
}

// TestListMany: several pages, keys of all kinds, objects in parts and with
// media types; and what is no document.
func TestListMany(t *testing.T) {
	f := newFixture(t, testenv.MinIO(t), true)
	for i, key := range oddKeys {
		f.put(key, strings.Repeat("x", i))
	}
	for i := range 1100 {
		f.put("many/"+strings.Repeat("k", i%50)+string(rune('a'+i%26))+strings.Repeat("n", i/50), "text")
	}
	f.putAs("large.txt", strings.Repeat("0123456789abcdef", 6<<20/16), minio.PutObjectOptions{PartSize: 5 << 20, ContentType: "text/plain; charset=gb18030"})
	f.put("folder/", "")
	f.put(".hidden.md", "")
	f.put("deleted.md", "")
	f.remove("deleted.md")
	f.once()
	f.sameDocuments()

	f.cfg.Prefix, f.cfg.Exclude = "many/", []string{"*z"}
	f.open()
	f.once()
	f.sameDocuments()
	looked, err := f.looked("s3:docs/large.txt", "s3:docs/many/z", "s3:docs/many/", "s3:docs/deleted.md", "s3:docs/%zz", "s3:docs/")
	f.must(err)
	for id, d := range looked {
		if d != nil {
			t.Errorf("%s is %+v", id, d)
		}
	}
}
