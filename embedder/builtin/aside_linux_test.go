package builtin

import (
	"errors"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"leat"
)

// What gives way runs at a low priority, and nothing else does after it.
func TestAside(t *testing.T) {
	current := func() int {
		n, err := unix.Getpriority(unix.PRIO_PROCESS, unix.Gettid())
		if err != nil {
			t.Error(err)
		}
		return 20 - n // the system call's answers are not negative
	}
	before, failure, within := current(), errors.New("failed"), 0
	err := aside(func() error {
		within = current()
		return failure
	})
	if !errors.Is(err, failure) || within != niceness {
		t.Errorf("nice %d, %v", within, err)
	}
	for range 20 {
		done := make(chan int)
		go func() { done <- current() }()
		if n := <-done; n != before {
			t.Fatalf("nice %d of another goroutine, was %d", n, before)
		}
	}

	e := model(t)
	want, err := e.Embed(t.Context(), leat.Passage, []string{"the kettle whistles"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := e.Embed(Aside(t.Context()), leat.Passage, []string{"the kettle whistles"})
	if err != nil || !slices.Equal(got[0], want[0]) {
		t.Errorf("another vector, %v", err)
	}
}
