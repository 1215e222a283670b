package sinktest

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"leat"

	"github.com/google/go-cmp/cmp"
)

// crashDir tells a process of the test's binary that it is one to be killed.
const crashDir = "LEAT_SINKTEST_CRASH_DIR"

// RunTextCrash kills a process with SIGKILL while it applies revisions, again
// and again, at any moment of it (I7). t must be a test of its own: the process
// is the test's binary, running that test only.
func RunTextCrash(t *testing.T, open OpenText) {
	runCrash(t, func(t testing.TB, dir string) index {
		return index{Sink: open(t, dir), texts: true}
	})
}

// RunVectorCrash is the same for a vector index.
func RunVectorCrash(t *testing.T, open OpenVector) {
	runCrash(t, func(t testing.TB, dir string) index {
		return index{Sink: open(t, dir)}
	})
}

// crashBatch is the i-th batch that is applied: a change of two documents, one
// of them in parts of which each batch has one, or a deletion.
func crashBatch(i int) []leat.Revision {
	version := uint64(i/4 + 1)
	small := revision(fmt.Sprint("small", i%3), uint64(i+1), fmt.Sprintf("text%d", i), "constant")
	if i%7 == 6 {
		small = tombstone(small.Document, small.Version)
	}
	large := revision("large", version, append(numbered(fmt.Sprintf("v%dn", version), 30), numbered("constant", 10)...)...)
	return []leat.Revision{small, parts(large, 10)[i%4]}
}

// crashState is what an index holds after the first n batches.
func crashState(n int, texts bool) contents {
	all := contents{}
	for i := range n {
		for _, r := range crashBatch(i) {
			switch {
			case r.Deleted:
				delete(all, r.Document)
			case r.Document == "large" && r.Last:
				r.Chunks = nil
				for _, p := range []int{3, 2, 1, 0} {
					r.Chunks = append(r.Chunks, crashBatch(i - p)[1].Chunks...)
				}
				fallthrough
			case r.Last:
				all[r.Document] = want(r, texts)
			}
		}
	}
	return all
}

func runCrash(t *testing.T, open opener) {
	if dir := os.Getenv(crashDir); dir != "" {
		x := open(t, dir)
		from, err := strconv.Atoi(os.Getenv(crashDir + "_FROM"))
		if err != nil {
			t.Fatal(err)
		}
		for i := from; ; i++ {
			if _, err := x.Apply(t.Context(), crashBatch(i)); err != nil {
				t.Fatal(err)
			}
			fmt.Printf("applied %d\n", i)
		}
	}
	dir := t.TempDir()
	rnd := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	durable := 0 // batches acknowledged
	for range 8 {
		// The topic is read again from before what was acknowledged last.
		from := max(0, durable-rnd.IntN(6))
		durable = max(durable, crashOnce(t, dir, from, rnd)+1)

		x := open(t, dir)
		got := x.contents(t, "")
		// Of each document in the batch that was under way, the change is there
		// wholly or not at all.
		without, with := crashState(durable, x.texts), crashState(durable+1, x.texts)
		for _, r := range crashBatch(durable) {
			g, there := got[r.Document]
			w, expected := with[r.Document]
			switch {
			case there && expected && cmp.Equal(g, w):
				without[r.Document] = w
			case !there && !expected:
				delete(without, r.Document)
			}
		}
		if diff := cmp.Diff(without, got); diff != "" {
			t.Fatalf("after batch %d and a kill the index differs (-want +got):\n%s", durable, diff)
		}
		st, err := x.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		counted := leat.Stats{Documents: int64(len(got))}
		for _, h := range got {
			counted.Chunks += int64(len(h.Chunks))
		}
		if diff := cmp.Diff(counted, st); diff != "" {
			t.Fatalf("Stats differ from what is there (-want +got):\n%s", diff)
		}
	}
	x := open(t, dir)
	for i := max(0, durable-9); i < durable+20; i++ {
		if _, err := x.Apply(t.Context(), crashBatch(i)); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(crashState(durable+20, x.texts), x.contents(t, "")); diff != "" {
		t.Fatalf("after a replay the index differs (-want +got):\n%s", diff)
	}
}

// crashOnce has a process apply batches, kills it after some and returns the
// last it acknowledged.
func crashOnce(t *testing.T, dir string, from int, rnd *rand.Rand) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1")
	cmd.Env = append(os.Environ(), crashDir+"="+dir, crashDir+"_FROM="+strconv.Itoa(from))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	last, most := -1, from+3+rnd.IntN(12)
	pause := time.Duration(rnd.IntN(3000)) * time.Microsecond
	killed := false
	for lines := bufio.NewScanner(out); lines.Scan(); {
		n, err := fmt.Sscanf(lines.Text(), "applied %d", &last)
		if n != 1 || err != nil {
			t.Logf("the process says: %s", lines.Text())
			continue
		}
		if last >= most && !killed {
			time.Sleep(pause) // into the next batch
			killed = true
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); !killed || err == nil {
		t.Fatalf("the process ended by itself after batch %d: %v", last, err)
	}
	return last
}
