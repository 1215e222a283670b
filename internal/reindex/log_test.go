package reindex

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"leat"
	"leat/internal/bus"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open returns a log on a broker of the test's own, and what writes to it.
func open(t *testing.T) (*Log, *bus.Producer) {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	broker, err := bus.StartEmbedded(t.Context(), t.TempDir(), quiet)
	if err != nil {
		t.Fatal(err)
	}
	client, err := bus.New(bus.Config{Brokers: []string{broker.Addr()}}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	producer := client.NewProducer(bus.ProducerConfig{})
	t.Cleanup(func() {
		if err := errors.Join(producer.Close(), client.Close(), broker.Close()); err != nil {
			t.Error(err)
		}
	})
	topics := bus.Topics("test", 0)
	if err := client.EnsureTopics(t.Context(), topics.Specs(bus.TopicSettings{Partitions: 1})...); err != nil {
		t.Fatal(err)
	}
	return &Log{Topic: topics.Generations, In: client}, producer
}

// TestNoChangeIsLost: of two changes of one state the second is made again on
// top of the first.
func TestNoChangeIsLost(t *testing.T) {
	log, out := open(t)
	const writers, changes = 4, 10
	watched := make(chan []int64)
	wctx, stop := context.WithCancel(t.Context())
	go func() {
		var seen []int64
		if err := log.Watch(wctx, 3, func(s State) error {
			if seen = append(seen, s.Revision); s.Revision == writers*changes {
				stop()
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		watched <- seen
	}()
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range changes {
				if _, err := log.Change(t.Context(), out, func(s *State) error {
					s.Reread["x"]++
					return nil
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	s, err := log.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s.Revision != writers*changes || s.Reread["x"] != writers*changes {
		t.Errorf("revision %d, count %d: want %d of both", s.Revision, s.Reread["x"], writers*changes)
	}
	select {
	case seen := <-watched:
		for i, r := range seen {
			if r != int64(i)+4 {
				t.Fatalf("revisions %v: want each after 3, in order", seen)
			}
		}
		if len(seen) != writers*changes-3 {
			t.Errorf("revisions %v: some are missing", seen)
		}
	case <-time.After(time.Minute):
		stop()
		t.Fatal("the watch has not seen the last state")
	}

	refused := errors.New("refused")
	if _, err := log.Change(t.Context(), out, func(*State) error { return refused }); !errors.Is(err, refused) {
		t.Errorf("got %v, want the error of the change", err)
	}
	if s, err := log.Change(t.Context(), out, func(*State) error { return ErrUnchanged }); err != nil || s.Revision != writers*changes {
		t.Errorf("revision %d, %v: want nothing changed", s.Revision, err)
	}
}

// TestStateOutlivesTheTopic: what is read back is what was written.
func TestStateOutlivesTheTopic(t *testing.T) {
	log, out := open(t)
	settings := Settings{TargetTokens: 100, MaxTokens: 200, Rules: 1, Model: leat.Model{Name: "m", Dimension: 3}}
	want, err := log.Change(t.Context(), out, func(s *State) error {
		*s = First(3, settings, json.RawMessage(`{"a":1}`))
		n := s.Begin(settings, json.RawMessage(`{}`))
		s.Find(n).Phase = Dropping
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := log.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("state (-written +read):\n%s", d)
	}
	if g := got.Find(3); g == nil || g.Settings != settings || got.Live != 3 || got.Last != 4 || len(got.Fed()) != 1 {
		t.Errorf("state %+v", got)
	}
}

// TestNumbers: none is used twice, and the former generation is the one that was
// live last.
func TestNumbers(t *testing.T) {
	at := func(n int) time.Time { return time.Unix(int64(n), 0) }
	s := First(1, Settings{Rules: 1}, nil)
	if n := s.Begin(Settings{Rules: 2}, nil); n != 2 || s.Building() == nil || s.Building().Number != 2 {
		t.Fatalf("generation %d is built: %+v", n, s)
	}
	s.Generations = s.Generations[:1]
	if n := s.Begin(Settings{Rules: 3}, nil); n != 3 {
		t.Errorf("generation %d after 2 was dropped", n)
	}
	s.Begin(Settings{Rules: 4}, nil)
	for i := range s.Generations {
		s.Generations[i].Phase, s.Generations[i].Live = Ready, at(10-i)
	}
	s.Live = 1
	if f := s.Former(); f == nil || f.Number != 3 {
		t.Errorf("the former generation is %+v, not 3", f)
	}
	for rules, want := range map[int]int{1: 1, 3: 3, 4: 4} {
		if g := s.Fitting(Settings{Rules: rules}); g == nil || g.Number != want {
			t.Errorf("rules %d: %+v, not generation %d", rules, g, want)
		}
	}
	if g := s.Fitting(Settings{Rules: 9}); g != nil {
		t.Errorf("generation %d fits what it is not made with", g.Number)
	}
}

func TestDifferenceTellsIndexesApart(t *testing.T) {
	base := Settings{TargetTokens: 225, MaxTokens: 350, Rules: 1, Model: leat.Model{Name: "m", Dimension: 3, MaxTokens: 500}}
	if d := base.Difference(base); d != "" {
		t.Errorf("differs from itself: %s", d)
	}
	for want, change := range map[string]func(*Settings){
		"chunks of 100 to 350":  func(s *Settings) { s.TargetTokens = 100 },
		"chunks of 225 to 400":  func(s *Settings) { s.MaxTokens = 400 },
		"rules 2":               func(s *Settings) { s.Rules = 2 },
		"model n":               func(s *Settings) { s.Model.Name = "n" },
		"(4 dimensions), not m": func(s *Settings) { s.Model.Dimension = 4 },
		"passage_prefix \"p\"":  func(s *Settings) { s.PassagePrefix = "p" },
		"reads 100 tokens":      func(s *Settings) { s.Model.MaxTokens = 100 },
	} {
		other := base
		change(&other)
		if d := other.Difference(base); !strings.Contains(d, want) {
			t.Errorf("%q does not tell of %q", d, want)
		}
	}
}
