package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Time limits: generous, since a loaded machine may be ten times slower.
const (
	startLimit = 5 * time.Minute
	stopLimit  = time.Minute
)

// Spec says how a server is run.
type Spec struct {
	Name    string                      // for messages
	Command func() *exec.Cmd            // a fresh command for every start
	Ready   func(context.Context) error // nil as soon as the server answers; tried until it does
	Quit    func(context.Context) error // prepares a stop in good order of a server that SIGTERM does not stop: it is killed then; nil: SIGTERM
	Log     string                      // file that gets the command's output and, where the server has none of its own, its log
}

// Process is a server that runs as a child of this process and dies with it.
// Its methods may be called from several goroutines.
type Process struct {
	spec Spec

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has ended
}

// Start runs the server and waits until it answers.
func Start(ctx context.Context, spec Spec) (*Process, error) {
	p := &Process{spec: spec}
	return p, p.Start(ctx)
}

// Name is the server's name, for messages.
func (p *Process) Name() string { return p.spec.Name }

// Start runs the server again after Stop or Kill and waits until it answers.
func (p *Process) Start(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running() {
		return nil
	}
	log, err := os.OpenFile(p.spec.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := p.spec.Command()
	cmd.Stdout, cmd.Stderr = log, log
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = ChildAttr()
	}
	started, done := make(chan error), make(chan struct{})
	go func() {
		// The kernel ties the child's life to the thread that started it, so
		// this goroutine keeps its thread until the child has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended shows in its log
		}
		close(done)
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start %s: %w", p.spec.Name, err)
	}
	p.cmd, p.done = cmd, done
	if err := p.await(ctx, done); err != nil {
		_ = cmd.Process.Kill()
		<-done
		return fmt.Errorf("start %s: %w; the end of %s:\n%s", p.spec.Name, err, p.spec.Log, p.LogTail(4096))
	}
	return nil
}

func (p *Process) await(ctx context.Context, done <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for {
		err := p.spec.Ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-done:
			return errors.New("it ended before it answered")
		case <-ctx.Done():
			return fmt.Errorf("it does not answer: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (p *Process) running() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Stop ends the server in good order, or by force after a minute.
func (p *Process) Stop() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.spec.Quit == nil || !p.running() {
		return p.end(syscall.SIGTERM)
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopLimit)
	defer cancel()
	return errors.Join(p.spec.Quit(ctx), p.end(syscall.SIGKILL))
}

// Kill ends the server at once (SIGKILL).
func (p *Process) Kill() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.end(syscall.SIGKILL)
}

// end sends sig and waits until the process is gone with all of its threads.
func (p *Process) end(sig os.Signal) error {
	if !p.running() {
		return nil
	}
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.spec.Name, err)
	}
	_ = p.cmd.Process.Signal(syscall.SIGCONT) // a paused process cannot end
	select {
	case <-p.done:
		return nil
	case <-time.After(stopLimit):
	}
	_ = p.cmd.Process.Kill()
	<-p.done
	return fmt.Errorf("stop %s: it took longer than %v and was killed", p.spec.Name, stopLimit)
}

// Pause freezes the server (SIGSTOP): connections stay open and hang.
func (p *Process) Pause() error {
	if err := p.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	for !frozen(p.PID()) { // its threads stop one by one
		time.Sleep(time.Millisecond)
	}
	return nil
}

// frozen reports whether no thread of a process runs, as Linux tells it.
func frozen(pid int) bool {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, path := range threads {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		// The state follows the program's name, which stands in parentheses.
		if i := bytes.LastIndexByte(stat, ')'); i >= 0 && i+2 < len(stat) && !bytes.ContainsAny(stat[i+2:i+3], "TtZX") {
			return false
		}
	}
	return true
}

// Resume ends a Pause.
func (p *Process) Resume() error { return p.signal(syscall.SIGCONT) }

func (p *Process) signal(sig os.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running() {
		return fmt.Errorf("%s is not running", p.spec.Name)
	}
	return p.cmd.Process.Signal(sig)
}

// PID is the process id of the server's last start.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd.Process.Pid
}

// Done is closed when the server has ended, by itself or by Stop or Kill.
func (p *Process) Done() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done
}

// LogTail returns the last n bytes of the server's log, from a line's begin.
func (p *Process) LogTail(n int) string {
	data, err := os.ReadFile(p.spec.Log)
	if err != nil {
		return err.Error()
	}
	if len(data) > n {
		data = data[len(data)-n:]
		if i := bytes.IndexByte(data, '\n'); i >= 0 {
			data = data[i+1:]
		}
	}
	return string(data)
}

// FreePort returns a loopback TCP port that nothing listens on. Another
// process may take it before it is used: try again then.
func FreePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
