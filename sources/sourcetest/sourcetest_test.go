package sourcetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"leat"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// journal is an origin that keeps all its changes, and a correct source over
// them but for the defect that it is given.
type journal struct {
	mu      sync.Mutex
	changes []change
	grown   chan struct{}
	defect  string
}

type change struct {
	key  int
	body *string
}

func (j *journal) add(changes ...change) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.changes = append(j.changes, changes...)
	close(j.grown)
	j.grown = make(chan struct{})
}

func (j *journal) Put(_ *testing.T, key int, body string) { j.add(change{key, &body}) }
func (j *journal) Delete(_ *testing.T, key int)           { j.add(change{key, nil}) }
func (j *journal) ID(key int) string                      { return fmt.Sprintf("journal:test/%d", key) }

func (j *journal) Rename(_ *testing.T, from, to int) {
	j.mu.Lock()
	var body *string
	for _, c := range j.changes {
		if c.key == from {
			body = c.body
		}
	}
	j.mu.Unlock()
	if j.defect == "rename without delete" {
		j.add(change{to, body})
		return
	}
	j.add(change{from, nil}, change{to, body})
}

func (j *journal) Open(*testing.T) leat.Source { return &reader{journal: j} }

type reader struct {
	journal *journal
	ahead   []change // what the defect "reads ahead" holds
}

func (*reader) Close() error { return nil }

func (*reader) Open(context.Context, leat.Ref) (io.ReadCloser, error) { return nil, leat.ErrNotFound }

// version of the state after a number of changes. Between two there is room.
func version(changes int) uint64 { return uint64(changes) << 8 }

func (r *reader) List(ctx context.Context) iter.Seq2[leat.Event, error] {
	return func(yield func(leat.Event, error) bool) {
		j := r.journal
		j.mu.Lock()
		defer j.mu.Unlock()
		state := map[int]*string{}
		for _, c := range j.changes {
			state[c.key] = c.body
		}
		done := make(chan struct{})
		if j.defect == "list leaks" {
			go func() { <-done }()
		}
		for key, body := range state {
			switch {
			case body == nil:
				continue
			case j.defect == "lists less" && key == 5:
				continue
			}
			e := leat.Event{ID: j.ID(key), Source: "journal:test", Time: time.Now(), Document: &leat.Document{Body: *body}}
			switch j.defect {
			case "lists other titles":
				e.Document.Title = "title"
			case "list reads ahead":
				e.Document.Body = strings.Clone(*body)
				r.ahead = append(r.ahead, change{key, &e.Document.Body})
			}
			if err := ctx.Err(); err != nil {
				if j.defect != "list ends quietly" {
					yield(leat.Event{}, err)
				}
				return
			}
			if !yield(e, nil) {
				return
			}
		}
		close(done)
	}
}

func (r *reader) Look(ctx context.Context, l leat.Look) (events []leat.Event, err error) {
	j := r.journal
	j.mu.Lock()
	defer j.mu.Unlock()
	defer func() {
		if j.defect != "looks before it takes versions" {
			return
		}
		j.mu.Unlock()
		time.Sleep(30 * time.Millisecond)
		j.mu.Lock()
		for i := range events {
			events[i].Version = max(version(len(j.changes)), l.Above[i]+1)
		}
	}()
	for i, id := range l.IDs {
		e := leat.Event{ID: id, Version: max(version(len(j.changes)), l.Above[i]+1), Source: "journal:test", Time: time.Now()}
		for _, c := range j.changes {
			switch {
			case j.ID(c.key) != id:
			case c.body != nil:
				e.Document = &leat.Document{Body: *c.body}
			case j.defect != "looks past deletes":
				e.Document = nil
			}
		}
		switch j.defect {
		case "looks too low":
			e.Version = max(1, l.Above[i])
		case "looks too high":
			e.Version = max(version(len(j.changes)+1000), l.Above[i]+1)
		}
		events = append(events, e)
	}
	if j.defect == "looks once" {
		events = events[:min(len(events), 1)]
	}
	return events, ctx.Err()
}

func (r *reader) Run(ctx context.Context, s leat.Session) error {
	j, defect := r.journal, r.journal.defect
	var next int
	if s.Position != nil {
		if err := json.Unmarshal(s.Position, &next); err != nil {
			return err
		}
	}
	if defect == "leak" {
		go func() { select {} }()
	}
	s.Report(leat.Progress{Phase: "streaming"})
	for {
		j.mu.Lock()
		rest, grown := slices.Clone(j.changes[next:]), j.grown
		j.mu.Unlock()
		if defect == "reads ahead" {
			for _, c := range rest {
				if c.body != nil {
					body := strings.Clone(*c.body)
					r.ahead = append(r.ahead, change{c.key, &body})
				}
			}
		}
		if defect == "ends early" && s.Once && len(rest) > 2 {
			rest = rest[:len(rest)-1]
		}
		for i, c := range rest {
			next++
			e := leat.Event{ID: j.ID(c.key), Version: version(next), Source: "journal:test", Time: time.Now()}
			if c.body != nil {
				e.Document = &leat.Document{Body: *c.body}
			}
			position := next
			switch defect {
			case "position ahead":
				position = next - i + len(rest) // of the whole batch
			case "no position":
				position = 0
			case "version stands still":
				e.Version = 1
			case "version anew":
				e.Version = uint64(i) + 1
			case "loses deletes":
				if c.body == nil {
					continue
				}
			case "other source":
				e.Source = "journal:other"
			case "body cut":
				if e.Document != nil {
					e.Document.Body = e.Document.Body[:len(e.Document.Body)*9/10]
				}
			}
			b := leat.Batch{Events: []leat.Event{e}, Position: json.RawMessage(fmt.Sprint(position))}
			switch err := s.Emit(ctx, b); {
			case err != nil && defect == "swallows errors":
			case err != nil:
				return err
			}
		}
		if s.Once {
			return nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			if defect == "late to end" {
				time.Sleep(12 * time.Second)
			}
			return ctx.Err()
		}
	}
}

const defectEnv = "LEAT_SOURCETEST_DEFECT"

// TestJournal passes, and fails where another process runs it with a defect.
func TestJournal(t *testing.T) {
	defect := os.Getenv(defectEnv)
	if defect != "" {
		limit = 2 * time.Second
	}
	Run(t, Harness{Source: "journal:test", New: func(*testing.T) Origin {
		return &journal{grown: make(chan struct{}), defect: defect}
	}})
}

// TestDefects: the suite finds each of these defects, in the test that is there for it.
func TestDefects(t *testing.T) {
	for defect, test := range map[string]string{
		"leak":                  "Empty",
		"reads ahead":           "BackPressureSnapshot",
		"ends early":            "Snapshot",
		"position ahead":        "Crash",
		"no position":           "Restart",
		"version stands still":  "Live",
		"version anew":          "ChangedWhileDown",
		"loses deletes":         "Live",
		"rename without delete": "Live",
		"other source":          "Snapshot",
		"body cut":              "Snapshot",
		"swallows errors":       "EmitError",
		"late to end":           "Cancel",
		"lists less":            "List",
		"lists other titles":    "List",
		"list reads ahead":      "ListMemory",
		"list ends quietly":     "ListEnds",
		"list leaks":            "ListEnds",
		"looks past deletes":    "Look",
		"looks once":            "Look",
		"looks too low":         "Look",
		"looks too high":        "Look",

		"looks before it takes versions": "LookBeside",
	} {
		t.Run(strings.ReplaceAll(defect, " ", "_"), func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestJournal$/^"+test+"$", "-test.timeout=2m")
			cmd.Env = append(os.Environ(), defectEnv+"="+defect)
			out, err := cmd.CombinedOutput()
			var failed *exec.ExitError
			if !errors.As(err, &failed) || !strings.Contains(string(out), "--- FAIL: TestJournal/"+test) {
				t.Errorf("not found: %v\n%s", err, out)
			}
		})
	}
}
