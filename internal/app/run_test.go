package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAtBroker: what Kafka's absence makes fail is done again, but with Once;
// all else is told at once.
func TestAtBroker(t *testing.T) {
	refusal := errors.New("the topic has other settings")
	for _, test := range []struct {
		once     bool
		fails    []error
		want     error
		attempts int
	}{
		{false, nil, nil, 1},
		{false, []error{fmt.Errorf("creating topics: %w", io.ErrUnexpectedEOF), fmt.Errorf("dial: %w", unix.ECONNREFUSED)}, nil, 3},
		{false, []error{io.EOF, refusal}, refusal, 2},
		{true, []error{io.ErrUnexpectedEOF}, io.ErrUnexpectedEOF, 1},
	} {
		p := process{App: &App{log: slog.New(slog.DiscardHandler)}, options: RunOptions{Once: test.once}}
		attempts := 0
		err := p.atBroker(context.Background(), func() error {
			attempts++
			if attempts > len(test.fails) {
				return nil
			}
			return test.fails[attempts-1]
		})
		if !errors.Is(err, test.want) || attempts != test.attempts {
			t.Errorf("%v, once %v: %v after %d attempts, want %v after %d", test.fails, test.once, err, attempts, test.want, test.attempts)
		}
	}
}
