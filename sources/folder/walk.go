package folder

import (
	"context"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"

	"leat/sources/listing"
)

// found is a file that a walk came by.
type found struct {
	rel string
	tag string
}

// entry is a name in a folder. Ids are compared byte by byte, where a folder's
// name is followed by a slash: entries in the order of key are in the order of
// the ids below them, also for "a", "a b", "a.b" and "a/b".
type entry struct {
	key  string // percent-encoded, with a slash behind a folder's
	name string
	mode fs.FileMode // its type
}

// walker lists the documents below a folder in ascending byte order of their ids.
type walker struct {
	root *os.Root
	sel  listing.Selection
	// page is how many names of one folder are held at once. Of a larger
	// folder the smallest are taken, then, in another pass over it, the
	// smallest after those, so that memory does not grow with it (I8).
	page  int
	found func(found) error
	// mount is told of a folder on another device than the one above it.
	mount  func(rel string)
	device func(fs.FileInfo) uint64
	// unlisted is told of a file or folder that could not be looked at. What
	// the index holds below it is left alone, as nobody knows.
	unlisted func(rel string, err error)
}

const walkPage = 1 << 16

func (v *view) walker() walker {
	return walker{root: v.root, sel: v.cfg.selection(), page: walkPage, device: v.device, mount: func(string) {}}
}

// walk goes through the folder at rel, "" for the root. A folder that is not
// there has no documents.
func (w *walker) walk(ctx context.Context, rel string) error {
	dir, err := w.enter(rel)
	if err != nil {
		if !gone(err) {
			w.unlisted(rel, err)
		}
		return nil
	}
	defer dir.Close()
	if rel != "" && w.mounted(dir, rel) {
		w.mount(rel)
	}
	after := ""
	for {
		entries, more, err := w.list(dir, rel, after)
		if err != nil {
			if !gone(err) {
				w.unlisted(rel, err)
			}
			return nil
		}
		for _, e := range entries {
			if err := ctx.Err(); err != nil {
				return err
			}
			below := join(rel, e.name)
			if e.mode.IsDir() {
				err = w.walk(ctx, below)
			} else {
				err = w.file(dir, below, e)
			}
			if err != nil {
				return err
			}
			after = e.key
		}
		if !more {
			return nil
		}
	}
}

// enter opens the folder at rel unless a symbolic link leads there.
func (w *walker) enter(rel string) (*os.Root, error) {
	if rel == "" {
		return w.root.OpenRoot(".")
	}
	for i, b := range rel + "/" {
		if b != '/' {
			continue
		}
		fi, err := w.root.Lstat(rel[:i])
		if err != nil {
			return nil, err
		}
		if !fi.IsDir() {
			return nil, fs.ErrNotExist
		}
	}
	return w.root.OpenRoot(rel)
}

// mounted reports whether a file system is mounted at the folder.
func (w *walker) mounted(dir *os.Root, rel string) bool {
	here, err := dir.Stat(".")
	if err != nil {
		return false
	}
	above, err := w.root.Lstat(path.Dir(rel))
	return err == nil && w.device(here) != w.device(above)
}

// list returns the smallest entries of a folder after a key, in order, and
// whether there are more.
func (w *walker) list(dir *os.Root, rel, after string) (entries []entry, more bool, err error) {
	f, err := dir.Open(".")
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	shrink := func() {
		slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.key, b.key) })
		if len(entries) > w.page {
			clear(entries[w.page:])
			entries, more = entries[:w.page], true
		}
	}
	for {
		batch, err := f.ReadDir(1024)
		for _, d := range batch {
			e := entry{key: url.PathEscape(d.Name()), name: d.Name(), mode: d.Type()}
			below := join(rel, e.name)
			switch {
			case e.mode.IsDir():
				e.key += "/"
				if w.sel.Excludes(below) {
					continue
				}
			case !e.mode.IsRegular() && e.mode&fs.ModeSymlink == 0:
				continue // a pipe, socket or device is not a document
			case w.sel.Excludes(below) || !w.sel.Includes(below):
				continue
			}
			if e.key > after {
				entries = append(entries, e)
			}
		}
		if len(entries) >= 2*w.page {
			shrink()
		}
		if err == io.EOF {
			shrink()
			return entries, more, nil
		}
		if err != nil {
			return nil, false, err
		}
	}
}

func (w *walker) file(dir *os.Root, rel string, e entry) error {
	var fi fs.FileInfo
	var err error
	if e.mode.IsRegular() {
		fi, err = dir.Lstat(e.name)
	} else {
		fi, err = locate(w.root, rel)
	}
	if err != nil {
		if !gone(err) {
			w.unlisted(rel, err)
		}
		return nil
	}
	if !fi.Mode().IsRegular() {
		return nil
	}
	return w.found(found{rel: rel, tag: tag(fi)})
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}
