package s3

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/notification"
)

// errNoNotifications: the server has S3 alone, without MinIO's listening.
var errNoNotifications = errors.New("the server does not tell of changes")

var errSilent = errors.New("the server has fallen silent")

// listen hears of changes (MinIO's ListenBucketNotification) until ctx ends or
// the connection breaks. connected is called once no change can be missed any
// more, hint with the key of every object that may have changed.
//
// minio-go's own method connects again without a word, and what happened
// meanwhile would be missed; it also has the server answer only after 10 s where
// nothing changes.
func (s *Source) listen(ctx context.Context, connected func(), hint func(key string, at time.Time)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(s.silence, func() { cancel(errSilent) })
	defer timer.Stop()

	err := s.stream(ctx, connected, hint, func() { timer.Reset(s.silence) })
	if cause := context.Cause(ctx); errors.Is(cause, errSilent) {
		err = fmt.Errorf("%w: nothing came in %s", errSilent, s.silence)
	}
	if ctx.Err() != nil && !errors.Is(err, errSilent) || errors.Is(err, errNoNotifications) {
		return err
	}
	return s.explain("listen to notifications", err)
}

func (s *Source) stream(ctx context.Context, connected func(), hint func(key string, at time.Time), alive func()) error {
	u, err := s.client.Presign(ctx, http.MethodGet, s.cfg.Bucket, "", time.Hour, url.Values{
		"events": {"s3:ObjectCreated:*", "s3:ObjectRemoved:*", "s3:LifecycleDelMarkerExpiration:Delete"},
		"prefix": {s.cfg.Prefix},
		"suffix": {""},
		"ping":   {"1"}, // seconds: the answer begins with the first ping or change
	})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	resp, err := s.transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return refusal(resp)
	}
	if t, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); t != "text/event-stream" {
		return errNoNotifications
	}
	// MinIO escapes keys for webhooks and queues, but not here.
	exact := resp.Header.Get("Server") == "MinIO"
	alive()
	connected()
	for d := json.NewDecoder(&watched{resp.Body, alive}); ; {
		var info notification.Info
		if err := d.Decode(&info); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		for _, r := range info.Records {
			at, err := time.Parse(time.RFC3339, r.EventTime)
			if err != nil {
				at = time.Now()
			}
			hint(r.S3.Object.Key, at)
			if plain, ok := unescape(r.S3.Object.Key); ok && !exact {
				hint(plain, at)
			}
		}
	}
}

// refusal is the error in an answer.
func refusal(resp *http.Response) error {
	e := minio.ErrorResponse{StatusCode: resp.StatusCode}
	if err := xml.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&e); err != nil {
		e.Message = resp.Status
	}
	if e.Code == "NotImplemented" || resp.StatusCode == http.StatusNotImplemented {
		return errNoNotifications
	}
	return e
}

// watched calls alive whenever something was read.
type watched struct {
	io.Reader
	alive func()
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	w.alive()
	return n, err
}

// unescape is the key that a record speaks of if its key was escaped as in a
// query, and whether it may have been: the record does not tell, so both are
// looked at.
func unescape(key string) (string, bool) {
	if !strings.ContainsAny(key, "%+") || strings.ContainsFunc(key, neverEscaped) {
		return "", false
	}
	plain, err := url.QueryUnescape(key)
	return plain, err == nil && plain != key && utf8.ValidString(plain) && strings.TrimSpace(plain) != "" && path.Clean("/"+plain) == "/"+plain
}

// neverEscaped reports whether a character never stands in an escaped key.
func neverEscaped(r rune) bool {
	switch {
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
		return false
	}
	return !strings.ContainsRune("%+-_.~*/", r)
}
