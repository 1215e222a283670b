package elastic

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"testing"

	"leat"
)

func search(t testing.TB, x *Index, query string) (ids []string) {
	t.Helper()
	matches, err := x.SearchText(t.Context(), query, 50)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range matches {
		ids = append(ids, m.Document)
	}
	return ids
}

func refresh(t testing.TB, x *Index) {
	t.Helper()
	if err := x.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestReader(t *testing.T) {
	cfg := config(t)
	name := nameOf(t.TempDir())
	drop(t, cfg, name)
	if _, err := OpenReader(t.Context(), cfg, name, 1, discard); !errors.Is(err, fs.ErrNotExist) || leat.HintOf(err) == "" {
		t.Fatalf("an index that is not there: %v", err)
	}
	if err := Check(t.Context(), cfg, name, 1); err != nil {
		t.Fatalf("check before the first run: %v", err)
	}
	w := open(t, cfg, name)
	mustApply(t, w, textRevision("d", 1, "first generation"))
	r, err := OpenReader(t.Context(), cfg, name, 1, discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	refresh(t, w)
	if got := search(t, r, "generation"); !slices.Equal(got, []string{"d"}) {
		t.Errorf("a reader finds %v", got)
	}
	if _, err := r.Apply(t.Context(), nil); err == nil {
		t.Error("a reader writes")
	}
	if err := r.Discard(t.Context(), nil); err == nil {
		t.Error("a reader discards")
	}
	if err := errors.Join(w.Check(t.Context()), r.Check(t.Context())); err != nil {
		t.Error(err)
	}
}

// moving is a network over which a request that matches is answered only once
// then has been called.
type moving struct {
	under http.RoundTripper
	then  map[string]func() // by a part of the request's body, once each
}

func (m *moving) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	for part, f := range m.then {
		if strings.Contains(string(body), part) {
			delete(m.then, part)
			f()
		}
	}
	return m.under.RoundTrip(r)
}

// TestMoved changes documents between the two reads of a search, and has it
// find other versions beside those that are held.
func TestMoved(t *testing.T) {
	cfg := config(t)
	name := nameOf(t.TempDir())
	drop(t, cfg, name)
	w := open(t, cfg, name)
	mustApply(t, w, textRevision("changed", 1, "river river river"), textRevision("deleted", 1, "river river boat"), textRevision("stays", 1, "river bed, not the bank"))
	refresh(t, w)

	r, err := OpenReader(t.Context(), cfg, name, 1, discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	m := &moving{under: r.http, then: map[string]func(){}}
	if err := r.over(cfg, m); err != nil {
		t.Fatal(err)
	}
	find := func(limit int, want ...string) {
		t.Helper()
		matches, err := r.SearchText(t.Context(), "river", limit)
		if err != nil {
			t.Fatal(err)
		}
		got := []string{}
		for _, f := range matches {
			got = append(got, fmt.Sprintf("%s@%d", f.Document, f.Version))
		}
		if !slices.Equal(got, want) {
			t.Errorf("found %v, want %v", got, want)
		}
	}
	find(10, "changed@1", "deleted@1", "stays@1")

	// The states are read when documents have changed, and searches see it.
	const ofStates, further = `["document","version"]`, `"must_not":[{`
	m.then[ofStates] = func() {
		mustApply(t, w, textRevision("changed", 2, "river river"), leat.Revision{Document: "deleted", Version: 2, Deleted: true, Last: true})
		refresh(t, w)
	}
	find(1, "changed@2")
	find(10, "changed@2", "stays@1")
	// The first part of a version counts for nothing, until the last one comes:
	// after the documents were searched for without it.
	first, last := cut(textRevision("changed", 3, "river", "mouth"))
	mustApply(t, w, first)
	refresh(t, w)
	m.then[further] = func() {
		mustApply(t, w, last)
		refresh(t, w)
	}
	find(10, "changed@2", "stays@1")
	find(10, "changed@3", "stays@1")
	if len(m.then) > 0 {
		t.Error("no document changed meanwhile")
	}
	// What was left behind of a version that was replaced.
	h := hash("changed")
	raw{t, w}.put(chunkID(h, 1, 0), h, map[string]any{"of": h, "version": 1, "chunk": "c", "start": 0, "text": "river river river"})
	refresh(t, w)
	find(1, "changed@3")
}

func TestForeignIndex(t *testing.T) {
	cfg := config(t)
	x := open(t, cfg, nameOf(t.TempDir()))
	drop(t, cfg, x.name)
	name := nameOf(t.TempDir())
	drop(t, cfg, name)
	if err := x.call(t.Context(), http.MethodPut, path(physical(name, 1)), map[string]any{}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), cfg, name, 1, discard); !errors.Is(err, leat.ErrMismatch) || leat.HintOf(err) == "" {
		t.Errorf("an index that leat did not make: %v", err)
	}
	if err := Check(t.Context(), cfg, name, 1); !errors.Is(err, leat.ErrMismatch) || leat.HintOf(err) == "" {
		t.Errorf("check of an index that leat did not make: %v", err)
	}

	// An index that is removed under leat's hands stays away, and the error says so.
	if err := x.call(t.Context(), http.MethodDelete, path(x.target), nil, nil); err != nil {
		t.Fatal(err)
	}
	_, err := x.Apply(t.Context(), []leat.Revision{textRevision("d", 1, "text")})
	if !is(err, "index_not_found_exception") || leat.IsPermanent(err) || !strings.Contains(leat.HintOf(err), "reindex") {
		t.Errorf("a write to an index that was removed: %v (%s)", err, leat.HintOf(err))
	}
}

// TestAnalysis finds the same with each way to cut Chinese.
func TestAnalysis(t *testing.T) {
	cfg := config(t)
	for _, chinese := range []analysis{smartcn, cjk, standard} {
		name := nameOf(t.TempDir())
		drop(t, cfg, name)
		x, err := newIndex(cfg, name, physical(name, 1), discard)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { x.Close() })
		x.writable = true
		if err := x.call(t.Context(), http.MethodPut, path(x.target), map[string]any{"settings": settings(cfg, chinese), "mappings": mapping(chinese)}, nil); err != nil {
			t.Fatal(err)
		}
		m, err := x.inspect(t.Context(), x.target)
		if err != nil || m.Analysis != chinese {
			t.Fatalf("analysis %s: %s, %v", chinese, m.Analysis, err)
		}
		x.analysis = m.Analysis
		mustApply(t, x, textRevision("en", 1, "The kettle switches off too early."), textRevision("zh", 1, "数据库的索引让查询更快。"))
		refresh(t, x)
		for query, want := range map[string]string{"switch early": "en", "数据库索引": "zh", "索": "zh"} {
			if got := search(t, x, query); !slices.Equal(got, []string{want}) {
				t.Errorf("analysis %s: %q finds %v, not %s", chinese, query, got, want)
			}
		}
	}
}
