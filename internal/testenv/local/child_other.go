//go:build unix && !linux

package local

import "syscall"

// ChildAttr puts the child into its own process group: a terminal's Ctrl-C is
// for the parent to handle.
func ChildAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
