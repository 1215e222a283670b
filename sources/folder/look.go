package folder

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"path"
	"strings"
	"time"

	"leat"
	"leat/sources/listing"
)

// position is everywhere a place to resume at: the next session's merge starts
// from what the index holds.
func (s *session) position() (json.RawMessage, error) {
	return json.Marshal(position{Root: rootID(s.identity), Mounts: s.mounts.all(), Epoch: s.Epoch, Time: time.Now().UTC()})
}

// look is what a file is now and when it was modified; nil if it is no
// document, an error if that cannot be told.
func (s *session) look(ctx context.Context, h listing.Hint) (*leat.Document, time.Time, error) {
	doc, modified, err := s.document(ctx, h.Name)
	if doc == nil && err == nil {
		if at := s.unmounted(h.Name); at != "" {
			s.warn(at, errUnmounted)
			return nil, time.Time{}, errUnmounted
		}
	}
	return doc, modified, err
}

func (s *session) document(ctx context.Context, rel string) (*leat.Document, time.Time, error) {
	if rel == "" || !s.cfg.selection().Selects(rel) {
		return nil, time.Time{}, nil
	}
	fi, err := locate(s.root, rel)
	if err == nil && isYoung(fi) {
		select {
		case <-time.After(settle):
		case <-ctx.Done():
			return nil, time.Time{}, ctx.Err()
		}
		fi, err = locate(s.root, rel)
	}
	mark := ""
	if err == nil {
		// The file is opened to learn whether it may be: where not, the event
		// goes on to Open's permanent error and so to deadletters (I5).
		file, opened, oerr := openFile(s.root, rel)
		switch {
		case oerr == nil:
			fi = opened
			file.Close()
		case errors.Is(oerr, fs.ErrPermission):
			mark = denied
			s.warn(rel, oerr)
		default:
			err = oerr
		}
	}
	if errors.Is(err, errNotDocument) {
		s.log.Debug("not a document", "path", rel, "err", err)
		return nil, time.Time{}, nil
	}
	if gone(err) {
		return nil, time.Time{}, nil
	}
	if err != nil {
		return nil, time.Time{}, err
	}
	t := mark + tag(fi)
	if isYoung(fi) {
		t += young
		s.hints.Add(rel, time.Now())
	}
	return &leat.Document{
		Ref: &leat.Ref{Name: refName(rel), Tag: t, Size: fi.Size()},
		Metadata: map[string]any{
			"path":     strings.TrimPrefix(refName(rel), "/"),
			"modified": fi.ModTime().UTC().Format(time.RFC3339Nano),
		},
	}, fi.ModTime(), nil
}

// failed keeps what the index holds of a file that could not be looked at.
func (s *session) failed(rel string, err error) error {
	if !errors.Is(err, errUnmounted) {
		s.warn(rel, err)
	}
	return nil
}

// warn tells once of a file or folder that could not be looked at.
func (s *session) warn(rel string, err error) {
	if !s.warned.Say(rel, err.Error()) {
		return
	}
	hint := "see whether it can be read; what the index holds of it is left alone"
	switch {
	case errors.Is(err, errUnmounted):
		hint = "mount it; if it is meant to be empty, make any file in " + path.Join(s.cfg.Path, rel) + ", such as .keep, and its documents will be deleted"
	case errors.Is(err, fs.ErrPermission):
		hint = "let the user that runs leat read " + path.Join(s.cfg.Path, rel) + ", or exclude it"
	}
	s.log.Warn("cannot look at a file or folder", "path", rel, "err", err, "hint", hint)
}

var errUnmounted = errors.New("the file system that was here is not mounted: its documents stay in the index")
