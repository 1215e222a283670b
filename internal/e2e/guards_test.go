package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"leat/internal/testenv"
)

// guards are, by invariant, runs that go wrong where its guard is removed. How
// that is done shows guard.Removed in the code.
var guards = []struct {
	invariant string
	run       func(*trial) error
	tries     uint64 // what goes wrong may take a race, which does not show in each
}{
	{"I1", (*trial).killed, 3},
	// Two guards are removed, as each covers for the other: a snapshot leaves out rows
	// that have changed since it read them, and the store compares versions.
	{"I2", (*trial).snapshotRace, 10},
	{"I3", (*trial).largeDocuments, 3},
	// Searches leave out chunks of other versions by themselves: those that should
	// have been removed are found in the file.
	{"I4", (*trial).killed, 3},
	{"I5", (*trial).refusedTexts, 3},
	// Two guards are removed, as each covers for the other: the aliases wait until the
	// new generation has caught up, and until it holds what the live one does.
	{"I6", (*trial).reindexed, 3},
	{"I7", (*trial).killed, 3},
	{"I8", (*trial).backlog, 3},
}

// TestGuards runs a small oracle for each invariant. It finds something wrong
// where the guard of the invariant is removed, and nothing where it is not, with
// the same program and the same seed. LEAT_E2E_SEED repeats a run.
func TestGuards(t *testing.T) {
	db, seed := testenv.MySQL(t), seed(t)
	unguarded(t)
	for _, g := range guards {
		t.Run(g.invariant, func(t *testing.T) {
			for try := range g.tries {
				t.Setenv("LEAT_UNGUARDED", g.invariant)
				wrong := g.run(newTrial(t, db, seed+try))
				if wrong == nil {
					t.Logf("without its guard, try %d: nothing is wrong", try+1)
					continue
				}
				t.Logf("without its guard, try %d: %v", try+1, wrong)
				t.Setenv("LEAT_UNGUARDED", "")
				if err := g.run(newTrial(t, db, seed+try)); err != nil {
					t.Errorf("with its guard: %v", err)
				}
				return
			}
			t.Error("nobody notices that the guard is removed")
		})
	}
}

// unguarded makes the program under test one whose guards can be removed. Those
// of any other cannot.
func unguarded(t *testing.T) {
	t.Helper()
	released, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(released, []byte("LEAT_UNGUARDED")) {
		t.Error("the program can be told to remove its guards")
	}
	built := filepath.Join(t.TempDir(), "leat")
	if out, err := exec.Command("go", "build", "-tags", "unguarded", "-o", built, "leat/cmd/leat").CombinedOutput(); err != nil {
		t.Fatalf("build leat: %v\n%s", err, out)
	}
	was := program
	program = built
	t.Cleanup(func() { program = was })
}
