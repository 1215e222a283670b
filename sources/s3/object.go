package s3

import (
	"context"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"leat"
	"leat/sources/listing"
)

// denied begins the tag of an object that may not be read. No ETag is like it:
// where the object may be read again, it counts as changed.
const denied = "denied:"

// id of the document of a key.
func (s *Source) id(key string) string {
	return leat.DocumentID(kind, s.name, strings.Split(key, "/")...)
}

// prefix of the ids of all documents of the source.
func (s *Source) prefix() string { return leat.DocumentID(kind, s.name) + "/" }

// key of the object that an id speaks of, and whether there can be one.
func (s *Source) key(id string) (string, bool) {
	escaped, ok := strings.CutPrefix(id, s.prefix())
	if !ok {
		return "", false
	}
	key, err := url.PathUnescape(escaped)
	return key, err == nil && key != "" && s.id(key) == id
}

// looker looks at objects, some at a time.
func (s *Source) looker() listing.Looker {
	warned := listing.NewWarned()
	return listing.Looker{
		Source: kind + ":" + s.name, Name: s.key, Gone: s.exists, Parallel: parallel,
		Look: func(ctx context.Context, key string) (*leat.Document, time.Time, error) {
			return s.look(ctx, key, warned)
		},
	}
}

// look is what an object is now and when it was modified; nil if it is no
// document.
func (s *Source) look(ctx context.Context, key string, warned *listing.Warned) (*leat.Document, time.Time, error) {
	if !s.cfg.selects(key) {
		return nil, time.Time{}, nil
	}
	info, err := s.client.StatObject(ctx, s.cfg.Bucket, key, minio.StatObjectOptions{})
	switch {
	case absent(err):
		return nil, time.Time{}, nil
	case err != nil && ofObject(err):
		// It is this object that is refused, unless all are. Its event goes on
		// to Open's permanent error and so to deadletters (I5).
		if err := s.probe(ctx); err != nil {
			return nil, time.Time{}, err
		}
		if warned.Say(key, err.Error()) {
			s.log.Warn("cannot look at an object", "key", key, "err", err, "hint", s.refusedHint(key))
		}
		return s.document(key, denied+minio.ToErrorResponse(err).Code, minio.ObjectInfo{}), time.Time{}, nil
	case err != nil:
		return nil, time.Time{}, s.explain("look at an object", err)
	}
	return s.document(key, info.ETag, info), info.LastModified, nil
}

func (s *Source) document(key, tag string, info minio.ObjectInfo) *leat.Document {
	d := &leat.Document{
		MediaType: mediaType(info.ContentType),
		Ref:       &leat.Ref{Name: key, Tag: tag, Size: info.Size},
		Metadata:  map[string]any{"bucket": s.cfg.Bucket, "key": key},
	}
	if !info.LastModified.IsZero() {
		d.Metadata["modified"] = info.LastModified.UTC().Format(time.RFC3339Nano)
	}
	return d
}

// mediaType is an object's Content-Type where it tells something: clients that
// do not know write one of these, and "text/plain" for any text.
func mediaType(contentType string) string {
	kind, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return ""
	}
	switch kind {
	case "application/octet-stream", "binary/octet-stream", "application/x-www-form-urlencoded",
		"application/download", "application/x-download", "application/force-download", "multipart/form-data":
		return ""
	case "text/plain":
		if params["charset"] == "" {
			return ""
		}
	}
	return contentType
}

// segment is how many bytes of an object one request gets. A server may keep an
// object from being overwritten while someone reads it, and a reader may have to
// wait long for those after it: so no request outlasts the reading of a segment
// into memory.
const segment = 4 << 20

// Open implements [leat.Opener]. An object that may not be read is a permanent
// error (I5); that the bucket cannot be is a passing one.
func (s *Source) Open(ctx context.Context, ref leat.Ref) (io.ReadCloser, error) {
	r := &reader{source: s, ctx: ctx, ref: ref, size: ref.Size}
	if err := r.fetch(); err != nil {
		return nil, err
	}
	return r, nil
}

// reader reads an object as long as it is the one of the reference, or fails.
type reader struct {
	source *Source
	ctx    context.Context
	ref    leat.Ref
	size   int64
	at     int64  // bytes that were fetched
	block  []byte // memory of a segment
	unread []byte // of block
}

func (r *reader) Close() error { return nil }

func (r *reader) Read(p []byte) (int, error) {
	if len(r.unread) == 0 {
		if r.at == r.size {
			return 0, io.EOF
		}
		if err := r.fetch(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.unread)
	r.unread = r.unread[n:]
	return n, nil
}

// fetch gets the next segment, or what of it came before the connection broke.
func (r *reader) fetch() error {
	var opts minio.GetObjectOptions
	if err := opts.SetMatchETag(r.ref.Tag); err != nil {
		return r.fail(leat.ErrChanged) // no object is without a tag
	}
	if r.at > 0 || r.size > segment {
		if err := opts.SetRange(r.at, min(r.at+segment, r.size)-1); err != nil {
			return r.fail(err)
		}
	}
	core := minio.Core{Client: r.source.client}
	body, info, header, err := core.GetObject(r.ctx, r.source.cfg.Bucket, r.ref.Name, opts)
	if err != nil {
		return r.refused(err)
	}
	defer body.Close()
	if info.ETag != r.ref.Tag {
		return r.fail(leat.ErrChanged)
	}
	if r.at == 0 {
		r.size = info.Size // of the answer
		if _, total, ok := strings.Cut(header.Get("Content-Range"), "/"); ok {
			if r.size, err = strconv.ParseInt(total, 10, 64); err != nil {
				return r.fail(err)
			}
		}
	}
	if r.block == nil {
		r.block = make([]byte, min(r.size, segment))
	}
	n, err := io.ReadFull(body, r.block[:min(r.size-r.at, segment)])
	r.unread, r.at = r.block[:n], r.at+int64(n)
	if err != nil && n == 0 {
		return r.source.explain("read an object", err)
	}
	return nil
}

func (r *reader) fail(err error) error {
	return fmt.Errorf("s3 %s: open %q: %w", r.source.name, r.ref.Name, err)
}

// refused says what an error of a GET means.
func (r *reader) refused(err error) error {
	switch {
	case status(err) == http.StatusPreconditionFailed:
		return r.fail(leat.ErrChanged)
	case absent(err):
		return r.fail(leat.ErrNotFound)
	case ofObject(err):
		if err := r.source.probe(r.ctx); err != nil {
			return err
		}
		return leat.Hint(leat.Permanent(r.fail(err)), "%s", r.source.refusedHint(r.ref.Name))
	}
	return r.source.explain("open an object", err)
}

func (s *Source) refusedHint(key string) string {
	return fmt.Sprintf("let the access key %s read the object %s, restore it if it is archived, or exclude it, then `leat dlq retry`", s.cfg.AccessKey, key)
}
