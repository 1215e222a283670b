package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"leat/internal/app"
)

// progress shows how far a run is: bars on a terminal, a line every ten
// seconds of work elsewhere.
type progress struct {
	c    *cli
	bars *mpb.Progress // nil where standard error is no terminal
	bar  map[string]*mpb.Bar
	most map[string]int64 // the largest backlog a stage had since it was idle
	last time.Time        // of the latest line
}

func (c *cli) progress() *progress {
	p := &progress{c: c, bar: map[string]*mpb.Bar{}, most: map[string]int64{}, last: time.Now()}
	if terminal(c.err) {
		p.bars = mpb.New(mpb.WithOutput(c.err), mpb.WithWidth(40), mpb.WithAutoRefresh())
	}
	return p
}

func (p *progress) update(s app.Snapshot) {
	if p.bars == nil {
		p.lines(s)
		return
	}
	for name, st := range s.States {
		if st.Progress != nil && st.Progress.Total > 0 {
			p.set(strings.TrimPrefix(name, "source/"), st.Progress.Done, st.Progress.Total)
		}
	}
	for name, n := range s.Backlog {
		p.most[name] = max(p.most[name], n)
		if p.most[name] > 0 {
			p.set(name, p.most[name]-n, p.most[name])
		}
	}
}

func (p *progress) set(name string, done, total int64) {
	b := p.bar[name]
	if b == nil {
		if done >= total {
			return
		}
		b = p.bars.AddBar(total,
			mpb.BarRemoveOnComplete(),
			mpb.PrependDecorators(decor.Name(name, decor.WCSyncSpaceR)),
			mpb.AppendDecorators(decor.CountersNoUnit("%d of %d")))
		p.bar[name] = b
	}
	b.SetTotal(total, false)
	b.SetCurrent(done)
	if done >= total {
		b.SetTotal(total, true)
		delete(p.bar, name)
		delete(p.most, name)
	}
}

func (p *progress) lines(s app.Snapshot) {
	var busy []string
	for _, name := range slices.Sorted(maps.Keys(s.States)) {
		if pr := s.States[name].Progress; pr != nil && pr.Total > 0 && pr.Done < pr.Total {
			busy = append(busy, fmt.Sprintf("%s %s %d of %d", strings.TrimPrefix(name, "source/"), pr.Phase, pr.Done, pr.Total))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Backlog)) {
		if n := s.Backlog[name]; n > 0 {
			busy = append(busy, fmt.Sprintf("%s %d to go", name, n))
		}
	}
	if len(busy) > 0 && time.Since(p.last) >= 10*time.Second {
		p.last = time.Now()
		fmt.Fprintln(p.c.err, strings.Join(busy, ", "))
	}
}

func (p *progress) close() {
	if p.bars == nil {
		return
	}
	for _, b := range p.bar {
		b.Abort(true)
	}
	p.bars.Wait()
}

// onceSummary says what a finished `leat run --once` left.
func (c *cli) onceSummary(ctx context.Context, a *app.App, took time.Duration) error {
	st, err := a.Status(ctx)
	if err != nil {
		return err
	}
	letters := 0
	for _, n := range st.DeadLetters {
		letters += n
	}
	if c.json() {
		err = c.print(map[string]any{"documents": st.Index.Text.Documents, "chunks": st.Index.Text.Chunks, "dead_letters": letters, "took_ms": took.Milliseconds()})
	} else {
		fmt.Fprintf(c.err, "caught up in %s: %d documents, %d chunks in the index\n", took.Round(time.Millisecond), st.Index.Text.Documents, st.Index.Text.Chunks)
	}
	if err == nil && letters > 0 {
		fmt.Fprintf(c.err, "%d dead letters: leat dlq list says why\n", letters)
		return errDeadLetters
	}
	return err
}
