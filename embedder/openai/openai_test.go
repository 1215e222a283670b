package openai

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"leat"
	"leat/embedder/embeddertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var _ leat.Embedder = (*Embedder)(nil)

const dimension = 32

func start(t *testing.T, change func(*Config)) (*embeddertest.Server, *Embedder) {
	t.Helper()
	s := embeddertest.Start(dimension)
	t.Cleanup(s.Close)
	cfg := Config{URL: s.BaseURL, Model: "stand-in", Dimension: dimension, Timeout: 10 * time.Second}
	if change != nil {
		change(&cfg)
	}
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return s, e
}

func texts(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("text number %d", i)
	}
	return out
}

func check(t *testing.T, in []string, got [][]float32) {
	t.Helper()
	if len(got) != len(in) {
		t.Fatalf("%d vectors for %d texts", len(got), len(in))
	}
	for i := range in {
		if diff := cmp.Diff(embeddertest.Vector(in[i], dimension), got[i], approximately); diff != "" {
			t.Fatalf("text %d: (-want +got)\n%s", i, diff)
		}
	}
}

var approximately = cmp.Comparer(func(a, b float32) bool { return math.Abs(float64(a-b)) < 1e-6 })

func TestBatches(t *testing.T) {
	s, e := start(t, func(c *Config) { c.Batch = 10; c.BatchTokens = 40; c.APIKey = "secret" })
	in := texts(57)
	in[20] = strings.Repeat("long ", 100) // more than BatchTokens: alone
	got, err := e.Embed(t.Context(), leat.Passage, in)
	if err != nil {
		t.Fatal(err)
	}
	check(t, in, got)
	n := 0
	for _, r := range s.Requests() {
		tokens := 0
		for _, text := range r.Input {
			tokens += estimate(text)
		}
		if len(r.Input) > 10 || tokens > 40 && len(r.Input) > 1 {
			t.Errorf("a request of %d texts, %d tokens", len(r.Input), tokens)
		}
		if r.Model != "stand-in" || r.Header.Get("Authorization") != "Bearer secret" {
			t.Errorf("model %q, header %v", r.Model, r.Header)
		}
		n += len(r.Input)
	}
	if n != len(in) {
		t.Errorf("%d texts asked for, want %d", n, len(in))
	}
	if got, err := e.Embed(t.Context(), leat.Passage, nil); err != nil || len(got) != 0 {
		t.Errorf("no texts: %v, %v", got, err)
	}
}

func TestPrefixes(t *testing.T) {
	s, e := start(t, func(c *Config) { c.QueryPrefix = "Q: "; c.PassagePrefix = "P: " })
	for _, kind := range []leat.Kind{leat.Query, leat.Passage} {
		if _, err := e.Embed(t.Context(), kind, []string{"x"}); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, r := range s.Requests() {
		got = append(got, r.Input...)
	}
	if diff := cmp.Diff([]string{"Q: x", "P: x"}, got); diff != "" {
		t.Error(diff)
	}
}

// Faults that pass: the vectors come, after so many requests.
func TestFaultsThatHeal(t *testing.T) {
	in := texts(3)
	for _, tc := range []struct {
		name   string
		faults []embeddertest.Fault
		least  time.Duration
	}{
		{"500", []embeddertest.Fault{embeddertest.Status(500, "")}, 0},
		{"502 and 504", []embeddertest.Fault{embeddertest.Status(502, ""), embeddertest.Status(504, "")}, 0},
		{"503", []embeddertest.Fault{embeddertest.Status(503, "")}, 0},
		{"429", []embeddertest.Fault{embeddertest.Status(429, "")}, 0},
		{"429 with seconds", []embeddertest.Fault{embeddertest.Status(429, "2")}, 1900 * time.Millisecond},
		{"503 with a date", []embeddertest.Fault{func(w http.ResponseWriter, r *http.Request, reply *embeddertest.Reply) {
			embeddertest.Status(503, time.Now().Add(3*time.Second).UTC().Format(http.TimeFormat))(w, r, reply)
		}}, 1900 * time.Millisecond},
		{"429 with nonsense", []embeddertest.Fault{embeddertest.Status(429, "soon")}, 0},
		{"connection lost", []embeddertest.Fault{embeddertest.Disconnect}, 0},
		{"timeout", []embeddertest.Fault{embeddertest.Hang}, 0},
		{"not JSON", []embeddertest.Fault{embeddertest.Raw("<html>busy</html>")}, 0},
		{"half an answer", []embeddertest.Fault{embeddertest.Raw(`{"data":[{"index":0,"emb`)}, 0},
		{"a vector too few", []embeddertest.Fault{embeddertest.Change(func(r *embeddertest.Reply) { r.Data = r.Data[1:] })}, 0},
		{"an index twice", []embeddertest.Fault{embeddertest.Change(func(r *embeddertest.Reply) { r.Data[0].Index = 1 })}, 0},
		{"an index out of range", []embeddertest.Fault{embeddertest.Change(func(r *embeddertest.Reply) { r.Data[0].Index = 7 })}, 0},
		{"a zero vector", []embeddertest.Fault{embeddertest.Change(func(r *embeddertest.Reply) { clear(r.Data[1].Embedding) })}, 0},
		{"NaN", []embeddertest.Fault{embeddertest.Raw(`{"data":[{"index":0,"embedding":[NaN,1]}]}`)}, 0},
		{"too large", []embeddertest.Fault{embeddertest.Raw(`{"data":[` + strings.Repeat(" ", 2<<20) + `]}`)}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s, e := start(t, func(c *Config) {
				if tc.name == "timeout" {
					c.Timeout = 200 * time.Millisecond
				}
			})
			s.Fail(tc.faults...)
			begin := time.Now()
			got, err := e.Embed(t.Context(), leat.Passage, in)
			if err != nil {
				t.Fatal(err)
			}
			check(t, in, got)
			if n := len(s.Requests()); n != len(tc.faults)+1 {
				t.Errorf("%d requests, want %d", n, len(tc.faults)+1)
			}
			if d := time.Since(begin); d < tc.least {
				t.Errorf("asked again after %v, the server asked for %v", d, tc.least)
			}
		})
	}
}

func TestScrambledOrderAndLength(t *testing.T) {
	s, e := start(t, nil)
	in := texts(5)
	s.Fail(embeddertest.Change(func(r *embeddertest.Reply) {
		r.Data[0], r.Data[4] = r.Data[4], r.Data[0]
		for _, d := range r.Data { // not of unit length
			for i := range d.Embedding {
				d.Embedding[i] *= 17
			}
		}
	}))
	got, err := e.Embed(t.Context(), leat.Passage, in)
	if err != nil {
		t.Fatal(err)
	}
	check(t, in, got)
}

// Faults of the configuration: said at once, with a hint, and never permanent,
// as they speak of no document.
func TestFaultsOfConfiguration(t *testing.T) {
	for _, tc := range []struct {
		name  string
		fault embeddertest.Fault
		want  string
		hint  string
	}{
		{"401", embeddertest.Status(401, ""), "fault 401", "api_key"},
		{"403", embeddertest.Status(403, ""), "fault 403", "api_key"},
		{"404", embeddertest.Status(404, ""), "fault 404", "url"},
		{"dimension", embeddertest.Change(func(r *embeddertest.Reply) {
			for i := range r.Data {
				r.Data[i].Embedding = make([]float32, 7)
			}
		}), "vectors of 7 dimensions, not 32", "dimension to 7"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, e := start(t, func(c *Config) { c.APIKey = "very-secret" })
			s.Fail(tc.fault, tc.fault)
			_, err := e.Embed(t.Context(), leat.Passage, texts(3))
			if err == nil || leat.IsPermanent(err) || !strings.Contains(err.Error(), tc.want) || !strings.Contains(leat.HintOf(err), tc.hint) {
				t.Errorf("error %v (permanent %t), hint %q", err, leat.IsPermanent(err), leat.HintOf(err))
			}
			if n := len(s.Requests()); n != 1 {
				t.Errorf("%d requests, want 1", n)
			}
			if strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, e.cfg), "very-secret") {
				t.Error("the key shows")
			}
		})
	}
	t.Run("everything refused", func(t *testing.T) {
		s, e := start(t, nil)
		s.Fail(embeddertest.Status(400, ""), embeddertest.Status(400, ""))
		_, err := e.Embed(t.Context(), leat.Passage, texts(3))
		if err == nil || leat.IsPermanent(err) || !strings.Contains(leat.HintOf(err), "every text") {
			t.Errorf("error %v (permanent %t), hint %q", err, leat.IsPermanent(err), leat.HintOf(err))
		}
	})
	t.Run("nobody listens", func(t *testing.T) {
		s, e := start(t, nil)
		s.Close()
		_, err := e.Embed(t.Context(), leat.Passage, texts(3))
		if err == nil || leat.IsPermanent(err) || !strings.Contains(leat.HintOf(err), "reachable") {
			t.Errorf("error %v (permanent %t), hint %q", err, leat.IsPermanent(err), leat.HintOf(err))
		}
	})
}

// Texts that the server refuses do not fail their neighbours.
func TestRefusedTexts(t *testing.T) {
	s, e := start(t, nil)
	s.Refuse("poison")
	in := texts(20)
	in[3], in[17] = "some poison", "poison again"
	got, err := e.Embed(t.Context(), leat.Passage, in)
	if !leat.IsPermanent(err) || !strings.Contains(err.Error(), "text 4 of 20") || !strings.Contains(err.Error(), "input is refused") || leat.HintOf(err) == "" {
		t.Fatalf("error %v, hint %q", err, leat.HintOf(err))
	}
	for i := range in {
		if (got[i] == nil) != (i == 3 || i == 17) {
			t.Errorf("text %d: vector %v", i, got[i] != nil)
		}
	}
	if n := len(s.Requests()); n > 40 {
		t.Errorf("%d requests to find 2 of 20 texts", n)
	}
	if got, err = e.Embed(t.Context(), leat.Passage, in[3:4]); !leat.IsPermanent(err) || got[0] != nil {
		t.Errorf("alone: %v, %v", got, err)
	}
}

// A server that fails at one text whenever it comes does not stop the rest.
func TestTextThatBreaksTheServer(t *testing.T) {
	s, e := start(t, nil)
	for range tries {
		s.Fail(embeddertest.Status(500, ""))
	}
	got, err := e.Embed(t.Context(), leat.Passage, []string{"it breaks"})
	if err == nil || leat.IsPermanent(err) == (got == nil) {
		t.Fatalf("%v, %v", got, err)
	}
	if !leat.IsPermanent(err) { // the probe after the fifth failure succeeds
		t.Errorf("not permanent: %v", err)
	}
}

func TestEndsWithContext(t *testing.T) {
	s, e := start(t, nil)
	s.Fail(embeddertest.Status(429, "3600"))
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := e.Embed(ctx, leat.Passage, texts(1))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// A pause that the server asks one request for holds for all.
func TestPauseIsShared(t *testing.T) {
	s, e := start(t, nil)
	s.Fail(embeddertest.Status(429, "2"))
	if err := e.request(t.Context(), texts(1), make([][]float32, 1)); err == nil {
		t.Fatal("no error")
	}
	begin := time.Now()
	var g errgroup.Group
	for range 3 {
		g.Go(func() error {
			_, err := e.Embed(t.Context(), leat.Query, texts(1))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(begin); d < 1800*time.Millisecond {
		t.Errorf("asked again after %v", d)
	}
}

func TestRequestsPerMinute(t *testing.T) {
	_, e := start(t, func(c *Config) { c.RequestsPerMinute = 300; c.Batch = 1 })
	begin := time.Now()
	if _, err := e.Embed(t.Context(), leat.Passage, texts(6)); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(begin); d < 900*time.Millisecond { // 6 requests, 200 ms apart
		t.Errorf("6 requests in %v at 300 a minute", d)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tc := range []struct {
		value string
		want  time.Duration
		ok    bool
	}{
		{"0", 0, true},
		{"7", 7 * time.Second, true},
		{"99999999999", maxRetryAfter, true},
		{"-1", 0, false},
		{"", 0, false},
		{"soon", 0, false},
		{"Fri, 02 Jan 2026 03:04:15 GMT", 10 * time.Second, true},
		{"Fri, 02 Jan 2026 03:00:00 GMT", 0, true},
	} {
		if got, ok := retryAfter(tc.value, now); got != tc.want || ok != tc.ok {
			t.Errorf("%q: %v, %t, want %v, %t", tc.value, got, ok, tc.want, tc.ok)
		}
	}
}

func TestValidate(t *testing.T) {
	good := Config{URL: "http://localhost:11434/v1", Model: "m", Dimension: 3}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for _, tc := range []struct {
		field  string
		change func(*Config)
	}{
		{"url", func(c *Config) { c.URL = "" }},
		{"url", func(c *Config) { c.URL = "localhost:11434" }},
		{"url", func(c *Config) { c.URL = "ftp://x/v1" }},
		{"url", func(c *Config) { c.URL = "http://me:secret@x/v1" }},
		{"model", func(c *Config) { c.Model = "" }},
		{"dimension", func(c *Config) { c.Dimension = 0 }},
		{"dimension", func(c *Config) { c.Dimension = -1 }},
		{"batch", func(c *Config) { c.Batch = -1 }},
		{"batch_tokens", func(c *Config) { c.BatchTokens = -1 }},
		{"max_tokens", func(c *Config) { c.MaxTokens = -1 }},
		{"concurrency", func(c *Config) { c.Concurrency = -1 }},
		{"requests_per_minute", func(c *Config) { c.RequestsPerMinute = -1 }},
		{"timeout", func(c *Config) { c.Timeout = -1 }},
	} {
		cfg := good
		tc.change(&cfg)
		var f *leat.FieldError
		if err := cfg.Validate(); !errors.As(err, &f) || f.Field != tc.field {
			t.Errorf("%s: %v", tc.field, err)
		}
		if strings.Contains(fmt.Sprint(cfg.Validate()), "secret") {
			t.Error("a password shows")
		}
	}
}

func TestEstimate(t *testing.T) {
	for text, want := range map[string]int{"": 0, "a": 1, "abc": 1, "abcd": 2, "中文字": 3} {
		if got := estimate(text); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}
