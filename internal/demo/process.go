package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"leat/internal/testenv/local"
)

// process is one `leat run`.
type process struct {
	*local.Process
	log string
}

// startLeat starts a `leat run` with args.
func (d *demo) startLeat(ctx context.Context, name string, args ...string) error {
	p := &process{log: filepath.Join(d.dir, strings.ReplaceAll(name, " ", "-")+".log")}
	var err error
	p.Process, err = local.Start(ctx, local.Spec{
		Name: name,
		Command: func() *exec.Cmd {
			return exec.Command(d.Program, append([]string{"--config", d.config(), "run"}, args...)...)
		},
		Ready: p.running,
		Log:   p.log,
	})
	if err != nil {
		return err
	}
	d.leat = append(d.leat, p)
	d.onClose(p.Stop)
	return nil
}

// running is nil once the process says that it runs.
func (p *process) running(context.Context) error {
	log, err := os.ReadFile(p.log)
	if err == nil && !strings.Contains(string(log), "leat is running") {
		err = errors.New("it has not said so yet")
	}
	return err
}

// restart kills the process with SIGKILL and starts it again.
func (p *process) restart(ctx context.Context) error {
	if err := p.Kill(); err != nil {
		return err
	}
	if err := os.Truncate(p.log, 0); err != nil { // that it runs is to be said anew
		return err
	}
	return p.Start(ctx)
}

// alive is nil as long as the process runs.
func (p *process) alive() error {
	select {
	case <-p.Done():
		return fmt.Errorf("%s has ended by itself:\n%s", p.Name(), p.LogTail(3000))
	default:
		return nil
	}
}

// ended tells of the first process that ends by itself.
func (d *demo) ended() <-chan error {
	ended := make(chan error, len(d.leat))
	for _, p := range d.leat {
		go func() {
			<-p.Done()
			ended <- p.alive()
		}()
	}
	return ended
}

// logs are the ends of the logs of all processes.
func (d *demo) logs() string {
	var b strings.Builder
	for _, p := range d.leat {
		fmt.Fprintf(&b, "the end of %s:\n%s\n", p.log, p.LogTail(1500))
	}
	return b.String()
}
