package local

import "syscall"

// ChildAttr has the kernel kill the child when the thread that started it
// ends: no server outlives a test binary that panics or is killed. Its own
// process group keeps a terminal's Ctrl-C for the parent to handle.
func ChildAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
