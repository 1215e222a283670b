package embedder

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"leat"
	"leat/embedder/builtin"
	"leat/embedder/embeddertest"
	"leat/embedder/openai"
)

func TestValidate(t *testing.T) {
	for _, tc := range []struct {
		name   string
		cfg    Config
		fields []string
	}{
		{"none", Config{}, nil},
		{"builtin", Config{Builtin: &builtin.Config{}}, nil},
		{"both", Config{Builtin: &builtin.Config{}, OpenAI: &openai.Config{URL: "http://x", Model: "m", Dimension: 1}}, []string{"openai"}},
		{"builtin wrong", Config{Builtin: &builtin.Config{Threads: -1}}, []string{"builtin.threads"}},
		{"openai wrong", Config{OpenAI: &openai.Config{}}, []string{"openai.url", "openai.model", "openai.dimension"}},
		{"cache", Config{Cache: CacheConfig{MaxMB: -1}}, []string{"cache.max_mb"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.fields, fields(tc.cfg.Validate())); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func fields(err error) (out []string) {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			out = append(out, fields(e)...)
		}
		return out
	}
	var f *leat.FieldError
	if errors.As(err, &f) {
		out = append(out, f.Field)
	}
	return out
}

func TestOpenAI(t *testing.T) {
	s := embeddertest.Start(24)
	defer s.Close()
	var cfg Config
	err := yaml.Unmarshal([]byte("openai: {url: '"+s.BaseURL+"', model: stand-in, dimension: 24, timeout: 5s}\ncache: {max_mb: 10}"), &cfg)
	if err != nil {
		t.Fatal(err)
	}
	e, tok, err := New(cfg, t.TempDir(), quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	for range 2 {
		v, err := e.Embed(t.Context(), leat.Passage, []string{"hello there", "again"})
		if err != nil || len(v) != 2 || len(v[0]) != 24 {
			t.Fatal(v, err)
		}
	}
	if n := s.Texts(); n != 2 {
		t.Errorf("the server was asked for %d texts, want 2", n)
	}
	if m := e.Model(); m.Name != "stand-in" || m.Dimension != 24 || tok != nil {
		t.Errorf("%+v", m)
	}
}

func TestBuiltin(t *testing.T) {
	if testing.Short() {
		t.Skip("left out under -short: needs the built-in model (make model)")
	}
	e, tok, err := New(Config{}, t.TempDir(), quiet)
	if err != nil {
		t.Fatalf("%v (%s)", err, leat.HintOf(err))
	}
	defer e.Close()
	if m := e.Model(); m.Name != builtin.Name || tok.Count("Hello world") != 2 {
		t.Errorf("%+v", m)
	}
	a, err := e.Embed(t.Context(), leat.Passage, []string{"a passage"})
	if err != nil {
		t.Fatal(err)
	}
	b, err := e.Embed(t.Context(), leat.Passage, []string{"a passage"})
	if diff := cmp.Diff(a, b); err != nil || diff != "" {
		t.Error(err, diff)
	}
}

func TestBuiltinMissing(t *testing.T) {
	_, _, err := New(Config{Builtin: &builtin.Config{Dir: t.TempDir()}}, t.TempDir(), quiet)
	if err == nil || !strings.Contains(leat.HintOf(err), "make model") {
		t.Errorf("%v, hint %q", err, leat.HintOf(err))
	}
}

// TestSecretsStayWithTheirServer: what is written down of a configuration has no
// key, and gets one only from a configuration for the same server.
func TestSecretsStayWithTheirServer(t *testing.T) {
	of := func(url string, key leat.Secret) Config {
		return Config{OpenAI: &openai.Config{URL: url, Model: "m", Dimension: 3, APIKey: key}}
	}
	here := of("http://localhost:1/v1", "key")
	bare := here.WithoutSecrets()
	if bare.OpenAI.APIKey != "" || here.OpenAI.APIKey != "key" {
		t.Errorf("keys %q and %q, want none, and the other untouched", bare.OpenAI.APIKey.Reveal(), here.OpenAI.APIKey.Reveal())
	}
	if k := bare.WithSecretsOf(here).OpenAI.APIKey; k != "key" {
		t.Errorf("key %q, want that of the same server", k.Reveal())
	}
	if k := bare.WithSecretsOf(of("http://localhost:2/v1", "other")).OpenAI.APIKey; k != "" {
		t.Errorf("key %q is another server's", k.Reveal())
	}
	if c := bare.WithSecretsOf(Config{}); c.OpenAI.APIKey != "" {
		t.Error("a key out of nothing")
	}
}
