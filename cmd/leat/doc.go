package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"leat"
)

func (c *cli) docCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "doc ID",
		Short:   "Say where a document is in the flow, its version and chunks",
		Example: "  leat doc folder:notes/guides/umbrellas.md",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := c.load()
			if err != nil {
				return err
			}
			r, err := a.Document(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if c.json() {
				return c.print(r)
			}
			fmt.Fprintf(c.out, "%s: %s\n", args[0], r.State)
			if e := r.Event; e != nil {
				what := "upserted"
				if e.Deleted {
					what = "deleted"
				}
				fmt.Fprintf(c.out, "event    version %d, %s at %s, partition %d offset %d\n", e.Version, what, e.Time.Format("2006-01-02 15:04:05.000 MST"), e.Partition, e.Offset)
			}
			for _, s := range []struct {
				name  string
				state *leat.DocumentState
			}{{"words", r.Text}, {"vectors", r.Vectors}} {
				switch {
				case s.state == nil:
					fmt.Fprintf(c.out, "%-8s not there\n", s.name)
				case s.state.Deleted:
					fmt.Fprintf(c.out, "%-8s version %d, deleted\n", s.name, s.state.Version)
				default:
					fmt.Fprintf(c.out, "%-8s version %d, %d chunks\n", s.name, s.state.Version, s.state.Chunks)
				}
			}
			for _, l := range r.DeadLetters {
				fmt.Fprintf(c.out, "dead letter of the %s, version %d: %s\n  hint: %s\n", l.Stage, l.Version, l.Reason, l.Hint)
			}
			for _, ch := range r.Chunks {
				fmt.Fprintf(c.out, "chunk %3d  %d–%d  %s\n", ch.Ordinal, ch.Start, ch.End, excerpt(ch.Text, 80))
			}
			return nil
		},
	}
}
