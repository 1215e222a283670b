// Package demo shows leat at work on this machine: a real database and a place
// of documents, changed before the reader's eyes, and what a search finds of
// them; everything embedded in one process, or each stage a process of its own
// on real servers. Everything it says it has checked; what does not hold ends
// it with an error.
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
	Stack   bool      // on real servers, a bucket in place of the folder, each stage its own process
	Idle    bool      // start everything and show nothing
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
	stack    *stack          // the other servers; nil: everything is embedded
	place    place           // of documents
	leat     []*process      // leat run, whole or stage by stage
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
	acts := []func(context.Context) error{d.start}
	if !o.Idle {
		acts = append(acts, d.changeRows, d.changeFiles, d.askQuestions, d.crash, d.buildAnew)
	}
	for _, act := range acts {
		if err := act(ctx); err != nil {
			return err
		}
	}
	d.end(time.Since(began))
	if o.Stay {
		select {
		case <-ctx.Done():
			d.line("\nStopping.")
		case err := <-d.ended():
			return err
		}
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// onClose has f called at the end, after what is started later was ended.
func (d *demo) onClose(f func() error) { d.closers = append(d.closers, f) }

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
			return 0, fmt.Errorf("%s: not within %v\n%s", what, limit, d.logs())
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
		for _, p := range d.leat {
			if err := p.alive(); err != nil {
				return 0, err
			}
		}
	}
}

func (d *demo) end(took time.Duration) {
	if !d.Idle {
		d.heading("All of it held, in " + seconds(took))
	}
	if !d.Stay {
		d.line("Next:")
		if d.Stack {
			d.command("make stack", "the same, kept running to play with")
		} else {
			d.command("make demo STAY=1", "the same, kept running to play with")
			d.command("make stack", "on Kafka, Elasticsearch, Milvus, MinIO and MySQL, each stage a process")
		}
		d.command("bin/leat run", "your own: pipeline.yaml watches ./knowledge as it stands")
		d.command("bin/leat help", "every command")
		return
	}
	leat := d.Program + " -c " + d.config()
	if d.stack != nil {
		d.heading("pipeline.yaml: " + d.config())
		d.line("%s", d.pipeline())
	}
	d.line("\nIt keeps running until Ctrl-C. Its configuration file is %s", d.bold(d.config()))
	d.line("In another terminal:")
	d.command(leat+" search how do I dry a tent", "")
	d.command(leat+" search --mode text 雨伞", "")
	d.command(leat+" status", "")
	d.command(leat+" tail", "document events as they pass")
	d.command(d.place.try(), "then search for keys")
	if d.database != nil {
		client := map[local.Flavor]string{local.MySQL: "mysql", local.MariaDB: "mariadb"}[d.database.Installation.Flavor]
		if beside := filepath.Join(filepath.Dir(d.database.Installation.Daemon), client); exists(beside) {
			client = beside
		}
		d.command(fmt.Sprintf("%s -h127.0.0.1 -P%d -uroot shop -e \"UPDATE products SET name='Quiet kettle' WHERE id=3\"", client, d.database.Port()), "")
	}
}
