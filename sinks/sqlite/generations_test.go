package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"testing"

	"leat"
	"leat/sinks/sinktest"

	"golang.org/x/sync/errgroup"
)

func mustVectors(t testing.TB, s *Store, generation int) *VectorIndex {
	t.Helper()
	v, err := s.Vectors(generation, testModel)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func vectorRevision(id string, version uint64, v []float32) leat.Revision {
	r := textRevision(id, version, id)
	r.Chunks[0].Vector = v
	return r
}

// TestGenerationsBeside has one handle write and search generation 1 while
// another makes, fills and drops generation 2, whose tables' statements are
// prepared in both.
func TestGenerationsBeside(t *testing.T) {
	dir := t.TempDir()
	a, b := openStore(t, dir), openStore(t, dir)
	text, vectors := mustText(t, a), mustVectors(t, a, 1)
	mustApply(t, text, textRevision("first", 1, "constant"))
	const rounds = 5
	rnd := rand.New(rand.NewPCG(1, 1))
	v := randomVector(rnd, sinktest.Dimension)
	done := make(chan struct{})
	var g errgroup.Group
	g.Go(func() error {
		defer close(done)
		for round := range rounds {
			for _, s := range []*Store{a, b} { // both know the tables
				x, err := s.Text(2)
				if err != nil {
					return err
				}
				y, err := s.Vectors(2, testModel)
				if err != nil {
					return err
				}
				for version := range uint64(3) {
					if _, err := x.Apply(t.Context(), []leat.Revision{textRevision(fmt.Sprint("d", round), version, fmt.Sprint("text ", version))}); err != nil {
						return err
					}
					if _, err := y.Apply(t.Context(), []leat.Revision{vectorRevision(fmt.Sprint("d", round), version, v)}); err != nil {
						return err
					}
				}
				if m, err := x.SearchText(t.Context(), "2", 5); err != nil || len(m) != 1 || m[0].Document != fmt.Sprint("d", round) {
					return fmt.Errorf("round %d: %+v, %w", round, m, err)
				}
				if m, err := y.SearchVector(t.Context(), v, 5); err != nil || len(m) != 1 || m[0].Document != fmt.Sprint("d", round) {
					return fmt.Errorf("round %d: %+v, %w", round, m, err)
				}
			}
			if err := b.Generations().Drop(t.Context(), 2); err != nil {
				return err
			}
		}
		return nil
	})
	applied := uint64(1)
	g.Go(func() error {
		for {
			select {
			case <-done:
				return nil
			default:
			}
			applied++
			if _, err := text.Apply(t.Context(), []leat.Revision{textRevision("d", applied, "constant", fmt.Sprint("number", applied))}); err != nil {
				return err
			}
			if _, err := vectors.Apply(t.Context(), []leat.Revision{vectorRevision("d", applied, v)}); err != nil {
				return err
			}
			m, err := text.SearchText(t.Context(), "constant", 5)
			if err == nil && len(m) != 2 {
				err = fmt.Errorf("%d matches, not 2", len(m))
			}
			if err != nil {
				return err
			}
			if m, err := vectors.SearchVector(t.Context(), v, 5); err != nil || len(m) != 1 || m[0].Version != applied {
				return fmt.Errorf("%+v, %w", m, err)
			}
		}
	})
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	for h, err := range text.Inventory(t.Context(), "") {
		if err != nil || h.Damage != "" || h.Stray != "" {
			t.Error(h, err)
		}
	}
	if d, err := text.Document(t.Context(), "d"); err != nil || d.Version != applied {
		t.Error(d, err)
	}
}

// TestDroppedIndex uses handles on an index that is gone, and made anew: what
// they remember of the former one must not be found in the other.
func TestDroppedIndex(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	text, vectors := mustText(t, s), mustVectors(t, s, 1)
	rnd := rand.New(rand.NewPCG(2, 2))
	old, new := randomVector(rnd, sinktest.Dimension), randomVector(rnd, sinktest.Dimension)
	mustApply(t, text, textRevision("d", 5, "old"))
	mustApply(t, vectors, vectorRevision("d", 5, old), vectorRevision("e", 5, old))
	found := func(v []float32) leat.Match {
		t.Helper()
		m, err := vectors.SearchVector(t.Context(), v, 1)
		if err != nil || len(m) != 1 {
			t.Fatal(m, err)
		}
		return m[0]
	}
	if m := found(old); m.Score < 0.99 {
		t.Fatal(m)
	}
	if err := openStore(t, dir).Generations().Drop(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if _, err := vectors.SearchVector(t.Context(), old, 1); err == nil {
		t.Error("a dropped index answers")
	}
	if _, err := text.Apply(t.Context(), []leat.Revision{textRevision("d", 6, "lost")}); err == nil {
		t.Error("a dropped index is written")
	}
	again := openStore(t, dir)
	mustText(t, again)
	mustApply(t, mustVectors(t, again, 1), vectorRevision("d", 1, new), vectorRevision("f", 1, new))
	if m := found(new); m.Score < 0.99 || m.Version != 1 {
		t.Error("a handle searches what is gone:", m)
	}
	mustApply(t, text, textRevision("d", 1, "new"))
	if m, err := text.SearchText(t.Context(), "new", 5); err != nil || len(m) != 1 {
		t.Error(m, err)
	}
}

// TestDropInterrupted leaves an index half dropped, as a killed process does.
func TestDropInterrupted(t *testing.T) {
	for left := range dropped {
		dir := t.TempDir()
		s := openStore(t, dir)
		g := s.Generations()
		x := mustText(t, s)
		mustVectors(t, s, 2)
		mustApply(t, x, textRevision("d", 5, "before"))
		err := s.write.tx(t.Context(), "text1", func(c *conn) error {
			err := c.script("DROP TABLE $_totals")
			for _, step := range dropped[:left] {
				err = errors.Join(err, c.script(step))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Switch(t.Context(), 1); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a switch to what is half dropped: %v", err)
		}
		if left%2 == 0 { // else it is made anew without
			if err := g.Drop(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
			err := s.read.tx(t.Context(), "", func(c *conn) error {
				n, err := c.int("SELECT count(*) FROM sqlite_schema WHERE name LIKE 'text1%'")
				if n > 0 {
					t.Errorf("%d tables are left", n)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		x = mustText(t, s)
		mustApply(t, x, textRevision("d", 1, "after"))
		if d, err := x.Document(t.Context(), "d"); err != nil || d.Version != 1 {
			t.Error(d, err)
		}
		if m, err := x.SearchText(t.Context(), "before after", 5); err != nil || len(m) != 1 {
			t.Error(m, err)
		}
		mustVectors(t, s, 2) // is still there
	}
}

func TestGenerationNumbers(t *testing.T) {
	s := openStore(t, t.TempDir())
	for _, n := range []int{0, -1} {
		if _, err := s.Text(n); err == nil {
			t.Errorf("generation %d was opened", n)
		}
	}
	if _, err := s.Model(t.Context(), 3); !errors.Is(err, fs.ErrNotExist) || leat.HintOf(err) == "" {
		t.Errorf("the model of a generation that is not there: %v", err)
	}
	mustVectors(t, s, 3)
	if m, err := s.Model(t.Context(), 3); err != nil || m != testModel {
		t.Error(m, err)
	}
	if _, err := s.Vectors(4, leat.Model{Name: "other", Dimension: 3}); err != nil { // each has its own
		t.Error(err)
	}
	if err := s.Generations().Switch(t.Context(), 4); err != nil { // vectors alone will do
		t.Error(err)
	}
}
