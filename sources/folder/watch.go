package folder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"

	"leat"
	"leat/sources/listing"
)

const (
	// quiet is how long a file must rest before it is looked at, so that one
	// that is being written is read once; longest is after how long a file that
	// never rests is looked at all the same.
	quiet   = 75 * time.Millisecond
	longest = 3 * time.Second
	tick    = 25 * time.Millisecond
)

// watch looks at files that the file system tells of. Where it tells only that
// it could not tell, everything is scanned.
func (s *session) watch(ctx context.Context) error {
	for {
		again, err := s.watchOnce(ctx)
		if err != nil || !again {
			return err
		}
	}
}

// watchOnce watches until the file system drops hints; true asks to begin anew.
func (s *session) watchOnce(ctx context.Context) (again bool, err error) {
	t := &tree{session: s, sel: s.cfg.selection(), dirs: map[string]struct{}{}}
	t.watcher, err = s.newWatcher()
	if err != nil {
		t.limited(err)
		s.scans.everything()
		return false, nil
	}
	defer t.watcher.Close()
	s.scans.poll(false)
	t.add(ctx, "")
	s.scans.everything()

	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case event := <-t.watcher.Events:
			t.event(ctx, event)
		case err := <-t.watcher.Errors:
			if errors.Is(err, fsnotify.ErrEventOverflow) {
				s.log.Warn("more changes than the watch could tell of: everything is scanned",
					"hint", "raise fs.inotify.max_queued_events if this comes often")
				return true, nil
			}
			s.log.Warn("the watch failed: everything is scanned", "err", err)
			s.scans.everything()
		case <-ticker.C:
			var hints []listing.Hint
			for rel, first := range s.hints.Rested() {
				hints = append(hints, listing.Hint{ID: s.id(rel), Name: rel, Time: first})
			}
			for some := range slices.Chunk(hints, listing.Batch) {
				if err := s.teller.Tell(ctx, some); err != nil {
					return false, err
				}
			}
		}
	}
}

// tree is the watched folders: the file system watches each by itself.
type tree struct {
	*session
	sel     listing.Selection
	watcher *fsnotify.Watcher
	dirs    map[string]struct{} // rel
	polling bool
}

func (t *tree) path(rel string) string { return filepath.Join(t.cfg.Path, filepath.FromSlash(rel)) }

// event takes one from the file system.
func (t *tree) event(ctx context.Context, e fsnotify.Event) {
	rel, err := filepath.Rel(t.cfg.Path, e.Name)
	if e.Name == "" || err != nil {
		return
	}
	rel = filepath.ToSlash(rel)
	if rel == "." {
		if e.Has(fsnotify.Remove) || e.Has(fsnotify.Rename) {
			t.scans.everything() // which finds that the root is gone
		}
		return
	}
	if !t.sel.Enters(rel) {
		return
	}
	if _, watched := t.dirs[rel]; watched && (e.Has(fsnotify.Remove) || e.Has(fsnotify.Rename)) {
		t.remove(rel)
		t.scans.folder(rel)
		return
	}
	if e.Has(fsnotify.Create) {
		if fi, err := t.root.Lstat(rel); err == nil && fi.IsDir() {
			t.add(ctx, rel)
			t.scans.folder(rel)
			return
		}
	}
	if t.sel.Includes(rel) && !t.hints.Add(rel, time.Now()) {
		t.scans.everything()
	}
}

// add watches the folder at rel and those below it. A folder is watched before
// it is listed: what comes after the list is told of.
func (t *tree) add(ctx context.Context, rel string) {
	if rel != "" && (!t.sel.Enters(rel) || ctx.Err() != nil) {
		return
	}
	if err := t.watcher.Add(t.path(rel)); err != nil {
		if !gone(err) {
			t.limited(err)
		}
		return
	}
	t.dirs[rel] = struct{}{}
	name := rel
	if rel == "" {
		name = "."
	}
	dir, err := t.root.Open(name)
	if err != nil {
		return // the scan tells
	}
	defer dir.Close()
	for {
		entries, err := dir.ReadDir(256)
		for _, e := range entries {
			if e.IsDir() {
				t.add(ctx, join(rel, e.Name()))
			}
		}
		if err != nil {
			return
		}
	}
}

// remove ends the watch of a folder that is gone from rel and of those below.
// Renamed ones would go on to tell of files by their old paths.
func (t *tree) remove(rel string) {
	for dir := range t.dirs {
		if dir == rel || strings.HasPrefix(dir, rel+"/") {
			delete(t.dirs, dir)
			// An error says that the system has ended it already.
			_ = t.watcher.Remove(t.path(dir))
		}
	}
}

// limited tells that not everything can be watched, and polls from now on.
func (t *tree) limited(err error) {
	if t.polling {
		return
	}
	t.polling = true
	t.scans.poll(true)
	err = fmt.Errorf("folder %s: watch: %w", t.name, err)
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EMFILE):
		err = leat.Hint(err, "raise the limits: sysctl fs.inotify.max_user_watches=1048576 fs.inotify.max_user_instances=1024")
	case errors.Is(err, fs.ErrPermission):
		err = leat.Hint(err, "let the user that runs leat read the folder, or exclude it")
	}
	t.log.Warn(fmt.Sprintf("not every folder can be watched: the folder is scanned every %s instead", pollEvery),
		"err", err, "hint", leat.HintOf(err))
}
