package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"leat/internal/app"
)

func (c *cli) tailCommand() *cobra.Command {
	var fromStart bool
	cmd := &cobra.Command{
		Use:   "tail",
		Short: "Print document events as they pass",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := c.load()
			if err != nil {
				return err
			}
			err = a.Tail(cmd.Context(), fromStart, func(e app.TailEvent) error {
				if c.json() {
					return c.print(e)
				}
				_, err := fmt.Fprintln(c.out, tailLine(e))
				return err
			})
			if errors.Is(err, context.Canceled) {
				return nil // Ctrl-C is how tail ends
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&fromStart, "from-start", false, "begin with the oldest event that the topic holds")
	return cmd
}

func tailLine(e app.TailEvent) string {
	at := e.Time.Local().Format(time.TimeOnly + ".000")
	switch {
	case e.Error != "":
		return fmt.Sprintf("%d/%d  not a document event: %s", e.Partition, e.Offset, e.Error)
	case e.Deleted:
		return fmt.Sprintf("%s  deleted   %s  version %d", at, e.Document, e.Version)
	}
	return fmt.Sprintf("%s  upserted  %s  version %d  %s", at, e.Document, e.Version, excerpt(e.Content.Title, 60))
}
