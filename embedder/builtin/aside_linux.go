package builtin

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// niceness is what leaves a tenth of a core that others could use up.
const niceness = 10

// aside runs f on a thread of its own that gives way to others. Where the
// priority cannot be lowered, f runs as any work does.
func aside(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), niceness)
		done <- f()
	}()
	return <-done
}
