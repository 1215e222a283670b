package retry

import (
	"context"
	"errors"
	"testing"

	"go.uber.org/goleak"

	"leat"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestDo(t *testing.T) {
	heals := errors.New("heals")
	for _, tt := range []struct {
		name    string
		results []error
		want    error
		calls   int
	}{
		{"at once", []error{nil}, nil, 1},
		{"heals", []error{heals, heals, nil}, nil, 3},
		{"permanent", []error{heals, leat.Permanent(leat.ErrMismatch)}, leat.ErrMismatch, 2},
		{"about the document", []error{leat.ErrMalformed}, leat.ErrMalformed, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			calls, told := 0, 0
			err := Do(t.Context(), func() error { calls++; return tt.results[calls-1] }, func(error) { told++ })
			if !errors.Is(err, tt.want) {
				t.Errorf("got error %v, want %v", err, tt.want)
			}
			if calls != tt.calls || told != tt.calls-1 {
				t.Errorf("%d calls, told of %d failures, want %d and %d", calls, told, tt.calls, tt.calls-1)
			}
		})
	}
}

func TestDoEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	calls := 0
	err := Do(ctx, func() error {
		if calls++; calls == 2 {
			cancel()
		}
		return errors.New("never heals")
	}, func(error) {})
	if err == nil || calls != 2 {
		t.Errorf("got error %v after %d calls, want an error after 2", err, calls)
	}
}
