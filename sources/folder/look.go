package folder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"leat"
)

// position is everywhere a place to resume at: the next session's merge starts
// from what the index holds.
func (s *session) position() (json.RawMessage, error) {
	return json.Marshal(position{Root: rootID(s.identity), Mounts: s.mounts.all(), Epoch: s.Epoch, Time: time.Now().UTC()})
}

// look is [view.look] and has a file that may still change looked at again.
func (s *session) look(ctx context.Context, rel string) (*leat.Document, time.Time, error) {
	doc, modified, err := s.view.look(ctx, rel)
	if doc != nil && strings.HasSuffix(doc.Ref.Tag, young) {
		s.hints.Add(rel, time.Now())
	}
	return doc, modified, err
}

// look is what a file is now and when it was modified; nil if it is no
// document, an error if that cannot be told.
func (v *view) look(ctx context.Context, rel string) (*leat.Document, time.Time, error) {
	doc, modified, err := v.document(ctx, rel)
	if doc == nil && err == nil {
		if at := v.unmounted(rel); at != "" {
			v.warn(at, errUnmounted)
			err = fmt.Errorf("%s: %w", at, errUnmounted)
		}
	}
	return doc, modified, err
}

func (v *view) document(ctx context.Context, rel string) (*leat.Document, time.Time, error) {
	if rel == "" || !v.cfg.selection().Selects(rel) {
		return nil, time.Time{}, nil
	}
	fi, err := locate(v.root, rel)
	if err == nil && isYoung(fi) {
		select {
		case <-time.After(settle):
		case <-ctx.Done():
			return nil, time.Time{}, ctx.Err()
		}
		fi, err = locate(v.root, rel)
	}
	mark := ""
	if err == nil {
		// The file is opened to learn whether it may be: where not, the event
		// goes on to Open's permanent error and so to deadletters (I5).
		file, opened, oerr := openFile(v.root, rel)
		switch {
		case oerr == nil:
			fi = opened
			file.Close()
		case errors.Is(oerr, fs.ErrPermission):
			mark = denied
			v.warn(rel, oerr)
		default:
			err = oerr
		}
	}
	if errors.Is(err, errNotDocument) {
		v.log.Debug("not a document", "path", rel, "err", err)
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
func (v *view) warn(rel string, err error) {
	if v.warned.Say(rel, err.Error()) {
		v.log.Warn("cannot look at a file or folder", "path", rel, "err", err, "hint", v.hint(rel, err))
	}
}

// hint says what can be done where a file or folder could not be looked at.
func (v *view) hint(rel string, err error) string {
	switch {
	case errors.Is(err, errUnmounted):
		return "mount it; if it is meant to be empty, make any file in it, such as .keep, and its documents will be deleted"
	case errors.Is(err, fs.ErrPermission):
		return "let the user that runs leat read " + path.Join(v.cfg.Path, rel) + ", or exclude it"
	}
	return "see whether it can be read; what the index holds of it is left alone"
}

var errUnmounted = errors.New("the file system that was here is not mounted: its documents stay in the index")
