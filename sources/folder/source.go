// Package folder is a [leat.Source] over a directory: every file below it is a
// document, its path the document's id.
//
// What the file system's watch tells is a hint only. Whatever hints at a file,
// an event reports what a look at the file shows, and of two events the one with
// the higher version never knows less. What the watch cannot tell (changes while nobody looked,
// lost hints, a watch that the system refuses) a scan finds: it merges the
// sorted walk of the folder with the sorted list of what the index holds, in
// constant memory.
//
// A document is a regular file, or a symbolic link to one below the root, that
// the patterns select. Symbolic links to folders are not followed.
package folder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sync/errgroup"

	"leat"
	"leat/sources/listing"
)

const kind = "folder"

// Source is a folder.
type Source struct {
	name string
	cfg  Config
	log  *slog.Logger

	newWatcher func() (*fsnotify.Watcher, error) // tests make it fail
	device     func(fs.FileInfo) uint64          // tests mount nothing
}

// New makes the source with a name over a folder. Nothing is opened before Run.
func New(name string, cfg Config, log *slog.Logger) (*Source, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Rescan == 0 {
		cfg.Rescan = defaultRescan
	}
	return &Source{name: name, cfg: cfg, log: log.With("source", kind+":"+name), newWatcher: fsnotify.NewWatcher, device: device}, nil
}

// Close implements [leat.Source]. A source holds nothing beyond Run.
func (s *Source) Close() error { return nil }

// Check implements [leat.Checker].
func (s *Source) Check(context.Context) error {
	root, err := s.openRoot()
	if err != nil {
		return err
	}
	defer root.Close()
	dir, err := root.Open(".")
	if err != nil {
		return s.rootError(err)
	}
	return dir.Close()
}

func (s *Source) openRoot() (*os.Root, error) {
	root, err := os.OpenRoot(s.cfg.Path)
	if err != nil {
		return nil, s.rootError(err)
	}
	return root, nil
}

func (s *Source) rootError(err error) error {
	err = fmt.Errorf("folder %s: %w", s.name, err)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return leat.Hint(err, "make the folder %s, mount it, or correct path; its documents stay in the index until it is there", s.cfg.Path)
	case errors.Is(err, fs.ErrPermission):
		return leat.Hint(err, "let the user that runs leat read and enter %s", s.cfg.Path)
	case errors.Is(err, syscall.ENOTDIR):
		return leat.Hint(err, "path must name a folder, not a file")
	}
	return leat.Hint(err, "see whether %s can be listed; its documents stay in the index", s.cfg.Path)
}

// position is what a session leaves to the next. Where to resume is found by
// the merge; that the root is still the same folder, and what was mounted in
// it, only it can tell.
type position struct {
	Root   string    `json:"root"`             // device and inode
	Mounts []string  `json:"mounts,omitempty"` // see mounts
	Epoch  uint64    `json:"epoch"`
	Time   time.Time `json:"time"`
}

// view is the folder, open, and what is known of it. Close its root.
type view struct {
	*Source
	root     *os.Root
	identity fs.FileInfo // of the root
	lastRoot string      // position.Root of the session before
	warned   *listing.Warned
	mounts   mounts
}

// view opens the folder. saved is the last durable position, nil for none.
func (s *Source) view(saved json.RawMessage) (*view, error) {
	var last position
	if saved != nil {
		if err := json.Unmarshal(saved, &last); err != nil {
			return nil, fmt.Errorf("folder %s: the saved position %s: %w", s.name, saved, err)
		}
	}
	root, err := s.openRoot()
	if err != nil {
		return nil, err
	}
	identity, err := root.Stat(".")
	if err != nil {
		root.Close()
		return nil, s.rootError(err)
	}
	return &view{
		Source: s, root: root, identity: identity,
		lastRoot: last.Root, warned: listing.NewWarned(), mounts: mounts{rels: last.Mounts},
	}, nil
}

// looker looks through the view.
func (v *view) looker() listing.Looker {
	return listing.Looker{
		Source: kind + ":" + v.name, Name: v.rel, Look: v.look,
		Gone: func(context.Context) error { return v.sameRoot() },
	}
}

// sameRoot fails if the path no longer leads to the folder that is open: it
// was removed, renamed, unmounted or mounted over. Files that are then missing
// are not deleted files.
func (v *view) sameRoot() error {
	fi, err := os.Stat(v.cfg.Path)
	if err != nil {
		return v.rootError(err)
	}
	if !os.SameFile(fi, v.identity) {
		return v.rootError(errors.New("another folder took its place while it was open"))
	}
	return nil
}

// session is one Run.
type session struct {
	*view
	leat.Session
	teller *listing.Teller
	hints  listing.Hints
	scans  scans
}

// Run implements [leat.Source].
func (s *Source) Run(ctx context.Context, ls leat.Session) error {
	v, err := s.view(ls.Position)
	if err != nil {
		return err
	}
	defer v.root.Close()
	run := &session{view: v, Session: ls, hints: listing.Hints{Quiet: quiet, Longest: longest}}
	looker := v.looker()
	looker.Look = run.look
	run.teller = listing.NewTeller(looker, ls)
	run.teller.Failed, run.teller.Position = run.failed, run.position
	if ls.Once {
		return run.scan(ctx, "")
	}
	run.scans = newScans()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return run.watch(ctx) })
	g.Go(func() error { return run.rescan(ctx) })
	g.Go(func() error { return run.rescanFolders(ctx) })
	return g.Wait()
}
