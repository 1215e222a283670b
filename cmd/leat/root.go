package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"leat"
	"leat/internal/app"
	"leat/internal/config"
)

// Exit codes, as `leat help exit-codes` explains them.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitConfig      = 3
	exitDeadLetters = 4
)

const exitCodes = `0  done
1  failed; the error on standard error says what, where and what to do
2  unknown command, flag or argument
3  pipeline.yaml is missing or wrong; nothing was started
4  done, but documents are in deadletters ("leat dlq list" shows them)
`

// cli is what every command shares.
type cli struct {
	configPath string
	output     string // "text" or "json"
	verbose    bool

	in       io.Reader
	out, err io.Writer // data; everything else
}

// errDeadLetters ends a command that did its work and left documents in deadletters.
var errDeadLetters = errors.New("documents are in deadletters")

type usageError struct{ error }

func execute(ctx context.Context, args []string, in io.Reader, out, errw io.Writer) int {
	c := &cli{in: in, out: out, err: errw}
	root := c.root()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errw)
	err := root.ExecuteContext(ctx)
	var usage usageError
	var conf config.Errors
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		fmt.Fprintf(errw, "leat: %v\nTry: leat help\n", err)
		return exitUsage
	case errors.As(err, &conf):
		fmt.Fprintln(errw, err)
		return exitConfig
	case errors.Is(err, errDeadLetters):
		return exitDeadLetters
	case errors.Is(err, errNotRight):
		return exitFailure
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		fmt.Fprintln(errw, "leat: interrupted")
		return exitFailure
	}
	printError(errw, err)
	return exitFailure
}

// printError prints every error that is joined in err with its hint.
func printError(w io.Writer, err error) {
	if all := split(err); len(all) > 1 {
		for _, e := range all {
			printError(w, e)
		}
		return
	}
	fmt.Fprintf(w, "leat: %v\n", err)
	if hint := leat.HintOf(err); hint != "" {
		fmt.Fprintf(w, "  hint: %s\n", hint)
	}
}

func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "leat",
		Short: "Keep a knowledge base in step with where knowledge is written",
		Long: `leat tails MySQL binlogs and watches buckets and folders, turns every change into
a document event, cuts documents into chunks, embeds them and keeps the search
index equal to the sources: inserts, updates and deletes, within a second.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if c.output != "text" && c.output != "json" {
				return usageError{fmt.Errorf("--output %q: want text or json", c.output)}
			}
			return nil
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.PersistentFlags().StringVarP(&c.configPath, "config", "c", config.DefaultFile, "the pipeline's `file`")
	root.PersistentFlags().StringVarP(&c.output, "output", "o", "text", "format of printed data: text or json")
	root.PersistentFlags().BoolVarP(&c.verbose, "verbose", "v", false, "log more")
	root.AddCommand(
		c.runCommand(), c.searchCommand(), c.statusCommand(), c.tailCommand(), c.docCommand(),
		c.dlqCommand(), c.validateCommand(), c.extractCommand(), c.chunkCommand(), c.embedCommand(),
		c.reindexCommand(), c.verifyCommand(), c.demoCommand(), c.stackCommand(), c.versionCommand(),
		&cobra.Command{Use: "exit-codes", Short: "Exit codes of every command", Long: exitCodes},
	)
	wrapArgs(root)
	return root
}

// wrapArgs makes wrong arguments of any command usage errors.
func wrapArgs(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usageError{fmt.Errorf("%s: %w", cmd.CommandPath(), err)}
			}
			return nil
		}
	} else if cmd.HasSubCommands() {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			text := fmt.Sprintf("unknown command %q for %q", args[0], cmd.CommandPath())
			cmd.SuggestionsMinimumDistance = 2
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				text += fmt.Sprintf("; did you mean %q?", near[0])
			}
			return usageError{errors.New(text)}
		}
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() } // else cobra checks no arguments
	}
	for _, sub := range cmd.Commands() {
		wrapArgs(sub)
	}
}

// load reads pipeline.yaml and makes the application of it.
func (c *cli) load() (*app.App, error) {
	cfg, err := config.Load(c.configPath)
	if err != nil {
		return nil, err
	}
	return app.New(cfg, c.logger()), nil
}

// loadOrDefault is load for commands that also work without a pipeline.yaml:
// where none is named and none is there, everything is at its default.
func (c *cli) loadOrDefault(cmd *cobra.Command) (*app.App, error) {
	if _, err := os.Stat(c.configPath); errors.Is(err, fs.ErrNotExist) && !cmd.Flags().Changed("config") {
		return app.New(config.Default(), c.logger()), nil
	}
	return c.load()
}

func (c *cli) logger() *slog.Logger {
	level := slog.LevelInfo
	if c.verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(c.err, &slog.HandlerOptions{Level: level}))
}

func (c *cli) json() bool { return c.output == "json" }

// print writes v as one line of JSON.
func (c *cli) print(v any) error {
	enc := json.NewEncoder(c.out)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// terminal reports whether w shows to a person.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isTerminal(f)
}
