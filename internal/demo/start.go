package demo

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"leat/internal/testenv/local"
)

// start makes the sources and starts leat on them.
func (d *demo) start(ctx context.Context) error {
	title, place := "leat demo", "a folder"
	if d.Stack {
		title, place = "leat stack", "a bucket"
	}
	d.line("%s  a knowledge base in step with a database and %s", d.bold(title), place)
	d.line("%s", d.dim("everything lies in "+d.dir+" and is removed at the end"))
	d.line("")
	if err := d.startDatabase(ctx); err != nil {
		return err
	}
	d.place = folder{filepath.Join(d.dir, "knowledge")}
	if d.Stack {
		if err := d.startServers(ctx); err != nil {
			return err
		}
	}
	files, err := d.fill()
	if err != nil {
		return fmt.Errorf("fill the %s: %w", d.place.what(), err)
	}
	d.row(d.place.what(), d.place.where(), fmt.Sprintf("%d documents, English and Chinese", files))
	if err := os.WriteFile(d.config(), []byte(d.pipeline()), 0o600); err != nil {
		return err
	}
	began := time.Now()
	if err := d.startProcesses(ctx); err != nil {
		return err
	}
	if err := d.awaitIndex(ctx, began, int64(files+d.rows)); err != nil {
		return err
	}
	if d.Idle {
		return nil
	}
	for mode, s := range map[string]**searcher{"text": &d.text, "vector": &d.meaning, "hybrid": &d.both} {
		if *s, err = startSearcher(d.Program, d.config(), mode); err != nil {
			return err
		}
		d.onClose((*s).finish)
		if _, err := (*s).ask("umbrella"); err != nil { // loads the model
			return err
		}
	}
	return nil
}

func (d *demo) startProcesses(ctx context.Context) error {
	if d.Stack {
		return d.startStages(ctx)
	}
	began := time.Now()
	if err := d.startLeat(ctx, "leat run"); err != nil {
		return err
	}
	d.row("leat run", "broker, model and store in one process", "up after "+millis(time.Since(began)))
	return nil
}

// awaitIndex waits until the index has what is there at the start.
func (d *demo) awaitIndex(ctx context.Context, began time.Time, want int64) error {
	var st status
	took, err := d.until(ctx, began, "index what is there", func() (ok bool, err error) {
		st, err = d.status(ctx)
		return st.Index.Text.Documents == want && st.Index.Vectors.Documents == want, err
	})
	if err != nil {
		return err
	}
	d.row("indexed", fmt.Sprintf("%d documents in %d chunks", want, st.Index.Text.Chunks), "all searchable after "+seconds(took))
	return nil
}

// startDatabase starts a server of the machine's own, or else of the cache.
func (d *demo) startDatabase(ctx context.Context) error {
	var tried []error
	for _, find := range []func() (*local.Installation, error){
		local.FindOnPath,
		func() (*local.Installation, error) { return local.FindInCache(local.MySQL) },
		func() (*local.Installation, error) { return local.FindInCache(local.MariaDB) },
	} {
		began := time.Now()
		in, err := find()
		if err == nil {
			dir := d.dir + "/" + string(in.Flavor)
			if err = os.RemoveAll(dir); err == nil {
				err = os.Mkdir(dir, 0o755)
			}
			if err == nil {
				d.database, err = local.StartDatabase(ctx, in, dir)
			}
		}
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			tried = append(tried, err)
			continue
		}
		d.onClose(d.database.Close)
		if err := d.makeShop(); err != nil {
			return fmt.Errorf("make the table of products: %w", err)
		}
		name := map[local.Flavor]string{local.MySQL: "MySQL", local.MariaDB: "MariaDB"}[in.Flavor]
		version, _, _ := strings.Cut(in.Version, "-")
		d.row(map[bool]string{false: "database", true: strings.ToLower(name)}[d.Stack], name+" "+version+" on "+d.database.Addr(), "up after "+seconds(time.Since(began)))
		d.row("table", "shop.products", fmt.Sprintf("%d rows, English and Chinese", d.rows))
		return nil
	}
	d.line("  No MySQL or MariaDB server could be had, so the part with rows is left out:")
	for _, err := range tried {
		d.line("    %v", err)
	}
	d.line("  Install mysql-server or mariadb-server, or on a Debian machine run: make servers")
	return nil
}

// pipeline is the configuration file.
func (d *demo) pipeline() string {
	var b strings.Builder
	fmt.Fprintf(&b, "name: demo\ndata_dir: %s\n\nsources:\n%s", d.dir+"/data", d.place.config())
	if d.database != nil {
		fmt.Fprintf(&b, `  - name: shop
    mysql:
      address: %s
      user: leat
      password: %s
      tables:
        - table: shop.products
          title: name
          body: [description]
          metadata: [price, stock]
`, d.database.Addr(), password)
	}
	if d.stack != nil {
		b.WriteString(d.stack.config())
	}
	return b.String()
}
