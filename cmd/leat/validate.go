package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"leat"
)

func (c *cli) validateCommand() *cobra.Command {
	var connect bool
	cmd := &cobra.Command{
		Use:   "validate",
		Short: "Check pipeline.yaml and, with --connect, what it points at",
		Long: `Validate reads pipeline.yaml and reports every mistake with its line. With
--connect it also tries every server: reachability, credentials, privileges,
binlog settings, the model's dimension, the store.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := c.load()
			if err != nil {
				return err
			}
			type report struct {
				Component string `json:"component"`
				OK        bool   `json:"ok"`
				Error     string `json:"error,omitempty"`
				Hint      string `json:"hint,omitempty"`
			}
			reports := []report{{Component: c.configPath, OK: true}}
			failed := 0
			if connect {
				for _, check := range a.Checks(cmd.Context()) {
					problems := split(check.Err)
					if len(problems) == 0 {
						reports = append(reports, report{Component: check.Component, OK: true})
					}
					for _, p := range problems {
						failed++
						reports = append(reports, report{check.Component, false, p.Error(), leat.HintOf(p)})
					}
				}
			}
			for _, r := range reports {
				switch {
				case c.json():
					if err := c.print(r); err != nil {
						return err
					}
				case r.OK:
					fmt.Fprintf(c.out, "ok      %s\n", r.Component)
				default:
					fmt.Fprintf(c.out, "failed  %s: %s\n", r.Component, r.Error)
					if r.Hint != "" {
						fmt.Fprintf(c.out, "        hint: %s\n", r.Hint)
					}
				}
			}
			if failed > 0 {
				return fmt.Errorf("%d problems found", failed)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&connect, "connect", false, "also try the servers, privileges and settings")
	return cmd
}

// split returns the errors joined in err.
func split(err error) []error {
	if err == nil {
		return nil
	}
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, e := range j.Unwrap() {
			all = append(all, split(e)...)
		}
		return all
	}
	return []error{err}
}
