package demo

import (
	"context"
	"fmt"
	"time"
)

// buildAnew has the index built beside itself, goes to it and back again, and
// compares every document of the sources with what both indexes hold.
func (d *demo) buildAnew(ctx context.Context) error {
	d.heading("Built anew while it is searched, and compared with the sources")
	for _, x := range []struct {
		label, what string
		args        []string
	}{
		{"reindex", "generation %d beside the live one", []string{"reindex"}},
		{"rollback", "generation %d, which was kept up to date", []string{"reindex", "rollback"}},
	} {
		began := time.Now()
		var done struct{ Generation int }
		if err := d.ask(ctx, &done, x.args...); err != nil {
			return err
		}
		d.row(x.label, fmt.Sprintf(x.what, done.Generation), "searches go to it after "+seconds(time.Since(began)))
	}
	began := time.Now()
	var v struct {
		OK      bool
		Checked int
	}
	if err := d.ask(ctx, &v, "verify"); err != nil {
		return err
	}
	if !v.OK {
		return fmt.Errorf("leat verify found differences: %+v", v)
	}
	d.row("verify", fmt.Sprintf("%d documents of the sources", v.Checked), "nothing missing, stale, orphaned or differing, "+seconds(time.Since(began)))
	return nil
}
