package leat

import (
	"errors"
	"fmt"
)

// Sentinels. Wrap them with %w and say what, where; add what to do with [Hint].
var (
	// ErrNotFound: the document's object no longer exists at its source. An
	// event that finds this is superseded: the delete follows.
	ErrNotFound = errors.New("not found at its source")
	// ErrChanged: the object is no longer the one the event speaks of. An event
	// that finds this is superseded: the newer one follows.
	ErrChanged = errors.New("changed at its source")
	// ErrPositionLost: the source no longer holds the changes after the saved
	// position (purged binlogs, a reset history).
	ErrPositionLost = errors.New("the source no longer holds the changes after the saved position")
	// ErrUnsupported: no extractor reads this media type.
	ErrUnsupported = errors.New("unsupported media type")
	// ErrMalformed: the bytes are not what their media type or encoding says.
	ErrMalformed = errors.New("malformed content")
	// ErrTooLarge: a document is past a configured limit.
	ErrTooLarge = errors.New("past a configured limit")
	// ErrInUse: another process holds this data directory.
	ErrInUse = errors.New("in use by another process")
	// ErrMismatch: what is configured does not fit what a store already holds,
	// such as a vector dimension.
	ErrMismatch = errors.New("does not fit what the store holds")
)

// Permanent marks err as one that no retry heals: the document goes to
// deadletters (I5). Every other error of a stage is retried until it heals.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

// IsPermanent reports whether err was marked by [Permanent] or is one of the
// sentinels that no retry heals: those that speak of a document's own content,
// and a lost position.
func IsPermanent(err error) bool {
	var p *permanentError
	return errors.As(err, &p) || errors.Is(err, ErrUnsupported) ||
		errors.Is(err, ErrMalformed) || errors.Is(err, ErrTooLarge) || errors.Is(err, ErrPositionLost)
}

type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }

// Hint adds to err what its operator can do about it.
func Hint(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &hintError{err, fmt.Sprintf(format, args...)}
}

// HintOf returns the outermost hint of err, or "".
func HintOf(err error) string {
	var h *hintError
	if errors.As(err, &h) {
		return h.hint
	}
	return ""
}

type hintError struct {
	err  error
	hint string
}

func (e *hintError) Error() string { return e.err.Error() }
func (e *hintError) Unwrap() error { return e.err }

// FieldError is one mistake in a component's Config. Field is the key's path
// below that component as written in pipeline.yaml, such as "tables[0].body".
// Several are joined with [errors.Join].
type FieldError struct {
	Field string
	Msg   string // what is wrong, such as `"utf9" is not a known charset`
	Hint  string // what to do, or ""
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Msg }
