package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

func (c *cli) reindexCommand() *cobra.Command {
	var source string
	cmd := &cobra.Command{
		Use:   "reindex --from-source NAME",
		Short: "Read a source again from its beginning",
		Long: `Reindex --from-source forgets how far a source was read. The next "leat run"
reads all of it again: documents that are there replace what the index holds,
documents that are gone are removed, and search goes on meanwhile. Needed when
a source no longer holds the changes after the saved position. Stop "leat run"
before.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if source == "" {
				return usageError{errors.New("reindex: name a source with --from-source")}
			}
			a, err := c.load()
			if err != nil {
				return err
			}
			name, err := a.ForgetPosition(cmd.Context(), source)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.err, "the next leat run reads %s from its beginning\n", name)
			return nil
		},
	}
	cmd.Flags().StringVar(&source, "from-source", "", "the source's `name` in pipeline.yaml")
	return cmd
}
