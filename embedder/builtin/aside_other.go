//go:build !linux

package builtin

// aside would lower the priority of a thread, which Linux alone can do.
func aside(f func() error) error { return f() }
