package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"leat/internal/testenv/local"
)

// pipeline is the program under test with one pipeline.
type pipeline struct {
	t       *testing.T
	dir     string
	config  string
	sources string // the part of pipeline.yaml
	process *local.Process
	members []*local.Process // of a fleet
}

// newPipeline writes pipeline.yaml with the sources and embedder given.
func newPipeline(t *testing.T, embedder string, sources ...string) *pipeline {
	t.Helper()
	if testing.Short() {
		t.Skip("left out under -short: runs the program itself")
	}
	dir := t.TempDir()
	p := &pipeline{t: t, dir: dir, config: filepath.Join(dir, "pipeline.yaml"), sources: "sources:\n" + strings.Join(sources, "")}
	p.configure(embedder)
	t.Cleanup(func() {
		if p.process == nil {
			return
		}
		if err := p.process.Kill(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the end of leat's log:\n%s", p.process.LogTail(6000))
		}
	})
	return p
}

// configure writes pipeline.yaml, at one moment: what stands before the sources
// is given.
func (p *pipeline) configure(rest string) {
	p.t.Helper()
	text := "name: test\ndata_dir: " + filepath.Join(p.dir, "data") + "\n" + rest + p.sources
	if err := os.WriteFile(p.config+".new", []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Rename(p.config+".new", p.config); err != nil {
		p.t.Fatal(err)
	}
}

// configured is the pipeline with another configuration, in a file of its own.
func (p *pipeline) configured(file, rest string) *pipeline {
	p.t.Helper()
	other := &pipeline{t: p.t, dir: p.dir, config: filepath.Join(p.dir, file), sources: p.sources}
	other.configure(rest)
	return other
}

func (p *pipeline) store() string { return filepath.Join(p.dir, "data", "index.db") }

func (p *pipeline) command(args ...string) *exec.Cmd {
	cmd := exec.Command(program, append([]string{"--config", p.config}, args...)...)
	cmd.Dir = p.dir
	return cmd
}

// start runs `leat run` until stop or kill. It returns at once: a test waits
// for what it needs, not for the program to be ready.
func (p *pipeline) start() {
	p.t.Helper()
	var err error
	if p.process == nil {
		p.process, err = local.Start(context.Background(), local.Spec{
			Name:    "leat run",
			Command: func() *exec.Cmd { return p.command("run") },
			Ready:   func(context.Context) error { return nil },
			Log:     filepath.Join(p.dir, "run.log"),
		})
	} else {
		err = p.process.Start(context.Background())
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// alive fails the test if a `leat run` has ended by itself.
func (p *pipeline) alive() {
	p.t.Helper()
	all := p.members
	if p.process != nil {
		all = append(all, p.process)
	}
	for _, m := range all {
		select {
		case <-m.Done():
			p.t.Fatalf("%s has ended by itself", m.Name())
		default:
		}
	}
}

// kill ends `leat run` with SIGKILL.
func (p *pipeline) kill() {
	p.t.Helper()
	p.alive()
	if err := p.process.Kill(); err != nil {
		p.t.Fatal(err)
	}
}

// stop ends `leat run` in good order.
func (p *pipeline) stop() {
	p.t.Helper()
	p.alive()
	if err := p.process.Stop(); err != nil {
		p.t.Fatal(err)
	}
}

// output runs a command and returns its standard output and exit code.
func (p *pipeline) output(in string, args ...string) (string, int) {
	p.t.Helper()
	cmd := p.command(args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(in), &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.t.Fatal(err)
	}
	if errs.Len() > 0 {
		p.t.Logf("leat %s: %s", strings.Join(args[:min(len(args), 3)], " "), lastLines(errs.String(), 10))
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// jsonLines runs a command that succeeds and decodes each line it prints.
func jsonLines[T any](p *pipeline, in string, args ...string) []T {
	p.t.Helper()
	out, code := p.output(in, append(args, "--output", "json")...)
	if code != 0 {
		p.t.Fatalf("leat %s: exit code %d", args[0], code)
	}
	var all []T
	for dec := json.NewDecoder(strings.NewReader(out)); dec.More(); {
		var one T
		if err := dec.Decode(&one); err != nil {
			p.t.Fatalf("leat %s: %v in %s", args[0], err, out)
		}
		all = append(all, one)
	}
	return all
}

// status is what the tests read of `leat status`.
type status struct {
	Sources, Stages []part
	Index           struct {
		Text, Vectors struct{ Documents, Chunks int }
	}
}

// part is a source or a stage.
type part struct {
	Name, State, Error, Hint, Process string
	Saved                             time.Time `json:"position_saved"`
	Progress                          struct{ Phase string }
}

func (p *pipeline) status() status { p.t.Helper(); return jsonLines[status](p, "", "status")[0] }

// noDeadLetters fails the test if there are any.
func (p *pipeline) noDeadLetters() {
	p.t.Helper()
	for _, letter := range jsonLines[json.RawMessage](p, "", "dlq", "list") {
		p.t.Errorf("in deadletters: %s", letter)
	}
}

// split gives the chunk texts of documents as `leat chunk` cuts them.
func (p *pipeline) split(documents map[string]expectedDocument) map[string][]string {
	p.t.Helper()
	dir := p.t.TempDir()
	ids, args := map[string]string{}, []string{"chunk"}
	for id, d := range documents {
		path := filepath.Join(dir, fmt.Sprintf("%d%s", len(ids), d.ext))
		if err := os.WriteFile(path, []byte(d.text), 0o600); err != nil {
			p.t.Fatal(err)
		}
		ids[path] = id
		args = append(args, path)
	}
	texts := map[string][]string{}
	for _, c := range jsonLines[struct{ Document, Text string }](p, "", args...) {
		id, ok := ids[c.Document]
		if !ok {
			p.t.Fatalf("leat chunk speaks of %q, which is none of its files", c.Document)
		}
		texts[id] = append(texts[id], c.Text)
	}
	return texts
}

// until waits for a condition: nil. It fails the test after a generous limit.
func until(t *testing.T, limit time.Duration, what string, condition func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %v", what, limit, err)
		}
		time.Sleep(250 * time.Millisecond)
	}
}

func blank(s string) bool { return strings.TrimSpace(s) == "" }
