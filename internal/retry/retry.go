// Package retry repeats what a broken network, a restarting server or a full
// disk made fail, until it heals.
package retry

import (
	"context"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"

	"leat"
)

const (
	initialInterval = 100 * time.Millisecond
	maxInterval     = 5 * time.Second
)

// Do calls f until it succeeds, with growing, jittered pauses of at most five
// seconds. It returns nil, the first error that no retry heals
// (leat.IsPermanent), or f's last error when ctx ends. notify is told every
// error after which f is tried again.
func Do(ctx context.Context, f func() error, notify func(error)) error {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = initialInterval, maxInterval
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := f()
		if err != nil && (leat.IsPermanent(err) || ctx.Err() != nil) {
			return struct{}{}, backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(b), backoff.WithMaxElapsedTime(0), backoff.WithNotify(func(err error, _ time.Duration) { notify(err) }))
	var p *backoff.PermanentError
	if errors.As(err, &p) {
		err = p.Unwrap()
	}
	return err
}
