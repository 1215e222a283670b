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
			return c.show(cmd.Context(), demo.Options{Stay: stay})
		},
	}
	cmd.Flags().BoolVar(&stay, "stay", false, "keep everything running at the end, until Ctrl-C")
	return cmd
}

func (c *cli) stackCommand() *cobra.Command {
	var show bool
	cmd := &cobra.Command{
		Use:   "stack",
		Short: "Run each stage as processes of its own on real servers on this machine",
		Long: `Stack starts Kafka, Elasticsearch, Milvus, MinIO and a database in a temporary
directory, as "make servers" put them into the cache, and each stage of leat as
processes of its own on them. It prints where everything answers, the
configuration and commands to try, and stops and removes all of it on Ctrl-C.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.show(cmd.Context(), demo.Options{Stack: true, Idle: !show, Stay: !show})
		},
	}
	cmd.Flags().BoolVar(&show, "demo", false, "show what \"leat demo\" shows, and end")
	return cmd
}

// show runs the demo.
func (c *cli) show(ctx context.Context, o demo.Options) error {
	var err error
	if o.Program, err = os.Executable(); err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	o.Out, o.Colour = c.out, terminal(c.out) && os.Getenv("NO_COLOR") == ""
	if err = demo.Run(ctx, o); errors.Is(err, context.Canceled) {
		return context.Canceled
	}
	return err
}
