package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"leat/internal/app"
	"leat/internal/stage"
)

func (c *cli) runCommand() *cobra.Command {
	var stages []string
	var once bool
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the pipeline",
		Long: `Run reads the sources and keeps the index equal to them until it is stopped.

--stages runs some of its stages only: ` + strings.Join(stage.Names, ", ") + `.
--once catches up with every source, drains every stage and exits, for cron and
scripts: with 0 when everything is in the index, with 4 when documents are in
deadletters.`,
		Example: `  leat run
  leat run --once
  leat run --stages chunker,embedder`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := c.load()
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			show := c.progress()
			start := time.Now()
			err = a.Run(ctx, app.RunOptions{
				Stages: stages,
				Once:   once,
				Ready: func() {
					if !once {
						fmt.Fprintf(c.err, "leat is running: %s. Ctrl-C stops it; `leat status` says how it is.\n", a.Describe())
					}
				},
				Watch: show.update,
			})
			show.close()
			if err != nil || !once {
				return err
			}
			return c.onceSummary(ctx, a, time.Since(start))
		},
	}
	cmd.Flags().StringSliceVar(&stages, "stages", nil, "run these stages only, separated by commas")
	cmd.Flags().BoolVar(&once, "once", false, "catch up with every source, drain every stage and exit")
	return cmd
}
