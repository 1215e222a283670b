package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"leat/embedder/embeddertest"
	"leat/internal/testenv/local"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"leat": main})
}

// TestScripts runs testdata/script: the commands as a user types them. Where
// the script starts with "# needs the model" the built-in model embeds, else a
// server of the test whose vectors are hashes.
func TestScripts(t *testing.T) {
	embeddings := embeddertest.Start(64)
	t.Cleanup(embeddings.Close)
	cache, err := local.Cache()
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("EMBEDDINGS", embeddings.BaseURL)
			env.Setenv("LEAT_CACHE", cache)
			return nil
		},
		Condition: func(name string) (bool, error) {
			switch name {
			case "short":
				return testing.Short(), nil
			}
			return false, fmt.Errorf("unknown condition %q", name)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits,
			"json":  jsonValue,
			"until": until,
		},
	})
}

// exits CODE COMMAND… runs a command that ends with this exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// json PATH WANT compares a value of the first JSON object that the last
// command printed: json hits.0.document folder:notes/a.md. The number
// of elements is PATH.count.
func jsonValue(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: json PATH WANT")
	}
	var v any
	dec := json.NewDecoder(strings.NewReader(ts.ReadFile("stdout")))
	dec.UseNumber()
	ts.Check(dec.Decode(&v))
	for _, step := range strings.Split(args[0], ".") {
		switch at := v.(type) {
		case map[string]any:
			var ok bool
			if v, ok = at[step]; !ok {
				ts.Fatalf("%s: no key %q", args[0], step)
			}
		case []any:
			if step == "count" {
				v = len(at)
				continue
			}
			i, err := strconv.Atoi(step)
			if err != nil || i < 0 || i >= len(at) {
				ts.Fatalf("%s: no element %q of %d", args[0], step, len(at))
			}
			v = at[i]
		default:
			ts.Fatalf("%s: %v has no %q", args[0], v, step)
		}
	}
	if got := fmt.Sprint(v); (got == args[1]) == neg {
		ts.Fatalf("%s is %q, unlike what was asked: %q", args[0], got, args[1])
	}
}

// until TEXT COMMAND… runs a command again and again until its output has the
// text, for a minute at most.
func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until TEXT COMMAND…")
	}
	var said bytes.Buffer
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		said.Reset()
		path := args[1]
		if path == "leat" { // the program that testscript put on the script's PATH
			path = filepath.Join(filepath.SplitList(ts.Getenv("PATH"))[0], path)
		}
		cmd := exec.Command(path, args[2:]...)
		cmd.Dir, cmd.Stdout, cmd.Stderr = ts.MkAbs("."), &said, &said
		cmd.Env = append(os.Environ(), "EMBEDDINGS="+ts.Getenv("EMBEDDINGS"))
		_ = cmd.Run() // what it says decides
		if strings.Contains(said.String(), args[0]) {
			return
		}
	}
	ts.Fatalf("%q did not come in a minute; the last output:\n%s", args[0], said.String())
}
