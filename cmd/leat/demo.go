package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"leat/internal/demo"
)

func (c *cli) demoCommand() *cobra.Command {
	var stay bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show it all on this machine: a database, a folder, changes, questions, a crash",
		Long: `Demo starts a MySQL or MariaDB server of its own in a temporary directory (one on
the PATH, else the one that "make servers" put into the cache), a folder of
documents and "leat run" on both. It changes rows and files, measures when
searches see it, asks a question in English and one in Chinese, and kills leat
in the middle of changes. It removes all of it at the end, and fails when
something it shows does not hold.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			program, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find this program: %w", err)
			}
			err = demo.Run(cmd.Context(), demo.Options{
				Program: program,
				Out:     c.out,
				Colour:  terminal(c.out) && os.Getenv("NO_COLOR") == "",
				Stay:    stay,
			})
			if errors.Is(err, context.Canceled) {
				return context.Canceled
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&stay, "stay", false, "keep everything running at the end, until Ctrl-C")
	return cmd
}
