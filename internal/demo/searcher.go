package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"

	"leat/internal/testenv/local"
)

// answer is one line of `leat search -`.
type answer struct {
	TookMS float64 `json:"took_ms"`
	Hits   []hit   `json:"hits"`
}

type hit struct {
	Document string  `json:"document"`
	Version  uint64  `json:"version"`
	Score    float64 `json:"score"`
	Title    string  `json:"title"`
	Text     string  `json:"text"`
	Location struct {
		Heading []string `json:"heading"`
		Start   int64    `json:"start"`
		End     int64    `json:"end"`
	} `json:"location"`
	Metadata map[string]any `json:"metadata"`
}

// searcher is a `leat search -` that answers one query after another.
type searcher struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *json.Decoder
	errors bytes.Buffer
}

func startSearcher(program, config, mode string) (*searcher, error) {
	s := &searcher{cmd: exec.Command(program, "--config", config, "search", "--mode", mode, "--limit", "5", "-")}
	s.cmd.Stderr, s.cmd.SysProcAttr = &s.errors, local.ChildAttr()
	in, err := s.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.in, s.out = in, json.NewDecoder(out)
	return s, s.cmd.Start()
}

func (s *searcher) ask(query string) (answer, error) {
	var a answer
	_, err := io.WriteString(s.in, query+"\n")
	if err == nil {
		err = s.out.Decode(&a)
	}
	if err != nil {
		return a, fmt.Errorf("leat search -: %w: %s", err, s.errors.String())
	}
	return a, nil
}

// finds reports whether the document is among the first answers with a text
// that contains part.
func (s *searcher) finds(query, document, part string) (bool, error) {
	a, err := s.ask(query)
	for _, h := range a.Hits {
		if h.Document == document && strings.Contains(h.Text, part) {
			return true, nil
		}
	}
	return false, err
}

// finish ends the search: it ends by itself when its input does.
func (s *searcher) finish() error {
	s.in.Close()
	if err := s.cmd.Wait(); err != nil {
		return fmt.Errorf("leat search -: %w: %s", err, s.errors.String())
	}
	return nil
}

// status is what the demo reads of `leat status`.
type status struct {
	Index struct {
		Text, Vectors struct{ Documents, Chunks int64 }
	} `json:"index"`
	DeadLetters map[string]int `json:"dead_letters"`
}

func (d *demo) status(ctx context.Context) (st status, err error) {
	return st, d.ask(ctx, &st, "status")
}

// ask runs a command of leat and decodes the object that it prints.
func (d *demo) ask(ctx context.Context, into any, args ...string) error {
	cmd := exec.CommandContext(ctx, d.Program, append(args, "--config", d.config(), "--output", "json")...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if len(out) > 0 {
		err = errors.Join(err, json.Unmarshal(out, into))
	}
	if err != nil {
		return fmt.Errorf("leat %s: %w: %s", strings.Join(args, " "), err, errs.String())
	}
	return nil
}
