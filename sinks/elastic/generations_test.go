package elastic

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"leat"
	"leat/sinks/sinktest"
)

func openGenerations(t testing.TB, cfg Config, name string) leat.Generations {
	t.Helper()
	g, err := OpenGenerations(cfg, name, discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	return g
}

func openGeneration(t testing.TB, cfg Config, name string, generation int) *Index {
	t.Helper()
	x, err := Open(t.Context(), cfg, name, generation, discard)
	if err != nil {
		t.Fatalf("%v (%s)", err, leat.HintOf(err))
	}
	t.Cleanup(func() { x.Close() })
	return x
}

func TestGenerations(t *testing.T) {
	cfg := config(t)
	name := namer(cfg)
	sinktest.RunGenerations(t, sinktest.GenerationsHarness{
		Generations: func(t testing.TB, dir string) leat.Generations { return openGenerations(t, cfg, name(t, dir)) },
		Index: func(t testing.TB, dir string, generation int) leat.Sink {
			return openGeneration(t, cfg, name(t, dir), generation)
		},
		Reader: func(t testing.TB, dir string, generation int) (leat.Sink, error) {
			x, err := OpenReader(t.Context(), cfg, name(t, dir), generation, discard)
			if err == nil {
				t.Cleanup(func() { x.Close() })
			}
			return x, err
		},
	})
}

// put sends what a test needs of the cluster.
func put(t testing.TB, x *Index, method, path string, in any) {
	t.Helper()
	if err := x.call(t.Context(), method, path, in, nil); err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
}

// TestAlias searches by the alias, which is switched and gets into wrong hands.
func TestAlias(t *testing.T) {
	cfg := config(t)
	name := nameOf(t.TempDir())
	drop(t, cfg, name)
	one, two := openGeneration(t, cfg, name, 1), openGeneration(t, cfg, name, 2)
	mustApply(t, one, textRevision("d", 1, "first generation"))
	mustApply(t, two, textRevision("e", 1, "second generation"))
	refresh(t, one)
	refresh(t, two)
	alias, err := newIndex(cfg, name, name, discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { alias.Close() })
	g := openGenerations(t, cfg, name)
	for _, n := range []int{1, 2, 1} {
		if err := g.Switch(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		if got, want := search(t, alias, "generation"), []string{[]string{"d", "e"}[n-1]}; !slices.Equal(got, want) {
			t.Errorf("with generation %d a search by the alias finds %v", n, got)
		}
	}

	// An alias that leads to both is of no use, until it is switched.
	put(t, one, http.MethodPut, path(two.target, "_alias", name), nil)
	if n, err := g.Live(t.Context()); !errors.Is(err, leat.ErrMismatch) || leat.HintOf(err) == "" {
		t.Errorf("an alias of two indices leads to generation %d: %v", n, err)
	}
	for n := 1; n <= 2; n++ {
		if err := g.Drop(t.Context(), n); err == nil || leat.HintOf(err) == "" {
			t.Errorf("generation %d was dropped, which the alias leads to: %v", n, err)
		}
	}
	if err := g.Switch(t.Context(), 2); err != nil {
		t.Error(err)
	}
	if n, err := g.Live(t.Context()); n != 2 || err != nil {
		t.Errorf("generation %d is live, not 2: %v", n, err)
	}
}

// TestForeignNames has indices that are not leat's bear the names of its own.
func TestForeignNames(t *testing.T) {
	cfg := config(t)
	name := nameOf(t.TempDir())
	drop(t, cfg, name)
	x, err := newIndex(cfg, name, physical(name, 1), discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close() })
	put(t, x, http.MethodPut, path(physical(name, 2)), map[string]any{}) // before there is a template
	openGeneration(t, cfg, name, 1)
	g := openGenerations(t, cfg, name)

	put(t, x, http.MethodPut, path(name), map[string]any{})
	t.Cleanup(func() {
		if err := x.call(context.WithoutCancel(t.Context()), http.MethodDelete, path(name), nil, nil); err != nil {
			t.Error(err)
		}
	})
	if n, err := g.Live(t.Context()); n != 0 || err != nil {
		t.Errorf("an index of the alias's name makes generation %d live: %v", n, err)
	}
	if err := g.Switch(t.Context(), 1); err == nil || !strings.Contains(leat.HintOf(err), "another name") {
		t.Errorf("a switch with an index of the alias's name: %v (%s)", err, leat.HintOf(err))
	}

	put(t, x, http.MethodPut, path(name, "_alias", physical(name, 3)), nil)
	if err := g.Drop(t.Context(), 3); !errors.Is(err, leat.ErrMismatch) || leat.HintOf(err) == "" {
		t.Errorf("an alias of a generation's name: %v", err)
	}
	for what, err := range map[string]error{"drop": g.Drop(t.Context(), 2), "switch": g.Switch(t.Context(), 2)} {
		if !errors.Is(err, leat.ErrMismatch) || leat.HintOf(err) == "" {
			t.Errorf("%s of an index that leat did not make: %v", what, err)
		}
	}
	// One that another leat made may go.
	put(t, x, http.MethodPut, path(physical(name, 2), "_mapping"), map[string]any{"_meta": map[string]any{"leat": meta{Format: format - 1}}})
	if err := g.Drop(t.Context(), 2); err != nil {
		t.Errorf("drop of an index of another format: %v", err)
	}

	for _, bad := range []string{"", "*", "a*", "a,b", "-a", "<a>", "_all", "a/b"} {
		if _, err := OpenGenerations(cfg, bad, discard); err == nil || leat.HintOf(err) == "" {
			t.Errorf("%q names a pipeline: %v", bad, err)
		}
	}
}
