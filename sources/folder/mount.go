package folder

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"

	"leat"
)

// A file system that is not mounted looks like an empty folder. Its documents
// were not deleted, so an empty folder deletes documents only where it is known
// to be no place for a mount: the root if it is the folder that was read
// before, a folder below it if nothing was mounted there.

// maxMounts bounds what a position carries.
const maxMounts = 64

// mounts are the folders below the root where file systems are mounted.
type mounts struct {
	mu   sync.Mutex
	rels []string
}

func (m *mounts) all() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.rels)
}

func device(fi fs.FileInfo) uint64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Dev)
	}
	return 0
}

// rootID identifies the folder itself.
func rootID(fi fs.FileInfo) string {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return fmt.Sprintf("%x-%x", uint64(st.Dev), st.Ino)
	}
	return ""
}

// rootMounted fails where the root is empty and another folder than the one
// that was read before.
func (v *view) rootMounted() error {
	if v.lastRoot == rootID(v.identity) {
		return nil
	}
	empty, err := v.empty(".")
	if err != nil {
		return v.rootError(err)
	}
	if !empty {
		return nil
	}
	return leat.Hint(fmt.Errorf("folder %s: %s is empty, is not the folder that was read before, and the index holds documents of it", v.name, v.cfg.Path),
		"mount it; if it is meant to be empty, make any file in it, such as .keep, and its documents will be deleted")
}

func (v *view) empty(rel string) (bool, error) {
	dir, err := v.root.Open(rel)
	if err != nil {
		return false, err
	}
	defer dir.Close()
	_, err = dir.ReadDir(1)
	if errors.Is(err, io.EOF) {
		return true, nil
	}
	return false, err
}

// mounted notes that a file system is mounted at rel, before any document
// below it is emitted: the positions that follow know of it.
func (v *view) mounted(rel string) {
	v.mounts.mu.Lock()
	defer v.mounts.mu.Unlock()
	if len(v.mounts.rels) < maxMounts && !slices.Contains(v.mounts.rels, rel) {
		v.mounts.rels = append(v.mounts.rels, rel)
	}
}

// setMounts notes what a full scan found. What is missing since stays noted
// while its documents are held back.
func (v *view) setMounts(found []string) {
	var gone []string
	for _, rel := range v.mounts.all() {
		if !slices.Contains(found, rel) && v.unmounted(rel+"/") == "" {
			gone = append(gone, rel)
		}
	}
	v.mounts.mu.Lock()
	defer v.mounts.mu.Unlock()
	v.mounts.rels = slices.DeleteFunc(v.mounts.rels, func(rel string) bool { return slices.Contains(gone, rel) })
}

// unmounted is the folder above rel where a file system was mounted that is
// not now, or "".
func (v *view) unmounted(rel string) string {
	for _, at := range v.mounts.all() {
		if !strings.HasPrefix(rel, at+"/") {
			continue
		}
		fi, err := v.root.Lstat(at)
		if err != nil {
			return at
		}
		above, err := v.root.Lstat(path.Dir(at))
		if err != nil {
			return at
		}
		if v.device(fi) != v.device(above) {
			continue
		}
		if empty, err := v.empty(at); empty || err != nil {
			return at
		}
	}
	return ""
}
