package chunker

import (
	"errors"
	"fmt"

	"leat"
)

// Config of the chunker. Sizes are in the embedding model's tokens.
type Config struct {
	// TargetTokens is the size that chunks are near. Default 225, about 900
	// characters of English or 350 of Chinese.
	TargetTokens int `yaml:"target_tokens"`
	// MaxTokens is never exceeded. Default 350, less where the model takes fewer.
	MaxTokens int `yaml:"max_tokens"`
}

// Defaults, measured in docs/benchmarks.md.
const (
	defaultTarget = 225
	defaultMax    = 350
	minTarget     = 16
)

func (c Config) withDefaults() Config {
	if c.TargetTokens == 0 {
		c.TargetTokens = defaultTarget
		if c.MaxTokens != 0 {
			c.TargetTokens = min(defaultTarget, max(minTarget, c.MaxTokens*defaultTarget/defaultMax))
		}
	}
	if c.MaxTokens == 0 {
		c.MaxTokens = c.TargetTokens * defaultMax / defaultTarget
	}
	return c
}

// Rules is the number of the rules by which documents are cut. Raise it with
// any change of them: an index of another is built again.
const Rules = 1

// Resolved is the configuration with its defaults filled in: where two are equal,
// documents are cut alike.
func (c Config) Resolved() Config { return c.withDefaults() }

// Validate returns every mistake, each a *leat.FieldError.
func (c Config) Validate() error {
	var errs []error
	bad := func(field, hint, format string, args ...any) {
		errs = append(errs, &leat.FieldError{Field: field, Msg: fmt.Sprintf(format, args...), Hint: hint})
	}
	d := c.withDefaults()
	if d.TargetTokens < minTarget {
		bad("target_tokens", "leave it out for the default of 225", "%d is below %d", d.TargetTokens, minTarget)
	}
	if d.MaxTokens < d.TargetTokens*5/4 {
		bad("max_tokens", fmt.Sprintf("give at least %d, so that boundaries can be chosen, or leave it out", (d.TargetTokens*5+3)/4),
			"%d leaves no room above a target of %d", d.MaxTokens, d.TargetTokens)
	}
	return errors.Join(errs...)
}
