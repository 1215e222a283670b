package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"leat/internal/app"
)

func (c *cli) reindexCommand() *cobra.Command {
	var abort, fromSource bool
	var document, source string
	cmd := &cobra.Command{
		Use:   "reindex",
		Short: "Build the index anew while the old one is searched",
		Long: `Reindex builds the next generation of the index beside the live one, from the
documents topic, with the chunker and the model now in pipeline.yaml. Changes
flow into both. When the new one has caught up and holds what the live one
holds, searches move to it; the former one is kept, and fed, until "leat
reindex drop". Interrupted, run it again: it goes on.

The processes of "leat run" do the work; where none runs, reindex does.

--from-source reads sources again from their beginning, the one that is named
or all, into the generations that are there: needed when a source no longer
holds the changes after the saved position, or the documents topic was lost.
--document and --source send what the documents topic holds of one document, or
one source, through the flow again, where an index was damaged.`,
		Example: `  leat reindex
  leat reindex rollback
  leat reindex --from-source shop
  leat reindex --document mysql:shop/store.products/42`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 && !fromSource {
				return fmt.Errorf("unknown argument %q", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			chosen := 0
			for _, flag := range []string{"abort", "from-source", "document", "source"} {
				if cmd.Flags().Changed(flag) {
					chosen++
				}
			}
			if chosen > 1 {
				return usageError{errors.New("reindex: --abort, --from-source, --document and --source exclude each other")}
			}
			a, err := c.load()
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			switch {
			case abort:
				n, err := a.Abort(ctx)
				if err == nil {
					fmt.Fprintf(c.err, "generation %d was given up\n", n)
				}
				return err
			case fromSource:
				names, err := a.Reread(ctx, args...)
				if err == nil {
					fmt.Fprintf(c.err, "leat run reads %s from the beginning; `leat status` says how far it is\n", strings.Join(names, ", "))
				}
				return err
			case document != "" || source != "":
				n, err := a.Resend(ctx, document, source)
				if err == nil {
					fmt.Fprintf(c.err, "sent through the flow again: %d (deletes count too)\n", n)
				}
				return err
			}
			return c.switchTo(ctx, "searches now go to generation %d; the former one is kept: leat reindex rollback goes back to it, leat reindex drop removes it\n", a.Reindex)
		},
	}
	cmd.Flags().BoolVar(&abort, "abort", false, "give up the generation that is being built")
	cmd.Flags().BoolVar(&fromSource, "from-source", false, "read sources again: those named as arguments, or all")
	cmd.Flags().StringVar(&document, "document", "", "send the document of this `id` again")
	cmd.Flags().StringVar(&source, "source", "", "send the documents of the source of this `name` again")
	cmd.AddCommand(
		&cobra.Command{
			Use: "list", Short: "List the generations", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return c.listGenerations(cmd.Context()) },
		},
		&cobra.Command{
			Use: "rollback", Short: "Make the former generation live again", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				a, err := c.load()
				if err != nil {
					return err
				}
				return c.switchTo(cmd.Context(), "searches go to generation %d again\n", a.Rollback)
			},
		},
		&cobra.Command{
			Use: "drop N", Short: "Remove a generation that is not live", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				n, err := strconv.Atoi(args[0])
				if err != nil || n < 1 {
					return usageError{fmt.Errorf("reindex drop %q: want the number of a generation", args[0])}
				}
				a, err := c.load()
				if err != nil {
					return err
				}
				if err := a.Drop(cmd.Context(), n); err != nil {
					return err
				}
				fmt.Fprintf(c.err, "generation %d was removed\n", n)
				return nil
			},
		},
	)
	return cmd
}

// switchTo moves searches to another generation and shows how far it is.
func (c *cli) switchTo(ctx context.Context, done string, act func(context.Context, func(app.ReindexProgress)) (int, error)) error {
	began, last := time.Now(), time.Time{}
	live := terminal(c.err)
	trouble := ""
	n, err := act(ctx, func(p app.ReindexProgress) {
		if now := strings.Join(p.Trouble, "\n"); now != trouble {
			if trouble = now; trouble != "" {
				fmt.Fprintln(c.err, trouble)
			}
		}
		if !live && time.Since(last) < 10*time.Second {
			return
		}
		last = time.Now()
		text := fmt.Sprintf("generation %d: %d of %d, %.0f/s", p.Generation, p.Done, p.Total, p.Rate)
		if p.Left > 0 {
			text += fmt.Sprintf(", %s to go", p.Left.Round(time.Second))
		}
		if len(p.Idle) > 0 {
			text += fmt.Sprintf("; no process runs the %s: leat run --stages %s", strings.Join(p.Idle, ", "), strings.Join(p.Idle, ","))
		}
		if live {
			fmt.Fprintf(c.err, "\r\033[K%s", text)
		} else {
			fmt.Fprintln(c.err, text)
		}
	})
	if live && !last.IsZero() {
		fmt.Fprint(c.err, "\r\033[K")
	}
	if err != nil {
		return err
	}
	if c.json() {
		return c.print(map[string]any{"generation": n, "took_ms": time.Since(began).Milliseconds()})
	}
	fmt.Fprintf(c.err, done, n)
	return nil
}

func (c *cli) listGenerations(ctx context.Context) error {
	a, err := c.load()
	if err != nil {
		return err
	}
	all, err := a.Generations(ctx)
	if err != nil {
		return err
	}
	if c.json() {
		for _, g := range all {
			if err := c.print(g); err != nil {
				return err
			}
		}
		return nil
	}
	w := tabwriter.NewWriter(c.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "GENERATION\tSTATE\tMODEL\tCHUNKS\tBEGUN")
	for _, g := range all {
		fmt.Fprintf(w, "%d\t%s\t%s (%d)\t%d to %d tokens\t%s\n", g.Number, g.State, g.Model, g.Dimension, g.Target, g.Max, g.Started.Local().Format(time.DateTime))
	}
	return w.Flush()
}
