// Package openai embeds texts by any server with OpenAI's POST /v1/embeddings:
// OpenAI itself, Ollama, vLLM, text-embeddings-inference, LocalAI, LM Studio
// and others.
package openai

import (
	"errors"
	"fmt"
	"net/url"
	"time"

	"leat"
)

// Config of a server. URL, Model and Dimension are needed.
type Config struct {
	// URL ends in "/v1" with most servers; "/embeddings" is added to it.
	URL string `yaml:"url"`
	// Model as the server names it.
	Model string `yaml:"model"`
	// APIKey is sent as a bearer token; default: none.
	APIKey leat.Secret `yaml:"api_key"`
	// Dimension of the model's vectors.
	Dimension int `yaml:"dimension"`
	// MaxTokens is what the model reads of a text; default 512. Its tokens are
	// not known here, so they are estimated, rather too many than too few.
	MaxTokens int `yaml:"max_tokens"`
	// QueryPrefix and PassagePrefix stand before each text, where the model
	// was trained with such; default: none.
	QueryPrefix   string `yaml:"query_prefix"`
	PassagePrefix string `yaml:"passage_prefix"`
	// Batch is the most texts of a request; default 64.
	Batch int `yaml:"batch"`
	// BatchTokens is the most tokens of a request, estimated; default 16384.
	BatchTokens int `yaml:"batch_tokens"`
	// Concurrency is the most requests at once; default 4.
	Concurrency int `yaml:"concurrency"`
	// RequestsPerMinute holds requests back; default: only where the server
	// asks for it (429, Retry-After).
	RequestsPerMinute int `yaml:"requests_per_minute"`
	// Timeout of a request; default 60s.
	Timeout time.Duration `yaml:"timeout"`
}

func (c Config) withDefaults() Config {
	set := func(field *int, value int) {
		if *field == 0 {
			*field = value
		}
	}
	set(&c.MaxTokens, 512)
	set(&c.Batch, 64)
	set(&c.BatchTokens, 16384)
	set(&c.Concurrency, 4)
	if c.Timeout == 0 {
		c.Timeout = time.Minute
	}
	return c
}

// Validate returns every mistake, joined *leat.FieldError.
func (c Config) Validate() error {
	var errs []error
	bad := func(field, hint, format string, args ...any) {
		errs = append(errs, &leat.FieldError{Field: field, Msg: fmt.Sprintf(format, args...), Hint: hint})
	}
	const urlHint = `write the server's base URL, such as "http://localhost:11434/v1"`
	switch u, err := url.Parse(c.URL); {
	case c.URL == "":
		bad("url", urlHint, "is missing")
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		bad("url", urlHint, "%q is not an http or https URL", c.URL)
	case u.User != nil:
		bad("url", "use api_key", "holds a password")
	}
	if c.Model == "" {
		bad("model", "write the model's name as the server knows it", "is missing")
	}
	if c.Dimension == 0 {
		bad("dimension", "write the number of dimensions of the model's vectors, such as 1024", "is missing")
	}
	for _, f := range []struct {
		field string
		value int
	}{
		{"dimension", c.Dimension}, {"max_tokens", c.MaxTokens}, {"batch", c.Batch}, {"batch_tokens", c.BatchTokens},
		{"concurrency", c.Concurrency}, {"requests_per_minute", c.RequestsPerMinute},
	} {
		if f.value < 0 {
			bad(f.field, "", "%d is less than 0", f.value)
		}
	}
	if c.Timeout < 0 {
		bad("timeout", "", "%v is less than 0", c.Timeout)
	}
	return errors.Join(errs...)
}
