package folder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"leat"
)

const (
	// denied begins the tag of a file that may not be read: it is another tag
	// than the one that the file has when it may be again.
	denied = "denied:"
	// young ends the tag of a file that was modified less than settle ago. A
	// file system's clock ticks every few milliseconds: such a file can change
	// again and keep its tag, so it is looked at once more and then gets another.
	young  = "~"
	settle = 20 * time.Millisecond
)

// tag identifies a file's content: size, modification time, inode.
func tag(fi fs.FileInfo) string {
	var inode uint64
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		inode = st.Ino
	}
	return fmt.Sprintf("%x-%x-%x", fi.Size(), fi.ModTime().UnixNano(), inode)
}

// isYoung reports whether a file may change without changing its tag. A time
// that lies well in the future was set by hand: the next write sets another.
func isYoung(fi fs.FileInfo) bool {
	age := time.Since(fi.ModTime())
	return age > -time.Second && age < settle
}

// gone reports whether err says that there is no such file.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) ||
		errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.ENAMETOOLONG)
}

// errNotDocument: there is something at the path, and it is not a document.
var errNotDocument = errors.New("not a regular file")

// locate follows rel below root to a regular file. Folders are not reached
// through symbolic links, as the walk does not follow those either.
func locate(root *os.Root, rel string) (fs.FileInfo, error) {
	for i, b := range rel {
		if b != '/' {
			continue
		}
		fi, err := root.Lstat(rel[:i])
		if err != nil {
			return nil, err
		}
		if !fi.IsDir() {
			return nil, fs.ErrNotExist
		}
	}
	fi, err := root.Lstat(rel)
	if err == nil && fi.Mode()&fs.ModeSymlink != 0 {
		fi, err = root.Stat(rel)
		if err != nil && !gone(err) {
			// os.Root has no sentinel for a link that leaves it.
			return nil, fmt.Errorf("%w: the symbolic link cannot be followed: %w", errNotDocument, err)
		}
	}
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, errNotDocument
	}
	return fi, nil
}

// openFile opens a regular file. O_NONBLOCK keeps a pipe that took the file's
// place from blocking.
func openFile(root *os.Root, rel string) (*os.File, fs.FileInfo, error) {
	f, err := root.OpenFile(rel, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = errNotDocument
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, fi, nil
}

// Open implements [leat.Opener]. A file that may not be read is a permanent
// error (I5); that the folder itself cannot be reached is a passing one.
func (s *Source) Open(_ context.Context, ref leat.Ref) (io.ReadCloser, error) {
	rel, ok := refRel(ref.Name)
	if !ok {
		return nil, leat.Permanent(fmt.Errorf("folder %s: %q is not a path below it", s.name, ref.Name))
	}
	fail := func(err error) error { return fmt.Errorf("folder %s: open %q: %w", s.name, ref.Name, err) }
	root, err := s.openRoot()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	if _, err := locate(root, rel); err != nil {
		if gone(err) || errors.Is(err, errNotDocument) {
			return nil, fail(leat.ErrNotFound)
		}
		return nil, fail(err)
	}
	f, fi, err := openFile(root, rel)
	switch {
	case err == nil:
	case errors.Is(err, fs.ErrPermission):
		return nil, leat.Hint(leat.Permanent(fail(err)),
			"let the user that runs leat read the file %s, or exclude it", path.Join(s.cfg.Path, rel))
	case gone(err), errors.Is(err, errNotDocument):
		return nil, fail(leat.ErrNotFound)
	default:
		return nil, fail(err)
	}
	want := strings.TrimSuffix(strings.TrimPrefix(ref.Tag, denied), young)
	if tag(fi) != want {
		f.Close()
		return nil, fail(leat.ErrChanged)
	}
	return &reader{file: f, left: fi.Size(), tag: want, fail: fail}, nil
}

// reader reads the file as it was when it was opened, or fails.
type reader struct {
	file *os.File
	left int64
	tag  string
	fail func(error) error
}

func (r *reader) Close() error { return r.file.Close() }

func (r *reader) Read(p []byte) (int, error) {
	if int64(len(p)) > r.left {
		p = p[:r.left] // what is appended meanwhile is another version's
	}
	var n int
	if r.left > 0 {
		var err error
		n, err = r.file.Read(p)
		r.left -= int64(n)
		if err != nil && err != io.EOF {
			return n, r.fail(err)
		}
		if r.left > 0 && err == nil {
			return n, nil
		}
	}
	fi, err := r.file.Stat()
	if err != nil {
		return n, r.fail(err)
	}
	if r.left > 0 || tag(fi) != r.tag {
		return n, r.fail(leat.ErrChanged)
	}
	return n, io.EOF
}
