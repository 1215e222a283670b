package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"leat/internal/app"
	"leat/internal/stage"
)

func (c *cli) dlqCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dlq",
		Short: "List, show, retry or drop dead letters",
		Long: `A document that a stage cannot process goes to deadletters with a reason and a
hint, and the rest goes on. An ID names a dead letter: stage/document, as
"leat dlq list" prints it. A newer version of the document that succeeds ends
its dead letter by itself.`,
	}
	cmd.AddCommand(
		&cobra.Command{
			Use: "list", Short: "List the dead letters", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				_, letters, err := c.letters(cmd, nil, true)
				if err != nil {
					return err
				}
				for _, l := range letters {
					if c.json() {
						if err := c.print(letter{l.ID(), l}); err != nil {
							return err
						}
						continue
					}
					fmt.Fprintf(c.out, "%s\n    %s\n    hint: %s\n", l.ID(), l.Reason, l.Hint)
				}
				fmt.Fprintf(c.err, "%d dead letters\n", len(letters))
				return nil
			},
		},
		&cobra.Command{
			Use: "show ID", Short: "Show one dead letter in full", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				_, letters, err := c.letters(cmd, args, false)
				if err != nil {
					return err
				}
				l := letters[0]
				if c.json() {
					return c.print(letter{l.ID(), l})
				}
				fmt.Fprintf(c.out, "document  %s\nversion   %d\nstage     %s\ntime      %s\nrecord    %s, partition %d, offset %d\nreason    %s\nhint      %s\n",
					l.Document, l.Version, l.Stage, l.Time.Format("2006-01-02 15:04:05 MST"), l.Topic, l.Partition, l.Offset, l.Reason, l.Hint)
				return nil
			},
		},
		c.dlqAct("retry", "Send documents through the flow again", "sent again", (*app.App).RetryDeadLetters),
		c.dlqAct("drop", "Forget dead letters", "dropped", (*app.App).DropDeadLetters),
	)
	return cmd
}

type letter struct {
	ID string `json:"id"`
	stage.DeadLetter
}

// letters finds the dead letters with the ids, or all.
func (c *cli) letters(cmd *cobra.Command, ids []string, all bool) (*app.App, []stage.DeadLetter, error) {
	a, err := c.load()
	if err != nil {
		return nil, nil, err
	}
	letters, err := a.DeadLetters(cmd.Context())
	if err != nil || all {
		return a, letters, err
	}
	byID := make(map[string]stage.DeadLetter, len(letters))
	for _, l := range letters {
		byID[l.ID()] = l
	}
	found := make([]stage.DeadLetter, 0, len(ids))
	for _, id := range ids {
		l, ok := byID[id]
		if !ok {
			return nil, nil, fmt.Errorf("no dead letter %q; `leat dlq list` prints their ids", id)
		}
		found = append(found, l)
	}
	return a, found, nil
}

func (c *cli) dlqAct(use, short, done string, act func(*app.App, context.Context, []stage.DeadLetter) error) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   use + " ID… | --all",
		Short: short,
		RunE: func(cmd *cobra.Command, args []string) error {
			if all == (len(args) > 0) {
				return usageError{fmt.Errorf("dlq %s: name dead letters, or all of them with --all", use)}
			}
			a, letters, err := c.letters(cmd, args, all)
			if err != nil {
				return err
			}
			if err := act(a, cmd.Context(), letters); err != nil {
				return err
			}
			fmt.Fprintf(c.err, "%d dead letters %s\n", len(letters), done)
			return nil
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "every dead letter")
	return cmd
}
