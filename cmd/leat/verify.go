package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"leat/internal/app"
)

// errNotRight ends `leat verify` where the index is not right.
var errNotRight = errors.New("the index is not right")

func (c *cli) verifyCommand() *cobra.Command {
	var repair bool
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Prove that nothing is missing, stale or orphaned",
		Long: `Verify compares every document of every source with what the text and the vector
index hold of it, and the two with each other, chunk by chunk. It runs beside
"leat run" or without it, in constant memory; what changes meanwhile is compared
again before it is reported.

missing    at the source, and not in both indexes
stale      of other content than at the source
orphaned   in an index, and not at the source
differing  not the same chunks in both indexes, or not those that were written

--repair sends exactly those documents again, as their sources hold them now,
removes what belongs to none, and verifies again. Exit code 1 where something is
not right.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := c.load()
			if err != nil {
				return err
			}
			act, began, last := a.Verify, time.Now(), time.Now()
			if repair {
				act = a.Repair
			}
			live := terminal(c.err)
			v, err := act(cmd.Context(), func(checked int64) {
				if live && time.Since(last) > 100*time.Millisecond {
					last = time.Now()
					fmt.Fprintf(c.err, "\r\033[K%d documents, %.0f/s", checked, float64(checked)/time.Since(began).Seconds())
				}
			})
			if live {
				fmt.Fprint(c.err, "\r\033[K")
			}
			if err != nil {
				return err
			}
			if c.json() {
				err = c.print(v)
			} else {
				c.printVerdict(v, time.Since(began))
			}
			if err == nil && !v.OK {
				err = errNotRight
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&repair, "repair", false, "mend what is not right and verify again")
	return cmd
}

func (c *cli) printVerdict(v *app.Verdict, took time.Duration) {
	for _, l := range []struct {
		what string
		ids  []string
	}{{"missing", v.Missing}, {"stale", v.Stale}, {"orphaned", v.Orphaned}, {"differing", v.Differing}} {
		for _, id := range l.ids {
			if reason := v.Reasons[id]; reason != "" {
				fmt.Fprintf(c.out, "%-9s  %s: %s\n", l.what, id, reason)
			} else {
				fmt.Fprintf(c.out, "%-9s  %s\n", l.what, id)
			}
		}
	}
	if v.Repaired > 0 {
		fmt.Fprintf(c.err, "%d mended\n", v.Repaired)
	}
	fmt.Fprintf(c.err, "%d documents compared in %s: ", v.Checked, took.Round(time.Millisecond))
	if v.OK {
		fmt.Fprintln(c.err, "nothing is missing, stale, orphaned or differing")
		return
	}
	fmt.Fprintf(c.err, "%d missing, %d stale, %d orphaned, %d differing\n  hint: leat verify --repair mends them; leat dlq list says what could not be processed\n",
		len(v.Missing), len(v.Stale), len(v.Orphaned), len(v.Differing))
}
