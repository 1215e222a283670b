package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Dir is a temporary directory of this process. One whose process ended
// without Remove, in a panic or by SIGKILL, is removed when the next is made.
type Dir struct {
	Path string
	lock *os.File // held as long as this process lives
}

// NewDir makes a directory whose name begins with name.
func NewDir(name string) (*Dir, error) {
	// A folder a user: root and others have tests side by side.
	parent := filepath.Join(os.TempDir(), fmt.Sprintf("leat-%d", os.Getuid()))
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return nil, err
	}
	sweep(parent)
	for {
		lock, err := os.CreateTemp(parent, name+"-*.lock")
		if err != nil {
			return nil, err
		}
		if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			lock.Close() // another process's sweep came between
			continue
		}
		if !present(lock) {
			lock.Close()
			continue
		}
		d := &Dir{Path: strings.TrimSuffix(lock.Name(), ".lock"), lock: lock}
		if err := os.Mkdir(d.Path, 0o755); err != nil {
			lock.Close()
			return nil, err
		}
		return d, nil
	}
}

// Remove deletes the directory and all in it.
func (d *Dir) Remove() error {
	err := errors.Join(os.RemoveAll(d.Path), os.Remove(d.lock.Name()))
	return errors.Join(err, d.lock.Close())
}

// sweep removes what processes that are gone have left. It is a courtesy:
// what cannot be removed stays.
func sweep(parent string) {
	locks, _ := filepath.Glob(filepath.Join(parent, "*.lock"))
	for _, path := range locks {
		lock, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			continue
		}
		if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil && present(lock) {
			if os.RemoveAll(strings.TrimSuffix(path, ".lock")) == nil {
				_ = os.Remove(path)
			}
		}
		lock.Close()
	}
}

// present reports whether f still stands under its name.
func present(f *os.File) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(f.Name())
	return err == nil && os.SameFile(a, b)
}

// withLock runs f while this process alone holds the lock file.
func withLock(path string, f func() error) error {
	lock, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return &fs.PathError{Op: "lock", Path: path, Err: err}
	}
	return f()
}
