package mysql

import (
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseOwned(t *testing.T) {
	const a, b = "11111111-1111-1111-1111-111111111111", "21111111-1111-1111-1111-11111111111f"
	for text, want := range map[string][]string{
		"":                             nil,
		a + ":5#8":                     {a + ":5"},
		a + ":6#9:5#812":               {a + ":5", a + ":6"},
		a + ":6#9," + b + ":5#812":     {a + ":6", b + ":5"},
		a + ":6#9,\n" + b + ":tag:7#8": {a + ":6", b + ":tag:7"},
		// MySQL 9.7 writes no comma.
		a + ":6#9:5#8" + a + ":tag:9#11:7#10" + b + ":5#12": {a + ":5", a + ":6", a + ":tag:7", a + ":tag:9", b + ":5"},
	} {
		if diff := cmp.Diff(want, slices.Sorted(maps.Keys(parseOwned(text)))); diff != "" {
			t.Errorf("%q (-want +got):\n%s", strings.ReplaceAll(text, "1111", "…"), diff)
		}
	}
}

// TestDialerEnds: where the end of its context has closed a connection, reading
// fails, and setting how long it may take does not.
func TestDialerEnds(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	ctx, cancel := context.WithCancel(t.Context())
	c, err := (&dialer{ctx: ctx}).dial(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("reading: %v", err)
	}
	if err := c.SetReadDeadline(time.Now()); err != nil {
		t.Error(err)
	}
}

func TestLookVersion(t *testing.T) {
	saved := &state{Epoch: 3}
	at := places{low: position{7, 4}, end: position{7, 1000}}
	low, end := version(3, at.low), version(3, at.end)
	for name, test := range map[string]struct {
		saved       *state
		above, want uint64
	}{
		"unknown":                  {saved, 0, low},
		"older":                    {saved, version(3, position{6, 9999}), low},
		"of an older epoch":        {saved, version(2, position{99, 9999}), low},
		"there":                    {saved, low, low + 1},
		"looked at":                {saved, low + 5, low + 6},
		"looked at too often":      {saved, low + spare - 1, end},
		"at the end":               {saved, end, end + 1},
		"past the end":             {saved, end + spare - 1, 0},
		"far past the end":         {saved, version(3, position{8, 4}), 0},
		"of a newer epoch":         {saved, version(4, position{2, 9999}), version(4, at.low)},
		"past, of a newer epoch":   {saved, version(4, position{9, 9999}), 0},
		"unknown, no position":     {nil, 0, 1},
		"of any time, no position": {nil, 12345, 12346},
	} {
		if got, ok := lookVersion(test.saved, at, test.above); got != test.want || ok != (test.want > 0) {
			t.Errorf("%s: %d above %d, not %d", name, got, test.above, test.want)
		}
	}
}
