package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"leat/internal/app"
)

func (c *cli) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Say what is behind, why, and what to do",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := c.load()
			if err != nil {
				return err
			}
			st, err := a.Status(cmd.Context())
			if err != nil {
				return err
			}
			if c.json() {
				return c.print(st)
			}
			printStatus(c.out, st)
			return nil
		},
	}
}

func printStatus(out io.Writer, st app.Status) {
	running := "not running"
	if st.Running {
		running = "running"
	}
	fmt.Fprintf(out, "%s: %s\n\n", st.Name, running)
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "SOURCE\tSTATE\tPHASE\tPOSITION\tBEHIND")
	for _, s := range st.Sources {
		phase, position, behind := "", "", ""
		if p := s.Progress; p != nil {
			phase, position, behind = p.Phase, p.Position, bytesText(p.Behind)
			if p.Total > 0 {
				phase += fmt.Sprintf(" %d of %d", p.Done, p.Total)
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", s.Name, s.State, phase, position, behind)
	}
	fmt.Fprintln(w, "\t\t\t\t")
	fmt.Fprintln(w, "STAGE\tSTATE\tPROCESSES\tBACKLOG\tOLDEST")
	for _, s := range st.Stages {
		oldest := ""
		if !s.Oldest.IsZero() {
			oldest = time.Since(s.Oldest).Round(time.Millisecond).String()
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\n", s.Name, s.State, s.Processes, s.Backlog, oldest)
	}
	w.Flush()
	if st.Index.Error != "" {
		fmt.Fprintf(out, "\nindex: %s\n", st.Index.Error)
	} else {
		fmt.Fprintf(out, "\nindex: %d documents, %d chunks by words; %d documents, %d chunks by vectors\n",
			st.Index.Text.Documents, st.Index.Text.Chunks, st.Index.Vectors.Documents, st.Index.Vectors.Chunks)
	}
	if len(st.Generations) > 1 {
		fmt.Fprintln(out)
		w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
		fmt.Fprintln(w, "GENERATION\tSTATE\tMODEL\tBACKLOG")
		for _, g := range st.Generations {
			stages := g.Stages
			if g.State == "live" {
				stages = st.Stages
			}
			var backlog int64
			for _, s := range stages {
				backlog += s.Backlog
			}
			fmt.Fprintf(w, "%d\t%s\t%s\t%d\n", g.Number, g.State, g.Model, backlog)
		}
		w.Flush()
	}
	for _, s := range st.Sources {
		if s.Error != "" {
			fmt.Fprintf(out, "%s: %s\n", s.Name, s.Error)
		}
	}
	for _, s := range st.Stages {
		if s.Error != "" {
			fmt.Fprintf(out, "%s: %s\n", s.Name, s.Error)
		}
	}
	for reason, n := range st.DeadLetters {
		fmt.Fprintf(out, "dead letters: %d × %s\n", n, reason)
	}
	for _, do := range st.ToDo {
		fmt.Fprintf(out, "to do: %s\n", do)
	}
}

// bytesText writes a number of bytes for people.
func bytesText(n int64) string {
	switch {
	case n == 0:
		return "0"
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}
