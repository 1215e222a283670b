package sqlite

import (
	"errors"
	"log/slog"
	"path/filepath"
	"testing"

	"leat"
	"leat/sinks/sinktest"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func openStore(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(filepath.Join(dir, "store.db"), Config{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

var testModel = leat.Model{Name: "test", Dimension: sinktest.Dimension}

func mustText(t testing.TB, s *Store) *TextIndex {
	t.Helper()
	x, err := s.Text(1)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func openText(t testing.TB, dir string) leat.TextIndex { return mustText(t, openStore(t, dir)) }

func openVectors(t testing.TB, dir string) leat.VectorIndex {
	t.Helper()
	v, err := openStore(t, dir).Vectors(1, testModel)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestTextConformance(t *testing.T)   { sinktest.RunText(t, openText) }
func TestVectorConformance(t *testing.T) { sinktest.RunVector(t, openVectors) }
func TestTextCrash(t *testing.T)         { sinktest.RunTextCrash(t, openText) }
func TestVectorCrash(t *testing.T)       { sinktest.RunVectorCrash(t, openVectors) }

func TestTextDamage(t *testing.T) {
	runDamage(t, "text1", func(t testing.TB, dir string) leat.Sink { return openText(t, dir) }, []byte("altered"))
}

func TestVectorDamage(t *testing.T) {
	altered := make([]float32, sinktest.Dimension)
	altered[0] = 1
	runDamage(t, "vectors1", func(t testing.TB, dir string) leat.Sink { return openVectors(t, dir) }, encodeVector(altered))
}

// change runs a statement on the file, as a client of its own.
func change(t testing.TB, dir, table, query string, args ...any) {
	t.Helper()
	s := openStore(t, dir)
	err := s.write.tx(t.Context(), table, func(c *conn) error {
		n, err := c.count(query, args...)
		if err == nil && n == 0 {
			t.Fatalf("%s changed nothing", query)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func runDamage(t *testing.T, table string, open func(testing.TB, string) leat.Sink, altered []byte) {
	const one = `(doc, version, ordinal) = (SELECT no, version, ?2 FROM $_documents WHERE id = ?1)`
	sinktest.RunDamage(t, sinktest.DamageHarness{
		Open:    open,
		Vectors: table == "vectors1",
		Delete: func(t testing.TB, dir, document string, ordinal int) {
			change(t, dir, table, "DELETE FROM $_chunks WHERE "+one, document, ordinal)
		},
		Alter: func(t testing.TB, dir, document string, ordinal int) {
			change(t, dir, table, "UPDATE $_contents SET data = ?3 WHERE no = (SELECT content FROM $_chunks WHERE "+one+")",
				document, ordinal, altered)
		},
		Add: func(t testing.TB, dir, document string) {
			change(t, dir, table, `INSERT INTO $_chunks SELECT doc, version, part, 99, content, start, stop, tokens, page, heading
				FROM $_chunks WHERE doc = (SELECT no FROM $_documents WHERE id = ?) ORDER BY version, ordinal LIMIT 1`, document)
		},
		Stray: func(t testing.TB, dir string) {
			change(t, dir, table, "INSERT INTO $_contents SELECT NULL, 1000, chunk, digest, data FROM $_contents LIMIT 1")
			change(t, dir, table, "INSERT INTO $_chunks SELECT 1000, 1, 0, 0, max(no), 0, 1, 1, 0, NULL FROM $_contents")
		},
	})
}

func TestTextGenerations(t *testing.T) {
	runGenerations(t, func(s *Store, generation int) (leat.Sink, error) { return s.Text(generation) })
}

func TestVectorGenerations(t *testing.T) {
	runGenerations(t, func(s *Store, generation int) (leat.Sink, error) { return s.Vectors(generation, testModel) })
}

func runGenerations(t *testing.T, open func(*Store, int) (leat.Sink, error)) {
	sinktest.RunGenerations(t, sinktest.GenerationsHarness{
		Generations: func(t testing.TB, dir string) leat.Generations { return openStore(t, dir).Generations() },
		Index: func(t testing.TB, dir string, generation int) leat.Sink {
			x, err := open(openStore(t, dir), generation)
			if err != nil {
				t.Fatal(err)
			}
			return x
		},
		Reader: func(t testing.TB, dir string, generation int) (leat.Sink, error) {
			s, err := OpenReader(filepath.Join(dir, "store.db"), Config{}, discard)
			if err != nil {
				return nil, err
			}
			t.Cleanup(func() { s.Close() })
			return open(s, generation)
		},
	})
}

// TestLostTransaction: where a transaction has ended by itself, as on a full disk or
// when it is interrupted, its connection is given up and the next one works.
func TestLostTransaction(t *testing.T) {
	s := openStore(t, t.TempDir())
	x := mustText(t, s)
	for range 3 {
		err := s.write.tx(t.Context(), "text1", func(c *conn) error {
			if err := c.exec("ROLLBACK"); err != nil {
				t.Fatal(err)
			}
			return errLost
		})
		if !errors.Is(err, errLost) {
			t.Fatal(err)
		}
		if _, err := x.Apply(t.Context(), []leat.Revision{{Document: "d", Version: 1, Last: true}}); err != nil {
			t.Fatal(err)
		}
	}
}

var errLost = errors.New("lost")
