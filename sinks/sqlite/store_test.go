package sqlite

import (
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

func openVectors(t testing.TB, dir string) leat.VectorIndex {
	t.Helper()
	v, err := openStore(t, dir).Vectors(testModel)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestTextConformance(t *testing.T) {
	sinktest.RunText(t, func(t testing.TB, dir string) leat.TextIndex { return openStore(t, dir).Text() })
}

func TestVectorConformance(t *testing.T) { sinktest.RunVector(t, openVectors) }

func TestTextCrash(t *testing.T) {
	sinktest.RunTextCrash(t, func(t testing.TB, dir string) leat.TextIndex { return openStore(t, dir).Text() })
}

func TestVectorCrash(t *testing.T) { sinktest.RunVectorCrash(t, openVectors) }
