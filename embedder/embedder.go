// Package embedder makes a pipeline's leat.Embedder: a provider (the built-in
// model, or a server with OpenAI's API) behind a cache on disk. A provider
// splits what it gets into its own batches, retries and limits itself.
package embedder

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"leat"
	"leat/embedder/builtin"
	"leat/embedder/openai"
)

// Config chooses a provider; none means the built-in model.
type Config struct {
	Builtin *builtin.Config `yaml:"builtin"`
	OpenAI  *openai.Config  `yaml:"openai"`
	Cache   CacheConfig     `yaml:"cache"`
}

// CacheConfig of the vectors kept on disk.
type CacheConfig struct {
	// MaxMB bounds the file, in MiB; default 1024, which holds some 600,000
	// vectors of the built-in model. Those unused for longest go first.
	MaxMB int `yaml:"max_mb"`
}

const defaultMaxMB = 1024

// Validate returns every mistake, joined *leat.FieldError.
func (c Config) Validate() error {
	var errs []error
	if c.Builtin != nil && c.OpenAI != nil {
		errs = append(errs, &leat.FieldError{Field: "openai", Msg: "stands beside builtin", Hint: "keep one of the two"})
	}
	if c.Builtin != nil {
		errs = append(errs, below("builtin", c.Builtin.Validate()))
	}
	if c.OpenAI != nil {
		errs = append(errs, below("openai", c.OpenAI.Validate()))
	}
	if c.Cache.MaxMB < 0 {
		errs = append(errs, &leat.FieldError{Field: "cache.max_mb", Msg: fmt.Sprintf("%d is less than 0", c.Cache.MaxMB)})
	}
	return errors.Join(errs...)
}

// Identity tells the model without opening it, and what the configuration has
// embedded before each passage: where both are equal, so are the vectors.
// MaxTokens of the built-in model, which is always the same, is left out.
func (c Config) Identity() (leat.Model, string, error) {
	if c.OpenAI == nil {
		return leat.Model{Name: builtin.Name, Dimension: builtin.Dimension}, "", nil
	}
	e, err := openai.New(*c.OpenAI)
	if err != nil {
		return leat.Model{}, "", err
	}
	return e.Model(), e.Prefix(leat.Passage), e.Close()
}

// WithoutSecrets is the configuration as it may be written down.
func (c Config) WithoutSecrets() Config { return c.withKey("") }

// WithSecretsOf is the configuration with the secrets of another for the same
// server.
func (c Config) WithSecretsOf(other Config) Config {
	if c.OpenAI == nil || other.OpenAI == nil || c.OpenAI.URL != other.OpenAI.URL {
		return c
	}
	return c.withKey(other.OpenAI.APIKey)
}

func (c Config) withKey(key leat.Secret) Config {
	if c.OpenAI != nil {
		o := *c.OpenAI
		o.APIKey = key
		c.OpenAI = &o
	}
	return c
}

// below puts a component's FieldErrors under the key where its Config stands.
func below(key string, err error) error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var errs []error
		for _, e := range joined.Unwrap() {
			errs = append(errs, below(key, e))
		}
		return errors.Join(errs...)
	}
	var f *leat.FieldError
	if errors.As(err, &f) {
		return &leat.FieldError{Field: key + "." + f.Field, Msg: f.Msg, Hint: f.Hint}
	}
	return err
}

// provider is an embedder whose cache can tell prefixes apart.
type provider interface {
	leat.Embedder
	// Prefix is what is embedded before each text of a kind.
	Prefix(kind leat.Kind) string
}

// New returns the embedder and the tokenizer that measures for it, nil where the
// model is behind a server and its own is not known. Vectors of
// passages are kept in a file in cacheDir, which other processes may use at the
// same time; it is opened when the first passage comes.
func New(cfg Config, cacheDir string, log *slog.Logger) (leat.Embedder, leat.Tokenizer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, nil, err
	}
	var model provider
	var tokenizer leat.Tokenizer
	if cfg.OpenAI != nil {
		e, err := openai.New(*cfg.OpenAI)
		if err != nil {
			return nil, nil, err
		}
		model = e
	} else {
		e, err := builtin.New(cfg.builtin())
		if err != nil {
			return nil, nil, err
		}
		model, tokenizer = e, e.Tokenizer()
	}
	maxMB := cfg.Cache.MaxMB
	if maxMB == 0 {
		maxMB = defaultMaxMB
	}
	return newCache(model, filepath.Join(cacheDir, "vectors.sqlite"), int64(maxMB)<<20, log), tokenizer, nil
}

func (c Config) builtin() builtin.Config {
	if c.Builtin == nil {
		return builtin.Config{}
	}
	return *c.Builtin
}
