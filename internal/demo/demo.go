// Package demo shows leat at work on this machine: a real database and a
// folder, changed before the reader's eyes, and what a search finds of them.
// Everything it says it has checked; what does not hold ends it with an error.
package demo

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"leat/internal/testenv/local"
)

// Options of Run.
type Options struct {
	Program string    // the leat to show
	Out     io.Writer // the show
	Colour  bool      // Out understands ANSI colours
	Stay    bool      // keep everything running at the end until ctx ends
}

// limit on anything to become true: a hundred times what it takes, so that
// only what is broken meets it.
const limit = time.Minute

// demo is one run.
type demo struct {
	Options
	screen
	dir      string
	database *local.Database // nil: none could be had
	shop     *sql.DB         // its database of products
	rows     int             // products
	run      *local.Process  // leat run
	text     *searcher       // by words
	meaning  *searcher       // by vectors
	both     *searcher
	closers  []func() error
}

// Run runs the demo. It returns nil when all that it showed was right.
func Run(ctx context.Context, o Options) (err error) {
	dir, err := local.NewDir("demo")
	if err != nil {
		return err
	}
	d := &demo{Options: o, screen: screen{out: o.Out, colour: o.Colour}, dir: dir.Path}
	d.closers = append(d.closers, dir.Remove)
	defer func() {
		for i := len(d.closers) - 1; i >= 0; i-- {
			err = errors.Join(err, d.closers[i]())
		}
	}()
	began := time.Now()
	for _, act := range []func(context.Context) error{
		d.start, d.changeRows, d.changeFiles, d.askQuestions, d.crash,
	} {
		if err := act(ctx); err != nil {
			return err
		}
	}
	d.end(time.Since(began))
	if o.Stay {
		<-ctx.Done()
		d.line("\nStopping.")
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// onClose has f called at the end, after what is started later was ended.
func (d *demo) onClose(f func() error) { d.closers = append(d.closers, f) }

func (d *demo) folder() string { return filepath.Join(d.dir, "knowledge") }
func (d *demo) config() string { return filepath.Join(d.dir, "pipeline.yaml") }

// until tries again and again, without pause for long, until check returns
// true, and returns how long that took.
func (d *demo) until(ctx context.Context, since time.Time, what string, check func() (bool, error)) (time.Duration, error) {
	for {
		ok, err := check()
		if err != nil {
			return 0, fmt.Errorf("%s: %w", what, err)
		}
		if ok {
			return time.Since(since), nil
		}
		if time.Since(since) > limit {
			return 0, fmt.Errorf("%s: not within %v; the end of %s:\n%s", what, limit, filepath.Join(d.dir, "run.log"), d.run.LogTail(3000))
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-d.run.Done():
			return 0, fmt.Errorf("leat run has ended by itself:\n%s", d.run.LogTail(3000))
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (d *demo) end(took time.Duration) {
	d.heading("All of it held, in " + seconds(took))
	if !d.Stay {
		d.line("Next:")
		d.command("make demo STAY=1", "the same, kept running to play with")
		d.command("bin/leat run", "your own: pipeline.yaml watches ./knowledge as it stands")
		d.command("bin/leat help", "every command")
		return
	}
	leat := d.Program + " -c " + d.config()
	d.line("It keeps running until Ctrl-C. Its configuration file is %s", d.bold(d.config()))
	d.line("In another terminal:")
	d.command(leat+" search how do I dry a tent", "")
	d.command(leat+" search --mode text 雨伞", "")
	d.command(leat+" status", "")
	d.command(leat+" tail", "document events as they pass")
	d.command("echo 'Keys hang behind the blue door.' > "+filepath.Join(d.folder(), "keys.txt"), "then search for keys")
	if d.database != nil {
		client := map[local.Flavor]string{local.MySQL: "mysql", local.MariaDB: "mariadb"}[d.database.Installation.Flavor]
		if beside := filepath.Join(filepath.Dir(d.database.Installation.Daemon), client); exists(beside) {
			client = beside
		}
		d.command(fmt.Sprintf("%s -h127.0.0.1 -P%d -uroot shop -e \"UPDATE products SET name='Quiet kettle' WHERE id=3\"", client, d.database.Port()), "")
	}
}
